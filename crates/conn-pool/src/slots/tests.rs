// SPDX-License-Identifier: MIT OR Apache-2.0
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::sync::{Arc, Mutex};

use State::{Clean, Closed, Dirty, Full};

use super::*;
use crate::connection::Task;
use crate::error::{Failure, Outcome, Panicked};
use crate::request::{Place as Side, PoolRequest, Shape};

const LIMIT: Duration = Duration::from_secs(20);

/// A connection whose state the test sets.
struct Fake(Arc<Mutex<State>>);

impl Connection for Fake {
    type Error = Panicked;
    type Request = Never;

    fn carry_out(&mut self, _: Task<'_, Never>) -> Result<(), Failure<Panicked>> {
        Ok(())
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap()
    }
}

/// There are no requests.
#[derive(Clone, Copy)]
enum Never {}

impl PoolRequest for Never {
    type Error = Panicked;
    type Shape = Self;

    fn shape(&self) -> Self {
        *self
    }

    fn complete(_: Vec<(Self, Outcome<Panicked>)>) {}
}

impl Shape for Never {
    fn join(self, _: Self) -> Option<(Self, Side)> {
        match self {}
    }
}

struct Setup {
    slots: Slots<Fake>,
    states: Vec<Arc<Mutex<State>>>,
    start: Instant,
}

impl Setup {
    fn new(states: &[State]) -> Self {
        let states: Vec<_> = states.iter().map(|&state| Arc::new(Mutex::new(state))).collect();
        let start = Instant::now();
        let slots = Slots::new(states.iter().map(|state| Fake(Arc::clone(state))), start);
        Self { slots, states, start }
    }

    fn set(&self, slot: Slot, state: State) {
        *self.states[slot].lock().unwrap() = state;
    }

    /// A request has used a connection until then.
    fn request(&mut self, ticket: Ticket, seconds: u64) -> Slot {
        let (slot, connection) = self.slots.take_latest().unwrap();
        self.slots.note_request(slot, ticket);
        self.put(slot, connection, seconds);
        slot
    }

    fn put(&mut self, slot: Slot, connection: Fake, seconds: u64) {
        self.slots.note_use(slot, self.start + Duration::from_secs(seconds));
        self.slots.put(slot, connection);
    }

    /// The connections that are due then; and when to look again, in seconds.
    fn due(&mut self, seconds: u64) -> (Vec<Slot>, u64) {
        let now = self.start + Duration::from_secs(seconds);
        let due = std::iter::from_fn(|| self.slots.take_due(LIMIT, now));
        let due: Vec<_> = due.collect();
        let next = self.slots.next_due(LIMIT, now).duration_since(self.start).as_secs();
        let slots = due.iter().map(|(slot, _)| *slot).collect();
        for (slot, connection) in due {
            self.put(slot, connection, seconds);
        }
        (slots, next)
    }
}

#[test]
fn the_connection_of_the_last_request_is_taken_first_whoever_else_has_used_it_or_another() {
    let mut setup = Setup::new(&[Clean; 3]);
    assert_eq!([setup.request(1, 0), setup.request(2, 0)], [0, 0]);
    let (first, held) = setup.slots.take_latest().unwrap();
    assert_eq!((first, setup.request(3, 0)), (0, 1));
    setup.put(first, held, 0);
    // By no request: neither a flush nor the keeper brings a connection into use.
    let (slot, connection) = setup.slots.take_one_of(&[2]).unwrap();
    setup.put(slot, connection, 5);
    let order = std::iter::from_fn(|| setup.slots.take_latest().map(|(slot, _)| slot));
    assert_eq!(order.collect::<Vec<_>>(), [1, 0, 2]);
}

#[test]
fn a_busy_connection_is_dirty_by_what_is_acknowledged() {
    let mut setup = Setup::new(&[Clean, Dirty, Full, Closed]);
    assert_eq!(setup.slots.dirty(), [1, 2]);
    let taken: Vec<_> = [0, 1].iter().filter_map(|&slot| setup.slots.take_one_of(&[slot])).collect();
    setup.set(0, Dirty);
    setup.set(1, Clean);
    assert_eq!(setup.slots.dirty(), [1, 2], "as they were taken");
    taken.iter().for_each(|(slot, connection)| setup.slots.acknowledge(*slot, connection.state()));
    assert_eq!(setup.slots.dirty(), [0, 2]);
    setup.slots.remove(0);
    assert_eq!((setup.slots.dirty(), setup.slots.left()), (vec![2], vec![1, 2, 3]));
    assert!(setup.slots.is_gone(0) && setup.slots.take_one_of(&[0, 1]).is_none());
}

#[test]
fn an_idle_connection_may_become_full_and_is_left_alone_after_a_refusal_until_the_next_request() {
    let mut setup = Setup::new(&[Dirty]);
    assert!(setup.slots.take_full().is_none());
    setup.set(0, Full);
    let (slot, connection) = setup.slots.take_full().unwrap();
    assert!(setup.slots.should_be_flushed(slot, &connection));
    setup.slots.note_refused_flush(slot);
    setup.put(slot, connection, 0);
    assert!(setup.slots.take_full().is_none());
    setup.request(1, 0);
    assert!(setup.slots.take_full().is_some());
}

#[test]
fn what_is_open_and_idle_for_the_limit_is_due_the_oldest_first() {
    let mut setup = Setup::new(&[Clean, Closed, Dirty]);
    assert_eq!(setup.due(19), (vec![], 20));
    assert_eq!(setup.request(1, 15), 0);
    assert_eq!(setup.due(20), (vec![2], 35), "who is closed is left alone");
    assert_eq!(setup.due(35), (vec![0], 40));
}

#[test]
fn one_is_kept_in_use_where_all_are_closed_and_none_was_used_for_the_limit() {
    let mut setup = Setup::new(&[Closed; 3]);
    assert_eq!(setup.due(19), (vec![], 20));
    // It could not be opened: it is tried again after the limit.
    assert_eq!(setup.due(20), (vec![0], 40));
    assert_eq!(setup.request(1, 30), 0);
    assert_eq!(setup.due(49), (vec![], 50), "it was lost then, so something was used");
    assert_eq!(setup.due(50), (vec![0], 70));
    setup.set(0, Clean);
    assert_eq!(setup.due(70), (vec![0], 90), "it is open, and as any other");
}

#[test]
fn none_is_opened_while_another_is_open_or_busy() {
    let mut setup = Setup::new(&[Closed, Closed]);
    let (slot, connection) = setup.slots.take_latest().unwrap();
    assert_eq!(setup.due(100), (vec![], 120), "it will be due a limit from now at the earliest");
    setup.set(slot, Clean);
    setup.put(slot, connection, 110);
    assert_eq!(setup.due(120), (vec![], 130));
}
