// SPDX-License-Identifier: MIT OR Apache-2.0
//! Flushes: one thread leads each of them, for all that have asked for it, and visits every
//! connection with unflushed work.

use oneshot::Receiver;

use super::Pool;
use super::visits::Visits;
use crate::connection::Connection;
use crate::dispatcher::Turn;
use crate::error::{Outcome, PoolError};
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

    /// Flushes all connections with unflushed work, and tells those who share this flush: after a
    /// failure at once, though other connections may still be flushed.
    pub(super) fn lead_flush(&self) -> Outcome<C::Error> {
        let Turn { ticket, failure, slots, followers } = self.lock().begin_flush();
        if let Some(error) = failure {
            let outcome = Err(PoolError::Failed(error));
            followers.notify(&outcome);
            return outcome;
        }
        let mut visits = Visits::new(self, ticket, slots, Purpose::Flush);
        let outcome = visits.run();
        followers.notify(&outcome);
        visits.wait_for_rest();
        outcome
    }
}
