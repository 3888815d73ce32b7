// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where long requests are cut. Storage writes whole blocks: it reads, modifies and writes a block
//! of which it gets a part, and may lose one of two parts that come together. So cuts are between
//! blocks.

use std::iter;
use std::ops::Range;

/// The largest block that storage writes as a whole, in bytes. What is aligned to this is aligned
/// to smaller blocks, too.
pub const BLOCK: u64 = 4096;

/// A write of so many bytes is worth more than one request.
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
/// must not be 0. A part of a block at either end of a long write is a piece of its own. So a
/// neighbour, which has the rest of that block, has to wait for this small piece at most, and the
/// two may go together.
///
/// ```
/// use block_device_traits::write_pieces;
///
/// const MIB: u64 = 1 << 20;
/// let pieces: Vec<_> = write_pieces(512..MIB + 512, MIB).collect();
/// assert_eq!(pieces, [512..4096, 4096..MIB, MIB..MIB + 512]);
/// ```
pub fn write_pieces(range: Range<u64>, longest: u64) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = range;
    let blocks = if has_loose_ends(&range) { whole_blocks(&range) } else { range };
    let (head, tail) = (start..blocks.start, blocks.end..end);
    let mut rest = blocks;
    let body = iter::from_fn(move || {
        let piece = rest.start..piece_end(&rest, longest);
        rest.start = piece.end;
        Some(piece).filter(|piece| !piece.is_empty())
    });
    let ends_apart = |piece: &Range<u64>| !piece.is_empty();
    Some(head).filter(ends_apart).into_iter().chain(body).chain(Some(tail).filter(ends_apart))
}

/// Returns true if a write of `range` is long, and begins or ends in the middle of a block.
#[must_use]
pub fn has_loose_ends(range: &Range<u64>) -> bool {
    let is_aligned = range.start.is_multiple_of(BLOCK) && range.end.is_multiple_of(BLOCK);
    range.end.saturating_sub(range.start) >= LONG && !is_aligned
}

/// The blocks that are whole in a long range.
fn whole_blocks(range: &Range<u64>) -> Range<u64> {
    let start = match range.start % BLOCK {
        0 => range.start,
        part => range.start + (BLOCK - part),
    };
    start..range.end - range.end % BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

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
        let long = 256 * KIB;
        let is_whole = |range: Range<u64>| pieces(range.clone(), u64::MAX) == vec![range];
        assert!(is_whole(0..long), "it has whole blocks");
        assert!(is_whole(8192..11_000) && is_whole(1..long), "it is too short to be cut");
        assert_eq!(pieces(1..long + 1, u64::MAX), [1..4096, 4096..long, long..long + 1]);
        assert_eq!(pieces(0..long + 1, u64::MAX), [0..long, long..long + 1]);
        assert_eq!(pieces(512..long + 4096, u64::MAX), [512..4096, 4096..long + 4096]);
        let (first, middle) = (4096..4096 + 128 * KIB, 4096 + 128 * KIB..long);
        assert_eq!(pieces(1..long + 1, 128 * KIB), [1..4096, first, middle, long..long + 1]);
        assert_eq!(pieces(100..20_000, 8192), [100..8192, 8192..16_384, 16_384..20_000]);
        assert!(pieces(7..7, 4096).is_empty());
        let last = u64::MAX - 4095..u64::MAX;
        assert_eq!(pieces(u64::MAX - 4095 - long..u64::MAX, u64::MAX).last(), Some(&last));
    }
}
