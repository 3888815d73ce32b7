// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pool: all that can be done with it.

mod flush;
mod visits;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use oneshot::Receiver;

use crate::connection::{Connection, Task};
use crate::dispatcher::{Closing, Dispatcher};
use crate::error::{Affected, Failure, Outcome, Panicked, PoolError};
use crate::line::{Gathered, Slot};
use crate::news::{AskedFlush, Done, FlushNews, Job, News, NextOrder, Order, RefusedFlush, complete_flush};
use crate::sync::{Mutex, MutexGuard, thread};

/// Tells the time: `Instant::now`, or a test's own clock.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// A fixed number of connections. Clones are handles to the same pool.
pub struct Pool<C: Connection> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Connection> {
    dispatcher: Mutex<Dispatcher<C>>,
    clock: Clock,
}

impl<C: Connection> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C: Connection> Pool<C> {
    /// A pool of these connections, all idle since now.
    #[must_use]
    pub fn new(connections: impl IntoIterator<Item = C>, clock: Clock) -> Self {
        let dispatcher = Mutex::new(Dispatcher::new(connections, clock()));
        Self { shared: Arc::new(Shared { dispatcher, clock }) }
    }

    /// Carries out a request as soon as it is this one's turn, together with those that wait and go
    /// with it; or waits while another thread does so. By the return, the request
    /// [was told](crate::PoolRequest::complete) of its end.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn run(&self, request: C::Request) -> Outcome<C::Error> {
        let mut job = match self.ask(request) {
            News::Done(outcome) => return outcome,
            News::Job(job) => job,
        };
        // Threads that are ready to run, and only wait for a processor, may be about to line up
        // with what goes with this. Where processors are idle, none is, and this returns at once.
        thread::yield_now();
        self.lock().take_along(&mut job);
        let own = job.gathered.first;
        let (slot, connection, done) = self.carry_out(job);
        // First, so that a flush which anyone asks for after the answer waits for this connection.
        self.lock().acknowledge(slot, &connection);
        let outcome = done.outcome(own);
        done.notify();
        // The threads that were told come again: what is in line when the connection comes back can
        // go together.
        thread::yield_now();
        self.put_back(slot, connection);
        outcome
    }

    /// Waits until it is a request's turn, or until it is done.
    fn ask(&self, request: C::Request) -> News<C> {
        let receiver = {
            let mut dispatcher = self.lock();
            match dispatcher.admit() {
                Ok(Some(taken)) => return News::Job(Job::new(taken, request)),
                Ok(None) => dispatcher.wait(request),
                Err(refusal) => {
                    drop(dispatcher);
                    Done::<C>::refuse(request, &refusal);
                    return News::Done(Err(refusal));
                }
            }
        };
        receiver.recv().unwrap_or_else(|_| News::Done(Err(self.refusal())))
    }

    /// Makes safe all work that was acknowledged, on any connection, before this call. Work may go
    /// on meanwhile.
    ///
    /// Only connections with unflushed work are flushed, each as soon as it is free, and given back
    /// at once. [`Workers`](crate::Workers) flush several at a time, but not all connections that
    /// there are, unless the keeper flushes another one; without workers, this thread flushes one
    /// after another. With workers, it returns when all that it began has ended, also after a
    /// failure.
    ///
    /// # Errors
    /// [`PoolError::Failed`] where data may be lost, now and for good; [`PoolError::Refused`] where
    /// this flush could not be carried out; [`PoolError::Closed`].
    pub fn flush(&self) -> Outcome<C::Error> {
        let asked = self.lock().ask_flush()?;
        if let AskedFlush::Wait(news) = asked {
            match news.recv() {
                Ok(FlushNews::Lead) => {}
                Ok(FlushNews::Done(outcome)) => return outcome,
                Err(_) => return Err(self.refusal()),
            }
        }
        let outcome = self.lead_flush();
        self.lock().end_flush();
        outcome
    }

    /// Makes every later request fail with `error`: data may be lost. The first such error is kept.
    pub fn fail(&self, error: C::Error) {
        let (requests, flushes, refusal) = self.lock().fail(error);
        requests.notify();
        flushes.notify(&Err(refusal));
    }

    /// The error that every request gets, if data may be lost.
    #[must_use]
    pub fn failure(&self) -> Option<C::Error> {
        self.lock().failure()
    }

    /// Returns the number of callers that wait for a connection: a figure for logs and tests, old
    /// as soon as it is told.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Ends the pool: newcomers are refused, those in line are served, and each connection that
    /// nobody needs any more is flushed if it has to be, and dropped; with
    /// [`Workers`](crate::Workers) several at a time. After a failure no flush begins any more: it
    /// can't change the outcome, and a server that hangs would be waited for by each connection
    /// anew.
    ///
    /// # Errors
    /// The first failure in the pool's life, also one of these last flushes: data may be lost.
    pub fn close(&self) -> Result<(), C::Error> {
        let closing = self.lock().close();
        if let Some(Closing { ticket, slots, flushes }) = closing {
            // Threads that asked for a flush before are told of it by the return.
            flushes.map(Receiver::recv);
            self.close_each(ticket, slots);
            self.lock().end();
        }
        self.failure().map_or(Ok(()), Err)
    }
}

/// These are for the keeper, and for tests with their own clock.
impl<C: Connection> Pool<C> {
    /// Gives `start` each connection that has to be used to be kept alive: those that are open and
    /// idle for `limit`. If none is open, and none was used for so long, this is one connection
    /// that is closed. Returns when to look again.
    pub fn keep_alive(&self, limit: Duration, start: impl FnMut(Due<C>)) -> Instant {
        let now = self.now();
        let (taken, next) = self.lock().take_due(limit, now);
        let due = |(slot, connection)| Due { pool: self.clone(), slot, connection: Some(connection) };
        taken.into_iter().map(due).for_each(start);
        next
    }

    /// Waits until there is a connection that is [full](crate::State::Full), and flushes it. False
    /// once this is [ended](Self::end_keeping). Only one thread at a time may wait.
    pub fn flush_next(&self) -> bool {
        let given = self.lock().keeper_waits();
        let Ok((slot, mut connection)) = given.recv() else { return false };
        // Nobody waits for it. A failure that concerns others is known to the pool.
        if self.attempt(&mut connection, Task::FlushInBackground).is_err() {
            self.lock().note_refused_flush(slot);
        }
        self.put_back(slot, connection);
        true
    }

    /// Ends [`flush_next`](Self::flush_next) and [`keep_alive`](Self::keep_alive), now and for
    /// ever.
    pub fn end_keeping(&self) {
        self.lock().end_keeping();
    }

    /// Does what a thread of the keeper does. A panic there means that connections are not looked
    /// after any more: the pool fails at once.
    pub(crate) fn watch(&self, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.fail(Panicked::new(&*panic).into());
        }
    }
}

/// A connection that has to be used to be kept alive. It goes back on drop, also unused.
pub struct Due<C: Connection> {
    pool: Pool<C>,
    slot: Slot,
    connection: Option<C>,
}

impl<C: Connection> Due<C> {
    /// Uses it. A failure that may have lost work fails the pool.
    pub fn keep_alive(mut self) {
        if let Some(connection) = &mut self.connection {
            // Nobody waits for it. A failure that concerns others is known to the pool.
            let _ = self.pool.attempt(connection, Task::KeepAlive);
        }
    }
}

impl<C: Connection> Drop for Due<C> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.put_back(self.slot, connection);
        }
    }
}

/// These functions are for the workers.
impl<C: Connection> Pool<C> {
    /// Returns the channels by which the workers get their orders: one for each connection, and one
    /// more that leads a flush.
    pub(crate) fn workers(&self) -> Vec<Receiver<Order<C>>> {
        let mut dispatcher = self.lock();
        (0..=dispatcher.connections()).map(|_| dispatcher.idle_worker()).collect()
    }

    /// A request is carried out by a worker, at once or when it is its turn.
    pub(crate) fn submit(&self, request: C::Request) {
        let mut dispatcher = self.lock();
        match dispatcher.admit() {
            Ok(Some(taken)) => dispatcher.assign(Order::Job(Job::new(taken, request))),
            Ok(None) => dispatcher.wait_submitted(request),
            Err(refusal) => {
                drop(dispatcher);
                Done::<C>::refuse(request, &refusal);
            }
        }
    }

    /// A request is carried out at once by this thread, or by a worker when it is its turn.
    pub(crate) fn carry_out_or_submit(&self, request: C::Request) {
        let mut dispatcher = self.lock();
        let Some(admitted) = dispatcher.admit().transpose() else {
            return dispatcher.wait_submitted(request);
        };
        drop(dispatcher);
        match admitted {
            Ok(taken) => {
                let (slot, connection, done) = self.carry_out(Job::new(taken, request));
                // First, so that a flush which anyone asks for after the answer finds the
                // connection dirty.
                self.put_back(slot, connection);
                done.notify();
            }
            Err(refusal) => Done::<C>::refuse(request, &refusal),
        }
    }

    /// A flush is led by a thread that waits for one, or by a worker.
    pub(crate) fn submit_flush(&self, completion: impl FnOnce(Outcome<C::Error>) + Send + 'static) {
        let submitted = self.lock().submit_flush(Box::new(completion));
        if let Err(RefusedFlush { completion, refusal }) = submitted {
            complete_flush(completion, Err(refusal));
        }
    }

    /// Carries out what a worker is told to, until the pool is closed.
    pub(crate) fn work(&self, mut orders: Receiver<Order<C>>) {
        while let Ok(order) = orders.recv() {
            orders = match order {
                Order::Job(mut job) => {
                    self.lock().take_along(&mut job);
                    self.work_on(job)
                }
                Order::Flush => self.flush_for_others(),
                Order::Visit(visited) => self.visit_for_another(visited),
            };
        }
    }

    /// Carries out a job and those that follow it. Returns where the next order comes.
    fn work_on(&self, mut job: Job<C>) -> Receiver<Order<C>> {
        loop {
            let (slot, connection, done) = self.carry_out(job);
            let now = self.now();
            // First, so that a flush which anyone asks for after the answer finds the connection
            // dirty. What comes next is this thread's already, as it is ready for it.
            let next = self.lock().next_order(slot, connection, now);
            done.notify();
            match next {
                NextOrder::Job(next) => job = next,
                NextOrder::Wait(orders) => return orders,
            }
        }
    }
}

/// These functions serve all of the above.
impl<C: Connection> Pool<C> {
    /// Carries out a job, and returns its connection. After a failure of one of several requests,
    /// each is carried out alone.
    fn carry_out(&self, job: Job<C>) -> (Slot, C, Done<C>) {
        let Job { slot, mut connection, gathered: Gathered { mut group, waiters, .. } } = job;
        let done = match self.attempt(&mut connection, Task::Requests(&mut group)) {
            Err(Failure { affected: Affected::One, .. }) if group.len() > 1 => {
                group.carry_out_singly(|one| match self.failure() {
                    // Somebody else has failed the pool.
                    Some(error) => Err(Failure { error, affected: Affected::Pool }),
                    None => self.attempt(&mut connection, Task::Requests(one)),
                })
            }
            ended => group.ended(&ended.map_err(PoolError::from)),
        };
        (slot, connection, Done::new(done, waiters))
    }

    /// Carries out a task. A failure that affects the pool is known to it by the return, so that
    /// nobody takes the connection unaware. After a panic, nobody knows what was done: that is such
    /// a failure.
    fn attempt(&self, connection: &mut C, task: Task<'_, C::Request>) -> Result<(), Failure<C::Error>> {
        let ended = catch_unwind(AssertUnwindSafe(|| connection.carry_out(task))).unwrap_or_else(|panic| {
            Err(Failure { error: Panicked::new(&*panic).into(), affected: Affected::Pool })
        });
        if let Err(Failure { error, affected: Affected::Pool }) = &ended {
            self.fail(error.clone());
        }
        ended
    }

    fn put_back(&self, slot: Slot, connection: C) {
        let now = self.now();
        self.lock().put_back(slot, connection, now);
    }

    /// Why requests are refused by now.
    fn refusal(&self) -> PoolError<C::Error> {
        self.lock().refusal().unwrap_or(PoolError::Closed)
    }

    fn lock(&self) -> MutexGuard<'_, Dispatcher<C>> {
        // Nothing under the lock leaves it half done: a panic there is a bug, and what it guards is
        // still whole.
        self.shared.dispatcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Instant {
        (self.shared.clock)()
    }
}
