// SPDX-License-Identifier: MIT OR Apache-2.0
//! The slots: which connection is where, and what the keeper should do with those that are idle.
//!
//! This is data only. Time is a parameter.

use std::time::{Duration, Instant};

use crate::connection::{Connection, State};
use crate::line::{Slot, Ticket};

/// A slot for each connection.
pub(crate) struct Slots<C> {
    slots: Vec<SlotState<C>>,
    /// Idle slots, in the order of their last request, the latest on top: connections beyond the
    /// need stay unused.
    idle: Vec<Slot>,
}

struct SlotState<C> {
    place: Place<C>,
    /// By a request, a flush, or the keeper.
    last_used: Instant,
    /// The ticket of the last request that got it; flushes and the keeper don't count.
    last_request: Ticket,
    /// True while a request has the connection.
    serves: bool,
    /// True if a flush in the background was refused since the last request got the connection.
    is_flush_refused: bool,
}

/// The place of a connection: with its user, idle, or gone.
enum Place<C> {
    Idle(C),
    /// Someone has it. Work that is acknowledged makes it dirty, so that a flush that begins
    /// meanwhile waits for it.
    Busy {
        is_dirty: bool,
    },
    /// It will never come back.
    Gone,
}

impl<C: Connection> Slots<C> {
    /// All idle since now.
    pub(crate) fn new(connections: impl IntoIterator<Item = C>, now: Instant) -> Self {
        let slot = |connection| SlotState {
            place: Place::Idle(connection),
            last_used: now,
            last_request: 0,
            serves: false,
            is_flush_refused: false,
        };
        let slots: Vec<_> = connections.into_iter().map(slot).collect();
        Self { idle: (0..slots.len()).rev().collect(), slots }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// An idle connection, if any is.
    pub(crate) fn any_idle(&self) -> Option<&C> {
        self.idle_connection(*self.idle.last()?)
    }

    /// Returns the number of connections that requests have now.
    pub(crate) fn serving(&self) -> usize {
        self.slots.iter().filter(|slot| slot.serves).count()
    }

    /// The connections that are not gone.
    pub(crate) fn left(&self) -> Vec<Slot> {
        (0..self.len()).filter(|&slot| !self.is_gone(slot)).collect()
    }

    pub(crate) fn is_gone(&self, slot: Slot) -> bool {
        matches!(self.slots[slot].place, Place::Gone)
    }

    /// The connections that carry acknowledged work which is not flushed. What a busy connection is
    /// doing right now is not acknowledged, so its state when it was taken counts, until it is.
    pub(crate) fn dirty(&self) -> Vec<Slot> {
        let is_dirty = |slot: &Slot| match &self.slots[*slot].place {
            Place::Idle(connection) => connection.state().is_dirty(),
            Place::Busy { is_dirty } => *is_dirty,
            Place::Gone => false,
        };
        (0..self.len()).filter(is_dirty).collect()
    }

    /// The idle connection that had a request last.
    pub(crate) fn take_latest(&mut self) -> Option<(Slot, C)> {
        self.take_at(self.idle.len().checked_sub(1)?)
    }

    /// One of these that is idle.
    pub(crate) fn take_one_of(&mut self, slots: &[Slot]) -> Option<(Slot, C)> {
        self.take_at(self.idle.iter().rposition(|slot| slots.contains(slot))?)
    }

    /// An idle connection that should be flushed.
    pub(crate) fn take_full(&mut self) -> Option<(Slot, C)> {
        self.take_at(self.idle.iter().position(|&slot| {
            self.idle_connection(slot).is_some_and(|connection| self.should_be_flushed(slot, connection))
        })?)
    }

    fn take_at(&mut self, at: usize) -> Option<(Slot, C)> {
        let slot = self.idle.remove(at);
        let place = &mut self.slots[slot].place;
        match std::mem::replace(place, Place::Busy { is_dirty: false }) {
            Place::Idle(connection) => {
                *place = Place::Busy { is_dirty: connection.state().is_dirty() };
                Some((slot, connection))
            }
            not_idle => {
                *place = not_idle;
                None
            }
        }
    }

    fn idle_connection(&self, slot: Slot) -> Option<&C> {
        match &self.slots[slot].place {
            Place::Idle(connection) => Some(connection),
            Place::Busy { .. } | Place::Gone => None,
        }
    }

    /// A request has got this connection.
    pub(crate) fn note_request(&mut self, slot: Slot, ticket: Ticket) {
        self.slots[slot].last_request = ticket;
        self.slots[slot].serves = true;
        self.slots[slot].is_flush_refused = false;
    }

    /// A flush of this connection in the background was refused. It would be so again: that is left
    /// to the next request.
    pub(crate) fn note_refused_flush(&mut self, slot: Slot) {
        self.slots[slot].is_flush_refused = true;
    }

    /// The work on a busy connection is acknowledged, or it comes back to be given to somebody
    /// else.
    pub(crate) fn acknowledge(&mut self, slot: Slot, state: State) {
        self.slots[slot].place = Place::Busy { is_dirty: state.is_dirty() };
    }

    /// A connection has been used, and comes back.
    pub(crate) fn note_use(&mut self, slot: Slot, now: Instant) {
        self.slots[slot].last_used = now;
        self.slots[slot].serves = false;
    }

    /// A busy connection becomes idle.
    pub(crate) fn put(&mut self, slot: Slot, connection: C) {
        self.slots[slot].place = Place::Idle(connection);
        let latest = self.slots[slot].last_request;
        let at = self.idle.partition_point(|&idle| self.slots[idle].last_request <= latest);
        self.idle.insert(at, slot);
    }

    /// A busy connection will never come back.
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.slots[slot].place = Place::Gone;
    }

    /// Returns true if this connection, idle or just coming back, is to be flushed in the
    /// background.
    pub(crate) fn should_be_flushed(&self, slot: Slot, connection: &C) -> bool {
        connection.state() == State::Full && !self.slots[slot].is_flush_refused
    }

    /// A connection that has to be used now to be kept alive: an open one that is idle for `limit`;
    /// or, if there is no open one and nobody uses any, the one that had a request last, so that
    /// one is kept in use.
    pub(crate) fn take_due(&mut self, limit: Duration, now: Instant) -> Option<(Slot, C)> {
        let (slot, due) = self.first_due(limit)?;
        if due > now {
            return None;
        }
        self.take_at(self.idle.iter().position(|&idle| idle == slot)?)
    }

    /// When to look again for what is due: no connection that is busy now is due before.
    pub(crate) fn next_due(&self, limit: Duration, now: Instant) -> Instant {
        self.first_due(limit).map_or(now + limit, |(_, due)| due.min(now + limit))
    }

    /// The idle connection that is due first, and when.
    fn first_due(&self, limit: Duration) -> Option<(Slot, Instant)> {
        let is_open = |slot: &Slot| self.idle_connection(*slot).is_some_and(|c| c.state() != State::Closed);
        let last_used = |slot: &Slot| self.slots[*slot].last_used;
        if let Some(oldest) = self.idle.iter().copied().filter(is_open).min_by_key(last_used) {
            return Some((oldest, last_used(&oldest) + limit));
        }
        if self.slots.iter().any(|slot| matches!(slot.place, Place::Busy { .. })) {
            return None;
        }
        let last_use = self.idle.iter().map(last_used).max()?;
        Some((*self.idle.last()?, last_use + limit))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
