// SPDX-License-Identifier: MIT OR Apache-2.0
//! The progress of all disks, for whoever watches a terminal.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use imageio_stats::size;

use crate::progress::Line;

/// The copies that are under way.
#[derive(Default)]
pub(crate) struct Progress(Mutex<State>);

#[derive(Default)]
struct State {
    /// Bytes of what has ended.
    before: u64,
    /// Those of them that were copied.
    copied_before: u64,
    parts: Vec<Part>,
    /// The number of parts that have been begun.
    count: u64,
}

struct Part {
    number: u64,
    label: String,
    work: Work,
    /// In bytes.
    done: Box<dyn Fn() -> u64 + Send>,
}

/// What is done with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Copy,
    /// Its content is read for a checksum.
    Check,
}

/// Something is under way, until this is dropped.
pub(crate) struct UnderWay<'p> {
    progress: &'p Progress,
    number: u64,
}

impl Progress {
    /// Draws a line, if standard error is a terminal.
    pub(crate) fn draw(self: &Arc<Self>) -> Result<Option<Line>> {
        let progress = Arc::clone(self);
        Line::draw_as(move || progress.lock().tell())
    }

    /// Returns the number of bytes that are copied.
    pub(crate) fn copied(&self) -> u64 {
        let state = self.lock();
        let copies = state.parts.iter().filter(|part| part.work == Work::Copy);
        state.copied_before + copies.map(|part| (part.done)()).sum::<u64>()
    }

    /// Something begins, of which `done` tells how many bytes are done.
    pub(crate) fn begin(
        &self,
        work: Work,
        label: String,
        done: impl Fn() -> u64 + Send + 'static,
    ) -> UnderWay<'_> {
        let mut state = self.lock();
        state.count += 1;
        let number = state.count;
        state.parts.push(Part { number, label, work, done: Box::new(done) });
        UnderWay { progress: self, number }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// All bytes, and what is under way in words.
    fn tell(&self) -> (u64, String) {
        let mut all = self.before;
        let mut tell = |part: &Part| {
            let done = (part.done)();
            all += done;
            format!("{} {}", part.label, size(done))
        };
        let parts: Vec<_> = self.parts.iter().map(&mut tell).collect();
        (all, if parts.is_empty() { "waiting for the engine".to_owned() } else { parts.join(", ") })
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.progress.lock();
        if let Some(at) = state.parts.iter().position(|part| part.number == self.number) {
            let part = state.parts.remove(at);
            let done = (part.done)();
            state.before += done;
            state.copied_before += if part.work == Work::Copy { done } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_still_counts() {
        let progress = Progress::default();
        let tell = || progress.lock().tell();
        assert_eq!(tell(), (0, "waiting for the engine".to_owned()));
        let one = progress.begin(Work::Copy, "one".to_owned(), || 1 << 20);
        let two = progress.begin(Work::Check, "two".to_owned(), || 5);
        assert_eq!(progress.copied(), 1 << 20);
        assert_eq!(tell(), ((1 << 20) + 5, "one 1.0 MiB, two 5 B".to_owned()));
        drop(one);
        assert_eq!(tell(), ((1 << 20) + 5, "two 5 B".to_owned()));
        drop(two);
        assert_eq!((tell().0, progress.copied()), ((1 << 20) + 5, 1 << 20));
    }
}
