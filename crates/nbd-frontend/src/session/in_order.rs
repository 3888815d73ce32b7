// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that read in order, one request at a time.

use std::ops::Range;

/// The part of the disk that a client has read in order, with nothing else in flight.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct InOrder {
    /// The offset at which the next read in order begins.
    next: u64,
    /// In bytes; without the zeroes that were skipped.
    read: u64,
}

impl InOrder {
    /// The shortest piece that is read ahead, in bytes. Clients that look here and there, such as
    /// nbdinfo, never read eight times as much in order.
    pub(super) const SHORTEST: u64 = 64 << 10;

    /// The client reads this range. `is_alone` says that nothing else of it is in flight. What it
    /// has skipped counts as in order if it `is_zero`.
    pub(super) fn note(
        &mut self,
        range: &Range<u64>,
        is_alone: bool,
        is_zero: impl FnOnce(Range<u64>) -> bool,
    ) {
        let skipped = self.next..range.start;
        let continues = match () {
            () if !is_alone => false,
            () if skipped.start == skipped.end => true,
            // Whoever has not read much has nothing to lose.
            () => skipped.start < skipped.end && self.read >= Self::SHORTEST && is_zero(skipped),
        };
        let before = if continues { self.read } else { 0 };
        let here = if is_alone { range.end - range.start } else { 0 };
        *self = Self { next: range.end, read: before.saturating_add(here) };
    }

    /// The client does something else.
    pub(super) fn forget(&mut self) {
        self.read = 0;
    }

    /// Returns the offset at which the next read in order begins.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Returns the length of each of the two pieces that are to be read ahead of a read of `len`
    /// bytes: an eighth of what the client has read in order, so that a quarter of that is read in
    /// vain at most; a power of two, and no more than half of `most`. `None` if nothing is to be
    /// read ahead.
    pub(super) fn piece(&self, len: u64, most: u64) -> Option<u64> {
        let longest = (self.read / 8).min(most / 2);
        let piece = 1 << longest.checked_ilog2()?;
        (piece >= Self::SHORTEST.max(len)).then_some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const MOST: u64 = 4 * MIB;
    const SHORTEST: u64 = InOrder::SHORTEST;

    fn nothing_is_zero(_: Range<u64>) -> bool {
        false
    }

    /// The pieces after each read of `len` bytes in order.
    fn pieces(len: u64, count: u64) -> Vec<Option<u64>> {
        let mut order = InOrder::default();
        let reads = (0..count).map(|n| {
            order.note(&(n * len..(n + 1) * len), true, nothing_is_zero);
            order.piece(len, MOST)
        });
        reads.collect()
    }

    #[test]
    fn the_longer_a_client_reads_in_order_the_more_is_read_ahead() {
        for (len, nothing, pieces_then) in [
            (512, 1023, vec![64 * KIB]),
            (4 * KIB, 127, vec![64 * KIB]),
            (64 * KIB, 7, vec![64 * KIB; 8]),
            (256 * KIB, 7, vec![256 * KIB; 8]),
            (MIB, 7, [vec![MIB; 8], vec![2 * MIB; 9]].concat()),
            (2 * MIB, 7, vec![2 * MIB; 50]),
            (2 * MIB + 1, 100, vec![]),
            (32 * MIB, 100, vec![]),
        ] {
            let expected = [vec![None; nothing], pieces_then.into_iter().map(Some).collect()].concat();
            assert_eq!(pieces(len, expected.len() as u64), expected, "{len}");
        }
    }

    #[test]
    fn only_what_is_read_in_order_and_alone_counts() {
        let mut order = InOrder::default();
        // The offset, whether the read is alone, whether all that was skipped is zero, and the MiB
        // that count then.
        for (start, is_alone, is_zero, counts) in [
            (5, true, false, 1),
            (6, true, false, 2),
            (7, true, false, 3),
            (7, true, true, 1), // The same once more.
            (8, true, false, 2),
            (3, true, true, 1), // Backwards.
            (4, true, false, 2),
            (6, true, false, 1), // Something is skipped.
            (7, true, false, 2),
            (9, true, true, 3), // Zeroes are skipped.
            (10, true, false, 4),
            (11, false, true, 0), // Something else is in flight.
            (12, true, true, 1),
        ] {
            order.note(&(start * MIB..(start + 1) * MIB), is_alone, |_| is_zero);
            assert_eq!(order, InOrder { next: (start + 1) * MIB, read: counts * MIB }, "{start}");
        }
        order.forget();
        assert_eq!(order.piece(1, MOST), None);
    }

    #[test]
    fn what_was_skipped_is_looked_at_only_where_that_matters() {
        let mut order = InOrder::default();
        order.note(&(0..SHORTEST - 1), true, nothing_is_zero);
        order.note(&(MIB..2 * MIB), true, |_| panic!("it has read next to nothing"));
        order.note(&(3 * MIB..4 * MIB), true, |skipped| skipped == (2 * MIB..3 * MIB));
        assert_eq!(order.read, 2 * MIB);
    }

    #[test]
    fn there_is_a_limit() {
        let order = InOrder { next: 0, read: u64::MAX };
        assert_eq!(order.piece(4096, 3 * MIB), Some(MIB));
        assert_eq!(order.piece(4096, 2 * SHORTEST - 1), None);
        assert_eq!(order.piece(4096, 0), None);
    }
}
