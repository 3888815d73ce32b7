// SPDX-License-Identifier: MIT OR Apache-2.0
//! The delay and the rate of a link, and their effect on the bytes that it carries.

use std::num::NonZeroU64;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A link between two hosts: the same in both directions, each of which is by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// The time that each byte is on its way: half of the round trip.
    pub delay: Duration,
    /// The number of bytes that pass in a second, of all connections together. Without, there is no
    /// limit.
    pub rate: Option<NonZeroU64>,
}

impl Link {
    /// A link with this delay, and with a limit of `rate` bytes in a second if there is one.
    #[must_use]
    pub const fn new(delay: Duration, rate: Option<NonZeroU64>) -> Self {
        Self { delay, rate }
    }

    /// Returns the number of bytes that are carried together. All of them arrive when the last has
    /// passed, so with a rate they are fewer.
    pub(crate) fn piece(self) -> usize {
        if self.rate.is_some() { 64 << 10 } else { 128 << 10 }
    }
}

/// The beginning of one direction of a link: the pieces pass here at its rate, one after the other.
#[derive(Debug)]
pub(crate) struct Wire {
    rate: Option<NonZeroU64>,
    /// Until then, it is busy with what came before.
    busy_until: Option<Instant>,
}

impl Wire {
    pub(crate) fn new(link: Link) -> Self {
        Self { rate: link.rate, busy_until: None }
    }

    /// From when to when the wire is busy with so many bytes, which come now and wait for those
    /// before.
    pub(crate) fn pass(&mut self, now: Instant, bytes: usize) -> Range<Instant> {
        let Some(rate) = self.rate else { return now..now };
        let start = self.busy_until.map_or(now, |busy_until| busy_until.max(now));
        let end = start + Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        self.busy_until = Some(end);
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn wire(rate: u64) -> Wire {
        Wire::new(Link { delay: Duration::ZERO, rate: NonZeroU64::new(rate) })
    }

    #[test]
    fn without_a_rate_all_passes_at_once() {
        let (mut wire, now) = (wire(0), Instant::now());
        assert_eq!(wire.pass(now, 1 << 30), now..now);
        assert_eq!(wire.pass(now, 1 << 30), now..now);
    }

    #[test]
    fn one_piece_waits_for_the_other() {
        let (mut wire, now) = (wire(1000), Instant::now());
        assert_eq!(wire.pass(now, 2000), now..now + 2 * SECOND);
        assert_eq!(wire.pass(now + SECOND, 500), now + 2 * SECOND..now + 5 * SECOND / 2);
    }

    #[test]
    fn what_was_not_used_is_lost() {
        let (mut wire, now) = (wire(1000), Instant::now());
        wire.pass(now, 1000);
        assert_eq!(wire.pass(now + 9 * SECOND, 1000), now + 9 * SECOND..now + 10 * SECOND);
    }
}
