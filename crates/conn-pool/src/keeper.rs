// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking after connections: keeping those alive that are idle, and flushing those that want it.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use oneshot::RecvTimeoutError;

use crate::pool::Guard;
use crate::state::KeeperPlace;
use crate::{Connection, Pool};

impl<C: Connection> Pool<C> {
    /// Uses each connection that has been idle for `limit`, one at a time, so that only one is away from the others'
    /// hands. Returns when to look again. A failure is kept, and every later request gets it.
    pub fn keep_alive(&self, limit: Duration) -> Instant {
        let now = self.now();
        // An idle limit longer than the clock has run: nothing can be due.
        let Some(due) = now.checked_sub(limit) else { return now + limit };
        loop {
            let taken = self.lock().take_unused_since(due);
            let Some(taken) = taken else { break };
            self.look_after(&mut self.guard(taken), C::keep_alive);
        }
        self.lock().oldest_use().unwrap_or(now) + limit
    }

    /// Waits, for `wait` at most, until there is a connection that [wants to be flushed](Connection::wants_flush), and
    /// flushes it. False once this is [ended](Self::end_keeping). Only one thread at a time may wait.
    pub fn flush_next(&self, wait: Duration) -> bool {
        let given = self.lock().keeper_waits();
        let taken = match given.recv_timeout(wait) {
            Ok(taken) => taken,
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                self.lock().keeper.leave();
                // It may have been given meanwhile. From now on, it can't be.
                let Ok(taken) = given.try_recv() else { return true };
                taken
            }
        };
        self.look_after(&mut self.guard(taken), C::flush_in_background);
        true
    }

    /// Ends [`flush_next`](Self::flush_next), now and for ever.
    pub fn end_keeping(&self) {
        self.lock().keeper = KeeperPlace::Closed;
    }

    fn look_after(&self, guard: &mut Guard<'_, C>, work: impl FnOnce(&mut C) -> Result<(), C::Error>) {
        // Before the connection goes back, so that nobody works on it unaware.
        work(guard).unwrap_or_else(|error| self.fail(error));
    }
}

/// The thread that looks after a pool's connections. Dropping it stops and joins it. A pool has one only once.
pub struct Keeper<C: Connection> {
    pool: Pool<C>,
    thread: Option<JoinHandle<()>>,
}

impl<C: Connection + 'static> Keeper<C> {
    /// Starts the keeper: no connection of `pool` stays unused for longer than `limit`, if there is one, but for the time
    /// that its own work on another takes; and one at a time is flushed that wants it. The pool's clock should be the real
    /// one.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(pool: Pool<C>, limit: Option<Duration>) -> io::Result<Self> {
        let keeping = pool.clone();
        let until_due = move |limit| keeping.keep_alive(limit).saturating_duration_since(keeping.now());
        let keeping = pool.clone();
        let keep = move || while keeping.flush_next(limit.map_or(Duration::MAX, &until_due)) {};
        let thread = std::thread::Builder::new().name("pool-keeper".into()).spawn(keep)?;
        Ok(Self { pool, thread: Some(thread) })
    }
}

impl<C: Connection> Drop for Keeper<C> {
    fn drop(&mut self) {
        self.pool.end_keeping();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the pool keeper panicked");
        }
    }
}
