// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that carry out requests for those who don't want to wait.

use std::io;

use oneshot::Receiver;

use crate::request::{Done, Job};
use crate::state::Next;
use crate::sync::thread::{self, JoinHandle};
use crate::{Connection, Pool, Request};

/// As many threads as a pool has connections, so that whenever a connection is free, a thread is too. A thread that has
/// carried out a request goes on with what waits, with no change of threads. Dropping it closes the pool, and ends when
/// all requests are done.
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
        let connections = workers.pool.lock().all_slots().len();
        for number in 0..connections {
            let thread = thread::Builder::new().name(format!("worker-{number}"));
            let pool = workers.pool.clone();
            let job = pool.lock().idle_worker();
            workers.threads.push(thread.spawn(move || pool.work(job))?);
        }
        Ok(workers)
    }
}

impl<C: Connection> Workers<C> {
    /// Has a request carried out as soon as it is its turn, together with those that wait and go with it; returns at
    /// once. [`Request::complete`] is called in any case: by a worker, or at once by this thread where the pool refuses
    /// the request.
    pub fn submit(&self, request: C::Request) {
        let given = {
            let mut state = self.pool.lock();
            state.give_or_line_up(request).map(|job| job.into_iter().for_each(|job| state.employ(job)))
        };
        // Without the lock: a completion may take a while.
        if let Err((request, refusal)) = given {
            request.complete(&Err(refusal));
        }
    }

    /// The same from a thread that has nothing else to do until then: if a connection is idle, this thread does the work.
    pub fn carry_out(&self, request: C::Request) {
        let given = self.pool.lock().give_or_line_up(request);
        match given {
            Ok(Some(job)) => {
                let (guard, done) = self.pool.do_job(job);
                // First, so that a flush which anyone asks for after the answer finds the connection dirty.
                drop(guard);
                tell(done);
            }
            Ok(None) => {}
            Err((request, refusal)) => request.complete(&Err(refusal)),
        }
    }
}

impl<C: Connection> Drop for Workers<C> {
    fn drop(&mut self) {
        // Whoever wants to know its outcome has closed the pool before.
        let _ = self.pool.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a worker of the connection pool panicked");
            }
        }
    }
}

impl<C: Connection> Pool<C> {
    /// Carries out what comes until the pool is closed.
    fn work(&self, mut first: Receiver<Job<C>>) {
        while let Ok(mut job) = first.recv() {
            self.take_along(&mut job);
            let mut next = self.work_on(job);
            loop {
                match next {
                    Next::Job(job) => next = self.work_on(job),
                    Next::Wait(receiver) => {
                        first = receiver;
                        break;
                    }
                }
            }
        }
    }

    fn work_on(&self, job: Job<C>) -> Next<C> {
        let Job { slot, mut connection, request, followers } = job;
        // In a panic, too, the thread must live on, or connections could be free with nobody to use them.
        let done = self.carry_out(&mut connection, request, followers);
        let now = self.now();
        // First, so that a flush which anyone asks for after the answer finds the connection dirty. What comes next is
        // this thread's already, as it is ready for it.
        let next = self.lock().next(slot, connection, now);
        tell(done);
        next
    }
}

/// Tells everyone who is concerned. A panic ends nothing but the request.
fn tell<C: Connection>(done: Done<C>) {
    if done.tell().is_err() {
        log::error!("a request panicked");
    }
}
