// SPDX-License-Identifier: MIT OR Apache-2.0
//! A change that is under way: how it ends, and what is remembered of it.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::{Content, Owner, Part, UnderWay};

impl UnderWay {
    /// Returns the range that it changes.
    pub(crate) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The server has acknowledged it, and nobody keeps it.
    pub(crate) fn is_done(&self) {
        let mut records = self.tracker.lock();
        records.missing.remove(&self.range);
        // Content that is not kept may be lost without a trace.
        records.zero.distrust(&self.range);
    }

    /// The server has acknowledged it and flushed it: whatever was there before need not be kept
    /// any more.
    pub(crate) fn is_durable(&self) {
        let mut records = self.tracker.lock();
        records.missing.remove(&self.range);
        records.replay_log.replaced(&self.range);
    }

    /// The server has acknowledged it, and has not flushed it: its content is kept, piece by piece.
    pub(crate) fn keep(&self, owner: Owner, pieces: impl IntoIterator<Item = (u64, Content)>) {
        let mut records = self.tracker.lock();
        records.missing.remove(&self.range);
        records.replay_log.keep(&self.range, self.number, owner, pieces);
    }

    /// The server has acknowledged it, and it has made the range zero.
    pub(crate) fn is_zero(&self) {
        if self.tracker.knows_zeroes.load(Relaxed) {
            let mut records = self.tracker.lock();
            if !records.in_doubt.concerns(&self.blocks) {
                records.zero.zeroed(&self.range);
            }
        }
    }

    /// It was sent, part by part, and its outcome is not known.
    pub(crate) fn is_in_doubt(&self, parts: Vec<Part>) {
        let mut records = self.tracker.lock();
        records.in_doubt.add(self.number, &self.blocks, parts);
        records.unsettled.add(self.blocks.clone(), Instant::now() + self.tracker.settle_time);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut records = self.tracker.lock();
        records.range_lock.unlock(&self.blocks);
        let waiting = records.waiting > 0;
        drop(records);
        if waiting {
            self.tracker.released.notify_all();
        }
    }
}
