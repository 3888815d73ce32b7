// SPDX-License-Identifier: MIT OR Apache-2.0
//! The line: who waits for a connection, first come first served; which requests go together; and
//! what they don't pass.
//!
//! This is data only: it knows neither connections nor threads. `W` is whoever waits for a request,
//! and `V` whoever waits for certain connections.

use std::collections::VecDeque;

use crate::request::{Group, Place, PoolRequest, Shape};

/// The index of a connection.
pub(crate) type Slot = usize;

/// A place in the order of service.
pub(crate) type Ticket = u64;

/// The line holds what waits for a connection, in the order of the tickets.
pub(crate) struct Line<R: PoolRequest, W, V> {
    last_ticket: Ticket,
    /// Requests, which any connection serves. One that has joined a group leaves a gap, so that
    /// those behind it need not be moved; the first is never a gap.
    requests: VecDeque<Waiting<R, W>>,
    /// The number of these that are no gaps.
    len: usize,
    /// Visits wait for certain connections. There are few of them.
    visits: Vec<Visit<V>>,
}

struct Waiting<R: PoolRequest, W> {
    ticket: Ticket,
    shape: R::Shape,
    /// None is a gap.
    asked: Option<Asked<R, W>>,
}

struct Asked<R, W> {
    request: R,
    /// None where the request was submitted.
    waiter: Option<W>,
}

struct Visit<V> {
    ticket: Ticket,
    /// Any of these connections will do.
    slots: Vec<Slot>,
    visitor: V,
}

/// The next use of a connection that is free.
pub(crate) enum Next<R: PoolRequest, W, V> {
    /// And the ticket of the first of them.
    Requests(Gathered<R, W>, Ticket),
    Visit(V),
}

/// A group, and who waits for each of its requests.
pub(crate) struct Gathered<R: PoolRequest, W> {
    pub(crate) group: Group<R>,
    /// Each request has its waiter here, in the same order.
    pub(crate) waiters: VecDeque<Option<W>>,
    /// The place of the request that came first: its turn it is.
    pub(crate) first: usize,
}

impl<R: PoolRequest, W, V> Line<R, W, V> {
    pub(crate) fn new() -> Self {
        Self { last_ticket: 0, requests: VecDeque::new(), len: 0, visits: Vec::new() }
    }

    /// A place behind all others.
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// Returns the number of requests and visits that wait.
    pub(crate) fn len(&self) -> usize {
        self.len + self.visits.len()
    }

    /// A request waits behind all others.
    pub(crate) fn wait(&mut self, request: R, waiter: Option<W>) {
        let ticket = self.ticket();
        let shape = request.shape();
        self.requests.push_back(Waiting { ticket, shape, asked: Some(Asked { request, waiter }) });
        self.len += 1;
    }

    /// A visitor waits at the place of its ticket, for any of these connections.
    pub(crate) fn visit(&mut self, ticket: Ticket, slots: Vec<Slot>, visitor: V) {
        let at = self.visits.partition_point(|visit| visit.ticket < ticket);
        self.visits.insert(at, Visit { ticket, slots, visitor });
    }

    /// Returns true if any request waits.
    pub(crate) fn has_requests(&self) -> bool {
        self.len > 0
    }

    /// Returns true if anyone would have this connection, if requests may have it.
    pub(crate) fn wants(&self, slot: Slot, requests_may: bool) -> bool {
        (requests_may && self.len > 0) || self.first_visit(slot).is_some()
    }

    /// Returns the first in line that would have this connection, if requests may have it. A
    /// request takes along what goes with it.
    pub(crate) fn next(&mut self, slot: Slot, requests_may: bool) -> Option<Next<R, W, V>> {
        let first_request = match self.requests.front() {
            Some(waiting) if requests_may => waiting.ticket,
            _ => Ticket::MAX,
        };
        if let Some(at) = self.first_visit(slot)
            && self.visits[at].ticket < first_request
        {
            return Some(Next::Visit(self.visits.remove(at).visitor));
        }
        if !requests_may {
            return None;
        }
        let Waiting { ticket, asked, .. } = self.requests.pop_front()?;
        let Asked { request, waiter } = asked?;
        self.len -= 1;
        let mut gathered = Gathered::new(request, waiter);
        self.join(&mut gathered, slot);
        Some(Next::Requests(gathered, ticket))
    }

    /// Takes along what waits and goes with the group, up to a visit to its connection.
    pub(crate) fn join(&mut self, gathered: &mut Gathered<R, W>, slot: Slot) {
        let end = match self.first_visit(slot) {
            Some(at) => {
                let ticket = self.visits[at].ticket;
                self.requests.partition_point(|waiting| waiting.ticket < ticket)
            }
            None => self.requests.len(),
        };
        // A request that did not go with the group in one pass may do so in the next.
        while self.join_once(gathered, end) {}
        self.drop_gaps();
    }

    /// Returns true if any has joined.
    fn join_once(&mut self, gathered: &mut Gathered<R, W>, end: usize) -> bool {
        let before = self.len;
        for waiting in self.requests.range_mut(..end) {
            if waiting.asked.is_some()
                && let Some(joined) = gathered.group.shape().join(waiting.shape)
                && let Some(asked) = waiting.asked.take()
            {
                gathered.add(asked, joined);
                self.len -= 1;
            }
        }
        self.len < before
    }

    fn drop_gaps(&mut self) {
        while self.requests.front().is_some_and(|waiting| waiting.asked.is_none()) {
            self.requests.pop_front();
        }
    }

    fn first_visit(&self, slot: Slot) -> Option<usize> {
        self.visits.iter().position(|visit| visit.slots.contains(&slot))
    }

    /// Sends all requests away.
    pub(crate) fn take_requests(&mut self) -> Vec<(R, Option<W>)> {
        self.len = 0;
        let asked = self.requests.drain(..).filter_map(|waiting| waiting.asked);
        asked.map(|Asked { request, waiter }| (request, waiter)).collect()
    }

    /// Sends away the visitors that don't stay.
    pub(crate) fn retain_visitors(&mut self, stays: impl Fn(&V) -> bool) {
        self.visits.retain(|visit| stays(&visit.visitor));
    }

    /// This connection is gone: sends away who waits for no other.
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.visits.retain_mut(|visit| {
            visit.slots.retain(|&other| other != slot);
            !visit.slots.is_empty()
        });
    }
}

impl<R: PoolRequest, W> Gathered<R, W> {
    pub(crate) fn new(request: R, waiter: Option<W>) -> Self {
        Self { group: Group::new(request), waiters: VecDeque::from([waiter]), first: 0 }
    }

    fn add(&mut self, asked: Asked<R, W>, joined: (R::Shape, Place)) {
        match joined.1 {
            Place::Before => {
                self.waiters.push_front(asked.waiter);
                self.first += 1;
            }
            Place::Behind => self.waiters.push_back(asked.waiter),
        }
        self.group.add(asked.request, joined);
    }

    /// Takes the waiter of the request that came first, if it has one; it is told otherwise from
    /// now on.
    pub(crate) fn take_first_waiter(&mut self) -> Option<W> {
        self.waiters[self.first].take()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
