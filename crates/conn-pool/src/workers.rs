// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that carry out requests and flushes for those who don't want to wait.

use std::io;

use crate::connection::Connection;
use crate::error::Outcome;
use crate::pool::Pool;
use crate::sync::thread::{self, JoinHandle};

/// There are as many threads as a pool has connections, so that whenever a connection is free, a
/// thread is too; and one more, so that this holds also while one of them leads a flush. A thread
/// that has carried out a request goes on with what waits, with no change of threads. Dropping it
/// closes the pool, and ends when all that was submitted is told of its end.
pub struct Workers<C: Connection> {
    pool: Pool<C>,
    threads: Vec<JoinHandle<()>>,
}

impl<C: Connection + 'static> Workers<C>
where
    C::Request: 'static,
    C::Error: 'static,
{
    /// Starts the threads. A pool has workers only once.
    ///
    /// # Errors
    /// No threads can be had.
    pub fn start(pool: Pool<C>) -> io::Result<Self> {
        let mut workers = Self { pool, threads: Vec::new() };
        for (number, orders) in workers.pool.workers().into_iter().enumerate() {
            let thread = thread::Builder::new().name(format!("worker-{number}"));
            let pool = workers.pool.clone();
            workers.threads.push(thread.spawn(move || pool.work(orders))?);
        }
        Ok(workers)
    }
}

impl<C: Connection> Workers<C> {
    /// A handle for requests that come from elsewhere, also from within a completion.
    #[must_use]
    pub fn submitter(&self) -> Submitter<C> {
        Submitter(self.pool.clone())
    }

    /// Has a request carried out as soon as it is its turn, together with those that wait and go
    /// with it; returns at once. [`PoolRequest::complete`](crate::PoolRequest::complete) is called
    /// by a worker, or at once by this thread where the pool refuses the request.
    pub fn submit(&self, request: C::Request) {
        self.pool.submit(request);
    }

    /// Does what [`submit`](Self::submit) does, for a thread that has nothing else to do until
    /// then: if a connection is idle, this thread does the work.
    pub fn carry_out(&self, request: C::Request) {
        self.pool.carry_out_or_submit(request);
    }

    /// Makes safe what was acknowledged before this call, as [`Pool::flush`] does; returns at once.
    /// Those that wait share one flush. `completion` is called exactly once, without any lock, by a
    /// worker or a thread that flushes, too, or at once by this thread where the pool refuses it.
    /// It should not block, and must not wait for a flush: the next flush begins after its end.
    pub fn flush(&self, completion: impl FnOnce(Outcome<C::Error>) + Send + 'static) {
        self.pool.submit_flush(completion);
    }
}

/// Has requests carried out by [`Workers`], and doesn't keep them from being dropped.
pub struct Submitter<C: Connection>(Pool<C>);

impl<C: Connection> Submitter<C> {
    /// Does what [`Workers::submit`] does. Without workers, the pool is closed, and refuses the
    /// request.
    pub fn submit(&self, request: C::Request) {
        self.0.submit(request);
    }
}

impl<C: Connection> Clone for Submitter<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Connection> Drop for Workers<C> {
    fn drop(&mut self) {
        // A user that wants to know the outcome has closed the pool before.
        let _ = self.pool.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a worker of the connection pool panicked");
            }
        }
    }
}
