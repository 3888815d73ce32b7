// SPDX-License-Identifier: MIT OR Apache-2.0
//! A count of the changes that clients make to the disk: data that was read ahead before a change
//! must not be sent after it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Counts the changes of all clients of a server: WRITE, WRITE_ZEROES, TRIM. Several exports have
/// one count, as they may have one disk behind them.
///
/// A change begins before the device has it, and ends when the device has told of its end. So what
/// the device reads between two calls of [`settled`](Self::settled) and [`begun`](Self::begun) that
/// give the same number is what the disk holds at the second, and no change was answered that it
/// lacks.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Changes {
    /// A change is about to be handed to the device.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, SeqCst);
    }

    /// The device has told of its end, or the change is not handed to it.
    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, SeqCst);
    }

    /// Returns the number of changes that have begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(SeqCst)
    }

    /// Tells how many changes have begun, if all of these have ended.
    pub(crate) fn settled(&self) -> Option<u64> {
        // In this order: one that begins in between counts as begun.
        let ended = self.ended.load(SeqCst);
        let begun = self.begun();
        (begun == ended).then_some(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_settled_while_a_change_is_under_way() {
        let changes = Changes::default();
        assert_eq!(changes.settled(), Some(0));
        changes.begin();
        changes.begin();
        assert_eq!((changes.settled(), changes.begun()), (None, 2));
        changes.end();
        assert_eq!(changes.settled(), None);
        changes.end();
        assert_eq!(changes.settled(), Some(2));
    }
}
