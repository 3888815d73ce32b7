// SPDX-License-Identifier: MIT OR Apache-2.0
//! Visits of several connections, to flush or to close each of them.
//!
//! The thread that visits waits in line for one connection after another, and has workers do the
//! work on all but the last. So a flush takes the time of the slowest connection, and not of all of
//! them: over a long link, each of them takes a round trip.

use oneshot::{Receiver, channel};

use super::Pool;
use crate::connection::{Connection, Task};
use crate::error::{Failure, Outcome, PoolError};
use crate::line::{Slot, Ticket};
use crate::news::{NextOrder, Order, Purpose, Visited};

impl<C: Connection> Pool<C> {
    /// Visits each of these connections as soon as it is free, and returns when all that were
    /// visited are given back, or gone. Returns those that were not visited, as none of them comes
    /// any more; or the first failure that this thread is told of, after which it visits no other.
    pub(super) fn visit_all(
        &self,
        ticket: Ticket,
        mut slots: Vec<Slot>,
        purpose: Purpose,
    ) -> Result<Vec<Slot>, PoolError<C::Error>> {
        let mut delegated = Vec::new();
        let mut outcome = Ok(());
        while outcome.is_ok()
            && let Some((slot, connection)) = self.next_visit(ticket, &mut slots, purpose)
        {
            let (told, ended) = channel();
            // This thread has nothing else to do when the last one is there. A clean one takes no
            // time.
            let is_own = slots.is_empty() || !connection.state().is_dirty();
            let visited = Visited { slot, connection, purpose, told };
            match if is_own { Some(visited) } else { self.lock().delegate(visited) } {
                Some(Visited { slot, connection, .. }) => outcome = self.visit(slot, connection, purpose),
                None => delegated.push(ended),
            }
        }
        // All have to be back before the next flush begins: a worker is idle for each of its visits
        // then.
        for ended in delegated {
            let ended = ended.recv().unwrap_or_else(|_| Err(self.refusal()));
            outcome = outcome.and(ended);
        }
        outcome.map(|()| slots)
    }

    /// Waits for one of these connections, and takes it from the list. None will come where the
    /// list is empty.
    fn next_visit(&self, ticket: Ticket, slots: &mut Vec<Slot>, purpose: Purpose) -> Option<(Slot, C)> {
        if slots.is_empty() {
            return None;
        }
        let visit = self.lock().visit(ticket, slots, purpose);
        let (slot, connection) = visit.wait()?;
        slots.retain(|&left| left != slot);
        Some((slot, connection))
    }

    /// Does what a connection is visited for, and gives it back, unless it is closed.
    fn visit(&self, slot: Slot, mut connection: C, purpose: Purpose) -> Outcome<C::Error> {
        match purpose {
            Purpose::Flush => {
                let ended = self.flush_visited(&mut connection);
                self.put_back(slot, connection);
                ended
            }
            Purpose::Close => {
                self.retire(slot, connection);
                Ok(())
            }
        }
    }

    /// Does a part of another thread's visits. Returns where the next order comes.
    pub(super) fn visit_for_another(&self, visited: Visited<C>) -> Receiver<Order<C>> {
        let Visited { slot, mut connection, purpose, told } = visited;
        let (ended, next) = match purpose {
            Purpose::Flush => {
                let ended = self.flush_visited(&mut connection);
                let now = self.now();
                (ended, self.lock().next_order(slot, connection, now))
            }
            Purpose::Close => {
                self.retire(slot, connection);
                (Ok(()), NextOrder::Wait(self.lock().idle_worker()))
            }
        };
        // Last, so that this worker counts as idle, or has its connection, when the visitor goes
        // on, which waits for this.
        let _ = told.send(ended);
        match next {
            NextOrder::Job(job) => self.work_on(job),
            NextOrder::Wait(orders) => orders,
        }
    }

    /// Another flush may have been here before.
    fn flush_visited(&self, connection: &mut C) -> Outcome<C::Error> {
        let is_dirty = connection.state().is_dirty();
        if is_dirty { Ok(self.attempt(connection, Task::Flush)?) } else { Ok(()) }
    }

    fn retire(&self, slot: Slot, mut connection: C) {
        if connection.state().is_dirty()
            && self.failure().is_none()
            && let Err(Failure { error, .. }) = self.attempt(&mut connection, Task::Flush)
        {
            // However it failed: nobody will flush this connection again.
            self.fail(error);
        }
        // Closed before the slot is, so that the end of `close` means that no connection is left.
        drop(connection);
        self.lock().remove(slot);
    }
}
