// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much unflushed content is kept, by all connections together.
//!
//! A connection's flush frees what that one wrote. So the connections that have the most are flushed first, in the
//! background and before there is no room; the others have the rest of the room meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Some bytes of room. It counts only; nothing is read or written by what it says, so no order of memory depends on it.
#[derive(Debug)]
pub(crate) struct ReplayBuffer {
    /// In bytes. 0: nothing is kept, and who loses it has lost it.
    size: u64,
    connections: u64,
    kept: AtomicU64,
}

/// A part of the buffer, in bytes. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Reservation {
    of: Arc<ReplayBuffer>,
    bytes: u64,
}

impl ReplayBuffer {
    pub(crate) fn new(size: u64, connections: u32) -> Arc<Self> {
        Arc::new(Self { size, connections: u64::from(connections), kept: AtomicU64::new(0) })
    }

    pub(crate) fn is_off(&self) -> bool {
        self.size == 0
    }

    /// Room for so many bytes, if there is.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let more = |kept: u64| kept.checked_add(bytes).filter(|&kept| kept <= self.size);
        self.kept.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Reservation { of: Arc::clone(self), bytes })
    }
}

impl Reservation {
    pub(crate) fn add(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Whether there may soon be none left, and this is a large part of it.
    pub(crate) fn should_be_given_back(&self) -> bool {
        let kept = self.of.kept.load(Relaxed);
        self.bytes > 0 && kept > self.of.size / 4 * 3 && self.bytes >= kept / self.of.connections
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.of.kept.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_more_room_than_was_given() {
        let buffer = ReplayBuffer::new(100, 2);
        let mut room = buffer.reserve(60).unwrap();
        assert!(buffer.reserve(41).is_none() && buffer.reserve(u64::MAX).is_none());
        room.add(buffer.reserve(40).unwrap());
        assert!(buffer.reserve(1).is_none());
        drop(room);
        assert!(buffer.reserve(100).is_some());
        assert!(ReplayBuffer::new(0, 2).reserve(1).is_none());
    }

    #[test]
    fn the_largest_parts_are_given_back_before_there_is_no_room() {
        let buffer = ReplayBuffer::new(100, 2);
        let (large, mut small) = (buffer.reserve(45).unwrap(), buffer.reserve(30).unwrap());
        assert!(!large.should_be_given_back() && !small.should_be_given_back());
        small.add(buffer.reserve(1).unwrap());
        assert!(large.should_be_given_back() && !small.should_be_given_back());
        assert!(!buffer.reserve(0).unwrap().should_be_given_back());
    }
}
