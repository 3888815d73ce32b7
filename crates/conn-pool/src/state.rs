// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who has which connection, and who waits for one. Everything here happens under the pool's lock and takes no time.

use std::collections::VecDeque;
use std::time::Instant;

use oneshot::{Receiver, SendError, Sender, channel};

use crate::flush::FlushTurns;
use crate::request::{Answer, Followers};
use crate::{Connection, PoolError, Request};

/// The index of a connection.
pub(crate) type Slot = usize;

pub(crate) struct State<C: Connection> {
    slots: Vec<SlotState<C>>,
    /// Idle slots, in the order of their last request, the latest on top: connections beyond the need stay unused.
    idle: Vec<Slot>,
    /// In the order of their tickets.
    waiters: VecDeque<Waiter<C>>,
    next_ticket: u64,
    failure: Option<C::Error>,
    closed: bool,
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
    /// Dirty when it was taken: what a flush that starts meanwhile has to wait for.
    dirty_when_taken: bool,
}

struct Waiter<C: Connection> {
    ticket: u64,
    wants: Wants,
    /// None where just the connection is wanted.
    request: Option<C::Request>,
    hand: Sender<Hand<C>>,
}

/// What a waiter gets in the end.
pub(crate) enum Hand<C: Connection> {
    /// A connection, the waiter's request with all that were merged into it, and those who wait for its outcome. They
    /// are dropped after the request, by which they may have lent memory.
    Connection { slot: Slot, connection: C, request: Option<C::Request>, followers: Followers<C> },
    /// Its request was carried out with another's.
    Answer(Answer<C>),
}

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
                dirty_when_taken: false,
            })
            .collect();
        Self {
            idle: (0..slots.len()).rev().collect(),
            slots,
            waiters: VecDeque::new(),
            next_ticket: 0,
            failure: None,
            closed: false,
            flushes: FlushTurns::default(),
        }
    }

    /// Why no connection is given out, if none is.
    pub(crate) fn refusal(&self) -> Option<PoolError<C::Error>> {
        match &self.failure {
            Some(failure) => Some(PoolError::Failed(failure.clone())),
            None => self.closed.then_some(PoolError::Closed),
        }
    }

    /// Stops giving out connections to newcomers. False if that was done before.
    pub(crate) fn close(&mut self) -> bool {
        !std::mem::replace(&mut self.closed, true)
    }

    /// Keeps the first failure, and sends the waiters to [`refusal`](Self::refusal).
    pub(crate) fn fail(&mut self, error: C::Error) {
        self.failure.get_or_insert(error);
        self.waiters.retain(|waiter| matches!(waiter.wants, Wants::OneOfDespiteFailure(_)));
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
    /// not acknowledged, so its state when it was taken counts.
    pub(crate) fn dirty_slots(&self) -> Vec<Slot> {
        let dirty = |slot: &SlotState<C>| match &slot.connection {
            Some(connection) => connection.is_dirty(),
            None => slot.dirty_when_taken && !slot.gone,
        };
        (0..self.slots.len()).filter(|&slot| dirty(&self.slots[slot])).collect()
    }

    pub(crate) fn take(&mut self, wants: Wants, request: Option<C::Request>, ticket: u64) -> Taken<C> {
        if let Some(at) = self.idle.iter().rposition(|&slot| wants.includes(slot)) {
            self.given(self.idle[at], &wants, ticket);
            let (slot, connection) = self.take_idle(at);
            return Taken::Now(Hand::Connection {
                slot,
                connection,
                request,
                followers: Followers::default(),
            });
        }
        let (hand, receiver) = channel();
        if (0..self.slots.len()).any(|slot| wants.includes(slot) && !self.slots[slot].gone) {
            let at = self.waiters.partition_point(|waiter| waiter.ticket < ticket);
            self.waiters.insert(at, Waiter { ticket, wants, request, hand });
        }
        Taken::Later(receiver)
    }

    /// The idle connection that has been unused for longest, if since `limit` or before.
    pub(crate) fn take_unused_since(&mut self, limit: Instant) -> Option<(Slot, C)> {
        let oldest = (0..self.idle.len()).min_by_key(|&at| self.slots[self.idle[at]].last_used)?;
        (self.slots[self.idle[oldest]].last_used <= limit).then(|| self.take_idle(oldest))
    }

    /// When the idle connection that has been unused for longest was used.
    pub(crate) fn oldest_use(&self) -> Option<Instant> {
        self.idle.iter().map(|&slot| self.slots[slot].last_used).min()
    }

    fn take_idle(&mut self, at: usize) -> (Slot, C) {
        let slot = self.idle.remove(at);
        let state = &mut self.slots[slot];
        let connection = state.connection.take().expect("an idle slot holds its connection");
        state.dirty_when_taken = connection.is_dirty();
        (slot, connection)
    }

    /// Takes note of who gets a connection: a request, or one that looks after connections.
    fn given(&mut self, slot: Slot, wants: &Wants, ticket: u64) {
        if matches!(wants, Wants::Any) {
            self.slots[slot].last_request = ticket;
        }
    }

    /// Hands the connection to the first that waits for it, or lets it be idle.
    pub(crate) fn put_back(&mut self, slot: Slot, mut connection: C, now: Instant) {
        self.slots[slot].last_used = now;
        self.slots[slot].dirty_when_taken = connection.is_dirty();
        while let Some(at) = self.waiters.iter().position(|waiter| waiter.wants.includes(slot)) {
            let mut waiter = self.waiters.remove(at).expect("the position was just found");
            self.given(slot, &waiter.wants, waiter.ticket);
            let followers = waiter.request.as_mut().map(|request| self.merge_into(request, slot));
            let followers = followers.unwrap_or_default();
            let hand = Hand::Connection { slot, connection, request: waiter.request, followers };
            match waiter.hand.send(hand).map_err(SendError::into_inner) {
                Err(Hand::Connection { connection: returned, .. }) => {
                    // The waiter is gone: its thread panicked.
                    connection = returned;
                }
                _ => return,
            }
        }
        self.slots[slot].connection = Some(connection);
        let latest = self.slots[slot].last_request;
        let at = self.idle.partition_point(|&idle| self.slots[idle].last_request <= latest);
        self.idle.insert(at, slot);
    }

    /// Merges what waits and goes with `request`, up to a flush that waits for this connection, and returns who waited
    /// with it.
    fn merge_into(&mut self, request: &mut C::Request, slot: Slot) -> Followers<C> {
        let mut followers = Followers::default();
        let is_flush = |waiter: &Waiter<C>| waiter.request.is_none() && waiter.wants.includes(slot);
        let mut end = self.waiters.iter().position(is_flush).unwrap_or(self.waiters.len());
        let mut at = 0;
        while at < end {
            let other = self.waiters[at].request.take();
            match other.map(|other| request.merge(other)) {
                Some(Ok(())) => {
                    let waiter = self.waiters.remove(at).expect("the position is in the line");
                    followers.add(waiter.hand);
                    end -= 1;
                    // What did not go with it before may do now.
                    at = 0;
                }
                Some(Err(other)) => {
                    self.waiters[at].request = Some(other);
                    at += 1;
                }
                None => at += 1,
            }
        }
        followers
    }

    /// The connection will never come back: those that wait for nothing else are sent away.
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.slots[slot].gone = true;
        let slots = &self.slots;
        self.waiters
            .retain(|waiter| (0..slots.len()).any(|slot| !slots[slot].gone && waiter.wants.includes(slot)));
    }
}
