// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which ranges read as zeroes and which are holes: what the server has told once, kept true under changes.
//!
//! What was written, may be written, or is in doubt is never reported as zero. So a change takes its blocks out before it
//! is sent. While the server is asked, nobody knows which changes its answer has in it: what is changed meanwhile, and
//! what was under way, unflushed or in doubt when it was asked, is taken for data whatever it says.

use std::mem;
use std::ops::Range;

use block_device::{Extent, ZERO};
use rangemap::RangeSet;

/// More ranges than this are not kept track of, as each takes some 32 bytes: then everything is taken for data.
const MOST_RANGES: usize = 4_000_000;

/// What can be asked of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    /// Whether it reads as zeroes. imageio doesn't tell of what is allocated in NBD's sense.
    Zero,
    /// How deep below the image its content is: 0 for what imageio calls a hole, which is not in the image itself.
    Depth,
}

/// What the server has told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct ExtentMap {
    zeroes: RangeSet<u64>,
    holes: RangeSet<u64>,
}

/// What is known of the ranges of a disk.
#[derive(Debug)]
pub(crate) struct Extents(State);

#[derive(Debug)]
enum State {
    /// Nobody has asked the server yet.
    NotAsked {
        /// What was acknowledged, and may be lost without a trace.
        unkept: RangeSet<u64>,
    },
    /// The server is asked.
    Asking {
        /// What is taken for data whatever it says.
        changed: RangeSet<u64>,
    },
    Known(ExtentMap),
    /// All is data.
    Unknown,
}

impl Default for Extents {
    fn default() -> Self {
        Self(State::NotAsked { unkept: RangeSet::new() })
    }
}

impl ExtentMap {
    /// Adds an extent behind those before it, in bytes. False if there are too many.
    pub(crate) fn add(&mut self, range: Range<u64>, is_zero: bool, is_hole: bool) -> bool {
        if !range.is_empty() {
            if is_zero {
                self.zeroes.insert(range.clone());
            }
            if is_hole {
                self.holes.insert(range);
            }
        }
        self.ranges() <= MOST_RANGES
    }

    /// How many ranges are kept.
    pub(crate) fn ranges(&self) -> usize {
        self.zeroes.len() + self.holes.len()
    }

    /// The range is neither zero nor a hole any more.
    fn take_out(&mut self, range: &Range<u64>) {
        for ranges in [&mut self.zeroes, &mut self.holes] {
            if ranges.overlaps(range) {
                ranges.remove(range.clone());
            }
        }
    }
}

impl Extents {
    /// The server is going to be asked. `doubtful` is what is under way, unflushed or in doubt.
    pub(crate) fn ask(&mut self, doubtful: impl IntoIterator<Item = Range<u64>>) {
        if let State::NotAsked { unkept } = &mut self.0 {
            let mut changed = mem::take(unkept);
            doubtful.into_iter().for_each(|range| note(&mut changed, range));
            self.0 = State::Asking { changed };
        }
    }

    /// What the server has told, or nothing. Whether any of it is known now.
    pub(crate) fn answered(&mut self, told: Option<ExtentMap>) -> bool {
        if let State::Asking { changed } = &mut self.0 {
            let changed = mem::take(changed);
            self.0 = told.map_or(State::Unknown, |mut map| {
                changed.iter().for_each(|range| map.take_out(range));
                State::Known(map)
            });
        }
        matches!(self.0, State::Known(_))
    }

    /// Nothing is known any more. What was known is returned, so that its memory can be freed elsewhere.
    #[must_use]
    pub(crate) fn forget(&mut self) -> Option<ExtentMap> {
        match mem::replace(&mut self.0, State::Unknown) {
            State::Known(map) => Some(map),
            State::NotAsked { .. } | State::Asking { .. } | State::Unknown => None,
        }
    }

    /// A change of these blocks is about to be sent.
    pub(crate) fn changing(&mut self, blocks: &Range<u64>) {
        match &mut self.0 {
            State::NotAsked { .. } | State::Unknown => {}
            State::Asking { changed } => note(changed, blocks.clone()),
            State::Known(map) => {
                map.take_out(blocks);
                if map.ranges() > MOST_RANGES {
                    self.0 = State::Unknown;
                }
            }
        }
    }

    /// A change that nobody keeps was acknowledged, and not flushed.
    pub(crate) fn unkept(&mut self, range: &Range<u64>) {
        if let State::NotAsked { unkept } = &mut self.0 {
            note(unkept, range.clone());
        }
    }

    /// The range was zeroed, and nothing else is under way or in doubt there.
    pub(crate) fn zeroed(&mut self, range: &Range<u64>) {
        if let State::Known(map) = &mut self.0
            && !range.is_empty()
        {
            map.zeroes.insert(range.clone());
        }
    }

    /// What is left of a range without the zeroes that it begins and ends with. It is empty if all of it is zero.
    pub(crate) fn without_zeroes(&self, range: &Range<u64>) -> Range<u64> {
        let Range { mut start, mut end } = *range;
        if let State::Known(map) = &self.0 {
            if start < end
                && let Some(zero) = map.zeroes.get(&start)
            {
                start = zero.end.min(end);
            }
            if start < end
                && let Some(zero) = map.zeroes.get(&(end - 1))
            {
                end = zero.start;
            }
        }
        start..end
    }

    /// What is known of a range, in at most `limit` extents, from its start on.
    pub(crate) fn of(&self, context: Context, range: &Range<u64>, limit: usize) -> Vec<Extent> {
        let none = RangeSet::new();
        let (map, (inside, outside)) = match (&self.0, context) {
            (State::Known(map), Context::Zero) => (&map.zeroes, context.statuses()),
            (State::Known(map), Context::Depth) => (&map.holes, context.statuses()),
            (State::NotAsked { .. } | State::Asking { .. } | State::Unknown, _) => {
                (&none, context.statuses())
            }
        };
        let (mut extents, mut at) = (Vec::new(), range.start);
        let mut until = |end: u64, status| {
            if at < end && extents.len() < limit {
                extents.push(Extent { length: end - at, status });
                at = end;
            }
            extents.len() < limit
        };
        for part in map.overlapping(range) {
            if !until(part.start, outside) || !until(part.end.min(range.end), inside) {
                return extents;
            }
        }
        until(range.end, outside);
        extents
    }
}

impl Context {
    /// The statuses of what the server has told of, and of the rest.
    fn statuses(self) -> (u64, u64) {
        match self {
            Self::Zero => (ZERO, 0),
            Self::Depth => (0, 1),
        }
    }
}

/// Adds a range to those that are taken for data. If they are too many, that is all.
fn note(ranges: &mut RangeSet<u64>, range: Range<u64>) {
    if !range.is_empty() {
        ranges.insert(range);
    }
    if ranges.len() > MOST_RANGES {
        ranges.insert(0..u64::MAX);
    }
}

#[cfg(test)]
mod tests;
