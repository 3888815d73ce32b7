// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeping idle connections alive.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};

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
            let mut guard = self.guard(taken);
            if let Err(error) = guard.keep_alive() {
                self.fail(error);
            }
        }
        self.lock().oldest_use().unwrap_or(now) + limit
    }
}

/// The thread that keeps a pool's idle connections alive. Dropping it stops and joins it.
pub struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the keeper: no connection of `pool` stays unused for longer than `limit`, but for the time that its own
    /// work on another takes. The pool's clock should be the real one.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start<C: Connection + 'static>(pool: Pool<C>, limit: Duration) -> io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let keep = move || loop {
            let due = pool.keep_alive(limit);
            let wait = due.saturating_duration_since(pool.now());
            // The other end is dropped, never used.
            if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        };
        let thread = std::thread::Builder::new().name("pool-keeper".into()).spawn(keep)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the pool keeper panicked");
        }
    }
}
