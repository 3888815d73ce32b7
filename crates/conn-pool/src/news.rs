// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages to those who wait for a request, for work or for a flush.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use oneshot::{Receiver, Sender};

use crate::connection::Connection;
use crate::error::{Outcome, PoolError};
use crate::flushes::Followers;
use crate::line::{Gathered, Slot};
use crate::request::PoolRequest;
use crate::sync::mpsc;

/// A connection that someone was given, and what to carry out on it.
pub(crate) struct Job<C: Connection> {
    pub(crate) slot: Slot,
    pub(crate) connection: C,
    pub(crate) gathered: Gathered<C::Request, Waiter<C>>,
}

/// A message to a thread that waits for its request.
pub(crate) enum News<C: Connection> {
    /// It is this one's turn, and it carries out its own request and those that go with it.
    Job(Job<C>),
    /// Its request is done.
    Done(Outcome<C::Error>),
}

/// A thread that waits for its request.
pub(crate) type Waiter<C> = Sender<News<C>>;

/// A message to a worker that waits for work.
pub(crate) enum Order<C: Connection> {
    Job(Job<C>),
    /// It leads a flush for those that are submitted.
    Flush,
    /// It does a part of the work of another thread, which visits several connections.
    Visit(Visited<C>),
}

/// A connection that a thread has visited, and what is to be done with it.
pub(crate) struct Visited<C: Connection> {
    pub(crate) slot: Slot,
    pub(crate) connection: C,
    pub(crate) purpose: Purpose,
    /// It is told when the connection is given back, or gone.
    pub(crate) told: mpsc::Sender<Outcome<C::Error>>,
}

/// The purpose for which someone wants certain connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A failure ends it.
    Flush,
    /// Each connection has to come back, also after a failure.
    Close,
}

/// The outcome of asking for certain connections.
pub(crate) enum Visit<C> {
    Now(Slot, C),
    /// One comes here, or the channel is closed: then none will.
    Later(Receiver<(Slot, C)>),
}

impl<C> Visit<C> {
    /// Waits for one, without the lock.
    pub(crate) fn wait(self) -> Option<(Slot, C)> {
        match self {
            Self::Now(slot, connection) => Some((slot, connection)),
            Self::Later(receiver) => receiver.recv().ok(),
        }
    }
}

/// The next order of a worker.
pub(crate) enum NextOrder<C: Connection> {
    Job(Job<C>),
    /// Its order comes here, or the channel is closed: then the work is over.
    Wait(Receiver<Order<C>>),
}

/// A message to a thread that waits for its flush.
pub(crate) enum FlushNews<E> {
    /// A flush that began after this one was asked for has ended so.
    Done(Outcome<E>),
    /// It leads a flush, for itself and all that wait.
    Lead,
}

/// A thread that waits for its flush.
pub(crate) type FlushWaiter<E> = Sender<FlushNews<E>>;

/// The callback for the end of a submitted flush.
pub(crate) type FlushCompletion<E> = Box<dyn FnOnce(Outcome<E>) + Send>;

/// The threads and completions that share a flush.
pub(crate) type FlushFollowers<C> =
    Followers<FlushWaiter<<C as Connection>::Error>, FlushCompletion<<C as Connection>::Error>>;

/// The role of a thread that has asked for a flush.
pub(crate) enum AskedFlush<C: Connection> {
    /// It leads one, for itself and all that wait.
    Lead,
    /// It is told of the next here.
    Wait(Receiver<FlushNews<C::Error>>),
}

/// A submitted flush that is not carried out, and why.
pub(crate) struct RefusedFlush<C: Connection> {
    pub(crate) completion: FlushCompletion<C::Error>,
    pub(crate) refusal: PoolError<C::Error>,
}

/// Requests that nobody carries out any more, and whose outcome nobody knows yet.
pub(crate) struct Done<C: Connection> {
    requests: Vec<(C::Request, Outcome<C::Error>)>,
    waiters: Vec<(Waiter<C>, Outcome<C::Error>)>,
}

impl<C: Connection> Done<C> {
    /// Requests with their outcomes, and as many who wait for them.
    pub(crate) fn new(
        requests: Vec<(C::Request, Outcome<C::Error>)>,
        waiters: VecDeque<Option<Waiter<C>>>,
    ) -> Self {
        let each = waiters.into_iter().zip(&requests);
        let waiters = each.filter_map(|(waiter, (_, outcome))| Some((waiter?, outcome.clone()))).collect();
        Self { requests, waiters }
    }

    /// Requests that were not carried out.
    pub(crate) fn refused(
        requests: impl IntoIterator<Item = (C::Request, Option<Waiter<C>>)>,
        refusal: &PoolError<C::Error>,
    ) -> Self {
        let refuse = |(request, waiter)| ((request, Err(refusal.clone())), waiter);
        let (requests, waiters) = requests.into_iter().map(refuse).unzip();
        Self::new(requests, waiters)
    }

    /// Tells a new request that it won't be carried out.
    pub(crate) fn refuse(request: C::Request, refusal: &PoolError<C::Error>) {
        Self::refused([(request, None)], refusal).notify();
    }

    /// Returns the outcome of the request at this place.
    pub(crate) fn outcome(&self, place: usize) -> Outcome<C::Error> {
        self.requests[place].1.clone()
    }

    /// Tells everyone. Threads come last, as they may have lent memory by their requests.
    pub(crate) fn notify(self) {
        if !self.requests.is_empty() {
            harmless(|| C::Request::complete(self.requests));
        }
        for (waiter, outcome) in self.waiters {
            // A waiter is only gone where its thread is.
            let _ = waiter.send(News::Done(outcome));
        }
    }
}

impl<E: Clone> Followers<FlushWaiter<E>, FlushCompletion<E>> {
    /// Tells all how their flush has ended.
    pub(crate) fn notify(self, outcome: &Outcome<E>) {
        for completion in self.submitted {
            complete_flush(completion, outcome.clone());
        }
        for waiter in self.threads {
            // A waiter is only gone where its thread is.
            let _ = waiter.send(FlushNews::Done(outcome.clone()));
        }
    }
}

/// Tells of the end of a submitted flush.
pub(crate) fn complete_flush<E>(completion: FlushCompletion<E>, outcome: Outcome<E>) {
    harmless(|| completion(outcome));
}

/// Calls a completion, whose panic must not keep others from being told.
fn harmless(completion: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(completion)).is_err() {
        log::error!("a completion panicked");
    }
}
