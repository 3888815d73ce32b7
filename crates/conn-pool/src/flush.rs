// SPDX-License-Identifier: MIT OR Apache-2.0
//! Flushing all connections: one at a time in its turn, those that wait share the next.

use oneshot::{Receiver, Sender, channel};

use crate::pool::Pool;
use crate::state::{Slot, Wants};
use crate::{Connection, PoolError};

type Outcome<E> = Result<(), PoolError<E>>;

/// Whose turn it is. Part of the pool's state.
pub(crate) struct FlushTurns<E> {
    running: bool,
    waiting: Vec<Sender<News<E>>>,
}

impl<E> Default for FlushTurns<E> {
    fn default() -> Self {
        Self { running: false, waiting: Vec::new() }
    }
}

/// What a waiting flush is told.
enum News<E> {
    /// A flush that began after this one was asked for has ended so.
    Done(Outcome<E>),
    /// It is this one's turn to flush, for all that wait.
    Lead,
}

impl<E> FlushTurns<E> {
    /// A channel to wait on, or `None`: the caller leads at once.
    fn join(&mut self) -> Option<Receiver<News<E>>> {
        if !std::mem::replace(&mut self.running, true) {
            return None;
        }
        let (sender, receiver) = channel();
        self.waiting.push(sender);
        Some(receiver)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Passes the turn to the first that still waits.
    fn pass_on(&mut self) {
        while !self.waiting.is_empty() {
            if self.waiting.remove(0).send(News::Lead).is_ok() {
                return;
            }
        }
        self.running = false;
    }
}

impl<C: Connection> Pool<C> {
    /// Makes safe all work that was acknowledged, on any connection, before this call. Work may go on meanwhile.
    ///
    /// Only connections with unflushed work are flushed, each as soon as it is free, and given back at once.
    ///
    /// # Errors
    /// [`PoolError`]: data may be lost, now and for good, or the pool is closed.
    pub fn flush(&self) -> Outcome<C::Error> {
        loop {
            let joined = self.lock().flushes.join();
            match joined.map(|news| news.recv()) {
                None | Some(Ok(News::Lead)) => return Turn::begin(self).run(),
                Some(Ok(News::Done(outcome))) => return outcome,
                // The leader panicked: ask anew.
                Some(Err(_)) => {}
            }
        }
    }
}

/// The turn to flush. Dropping it passes it on, also in a panic.
struct Turn<'a, C: Connection> {
    pool: &'a Pool<C>,
    ticket: u64,
    /// Still to be visited.
    slots: Vec<Slot>,
    /// Those that asked before this turn began, and share its outcome.
    followers: Vec<Sender<News<C::Error>>>,
    outcome: Option<Outcome<C::Error>>,
}

impl<'a, C: Connection> Turn<'a, C> {
    /// What is acknowledged by now is what this turn makes safe, and who waits by now is whom it serves.
    fn begin(pool: &'a Pool<C>) -> Self {
        let mut state = pool.lock();
        let refusal = state.refusal();
        Self {
            pool,
            ticket: state.ticket(),
            slots: if refusal.is_some() { Vec::new() } else { state.dirty_slots() },
            followers: std::mem::take(&mut state.flushes.waiting),
            outcome: refusal.map(Err),
        }
    }

    fn run(mut self) -> Outcome<C::Error> {
        let outcome = match self.outcome.take() {
            Some(refused) => refused,
            None => self.flush_all(),
        };
        self.outcome = Some(outcome.clone());
        outcome
    }

    fn flush_all(&mut self) -> Outcome<C::Error> {
        while !self.slots.is_empty() {
            let hand = self.pool.take(Wants::OneOf(self.slots.clone()), None, Some(self.ticket))?;
            let mut guard = self.pool.guard_of(hand);
            self.slots.retain(|&slot| slot != guard.slot);
            if guard.is_dirty()
                && let Err(error) = guard.flush()
            {
                // Before the connection goes back, so that nobody works on it unaware.
                self.pool.fail(error.clone());
                return Err(PoolError::Failed(error));
            }
        }
        Ok(())
    }
}

impl<C: Connection> Drop for Turn<'_, C> {
    fn drop(&mut self) {
        if let Some(outcome) = &self.outcome {
            for follower in self.followers.drain(..) {
                // A follower whose thread is gone needs no news.
                let _ = follower.send(News::Done(outcome.clone()));
            }
        }
        self.pool.lock().flushes.pass_on();
    }
}
