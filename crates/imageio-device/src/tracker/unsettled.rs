// SPDX-License-Identifier: MIT OR Apache-2.0
//! Places where the server may still be busy with a part of a change that was cut off.
//!
//! imageio writes the part that it has received when the connection ends. Where that ends inside a
//! block of a block device, it reads the block, changes it and writes it back, without a lock. If
//! the change were written again in between, the write back would bring back what was there before,
//! behind the cut. So nothing is written there for a while, by whichever request. Nobody can know
//! how long the server takes: a second is long for one block, but storage that stands still may
//! take longer.

use std::ops::Range;
use std::time::Instant;

/// Places, and until when they are left alone. There are few.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    places: Vec<(Range<u64>, Instant)>,
}

impl Unsettled {
    /// These blocks are left alone until then.
    pub(crate) fn add(&mut self, blocks: Range<u64>, until: Instant) {
        self.places.push((blocks, until));
    }

    /// Returns the time until which some of these blocks are left alone, if that is later than now.
    /// Places whose time is over are forgotten, so that nobody needs a clock any more once all are.
    pub(crate) fn until(&mut self, blocks: &Range<u64>, now: Instant) -> Option<Instant> {
        self.places.retain(|(_, until)| *until > now);
        let concerned =
            self.places.iter().filter(|(place, _)| place.start < blocks.end && blocks.start < place.end);
        concerned.map(|(_, until)| *until).max()
    }

    /// Returns true if no place is known that has to be left alone.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_place_is_left_alone_until_its_time() {
        let (mut unsettled, now) = (Unsettled::default(), Instant::now());
        unsettled.add(4096..8192, now + SECOND);
        unsettled.add(8192..12288, now + 2 * SECOND);
        let mut until = |range: Range<u64>, now| unsettled.until(&range, now);
        assert_eq!(until(0..4096, now), None);
        assert_eq!(until(0..4097, now), Some(now + SECOND));
        assert_eq!(until(4096..12288, now), Some(now + 2 * SECOND));
        assert_eq!(until(12288..16384, now), None);
        assert_eq!(until(4096..8192, now + SECOND), None);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let (mut unsettled, now) = (Unsettled::default(), Instant::now());
        assert!(unsettled.is_empty());
        unsettled.add(0..1, now + SECOND);
        unsettled.add(1..2, now + 2 * SECOND);
        assert_eq!((unsettled.until(&(8..9), now + SECOND), unsettled.is_empty()), (None, false));
        assert_eq!((unsettled.until(&(8..9), now + 2 * SECOND), unsettled.is_empty()), (None, true));
    }
}
