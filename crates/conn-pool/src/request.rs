// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests, and carrying out several as one.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread::Result as Ended;

use oneshot::Sender;

use crate::pool::Guard;
use crate::state::{Hand, Slot};
use crate::sync::thread;
use crate::{Connection, Pool, PoolError};

/// How a request ended.
pub type Outcome<E> = Result<(), PoolError<E>>;

/// Work for a connection, that may be carried out together with other work that waits.
pub trait Request<E>: Send + Sized {
    /// Whether `other` can be carried out with this one. It is asked under the pool's lock.
    fn goes_with(&self, other: &Self) -> bool;

    /// Takes in `other`, which goes with this one. This happens under the pool's lock.
    fn merge(&mut self, other: Self);

    /// The request is done, as are all that were merged into it. Whoever waits for it otherwise than in [`Pool::run`]
    /// is to be told now. It is called without any lock, but maybe with a connection: it should not block, nor wait for
    /// one.
    fn complete(self, outcome: &Outcome<E>);
}

/// No work: for pools whose connections are only taken.
impl<E> Request<E> for () {
    fn goes_with(&self, _: &Self) -> bool {
        false
    }

    fn merge(&mut self, (): Self) {}

    fn complete(self, _: &Outcome<E>) {}
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<E> {
    /// What everyone is told who waits for the request.
    pub error: E,
    /// Earlier work may be lost, so no later request may succeed.
    pub is_fatal: bool,
}

/// A connection that someone was given to carry out a request.
pub(crate) struct Job<C: Connection> {
    pub(crate) slot: Slot,
    pub(crate) connection: C,
    /// Its own and all that were merged into it.
    pub(crate) request: C::Request,
    /// Threads that wait for the outcome. They are told, or sent away, after the request has gone, by which they may
    /// have lent memory; so the order of these fields matters.
    pub(crate) followers: Followers<C>,
}

/// A job that was carried out, and whose outcome nobody knows yet.
pub(crate) struct Done<C: Connection> {
    request: C::Request,
    followers: Followers<C>,
    /// An error is what a panic said.
    ended: Ended<Outcome<C::Error>>,
}

impl<C: Connection> Done<C> {
    /// Tells everyone, once the connection is back, or known to be dirty.
    pub(crate) fn tell(self) -> Ended<Outcome<C::Error>> {
        let outcome = self.ended.as_ref().cloned().unwrap_or(Err(PoolError::Abandoned));
        complete(self.request, &outcome);
        self.followers.tell(&outcome);
        self.ended
    }
}

/// Threads whose requests were merged into another's.
pub(crate) struct Followers<C: Connection>(Vec<Sender<Hand<C>>>);

impl<C: Connection> Followers<C> {
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, follower: Sender<Hand<C>>) {
        self.0.push(follower);
    }

    fn append(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    pub(crate) fn tell(self, outcome: &Outcome<C::Error>) {
        for follower in self.0 {
            // It is only gone where its thread is.
            let _ = follower.send(Hand::Done(outcome.clone()));
        }
    }
}

/// Completes a request, whose panic must not keep others from being told.
pub(crate) fn complete<E>(request: impl Request<E>, outcome: &Outcome<E>) {
    if catch_unwind(AssertUnwindSafe(|| request.complete(outcome))).is_err() {
        log::error!("a completion panicked");
    }
}

impl<C: Connection> Pool<C> {
    /// Carries out a request as soon as it is this one's turn, together with those that wait and go with it; or waits
    /// while another does so. What the request holds is dropped by the time this returns.
    ///
    /// # Errors
    /// [`PoolError`].
    pub fn run(&self, request: C::Request) -> Outcome<C::Error> {
        let mut job = match self.line_up(request)? {
            Hand::Done(outcome) => return outcome,
            Hand::Job(job) => job,
            Hand::Connection(..) => unreachable!("who waits with a request gets a job"),
        };
        // Threads that are ready to run, and only wait for a processor, may be about to line up with what goes with
        // this. Where processors are idle, none is, and this returns at once.
        thread::yield_now();
        self.take_along(&mut job);
        let (guard, done) = self.do_job(job);
        // First, so that a flush which anyone asks for after the answer waits for this connection.
        self.lock().acknowledge(guard.slot, guard.is_dirty());
        let ended = done.tell();
        // Those that were told come again: what is in line when the connection comes back can go together.
        thread::yield_now();
        drop(guard);
        ended.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Carries out a job in this thread.
    pub(crate) fn do_job(&self, job: Job<C>) -> (Guard<'_, C>, Done<C>) {
        let Job { slot, connection, request, followers } = job;
        let mut guard = self.guard((slot, connection));
        let done = self.carry_out(&mut guard, request, followers);
        (guard, done)
    }

    /// Carries out a request. After a panic, too, its followers are told, and in the right order.
    pub(crate) fn carry_out(
        &self,
        connection: &mut C,
        mut request: C::Request,
        followers: Followers<C>,
    ) -> Done<C> {
        let ended = catch_unwind(AssertUnwindSafe(|| self.attempt(connection, &mut request)));
        Done { request, followers, ended }
    }

    /// Merges what has come since the connection was given out: between that and the work, threads may have changed.
    pub(crate) fn take_along(&self, job: &mut Job<C>) {
        let more = self.lock().merge_into(&mut job.request, job.slot);
        job.followers.append(more);
    }

    /// A fatal failure is known to the pool before the connection goes back, so that nobody takes it unaware.
    fn attempt(&self, connection: &mut C, request: &mut C::Request) -> Outcome<C::Error> {
        connection.carry_out(request).map_err(|Failure { error, is_fatal }| {
            if !is_fatal {
                return PoolError::Refused(error);
            }
            self.fail(error.clone());
            PoolError::Failed(error)
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    struct Idle;

    impl Connection for Idle {
        type Error = String;
        type Request = Text;

        fn carry_out(&mut self, _: &mut Text) -> Result<(), Failure<String>> {
            Ok(())
        }

        fn is_dirty(&self) -> bool {
            false
        }

        fn flush(&mut self) -> Result<(), String> {
            Ok(())
        }

        fn keep_alive(&mut self) -> Result<(), String> {
            Ok(())
        }
    }

    /// Any two go together.
    #[derive(Debug, PartialEq)]
    struct Text(&'static str, Vec<&'static str>);

    impl Request<String> for Text {
        fn goes_with(&self, _: &Self) -> bool {
            true
        }

        fn merge(&mut self, other: Self) {
            self.1.push(other.0);
        }

        fn complete(self, _: &Outcome<String>) {}
    }

    #[test]
    fn what_comes_before_the_work_begins_is_taken_along() {
        let pool = Pool::new([Idle], Arc::new(Instant::now));
        let Ok(Hand::Job(mut job)) = pool.line_up(Text("first", vec![])) else { panic!("it is idle") };
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.run(Text("second", vec![])));
            while pool.waiting() == 0 {
                thread::yield_now();
            }
            pool.take_along(&mut job);
            assert_eq!((&job.request, pool.waiting()), (&Text("first", vec!["second"]), 0));
            job.followers.tell(&Ok(()));
            assert_eq!(waiting.join().map_err(drop), Ok(Ok(())));
        });
    }
}
