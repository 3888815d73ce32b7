// SPDX-License-Identifier: MIT OR Apache-2.0
//! The blocks that are being changed right now.

use std::ops::Range;

/// The blocks of the changes that are under way: no two of them overlap. There is one for each
/// connection at most, so a list is enough.
#[derive(Debug, Default)]
pub(crate) struct RangeLock {
    held: Vec<Range<u64>>,
}

impl RangeLock {
    /// Takes these blocks, unless a change of one of them is under way.
    pub(crate) fn try_lock(&mut self, blocks: &Range<u64>) -> bool {
        let is_free = self.held.iter().all(|held| held.end <= blocks.start || blocks.end <= held.start);
        if is_free {
            self.held.push(blocks.clone());
        }
        is_free
    }

    /// Gives back what was taken.
    pub(crate) fn unlock(&mut self, blocks: &Range<u64>) {
        let at = self.held.iter().position(|held| held == blocks);
        self.held.swap_remove(at.expect("it is held until now"));
    }

    /// The blocks of all changes that are under way.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.held.iter().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_waits_and_what_touches_does_not() {
        let mut lock = RangeLock::default();
        assert!(lock.try_lock(&(10..20)) && lock.try_lock(&(20..30)) && lock.try_lock(&(0..10)));
        for overlapping in [10..20, 9..11, 19..21, 12..13, 0..40] {
            assert!(!lock.try_lock(&overlapping), "{overlapping:?}");
        }
        lock.unlock(&(10..20));
        assert!(lock.try_lock(&(12..13)) && lock.try_lock(&(13..20)));
    }
}
