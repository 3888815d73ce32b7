// SPDX-License-Identifier: MIT OR Apache-2.0
//! Flushes: one thread leads each of them, for all that have asked for it, and visits every
//! connection with unflushed work.

use oneshot::Receiver;

use super::Pool;
use crate::connection::Connection;
use crate::dispatcher::Turn;
use crate::error::{Outcome, PoolError};
use crate::line::{Slot, Ticket};
use crate::news::{Order, Purpose};

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

    fn flush_all(&self, ticket: Ticket, slots: Vec<Slot>) -> Outcome<C::Error> {
        let not_visited = self.visit_all(ticket, slots, Purpose::Flush)?;
        // Connections that are gone were flushed before, if nothing has failed.
        let failure = if not_visited.is_empty() { None } else { self.failure() };
        failure.map_or(Ok(()), |error| Err(PoolError::Failed(error)))
    }
}
