// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who has which connection, and who waits for one. Everything here happens under the pool's lock and takes no time.

use std::collections::VecDeque;
use std::time::Instant;

use oneshot::{Receiver, SendError, Sender, channel};

use crate::flush::FlushTurns;
use crate::request::{Followers, Job, Outcome};
use crate::{Connection, PoolError, Request};

/// The index of a connection.
pub(crate) type Slot = usize;

pub(crate) struct State<C: Connection> {
    slots: Vec<SlotState<C>>,
    /// Idle slots, in the order of their last request, the latest on top: connections beyond the need stay unused.
    idle: Vec<Slot>,
    /// In the order of their tickets.
    waiters: VecDeque<Waiter<C>>,
    /// Workers without work, the latest on top. There is one whenever a connection is idle, if there are workers at all.
    idle_workers: Vec<Sender<Job<C>>>,
    next_ticket: u64,
    failure: Option<C::Error>,
    closed: bool,
    pub(crate) keeper: KeeperPlace<C>,
    pub(crate) flushes: FlushTurns<C::Error>,
}

struct SlotState<C> {
    /// `None` while someone has it, and for ever once it is gone.
    connection: Option<C>,
    gone: bool,
    /// By a request or by the keeper.
    last_used: Instant,
    /// The ticket of the last request that got it; flushes and the keeper don't count.
    last_request: u64,
    /// Whether the busy connection carries acknowledged work that is not flushed: a flush that starts meanwhile has to
    /// wait for it.
    is_dirty: bool,
}

struct Waiter<C: Connection> {
    ticket: u64,
    wants: Wants,
    /// None where just the connection is wanted.
    request: Option<C::Request>,
    /// None where the request was submitted: then a worker is given it.
    hand: Option<Sender<Hand<C>>>,
}

/// What a thread that waits gets in the end.
pub(crate) enum Hand<C: Connection> {
    /// Who waits without a request.
    Connection(Slot, C),
    Job(Job<C>),
    /// Its request was carried out with another's.
    Done(Outcome<C::Error>),
}

/// What a worker does after a job.
pub(crate) enum Next<C: Connection> {
    Job(Job<C>),
    /// It comes here, or the channel is closed: then the work is over.
    Wait(Receiver<Job<C>>),
}

/// Where the keeper waits for connections that want to be flushed.
pub(crate) enum KeeperPlace<C> {
    /// There is none, or it is at work.
    Empty,
    Waiting(Sender<(Slot, C)>),
    /// It won't be waited for again.
    Closed,
}

/// A request that won't be carried out, and why.
pub(crate) type Refused<C> = (<C as Connection>::Request, PoolError<<C as Connection>::Error>);

/// Which connections will do.
pub(crate) enum Wants {
    Any,
    OneOf(Vec<Slot>),
    /// The same, and a failure doesn't end the wait.
    OneOfDespiteFailure(Vec<Slot>),
}

/// The outcome of asking for a connection.
pub(crate) enum Taken<C: Connection> {
    Now(Hand<C>),
    /// It comes here, or the channel is closed and [`State::refusal`] tells why.
    Later(Receiver<Hand<C>>),
}

impl Wants {
    fn includes(&self, slot: Slot) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(slots) | Self::OneOfDespiteFailure(slots) => slots.contains(&slot),
        }
    }
}

impl<C: Connection> State<C> {
    pub(crate) fn new(connections: impl IntoIterator<Item = C>, now: Instant) -> Self {
        let slots: Vec<_> = connections
            .into_iter()
            .map(|c| SlotState {
                connection: Some(c),
                gone: false,
                last_used: now,
                last_request: 0,
                is_dirty: false,
            })
            .collect();
        Self {
            idle: (0..slots.len()).rev().collect(),
            slots,
            waiters: VecDeque::new(),
            idle_workers: Vec::new(),
            next_ticket: 0,
            failure: None,
            closed: false,
            keeper: KeeperPlace::Empty,
            flushes: FlushTurns::default(),
        }
    }

    /// Why a newcomer gets no connection, if none is given out.
    pub(crate) fn refusal(&self) -> Option<PoolError<C::Error>> {
        self.failure().map(PoolError::Failed).or(self.closed.then_some(PoolError::Closed))
    }

    /// The same for whom this ticket was given to, if any was: that was before the pool was closed, but maybe not before
    /// it failed.
    pub(crate) fn refusal_of(&self, wants: &Wants, ticket: Option<u64>) -> Option<PoolError<C::Error>> {
        match (wants, ticket) {
            (Wants::OneOfDespiteFailure(_), _) => None,
            (_, Some(_)) => self.failure().map(PoolError::Failed),
            (_, None) => self.refusal(),
        }
    }

    pub(crate) fn failure(&self) -> Option<C::Error> {
        self.failure.clone()
    }

    /// Stops giving out connections to newcomers. False if that was done before.
    pub(crate) fn close(&mut self) -> bool {
        !std::mem::replace(&mut self.closed, true)
    }

    /// Keeps the first failure, and sends the waiters to [`refusal`](Self::refusal). What was submitted is returned, to be
    /// told of it.
    pub(crate) fn fail(&mut self, error: C::Error) -> Vec<C::Request> {
        self.failure.get_or_insert(error);
        self.dismiss(|waiter| !matches!(waiter.wants, Wants::OneOfDespiteFailure(_)))
    }

    /// Sends away those that match. Threads learn it from their channels.
    fn dismiss(&mut self, is_dismissed: impl Fn(&Waiter<C>) -> bool) -> Vec<C::Request> {
        let mut submitted = Vec::new();
        self.waiters.retain_mut(|waiter| {
            let goes = is_dismissed(waiter);
            if goes && waiter.hand.is_none() {
                submitted.extend(waiter.request.take());
            }
            !goes
        });
        submitted
    }

    /// A place in the order of service.
    pub(crate) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len() + self.flushes.waiting()
    }

    pub(crate) fn all_slots(&self) -> Vec<Slot> {
        (0..self.slots.len()).collect()
    }

    /// The connections that carry acknowledged work which is not flushed. What a busy connection is doing right now is
    /// not acknowledged, so its state when it was taken counts, until it is.
    pub(crate) fn dirty_slots(&self) -> Vec<Slot> {
        let dirty = |slot: &SlotState<C>| match &slot.connection {
            Some(connection) => connection.is_dirty(),
            None => slot.is_dirty && !slot.gone,
        };
        (0..self.slots.len()).filter(|&slot| dirty(&self.slots[slot])).collect()
    }

    pub(crate) fn take(&mut self, wants: Wants, request: Option<C::Request>, ticket: u64) -> Taken<C> {
        if let Some(at) = self.idle.iter().rposition(|&slot| wants.includes(slot)) {
            self.given(self.idle[at], &wants, ticket);
            let (slot, connection) = self.take_idle(at);
            return Taken::Now(match request {
                Some(request) => Hand::Job(Job { slot, connection, request, followers: Followers::none() }),
                None => Hand::Connection(slot, connection),
            });
        }
        let (hand, receiver) = channel();
        if (0..self.slots.len()).any(|slot| wants.includes(slot) && !self.slots[slot].gone) {
            self.wait_in_line(Waiter { ticket, wants, request, hand: Some(hand) });
        }
        Taken::Later(receiver)
    }

    fn wait_in_line(&mut self, waiter: Waiter<C>) {
        let at = self.waiters.partition_point(|other| other.ticket < waiter.ticket);
        self.waiters.insert(at, waiter);
    }

    /// Gives a connection for a request that is submitted, or lets it wait in line for a worker; or gives it back with
    /// the reason.
    pub(crate) fn give_or_line_up(&mut self, request: C::Request) -> Result<Option<Job<C>>, Refused<C>> {
        if let Some(refusal) = self.refusal() {
            return Err((request, refusal));
        }
        let ticket = self.ticket();
        if self.idle.is_empty() {
            self.wait_in_line(Waiter { ticket, wants: Wants::Any, request: Some(request), hand: None });
            return Ok(None);
        }
        let at = self.idle.len() - 1;
        self.given(self.idle[at], &Wants::Any, ticket);
        let (slot, connection) = self.take_idle(at);
        Ok(Some(Job { slot, connection, request, followers: Followers::none() }))
    }

    pub(crate) fn employ(&mut self, job: Job<C>) {
        let worker = self.idle_workers.pop().expect("a worker is idle whenever a connection is");
        worker
            .send(job)
            .unwrap_or_else(|_| unreachable!("a worker ends only after the pool's last connection"));
    }

    /// A place among the idle workers; a channel that is closed where there won't be work again.
    pub(crate) fn idle_worker(&mut self) -> Receiver<Job<C>> {
        let (sender, receiver) = channel();
        if self.slots.iter().any(|slot| !slot.gone) {
            self.idle_workers.push(sender);
        }
        receiver
    }

    /// Takes back a worker's connection, and gives it what to do next.
    pub(crate) fn next(&mut self, slot: Slot, connection: C, now: Instant) -> Next<C> {
        match self.release(slot, connection, now) {
            Some(job) => Next::Job(job),
            None => Next::Wait(self.idle_worker()),
        }
    }

    /// The idle connection that has been unused for longest, if since `limit` or before; none once the keeper should end.
    pub(crate) fn take_unused_since(&mut self, limit: Instant) -> Option<(Slot, C)> {
        if self.keeper.is_closed() {
            return None;
        }
        let oldest = (0..self.idle.len()).min_by_key(|&at| self.slots[self.idle[at]].last_used)?;
        (self.slots[self.idle[oldest]].last_used <= limit).then(|| self.take_idle(oldest))
    }

    /// When the idle connection that has been unused for longest was used.
    pub(crate) fn oldest_use(&self) -> Option<Instant> {
        self.idle.iter().map(|&slot| self.slots[slot].last_used).min()
    }

    /// The work on a busy connection is acknowledged before it comes back.
    pub(crate) fn acknowledge(&mut self, slot: Slot, is_dirty: bool) {
        self.slots[slot].is_dirty = is_dirty;
    }

    fn take_idle(&mut self, at: usize) -> (Slot, C) {
        let slot = self.idle.remove(at);
        let state = &mut self.slots[slot];
        let connection = state.connection.take().expect("an idle slot holds its connection");
        state.is_dirty = connection.is_dirty();
        (slot, connection)
    }

    /// Takes note of who gets a connection: a request, or one that looks after connections.
    fn given(&mut self, slot: Slot, wants: &Wants, ticket: u64) {
        if matches!(wants, Wants::Any) {
            self.slots[slot].last_request = ticket;
        }
    }

    /// Takes back the connection of someone who is no worker.
    pub(crate) fn put_back(&mut self, slot: Slot, connection: C, now: Instant) {
        if let Some(job) = self.release(slot, connection, now) {
            self.employ(job);
        }
    }

    /// Hands the connection to the first that waits for it, or to the keeper if it should be flushed, or lets it be idle.
    /// A job is for a worker.
    fn release(&mut self, slot: Slot, connection: C, now: Instant) -> Option<Job<C>> {
        self.slots[slot].last_used = now;
        self.slots[slot].is_dirty = connection.is_dirty();
        let mut connection = self.give_to_keeper(slot, connection)?;
        while let Some(at) = self.waiters.iter().position(|waiter| waiter.wants.includes(slot)) {
            let waiter = self.waiters.remove(at).expect("the position was just found");
            self.given(slot, &waiter.wants, waiter.ticket);
            let hand = match waiter.request {
                None => Hand::Connection(slot, connection),
                Some(mut request) => {
                    let followers = self.merge_into(&mut request, slot);
                    Hand::Job(Job { slot, connection, request, followers })
                }
            };
            connection = match (waiter.hand, hand) {
                (None, Hand::Job(job)) => return Some(job),
                (None, _) => unreachable!("what is submitted is a request"),
                (Some(sender), hand) => match sender.send(hand).map_err(SendError::into_inner) {
                    Ok(()) => return None,
                    // The waiter is gone: its thread panicked.
                    Err(Hand::Connection(_, connection) | Hand::Job(Job { connection, .. })) => connection,
                    Err(Hand::Done(_)) => unreachable!("a connection was sent"),
                },
            };
        }
        self.slots[slot].connection = Some(connection);
        let latest = self.slots[slot].last_request;
        let at = self.idle.partition_point(|&idle| self.slots[idle].last_request <= latest);
        self.idle.insert(at, slot);
        None
    }

    /// Where the keeper is given a connection, until it leaves; a channel that is closed where it should end.
    pub(crate) fn keeper_waits(&mut self) -> Receiver<(Slot, C)> {
        let (sender, receiver) = channel();
        if !self.keeper.is_closed() {
            self.keeper = KeeperPlace::Waiting(sender);
            self.give_idle_to_keeper();
        }
        receiver
    }

    /// Gives the keeper this connection, or gives it back: if it need not be flushed, or not by the keeper. In the end,
    /// `close` does that.
    fn give_to_keeper(&mut self, slot: Slot, connection: C) -> Option<C> {
        if !connection.wants_flush() {
            self.give_idle_to_keeper();
            return Some(connection);
        }
        // Who waits can't go on without it, and its request may flush it at less cost.
        if self.waiters.iter().any(|waiter| waiter.wants.includes(slot)) {
            return Some(connection);
        }
        self.send_to_keeper(slot, connection)
    }

    /// Gives the keeper an idle connection that has come to want it.
    fn give_idle_to_keeper(&mut self) {
        if !self.keeper.is_waiting() || self.refusal().is_some() {
            return;
        }
        let wants = |&slot: &Slot| self.slots[slot].connection.as_ref().is_some_and(C::wants_flush);
        if let Some(at) = self.idle.iter().position(wants) {
            let (slot, connection) = self.take_idle(at);
            let back = self.send_to_keeper(slot, connection);
            assert!(back.is_none(), "the keeper waits");
        }
    }

    fn send_to_keeper(&mut self, slot: Slot, connection: C) -> Option<C> {
        let keeper = if self.refusal().is_none() { self.keeper.leave() } else { None };
        let Some(keeper) = keeper else { return Some(connection) };
        keeper.send((slot, connection)).unwrap_or_else(|_| unreachable!("the keeper leaves before it goes"));
        None
    }

    /// Merges what waits and goes with `request`, up to a flush that waits for this connection, and returns the threads
    /// that waited with it.
    pub(crate) fn merge_into(&mut self, request: &mut C::Request, slot: Slot) -> Followers<C> {
        let mut followers = Followers::none();
        let is_flush = |waiter: &Waiter<C>| waiter.request.is_none() && waiter.wants.includes(slot);
        let mut end = self.waiters.iter().position(is_flush).unwrap_or(self.waiters.len());
        // What did not go with it in one pass may do in the next.
        loop {
            let before = self.waiters.len();
            let mut at = 0;
            self.waiters.retain_mut(|waiter| {
                let goes = at < end && waiter.request.as_ref().is_some_and(|other| request.goes_with(other));
                at += 1;
                if goes && let Some(other) = waiter.request.take() {
                    request.merge(other);
                    waiter.hand.take().into_iter().for_each(|hand| followers.add(hand));
                }
                !goes
            });
            let merged = before - self.waiters.len();
            if merged == 0 {
                return followers;
            }
            end -= merged;
        }
    }

    /// The connection will never come back: those that wait for nothing else are sent away, and so are the workers with
    /// the last one. What was submitted is returned, to be told of it.
    pub(crate) fn remove(&mut self, slot: Slot) -> Vec<C::Request> {
        self.slots[slot].gone = true;
        let left: Vec<_> = (0..self.slots.len()).filter(|&slot| !self.slots[slot].gone).collect();
        if left.is_empty() {
            self.idle_workers.clear();
        }
        self.dismiss(|waiter| !left.iter().any(|&slot| waiter.wants.includes(slot)))
    }
}

impl<C> KeeperPlace<C> {
    fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting(_))
    }

    fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }

    /// Ends the keeper's wait, if it waits.
    pub(crate) fn leave(&mut self) -> Option<Sender<(Slot, C)>> {
        if !self.is_waiting() {
            return None;
        }
        match std::mem::replace(self, Self::Empty) {
            Self::Waiting(sender) => Some(sender),
            Self::Empty | Self::Closed => None,
        }
    }
}
