// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking connections, and giving them back.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::request::complete;
use crate::state::{Hand, Slot, State, Taken, Wants};
use crate::sync::{Mutex, MutexGuard};
use crate::{Clock, Connection, PoolError};

/// A fixed number of connections. Clones are handles to the same pool.
pub struct Pool<C: Connection> {
    shared: Arc<Shared<C>>,
}

struct Shared<C: Connection> {
    state: Mutex<State<C>>,
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
        let state = Mutex::new(State::new(connections, clock()));
        Self { shared: Arc::new(Shared { state, clock }) }
    }

    /// Takes a connection, waiting first come first served.
    ///
    /// # Errors
    /// [`PoolError`] where data may be lost or the pool is closed.
    pub fn get(&self) -> Result<Guard<'_, C>, PoolError<C::Error>> {
        let hand = self.take(Wants::Any, None, None)?;
        Ok(self.guard_of(hand))
    }

    /// Waits in line with a request.
    pub(crate) fn line_up(&self, request: C::Request) -> Result<Hand<C>, PoolError<C::Error>> {
        self.take(Wants::Any, Some(request), None)
    }

    /// Takes a connection, or waits for it: as a newcomer, who may be refused, or by a ticket that was got before.
    pub(crate) fn take(
        &self,
        wants: Wants,
        request: Option<C::Request>,
        ticket: Option<u64>,
    ) -> Result<Hand<C>, PoolError<C::Error>> {
        let taken = {
            let mut state = self.lock();
            if let Some(refusal) = state.refusal_of(&wants, ticket) {
                return Err(refusal);
            }
            let ticket = ticket.unwrap_or_else(|| state.ticket());
            state.take(wants, request, ticket)
        };
        match taken {
            Taken::Now(hand) => Ok(hand),
            Taken::Later(receiver) => {
                receiver.recv().map_err(|_| self.lock().refusal().unwrap_or(PoolError::Abandoned))
            }
        }
    }

    /// Makes every later request fail with `error`: data may be lost. The first such error is kept.
    pub fn fail(&self, error: C::Error) {
        let submitted = self.lock().fail(error);
        self.refuse(submitted);
    }

    fn refuse(&self, submitted: Vec<C::Request>) {
        for request in submitted {
            let refusal = self.lock().refusal().unwrap_or(PoolError::Closed);
            complete(request, &Err(refusal));
        }
    }

    /// The error that every request gets, if data may be lost.
    #[must_use]
    pub fn failure(&self) -> Option<C::Error> {
        self.lock().failure()
    }

    /// How many callers wait for a connection: a figure for logs and tests, old as soon as it is told.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Ends the pool: newcomers are refused, those in line are served, then each connection is flushed if it has to
    /// be, and dropped. After a failure nothing is flushed any more: it can't change the outcome, and a server that
    /// hangs would be waited for by each connection anew.
    ///
    /// # Errors
    /// The first failure in the pool's life, also one of these last flushes: data may be lost.
    pub fn close(&self) -> Result<(), C::Error> {
        let mut left = Vec::new();
        let mut ticket = 0;
        {
            let mut state = self.lock();
            if state.close() {
                left = state.all_slots();
                ticket = state.ticket();
            }
        }
        while !left.is_empty() {
            // Whoever has a connection gives it back, and only this loop removes any: the wait ends.
            let wants = Wants::OneOfDespiteFailure(left.clone());
            let Ok(hand) = self.take(wants, None, Some(ticket)) else { break };
            let guard = self.guard_of(hand);
            left.retain(|&slot| slot != guard.slot);
            self.retire(guard);
        }
        self.failure().map_or(Ok(()), Err)
    }

    fn retire(&self, mut guard: Guard<'_, C>) {
        if guard.is_dirty()
            && self.failure().is_none()
            && let Err(error) = guard.flush()
        {
            self.fail(error);
        }
        let slot = guard.slot;
        // Closed before the slot is, so that the end of `close` means that no connection is left.
        drop(guard.connection.take());
        let submitted = self.lock().remove(slot);
        self.refuse(submitted);
    }

    /// For who waits without a request.
    pub(crate) fn guard_of(&self, hand: Hand<C>) -> Guard<'_, C> {
        match hand {
            Hand::Connection(slot, connection) => self.guard((slot, connection)),
            Hand::Job(_) | Hand::Done(_) => unreachable!("who waits without a request gets a connection"),
        }
    }

    pub(crate) fn guard(&self, (slot, connection): (Slot, C)) -> Guard<'_, C> {
        Guard { pool: self, slot, connection: Some(connection) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<C>> {
        // Nothing under the lock leaves it half done: a panic there is a bug, and the state is still whole.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Instant {
        (self.shared.clock)()
    }
}

/// A connection taken from the pool. It goes back on drop, also in a panic: a connection must know by itself when it
/// can't be used any more.
pub struct Guard<'a, C: Connection> {
    pool: &'a Pool<C>,
    pub(crate) slot: Slot,
    connection: Option<C>,
}

impl<C: Connection> Deref for Guard<'_, C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.connection.as_ref().expect("a guard holds its connection until it is dropped")
    }
}

impl<C: Connection> DerefMut for Guard<'_, C> {
    fn deref_mut(&mut self) -> &mut C {
        self.connection.as_mut().expect("a guard holds its connection until it is dropped")
    }
}

impl<C: Connection> Drop for Guard<'_, C> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let now = self.pool.now();
            self.pool.lock().put_back(self.slot, connection, now);
        }
    }
}
