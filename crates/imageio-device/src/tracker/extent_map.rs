// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ranges of a disk by one answer of the server, kept compactly, and the extents that clients
//! are told of it.

use std::ops::Range;

use block_device_traits::{Extent, ZERO};
use imageio_client::ExtentsContext;
use rangemap::RangeSet;

/// More ranges than this are not kept, as each takes some 32 bytes.
pub(crate) const MOST_RANGES: usize = 4_000_000;

/// A range differs from the last backup: bit 0, as with qemu's bitmaps.
const DIRTY: u64 = 1;

/// The questions that clients can ask of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    /// Does it read as zeroes? imageio doesn't tell of what is allocated in NBD's sense.
    Zero,
    /// At which depth below the image is its content? 0 stands for what imageio calls a hole, which
    /// is not in the image itself.
    Depth,
    /// May it differ from the last backup?
    Dirty,
}

/// The statuses of a context.
struct Statuses {
    /// Of the ranges that are kept.
    inside: u64,
    /// Of the others.
    outside: u64,
    /// Of ranges of which nothing is known: it makes a client read too much rather than too little.
    unknown: u64,
}

/// The answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExtentMap {
    /// The answer to [`ExtentsContext::Zero`].
    Zero {
        /// The ranges that read as zeroes.
        zeroes: RangeSet<u64>,
        /// The ranges that are not allocated in the image.
        holes: RangeSet<u64>,
    },
    /// The answer to [`ExtentsContext::Dirty`]: what is dirty.
    Dirty(RangeSet<u64>),
}

impl Context {
    /// Returns the question whose answer tells it.
    pub(crate) fn asked(self) -> ExtentsContext {
        match self {
            Self::Zero | Self::Depth => ExtentsContext::Zero,
            Self::Dirty => ExtentsContext::Dirty,
        }
    }

    fn statuses(self) -> Statuses {
        match self {
            Self::Zero => Statuses { inside: ZERO, outside: 0, unknown: 0 },
            Self::Depth => Statuses { inside: 0, outside: 1, unknown: 1 },
            Self::Dirty => Statuses { inside: DIRTY, outside: 0, unknown: DIRTY },
        }
    }
}

impl ExtentMap {
    /// For the answer to this question.
    pub(crate) fn new(asked: ExtentsContext) -> Self {
        match asked {
            ExtentsContext::Zero => Self::Zero { zeroes: RangeSet::new(), holes: RangeSet::new() },
            ExtentsContext::Dirty => Self::Dirty(RangeSet::new()),
        }
    }

    /// Adds an extent behind those before it. False if there are too many.
    pub(crate) fn add(&mut self, extent: &imageio_client::Extent) -> bool {
        // The client has found that its end fits into 64 bits.
        let range = extent.start..extent.start + extent.length;
        match self {
            Self::Zero { zeroes, holes } => {
                insert_if(extent.zero, zeroes, &range);
                insert_if(extent.hole, holes, &range);
            }
            Self::Dirty(dirty) => insert_if(extent.dirty, dirty, &range),
        }
        self.ranges() <= MOST_RANGES
    }

    /// Returns the number of ranges that are kept.
    pub(crate) fn ranges(&self) -> usize {
        match self {
            Self::Zero { zeroes, holes } => zeroes.len() + holes.len(),
            Self::Dirty(dirty) => dirty.len(),
        }
    }

    /// The range is changed: it is data of the image from now on, and dirty.
    pub(crate) fn change(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        match self {
            Self::Zero { zeroes, holes } => {
                zeroes.remove(range.clone());
                holes.remove(range.clone());
            }
            Self::Dirty(dirty) => dirty.insert(range.clone()),
        }
    }

    /// Returns the ranges that are known to read as zeroes.
    pub(crate) fn zeroes(&self) -> Option<&RangeSet<u64>> {
        match self {
            Self::Zero { zeroes, .. } => Some(zeroes),
            Self::Dirty(_) => None,
        }
    }

    /// The range was zeroed. What is dirty stays so.
    pub(crate) fn zeroed(&mut self, range: &Range<u64>) {
        if let Self::Zero { zeroes, .. } = self {
            insert_if(true, zeroes, range);
        }
    }

    /// The ranges that have the context's inner status.
    fn inside(&self, context: Context) -> Option<&RangeSet<u64>> {
        match (self, context) {
            (Self::Zero { zeroes, .. }, Context::Zero) => Some(zeroes),
            (Self::Zero { holes, .. }, Context::Depth) => Some(holes),
            (Self::Dirty(dirty), Context::Dirty) => Some(dirty),
            (Self::Zero { .. } | Self::Dirty(_), _) => None,
        }
    }
}

/// Returns the extents of a range: at most `limit`, from its start on. Without a map that tells of
/// it, nothing is known.
pub(crate) fn extents(
    map: Option<&ExtentMap>,
    context: Context,
    range: &Range<u64>,
    limit: usize,
) -> Vec<Extent> {
    let Statuses { inside, outside, unknown } = context.statuses();
    let (mut extents, mut at) = (Vec::new(), range.start);
    let mut until = |end: u64, status| {
        if at < end && extents.len() < limit {
            extents.push(Extent { length: end - at, status });
            at = end;
        }
        extents.len() < limit
    };
    let Some(ranges) = map.and_then(|map| map.inside(context)) else {
        until(range.end, unknown);
        return extents;
    };
    for part in ranges.overlapping(range) {
        if !until(part.start, outside) || !until(part.end.min(range.end), inside) {
            return extents;
        }
    }
    until(range.end, outside);
    extents
}

fn insert_if(is_wanted: bool, ranges: &mut RangeSet<u64>, range: &Range<u64>) {
    if is_wanted && !range.is_empty() {
        ranges.insert(range.clone());
    }
}
