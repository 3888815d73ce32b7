// SPDX-License-Identifier: MIT OR Apache-2.0
//! The amount of unflushed content that is kept, by all connections together.
//!
//! A connection's flush frees what that one wrote. So the connections that have the most are
//! flushed first, in the background and before there is no room; the others have the rest of the
//! room meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::link::Link;

/// Some bytes of room, as many as the link says. It counts only; nothing is read or written by what
/// it says, so no order of memory depends on it.
#[derive(Debug)]
pub(crate) struct ReplayBuffer {
    link: Arc<Link>,
    kept: AtomicU64,
}

/// A part of the buffer, in bytes. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Reservation {
    of: Arc<ReplayBuffer>,
    bytes: u64,
}

impl ReplayBuffer {
    pub(crate) fn new(link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self { link, kept: AtomicU64::new(0) })
    }

    /// Nothing is kept, and who loses it has lost it. That doesn't change.
    pub(crate) fn is_off(&self) -> bool {
        self.link.replay_buffer() == 0
    }

    /// Room for so many bytes, if there is.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let size = self.link.replay_buffer();
        let more = |kept: u64| kept.checked_add(bytes).filter(|&kept| kept <= size);
        self.kept.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Reservation { of: Arc::clone(self), bytes })
    }
}

impl Reservation {
    pub(crate) fn add(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Returns true if there may soon be no room left, and this is a large part of what is taken.
    pub(crate) fn should_be_given_back(&self) -> bool {
        let (kept, link) = (self.of.kept.load(Relaxed), &self.of.link);
        let share = kept / u64::from(link.connections());
        self.bytes > 0 && kept > link.replay_buffer() / 4 * 3 && self.bytes >= share
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.of.kept.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::{Settings, UrlSource};

    fn buffer(size: u64) -> Arc<ReplayBuffer> {
        let settings = Settings {
            replay_buffer: Some(size),
            connections: Some(2),
            ..Settings::new(UrlSource::Inline(String::new()))
        };
        ReplayBuffer::new(Arc::new(Link::new(&settings, 2, Duration::ZERO)))
    }

    #[test]
    fn there_is_no_more_room_than_was_given() {
        let buffer = buffer(100);
        let mut room = buffer.reserve(60).unwrap();
        assert!(buffer.reserve(41).is_none() && buffer.reserve(u64::MAX).is_none());
        room.add(buffer.reserve(40).unwrap());
        assert!(buffer.reserve(1).is_none());
        drop(room);
        assert!(buffer.reserve(100).is_some());
        assert!(self::buffer(0).reserve(1).is_none());
    }

    #[test]
    fn the_largest_parts_are_given_back_before_there_is_no_room() {
        let buffer = buffer(100);
        let (large, mut small) = (buffer.reserve(45).unwrap(), buffer.reserve(30).unwrap());
        assert!(!large.should_be_given_back() && !small.should_be_given_back());
        small.add(buffer.reserve(1).unwrap());
        assert!(large.should_be_given_back() && !small.should_be_given_back());
        assert!(!buffer.reserve(0).unwrap().should_be_given_back());
    }
}
