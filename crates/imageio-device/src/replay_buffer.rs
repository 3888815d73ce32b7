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

/// A part of the room. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Room {
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
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        let more = |kept: u64| kept.checked_add(bytes).filter(|&kept| kept <= self.size);
        self.kept.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Room { of: Arc::clone(self), bytes })
    }
}

impl Room {
    pub(crate) fn add(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Whether there may soon be none left, and this is a large part of it.
    pub(crate) fn should_be_given_back(&self) -> bool {
        let kept = self.of.kept.load(Relaxed);
        self.bytes > 0 && kept > self.of.size / 4 * 3 && self.bytes >= kept / self.of.connections
    }
}

impl Drop for Room {
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
        let mut room = buffer.take(60).unwrap();
        assert!(buffer.take(41).is_none() && buffer.take(u64::MAX).is_none());
        room.add(buffer.take(40).unwrap());
        assert!(buffer.take(1).is_none());
        drop(room);
        assert!(buffer.take(100).is_some());
        assert!(ReplayBuffer::new(0, 2).take(1).is_none());
    }

    #[test]
    fn the_largest_parts_are_given_back_before_there_is_no_room() {
        let buffer = ReplayBuffer::new(100, 2);
        let (large, mut small) = (buffer.take(45).unwrap(), buffer.take(30).unwrap());
        assert!(!large.should_be_given_back() && !small.should_be_given_back());
        small.add(buffer.take(1).unwrap());
        assert!(large.should_be_given_back() && !small.should_be_given_back());
        assert!(!buffer.take(0).unwrap().should_be_given_back());
    }
}
