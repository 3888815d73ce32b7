// SPDX-License-Identifier: MIT OR Apache-2.0
//! Storage writes whole blocks: a change of a part of one is read, modified and written by the
//! server, without a lock. Two such changes of one block that are under way together lose each
//! other.

use std::ops::Range;

use block_device_traits::BLOCK;

/// The blocks that a change of `range` writes, in bytes: an end that is not aligned is rounded
/// outward. The end of the disk counts as aligned, as there is no block behind it.
pub(crate) fn touched(range: &Range<u64>, disk_size: u64) -> Range<u64> {
    let start = range.start - range.start % BLOCK;
    let end = match range.end % BLOCK {
        0 => range.end,
        // Near u64::MAX, there is no room for a whole block.
        part => range.end.saturating_add(BLOCK - part),
    };
    start..end.min(disk_size.max(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_that_are_not_aligned_are_rounded_outward() {
        let size = 10 * BLOCK + 512;
        let of = |range| touched(&range, size);
        assert_eq!(of(0..BLOCK), 0..BLOCK);
        assert_eq!(of(1..BLOCK), 0..BLOCK);
        assert_eq!(of(BLOCK..BLOCK + 1), BLOCK..2 * BLOCK);
        assert_eq!(of(BLOCK - 1..BLOCK + 1), 0..2 * BLOCK);
        // The disk ends in the middle of a block.
        assert_eq!(of(10 * BLOCK..size), 10 * BLOCK..size);
        assert_eq!(of(10 * BLOCK..size - 1), 10 * BLOCK..size);
        assert_eq!(touched(&(u64::MAX - 1..u64::MAX), u64::MAX), u64::MAX - (BLOCK - 1)..u64::MAX);
    }
}
