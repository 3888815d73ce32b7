// SPDX-License-Identifier: MIT OR Apache-2.0
//! Visits of several connections, to flush or to close each of them.
//!
//! The thread that visits waits in line for one connection after another, and has workers do the
//! work there. So a flush over a long link takes a round trip or two, and not one for each
//! connection.

use oneshot::Receiver;

use super::Pool;
use crate::connection::{Connection, Task};
use crate::error::{Failure, Outcome, PoolError};
use crate::line::{Slot, Ticket};
use crate::news::{NextOrder, Order, Purpose, Visited};
use crate::sync::mpsc;

/// Visits of several connections for one purpose.
pub(super) struct Visits<'p, C: Connection> {
    pool: &'p Pool<C>,
    ticket: Ticket,
    purpose: Purpose,
    /// The connections that are yet to be visited.
    left: Vec<Slot>,
    /// The number of visits that workers do now, and the most that they are to do at a time.
    under_way: usize,
    most: usize,
    /// By this, workers tell that a visit has ended.
    told: mpsc::Sender<Outcome<C::Error>>,
    ended: mpsc::Receiver<Outcome<C::Error>>,
}

impl<'p, C: Connection> Visits<'p, C> {
    /// Visits of these connections, at the place of the ticket in the line. A flush leaves one
    /// connection for others: storage may take minutes, and who only wants to read is not to wait
    /// for it.
    pub(super) fn new(pool: &'p Pool<C>, ticket: Ticket, slots: Vec<Slot>, purpose: Purpose) -> Self {
        let most = match purpose {
            Purpose::Flush => pool.lock().connections().saturating_sub(1).max(1),
            Purpose::Close => usize::MAX,
        };
        let (told, ended) = mpsc::channel();
        Self { pool, ticket, purpose, left: slots, under_way: 0, most, told, ended }
    }

    /// Visits each connection as soon as it is free. Returns when all visits have ended, or one has
    /// failed: [`wait_for_rest`](Self::wait_for_rest) then waits for those that are under way.
    pub(super) fn run(&mut self) -> Outcome<C::Error> {
        let outcome = self.visit_all();
        // A failure that affects everyone comes first.
        outcome.map_err(|error| self.pool.failure().map_or(error, PoolError::Failed))
    }

    fn visit_all(&mut self) -> Outcome<C::Error> {
        while let Some((slot, connection)) = self.next()? {
            self.visit(slot, connection)?;
        }
        if !self.left.is_empty() {
            // None of them comes any more, as the pool has failed: nobody has to wait for the rest.
            self.nothing_has_failed()?;
        }
        while self.under_way > 0 {
            self.one_ends()?;
        }
        self.nothing_has_failed()
    }

    /// A request may have failed the pool meanwhile: no flush may hide that.
    fn nothing_has_failed(&self) -> Outcome<C::Error> {
        self.pool.failure().map_or(Ok(()), |error| Err(PoolError::Failed(error)))
    }

    /// Waits until nothing is under way. A worker is idle for each visit after that.
    pub(super) fn wait_for_rest(mut self) {
        while self.under_way > 0 {
            // The outcome is told already.
            let _ = self.one_ends();
        }
    }

    /// Waits for one of the connections, and takes it from the list. None will come where the list
    /// is empty, or where the pool has failed and this is a flush.
    fn next(&mut self) -> Result<Option<(Slot, C)>, PoolError<C::Error>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        if self.under_way == self.most {
            self.one_ends()?;
        }
        let visit = self.pool.lock().visit(self.ticket, &self.left, self.purpose);
        let next = visit.wait();
        if let Some((slot, _)) = next {
            self.left.retain(|&left| left != slot);
        }
        Ok(next)
    }

    /// Does what a connection is visited for, or has a worker do it.
    fn visit(&mut self, slot: Slot, connection: C) -> Outcome<C::Error> {
        // A clean connection takes no time. The only one is this thread's, as it would wait anyway.
        let is_alone = self.left.is_empty() && self.under_way == 0;
        let is_own = is_alone || !connection.state().is_dirty();
        let visited = Visited { slot, connection, purpose: self.purpose, told: self.told.clone() };
        match if is_own { Some(visited) } else { self.pool.lock().delegate(visited) } {
            Some(Visited { slot, connection, .. }) => self.pool.visit(slot, connection, self.purpose),
            None => {
                self.under_way += 1;
                Ok(())
            }
        }
    }

    /// Waits until a visit that a worker does has ended.
    fn one_ends(&mut self) -> Outcome<C::Error> {
        self.under_way -= 1;
        self.ended.recv().expect("there is a sender here, too")
    }
}

impl<C: Connection> Pool<C> {
    /// Closes each of these connections. Each user of a connection gives it back, and only these
    /// visits remove any, so this ends. What fails is known to the pool, and ends no visit.
    pub(super) fn close_each(&self, ticket: Ticket, slots: Vec<Slot>) {
        let mut visits = Visits::new(self, ticket, slots, Purpose::Close);
        let _ = visits.run();
        visits.wait_for_rest();
    }

    /// Does what a connection is visited for, and gives it back, unless it is closed.
    fn visit(&self, slot: Slot, connection: C, purpose: Purpose) -> Outcome<C::Error> {
        let (ended, left) = self.do_visit(slot, connection, purpose);
        if let Some(connection) = left {
            self.put_back(slot, connection);
        }
        ended
    }

    /// Does a visit of another thread. Returns where the next order comes.
    pub(super) fn visit_for_another(&self, visited: Visited<C>) -> Receiver<Order<C>> {
        let Visited { slot, connection, purpose, told } = visited;
        let (ended, left) = self.do_visit(slot, connection, purpose);
        let now = self.now();
        let next = {
            let mut dispatcher = self.lock();
            match left {
                Some(connection) => dispatcher.next_order(slot, connection, now),
                None => NextOrder::Wait(dispatcher.idle_worker()),
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

    /// Does what a connection is visited for. Returns it, unless it is closed.
    fn do_visit(&self, slot: Slot, mut connection: C, purpose: Purpose) -> (Outcome<C::Error>, Option<C>) {
        match purpose {
            Purpose::Flush => (self.flush_visited(&mut connection), Some(connection)),
            Purpose::Close => {
                self.retire(slot, connection);
                (Ok(()), None)
            }
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    use std::time::Instant;

    use super::*;
    use crate::connection::State;
    use crate::error::Panicked;
    use crate::request::{Place, PoolRequest, Shape};

    /// A connection that is dirty until it is flushed, and counts flushes.
    struct Dirty {
        is_dirty: bool,
        flushes: Arc<AtomicU32>,
    }

    #[derive(Clone, Copy)]
    enum Never {}

    impl Shape for Never {
        fn join(self, _: Self) -> Option<(Self, Place)> {
            match self {}
        }
    }

    impl PoolRequest for Never {
        type Error = Panicked;
        type Shape = Self;

        fn shape(&self) -> Self {
            *self
        }

        fn complete(_: Vec<(Self, Outcome<Panicked>)>) {}
    }

    impl Connection for Dirty {
        type Error = Panicked;
        type Request = Never;

        fn carry_out(&mut self, _: Task<'_, Never>) -> Result<(), Failure<Panicked>> {
            self.is_dirty = false;
            self.flushes.fetch_add(1, SeqCst);
            Ok(())
        }

        fn state(&self) -> State {
            if self.is_dirty { State::Dirty } else { State::Clean }
        }
    }

    #[test]
    fn where_workers_could_not_be_started_the_visitor_does_the_work() {
        for is_closed in [false, true] {
            let flushes = Arc::<AtomicU32>::default();
            let dirty = |_| Dirty { is_dirty: true, flushes: Arc::clone(&flushes) };
            let pool = Pool::new((0..3).map(dirty), Arc::new(Instant::now));
            drop(pool.workers());
            let flushed = if is_closed { pool.close().map_err(PoolError::Failed) } else { pool.flush() };
            assert_eq!((flushed, flushes.load(SeqCst)), (Ok(()), 3));
        }
    }
}
