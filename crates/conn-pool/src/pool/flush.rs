// SPDX-License-Identifier: MIT OR Apache-2.0
//! Flushes: one thread leads each of them, for all that have asked for it, and visits
//! every connection with unflushed work.

use oneshot::Receiver;

use super::Pool;
use crate::connection::{Connection, Task};
use crate::dispatcher::{Purpose, Turn};
use crate::error::{Outcome, PoolError};
use crate::line::{Slot, Ticket};
use crate::news::Order;

impl<C: Connection> Pool<C> {
    /// Leads a flush for those that were submitted. Returns where the next order comes: this may be
    /// to lead the next.
    pub(super) fn flush_for_others(&self) -> Receiver<Order<C>> {
        // There is no own request: all are told already.
        let _ = self.lead_flush();
        let mut dispatcher = self.lock();
        let orders = dispatcher.idle_worker();
        dispatcher.end_flush();
        orders
    }
    /// Flushes all connections with unflushed work, and tells those who share this flush.
    pub(super) fn lead_flush(&self) -> Outcome<C::Error> {
        let Turn { ticket, failure, slots, followers } = self.lock().begin_flush();
        let outcome =
            failure.map_or_else(|| self.flush_all(ticket, slots), |error| Err(PoolError::Failed(error)));
        followers.notify(&outcome);
        outcome
    }

    fn flush_all(&self, ticket: Ticket, mut slots: Vec<Slot>) -> Outcome<C::Error> {
        while let Some((slot, mut connection)) = self.visit(ticket, &mut slots, Purpose::Flush) {
            let is_dirty = connection.state().is_dirty();
            let ended = if is_dirty { self.attempt(&mut connection, Task::Flush) } else { Ok(()) };
            self.put_back(slot, connection);
            ended?;
        }
        // Connections that are gone were flushed before, if nothing has failed.
        let failure = if slots.is_empty() { None } else { self.failure() };
        failure.map_or(Ok(()), |error| Err(PoolError::Failed(error)))
    }

    /// Waits for one of these connections, and takes it from the list. None will come where the
    /// list is empty.
    pub(super) fn visit(&self, ticket: Ticket, slots: &mut Vec<Slot>, purpose: Purpose) -> Option<(Slot, C)> {
        if slots.is_empty() {
            return None;
        }
        let visit = self.lock().visit(ticket, slots, purpose);
        let (slot, connection) = visit.wait()?;
        slots.retain(|&left| left != slot);
        Some((slot, connection))
    }
}
