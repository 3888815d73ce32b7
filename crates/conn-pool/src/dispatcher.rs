// SPDX-License-Identifier: MIT OR Apache-2.0
//! Turns events into effects: whoever is the next for a connection is given it.
//!
//! Everything here happens under the pool's lock and takes no time. Nothing of a user is called
//! here but what tells a shape or a state: requests and flushes that have to be told of their end
//! are returned.

mod keeping;

use std::time::Instant;

use oneshot::{Receiver, SendError, Sender, channel};

use crate::connection::Connection;
use crate::error::PoolError;
use crate::flushes::{Flushes, Leader};
use crate::line::{Gathered, Line, Next, Slot, Ticket};
use crate::news::{
    AskedFlush, Done, FlushCompletion, FlushFollowers, FlushNews, FlushWaiter, Job, News, NextOrder, Order,
    Purpose, RefusedFlush, Visit, Visited, Waiter,
};
use crate::slots::Slots;

/// All that the pool's lock guards.
pub(crate) struct Dispatcher<C: Connection> {
    line: Line<C::Request, Waiter<C>, Visitor<C>>,
    slots: Slots<C>,
    /// The number of connections that requests may have at a time.
    concurrency: usize,
    flushes: Flushes<FlushWaiter<C::Error>, FlushCompletion<C::Error>>,
    /// Workers without work, the latest on top. There is one whenever a connection is idle or no
    /// flush runs, if there are workers at all.
    workers: Vec<Sender<Order<C>>>,
    keeper: Keeper<C>,
    /// Waits until all flushes have ended.
    closer: Option<Sender<()>>,
    failure: Option<C::Error>,
    life: Life,
}

/// A visitor waits for certain connections.
struct Visitor<C> {
    sender: Sender<(Slot, C)>,
    purpose: Purpose,
}

/// The state of the keeper, which waits for connections that should be flushed.
enum Keeper<C> {
    /// There is none, or it is at work.
    Away,
    Waiting(Sender<(Slot, C)>),
    /// It won't be waited for again.
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Open,
    /// Newcomers are refused.
    Closing,
    /// All connections are gone, and all are told.
    Closed,
}

/// A flush that begins.
pub(crate) struct Turn<C: Connection> {
    pub(crate) ticket: Ticket,
    /// Work is lost already.
    pub(crate) failure: Option<C::Error>,
    /// The connections to be flushed.
    pub(crate) slots: Vec<Slot>,
    pub(crate) followers: FlushFollowers<C>,
}

/// A pool that begins to close.
pub(crate) struct Closing {
    pub(crate) ticket: Ticket,
    pub(crate) slots: Vec<Slot>,
    /// Ends when no flush runs or waits any more.
    pub(crate) flushes: Option<Receiver<()>>,
}

impl<C: Connection> Dispatcher<C> {
    pub(crate) fn new(connections: impl IntoIterator<Item = C>, now: Instant) -> Self {
        let slots = Slots::new(connections, now);
        Self {
            life: if slots.len() == 0 { Life::Closed } else { Life::Open },
            line: Line::new(),
            concurrency: slots.any_idle().map_or(1, Connection::concurrency).max(1),
            slots,
            flushes: Flushes::new(),
            workers: Vec::new(),
            keeper: Keeper::Away,
            closer: None,
            failure: None,
        }
    }

    pub(crate) fn failure(&self) -> Option<C::Error> {
        self.failure.clone()
    }

    /// Why newcomers are refused, if they are.
    pub(crate) fn refusal(&self) -> Option<PoolError<C::Error>> {
        self.failure().map(PoolError::Failed).or((self.life != Life::Open).then_some(PoolError::Closed))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.line.len() + self.flushes.waiting() + usize::from(self.closer.is_some())
    }

    pub(crate) fn connections(&self) -> usize {
        self.slots.len()
    }

    /// A connection for a new request, if one is idle that requests may have. Otherwise the request
    /// has to wait.
    pub(crate) fn admit(&mut self) -> Result<Option<(Slot, C)>, PoolError<C::Error>> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let taken = if self.has_room() { self.slots.take_latest() } else { None };
        if let Some((slot, _)) = taken {
            self.slots.note_request(slot, self.line.ticket());
        }
        Ok(taken)
    }

    /// A thread waits in line with its request.
    pub(crate) fn wait(&mut self, request: C::Request) -> Receiver<News<C>> {
        let (sender, receiver) = channel();
        self.line.wait(request, Some(sender));
        receiver
    }

    /// A request waits in line for a worker.
    pub(crate) fn wait_submitted(&mut self, request: C::Request) {
        self.line.wait(request, None);
    }

    /// The job takes along what has come since the connection was given out.
    pub(crate) fn take_along(&mut self, job: &mut Job<C>) {
        self.line.join(&mut job.gathered, job.slot);
    }

    /// The work on a busy connection is about to be acknowledged.
    pub(crate) fn acknowledge(&mut self, slot: Slot, connection: &C) {
        self.slots.acknowledge(slot, connection.state());
    }

    /// One of these connections; or where one comes, which is a channel that is closed where none
    /// will.
    pub(crate) fn visit(&mut self, ticket: Ticket, slots: &[Slot], purpose: Purpose) -> Visit<C> {
        let is_over = purpose == Purpose::Flush && self.failure.is_some();
        if !is_over && let Some((slot, connection)) = self.slots.take_one_of(slots) {
            return Visit::Now(slot, connection);
        }
        let (sender, receiver) = channel();
        let left: Vec<_> = slots.iter().copied().filter(|&slot| !self.slots.is_gone(slot)).collect();
        if !is_over && !left.is_empty() {
            self.line.visit(ticket, left, Visitor { sender, purpose });
        }
        Visit::Later(receiver)
    }

    /// Takes back the connection of someone who is no worker.
    pub(crate) fn put_back(&mut self, slot: Slot, connection: C, now: Instant) {
        if let Some(job) = self.release(slot, connection, now) {
            self.assign(Order::Job(job));
        }
    }

    /// Takes back a worker's connection, and gives the worker what to do next.
    pub(crate) fn next_order(&mut self, slot: Slot, connection: C, now: Instant) -> NextOrder<C> {
        match self.release(slot, connection, now) {
            Some(job) => NextOrder::Job(job),
            None => NextOrder::Wait(self.idle_worker()),
        }
    }

    /// A place among the idle workers; a channel that is closed where there won't be work again.
    pub(crate) fn idle_worker(&mut self) -> Receiver<Order<C>> {
        let (sender, receiver) = channel();
        if self.life != Life::Closed {
            self.workers.push(sender);
        }
        receiver
    }

    /// A worker that has most likely told of all that it has done: a flush is not to wait for that.
    fn longest_idle_worker(&mut self) -> Option<Sender<Order<C>>> {
        (!self.workers.is_empty()).then(|| self.workers.remove(0))
    }

    /// Has a worker lead a flush.
    fn assign_flush(&mut self) {
        let worker = self.longest_idle_worker().expect("a worker is idle if none leads a flush");
        send(worker, Order::Flush);
    }

    /// Gives an order to an idle worker. There is one more than there are connections, so that one
    /// is idle if a connection was until now, or if nobody has led a flush.
    pub(crate) fn assign(&mut self, order: Order<C>) {
        let worker = self.workers.pop().expect("a worker is idle whenever there is work for one");
        send(worker, order);
    }

    /// Has a worker do what a connection was visited for. Without workers, it is given back. If
    /// there are any, one is idle: there is one more than connections, and only the visitor has
    /// none.
    pub(crate) fn delegate(&mut self, visited: Visited<C>) -> Option<Visited<C>> {
        let Some(worker) = self.longest_idle_worker() else { return Some(visited) };
        match worker.send(Order::Visit(visited)).map_err(SendError::into_inner) {
            // The system has no threads, and workers that were about to start are gone.
            Err(Order::Visit(visited)) => Some(visited),
            _ => None,
        }
    }

    /// Takes back a connection. A job that is returned is a worker's.
    fn release(&mut self, slot: Slot, connection: C, now: Instant) -> Option<Job<C>> {
        self.slots.note_use(slot, now);
        self.acknowledge(slot, &connection);
        self.concurrency = connection.concurrency().max(1);
        let job = self.pass_on(slot, connection);
        self.employ_idle();
        job
    }

    /// Hands the connection to the keeper if it should be flushed, to the first that waits for it,
    /// or lets it be idle. A job that is returned is a worker's.
    fn pass_on(&mut self, slot: Slot, connection: C) -> Option<Job<C>> {
        let connection = self.give_to_keeper(slot, connection)?;
        match self.line.next(slot, self.has_room()) {
            None => self.slots.put(slot, connection),
            Some(Next::Visit(Visitor { sender, .. })) => send(sender, (slot, connection)),
            Some(Next::Requests(gathered, ticket)) => {
                self.slots.note_request(slot, ticket);
                return Self::hand_over(Job { slot, connection, gathered });
            }
        }
        None
    }

    /// Gives idle connections to requests that wait, as many as requests may have. There are any
    /// only where more may be had than before, or where a flush was given the connection that would
    /// have been theirs.
    fn employ_idle(&mut self) {
        while self.line.has_requests()
            && self.has_room()
            && let Some((slot, connection)) = self.slots.take_latest()
        {
            if let Some(job) = self.pass_on(slot, connection) {
                self.assign(Order::Job(job));
            }
        }
    }

    /// Returns true if requests may have one more connection.
    fn has_room(&self) -> bool {
        self.slots.serving() < self.concurrency
    }

    /// Gives the job to the thread that waits with the first of its requests. Without one, it is a
    /// worker's.
    fn hand_over(mut job: Job<C>) -> Option<Job<C>> {
        let Some(thread) = job.gathered.take_first_waiter() else { return Some(job) };
        send(thread, News::Job(job));
        None
    }

    /// Keeps the first failure. Those who wait in line or for the next flush are returned, to be
    /// told of it.
    pub(crate) fn fail(&mut self, error: C::Error) -> (Done<C>, FlushFollowers<C>, PoolError<C::Error>) {
        let refusal = PoolError::Failed(self.failure.get_or_insert(error).clone());
        self.line.retain_visitors(|visitor| visitor.purpose == Purpose::Close);
        (Done::refused(self.line.take_requests(), &refusal), self.flushes.take_waiting(), refusal)
    }

    /// Refuses newcomers from now on. None where that was done before.
    pub(crate) fn close(&mut self) -> Option<Closing> {
        if self.life != Life::Open {
            return None;
        }
        self.life = Life::Closing;
        let flushes = self.flushes.is_running().then(|| {
            let (sender, receiver) = channel();
            self.closer = Some(sender);
            receiver
        });
        Some(Closing { ticket: self.line.ticket(), slots: self.slots.left(), flushes })
    }

    /// The connection will never come back: those that wait for nothing else are sent away.
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.slots.remove(slot);
        self.line.remove(slot);
    }

    /// All is done, and the workers are sent home.
    pub(crate) fn end(&mut self) {
        self.life = Life::Closed;
        self.workers.clear();
    }
}

/// Flushing.
impl<C: Connection> Dispatcher<C> {
    /// A thread asks for a flush.
    pub(crate) fn ask_flush(&mut self) -> Result<AskedFlush<C>, PoolError<C::Error>> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        if self.flushes.lead() {
            return Ok(AskedFlush::Lead);
        }
        let (sender, receiver) = channel();
        self.flushes.wait(sender);
        Ok(AskedFlush::Wait(receiver))
    }

    /// A flush is submitted; or given back with the reason why it is refused.
    pub(crate) fn submit_flush(
        &mut self,
        completion: FlushCompletion<C::Error>,
    ) -> Result<(), RefusedFlush<C>> {
        if let Some(refusal) = self.refusal() {
            return Err(RefusedFlush { completion, refusal });
        }
        self.flushes.submit(completion);
        if self.flushes.lead() {
            self.assign_flush();
        }
        Ok(())
    }

    /// Begins a flush. What is acknowledged by now is what it makes safe, and whoever waits by now
    /// is whom it serves.
    pub(crate) fn begin_flush(&mut self) -> Turn<C> {
        let (ticket, followers) = (self.line.ticket(), self.flushes.take_waiting());
        Turn { ticket, failure: self.failure(), slots: self.slots.dirty(), followers }
    }

    /// A flush has ended, and all that shared it are told: lets the next begin.
    pub(crate) fn end_flush(&mut self) {
        match self.flushes.pass_on() {
            Some(Leader::Thread(thread)) => send(thread, FlushNews::Lead),
            Some(Leader::Worker) => self.assign_flush(),
            None => self.closer.take().into_iter().for_each(|closer| send(closer, ())),
        }
    }
}

impl<C: Connection> Job<C> {
    /// A new request that was given a connection at once.
    pub(crate) fn new((slot, connection): (Slot, C), request: C::Request) -> Self {
        Self { slot, connection, gathered: Gathered::new(request, None) }
    }
}

/// Gives something to someone who waits for it.
fn send<T>(waiter: Sender<T>, thing: T) {
    waiter.send(thing).expect("whoever waits stays until it is told");
}
