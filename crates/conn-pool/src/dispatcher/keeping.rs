// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keeper's connections: some are to be kept alive, and some to be flushed in the background.

use std::time::{Duration, Instant};

use oneshot::{Receiver, Sender, channel};

use super::{Dispatcher, Keeper, send};
use crate::connection::Connection;
use crate::line::Slot;

impl<C: Connection> Dispatcher<C> {
    /// The connections that have to be used now to be kept alive, and when to look again.
    pub(crate) fn take_due(&mut self, limit: Duration, now: Instant) -> (Vec<(Slot, C)>, Instant) {
        let mut due = Vec::new();
        if !matches!(self.keeper, Keeper::Ended) {
            due.extend(std::iter::from_fn(|| self.slots.take_due(limit, now)));
        }
        (due, self.slots.next_due(limit, now))
    }

    /// Returns the channel by which the keeper is given a connection. The channel is closed if the
    /// keeper should end.
    pub(crate) fn keeper_waits(&mut self) -> Receiver<(Slot, C)> {
        let (sender, receiver) = channel();
        if !matches!(self.keeper, Keeper::Ended) {
            self.keeper = Keeper::Waiting(sender);
            self.give_idle_to_keeper();
        }
        receiver
    }

    /// A connection could not be flushed in the background, and is still dirty.
    pub(crate) fn note_refused_flush(&mut self, slot: Slot) {
        self.slots.note_refused_flush(slot);
    }

    /// The keeper is given nothing any more.
    pub(crate) fn end_keeping(&mut self) {
        self.keeper = Keeper::Ended;
    }

    /// Gives the keeper this connection, or gives it back: if it need not be flushed, or not by the
    /// keeper. In the end, closing the pool does that.
    pub(super) fn give_to_keeper(&mut self, slot: Slot, connection: C) -> Option<C> {
        if !self.slots.should_be_flushed(slot, &connection) {
            self.give_idle_to_keeper();
            return Some(connection);
        }
        // Whoever waits can't go on without it, and its request may flush it at less cost.
        if self.line.wants(slot, self.has_room()) {
            return Some(connection);
        }
        match self.call_keeper() {
            Some(keeper) => {
                send(keeper, (slot, connection));
                None
            }
            None => Some(connection),
        }
    }

    /// Gives the keeper an idle connection that has come to be full.
    fn give_idle_to_keeper(&mut self) {
        if matches!(self.keeper, Keeper::Waiting(_))
            && self.refusal().is_none()
            && let Some(taken) = self.slots.take_full()
            && let Some(keeper) = self.call_keeper()
        {
            send(keeper, taken);
        }
    }

    /// The keeper, if it waits, and something may still be flushed.
    fn call_keeper(&mut self) -> Option<Sender<(Slot, C)>> {
        if self.refusal().is_some() {
            return None;
        }
        match std::mem::replace(&mut self.keeper, Keeper::Away) {
            Keeper::Waiting(sender) => Some(sender),
            other => {
                self.keeper = other;
                None
            }
        }
    }
}
