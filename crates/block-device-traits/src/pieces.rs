// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where long requests are cut. Storage writes whole blocks: it reads, modifies and writes a block
//! of which it gets a part, and may lose one of two parts that come together. So cuts are between
//! blocks.

use std::iter;
use std::ops::Range;

/// The largest block that storage writes as a whole, in bytes. What is aligned to this is aligned
/// to smaller blocks, too.
pub const BLOCK: u64 = 4096;

/// So many bytes of whole blocks are worth a request of their own.
const LONG: u64 = 256 << 10;

/// Returns the end of the first piece of a long request for `range`, if pieces have at most
/// `longest` bytes, which must not be 0. It is a multiple of [`BLOCK`], if there is one: no two
/// pieces write parts of the same block then.
#[must_use]
pub fn piece_end(range: &Range<u64>, longest: u64) -> u64 {
    match range.start.checked_add(longest) {
        Some(end) if end < range.end => {
            let aligned = end - end % BLOCK;
            if aligned > range.start { aligned } else { end }
        }
        _ => range.end,
    }
}

/// Returns the pieces of a write of `range`, in their order, each of `longest` bytes at most, which
/// must not be 0. A part of a block at either end of a long piece is a piece of its own. So a
/// neighbour, which has the rest of that block, has to wait for this small piece at most, and the
/// two may go together. If `longest` is [`u64::MAX`], the write is one piece, whatever it is.
///
/// ```
/// use block_device_traits::write_pieces;
///
/// const MIB: u64 = 1 << 20;
/// let pieces: Vec<_> = write_pieces(512..2 * MIB + 512, MIB).collect();
/// assert_eq!(pieces, [512..4096, 4096..MIB, MIB..2 * MIB, 2 * MIB..2 * MIB + 512]);
/// ```
pub fn write_pieces(range: Range<u64>, longest: u64) -> impl Iterator<Item = Range<u64>> {
    let mut rest = range;
    let pieces = iter::from_fn(move || {
        let piece = rest.start..piece_end(&rest, longest);
        rest.start = piece.end;
        Some(piece).filter(|piece| !piece.is_empty())
    });
    pieces.flat_map(move |piece| {
        let is_cut = longest < u64::MAX && has_loose_ends(&piece);
        let blocks = if is_cut { whole_blocks(&piece) } else { piece.clone() };
        let parts = [piece.start..blocks.start, blocks.clone(), blocks.end..piece.end];
        parts.into_iter().filter(|part| !part.is_empty())
    })
}

/// Returns true if a write of `range` has at least 256 KiB of whole blocks, and a part of another
/// block at one of its ends.
#[must_use]
pub fn has_loose_ends(range: &Range<u64>) -> bool {
    let blocks = whole_blocks(range);
    blocks != *range && blocks.end.saturating_sub(blocks.start) >= LONG
}

/// The blocks that are whole in a range. Where there are none, the end is not behind the start.
fn whole_blocks(range: &Range<u64>) -> Range<u64> {
    let start = range.start.saturating_add(BLOCK - 1);
    start - start % BLOCK..range.end - range.end % BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_between_blocks_where_they_can() {
        let end = |range: Range<u64>, longest| piece_end(&range, longest);
        assert_eq!(end(0..20_000, 8192), 8192);
        assert_eq!(end(512..20_000, 8192), 8192, "the first is shorter, so that the others are aligned");
        assert_eq!(end(0..20_000, 10_000), 8192);
        assert_eq!(end(512..8704, 8192), 8704, "it is no longer than a piece may be");
        assert_eq!(end(512..4000, 1000), 1512, "there is no end of a block within reach");
        assert_eq!(end(5..7, u64::MAX), 7);
        assert_eq!(end(u64::MAX - 5000..u64::MAX, 4500), u64::MAX - 4095);
    }

    #[test]
    fn a_long_write_has_its_parts_of_blocks_apart() {
        let pieces = |range, longest| write_pieces(range, longest).collect::<Vec<_>>();
        let is_whole = |range: Range<u64>, longest| pieces(range.clone(), longest) == vec![range];
        let far = 1 << 30;
        assert!(is_whole(0..LONG, far), "it has whole blocks");
        assert!(is_whole(8192..11_000, far) && is_whole(1..LONG + 4095, far), "they have few whole blocks");
        let end = 4096 + LONG;
        assert_eq!(pieces(1..end, far), [1..4096, 4096..end]);
        assert!(is_whole(1..end, u64::MAX), "any length is welcome");
        assert_eq!(pieces(0..LONG + 1, far), [0..LONG, LONG..LONG + 1]);
        assert_eq!(pieces(4095..end + 1, far), [4095..4096, 4096..end, end..end + 1]);
        let middle = 2 * LONG;
        assert_eq!(pieces(1..middle + 3, LONG + 4096), [1..4096, 4096..end, end..middle + 3], "one is short");
        assert_eq!(pieces(100..20_000, 8192), [100..8192, 8192..16_384, 16_384..20_000]);
        assert!(pieces(7..7, 4096).is_empty());
        let last = u64::MAX - 4095..u64::MAX;
        assert_eq!(pieces(u64::MAX - 4095 - LONG..u64::MAX, far).last(), Some(&last));
    }
}
