// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ranges that read as zeroes, are holes, or are dirty: what the server has told once, kept
//! true under changes. There is one of these for each of the two answers that the server gives.
//!
//! A range that was written, may be written, or is in doubt is never reported as zero, and always
//! as dirty. So a change takes effect before it is sent. While the server is asked, nobody knows
//! which changes its answer has in it: what is changed meanwhile, and what was under way, unflushed
//! or in doubt when it was asked, counts as changed whatever it says.
//!
//! A change that the client makes is dirty, though the server's bitmap may be one that stands
//! still: whoever copies what is dirty has the client's own writes then, too. To copy too much does
//! no harm, where to copy too little would.

use std::iter;
use std::mem;
use std::ops::Range;

use block_device_traits::Extent;
use rangemap::RangeSet;

use super::extent_map::{self, Context, ExtentMap, MOST_RANGES};

/// The number of ranges that are kept before anybody has asked, which most clients never do: about
/// a megabyte.
const MOST_BEFORE: usize = 16 << 10;

/// This number of changes is soon applied to an answer: it takes a few milliseconds.
const FEW: usize = 1000;

/// The ranges of a disk, as far as they are known from one answer of the server.
///
/// Millions of ranges take a second to go over, and a quarter of a second to be freed. All of this
/// is under one lock, so that is left to whoever holds it: see [`Discarded`] and
/// [`take_changes`](Self::take_changes).
#[derive(Debug)]
pub(crate) struct Extents(State);

/// A state that is to be dropped outside the lock, as that may take a while.
#[must_use]
#[derive(Debug, Default)]
#[allow(dead_code, reason = "it is dropped, and that is all; tests look into it")]
pub(crate) struct Discarded(Option<State>);

#[derive(Debug)]
enum State {
    /// Nobody has asked the server yet.
    NotAsked {
        /// The ranges that count as changed whatever it will say.
        changed: RangeSet<u64>,
    },
    /// The server is asked.
    Asking {
        /// The ranges that count as changed whatever it says.
        changed: RangeSet<u64>,
    },
    Known(ExtentMap),
    /// All is data, and dirty.
    Unknown,
}

impl Default for Extents {
    fn default() -> Self {
        Self(State::NotAsked { changed: RangeSet::new() })
    }
}

impl Extents {
    /// The server is going to be asked. `doubtful` is what is under way, unflushed or in doubt.
    pub(crate) fn ask(&mut self, doubtful: impl IntoIterator<Item = Range<u64>>) {
        if let State::NotAsked { changed } = &mut self.0 {
            let mut changed = mem::take(changed);
            // They are no more than are kept before anybody asks, and what the replay buffer has
            // room for.
            doubtful.into_iter().for_each(|range| drop(note(&mut changed, range, MOST_RANGES)));
            self.0 = State::Asking { changed };
        }
    }

    /// Returns the changes since the server was asked, if they are many: they are to be applied to
    /// the answer outside the lock, before this is asked again.
    pub(crate) fn take_changes(&mut self) -> Option<RangeSet<u64>> {
        match &mut self.0 {
            State::Asking { changed } if changed.len() > FEW || changed.contains(&(u64::MAX - 1)) => {
                Some(mem::take(changed))
            }
            _ => None,
        }
    }

    /// Takes the answer of the server, or `None` if it has given none; it is left where it is if
    /// nobody wants to know any more. Returns true if any of it is known now.
    pub(crate) fn answered(&mut self, told: &mut Option<ExtentMap>) -> bool {
        if let State::Asking { changed } = &mut self.0 {
            let changed = mem::take(changed);
            self.0 = told.take().map_or(State::Unknown, |mut map| {
                changed.iter().for_each(|range| map.change(range));
                State::Known(map)
            });
        }
        self.map().is_some()
    }

    /// Nothing is known any more. What was known is returned, so that its memory can be freed
    /// elsewhere.
    #[must_use]
    pub(crate) fn forget(&mut self) -> Option<ExtentMap> {
        match mem::replace(&mut self.0, State::Unknown) {
            State::Known(map) => Some(map),
            State::NotAsked { .. } | State::Asking { .. } | State::Unknown => None,
        }
    }

    /// A change of these blocks is about to be sent.
    pub(crate) fn changing(&mut self, blocks: &Range<u64>) -> Discarded {
        match &mut self.0 {
            State::NotAsked { .. } | State::Unknown => Discarded::default(),
            State::Asking { changed } => note(changed, blocks.clone(), MOST_RANGES),
            State::Known(map) => {
                map.change(blocks);
                let too_many = map.ranges() > MOST_RANGES;
                Discarded(too_many.then(|| mem::replace(&mut self.0, State::Unknown)))
            }
        }
    }

    /// If nobody has asked the server yet, the range counts as changed whatever it will say.
    pub(crate) fn distrust(&mut self, range: &Range<u64>) {
        if let State::NotAsked { changed } = &mut self.0 {
            // They are few.
            drop(note(changed, range.clone(), MOST_BEFORE));
        }
    }

    /// The range was zeroed, and nothing else is under way or in doubt there.
    pub(crate) fn zeroed(&mut self, range: &Range<u64>) {
        if let State::Known(map) = &mut self.0 {
            map.zeroed(range);
        }
    }

    /// Returns the rest of a range without the zeroes that it begins and ends with. It is empty if
    /// all of it is zero.
    pub(crate) fn without_zeroes(&self, range: &Range<u64>) -> Range<u64> {
        let Range { mut start, mut end } = *range;
        if let Some(zeroes) = self.map().and_then(ExtentMap::zeroes) {
            if start < end
                && let Some(zero) = zeroes.get(&start)
            {
                start = zero.end.min(end);
            }
            if start < end
                && let Some(zero) = zeroes.get(&(end - 1))
            {
                end = zero.start;
            }
        }
        start..end
    }

    /// Returns the extents of a range, as far as they are known: at most `limit`, from its start
    /// on.
    pub(crate) fn of(&self, context: Context, range: &Range<u64>, limit: usize) -> Vec<Extent> {
        extent_map::extents(self.map(), context, range, limit)
    }

    fn map(&self) -> Option<&ExtentMap> {
        match &self.0 {
            State::Known(map) => Some(map),
            State::NotAsked { .. } | State::Asking { .. } | State::Unknown => None,
        }
    }
}

/// Adds a range to those that count as changed. If they are more than `most`, that is all.
fn note(ranges: &mut RangeSet<u64>, range: Range<u64>, most: usize) -> Discarded {
    if !range.is_empty() {
        ranges.insert(range);
    }
    let all = || RangeSet::from_iter(iter::once(0..u64::MAX));
    let too_many = ranges.len() > most;
    Discarded(too_many.then(|| State::NotAsked { changed: mem::replace(ranges, all()) }))
}

#[cfg(test)]
mod tests;
