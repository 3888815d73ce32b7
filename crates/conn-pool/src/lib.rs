// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fixed pool of connections, for servers that close idle connections and where only a flush on the *same*
//! connection makes written data safe.
//!
//! # Invariants
//! - One lock, `State`. It is never held while a connection is used or a channel is waited on.
//! - A connection is in one of three places: in its slot (idle), with a guard or on the way to one (busy), or gone
//!   (after [`Pool::close`]). An idle connection never coexists with a waiter that wants it.
//! - Whoever waits holds no connection. So no cycle of waiting exists, whatever the callers do, as long as a thread
//!   doesn't ask for a second connection while it holds a guard.
//! - Waiters are served in the order of their tickets. A flush keeps its ticket for all its connections.
//! - A failure, once set, stays: data may be lost, and no later success may hide that.
//!
//! # Requests that wait together
//! A request that finds an idle connection has it at once; nothing waits for company. When a connection comes free, the
//! first in line gets it and takes along those that wait and can be carried out with it ([`Request::merge`]), from
//! anywhere in the line up to the first flush that waits for this connection: a flush is never passed. A thread that
//! had to be woken for the work takes along once more: it may have come to its turn much later.
//!
//! [`Pool::run`] lets others have the processor once before the work, and once after it: then everyone has been told, and
//! the connection is about to come back, so those that come again may be in line for it by then.
//!
//! # Flushing in the background
//! A connection that [wants to be flushed](Connection::wants_flush) when it comes back is given to whoever waits for it,
//! else to the keeper, if that waits for work: so one at a time is flushed, and the others go on. Idle ones that want it
//! are given to the keeper when it begins to wait, and when another connection comes back. Who is given one may have its
//! request flush it.
//!
//! # Who does the work
//! [`Pool::run`] does it in the thread that asks: right for callers that have a thread for each request anyway. Others
//! hand their requests to [`Workers`], and are told by [`Request::complete`].

mod flush;
mod keeper;
mod pool;
mod request;
mod state;
mod sync;
mod workers;

pub use keeper::Keeper;
pub use pool::{Guard, Pool};
pub use request::{Failure, Outcome, Request};
pub use workers::Workers;

use std::sync::Arc;
use std::time::Instant;

/// What the pool has to know of a connection.
pub trait Connection: Send {
    /// Why work on a connection fails. It is cloned to everyone who has to know.
    type Error: Clone + Send;

    /// What is carried out on it by [`Pool::run`] and [`Workers`]. `()` where neither is used.
    type Request: Request<Self::Error>;

    /// Carries out a request with all that was merged into it.
    ///
    /// # Errors
    /// [`Failure`]. It need not have failed for all that were merged, but none may rely on it.
    fn carry_out(&mut self, request: &mut Self::Request) -> Result<(), Failure<Self::Error>>;

    /// Whether it carried work that only [`flush`](Self::flush) makes safe. This must become true before the work is
    /// acknowledged to anyone.
    fn is_dirty(&self) -> bool;

    /// Whether it should be flushed soon: by the next request, or by the [`Keeper`] if that is free. It is asked under the
    /// pool's lock, and may change while the connection is idle.
    fn wants_flush(&self) -> bool {
        false
    }

    /// Makes all earlier work on this connection safe.
    ///
    /// # Errors
    /// That work may be lost.
    fn flush(&mut self) -> Result<(), Self::Error>;

    /// The same, by the [`Keeper`], since the connection [wants it](Self::wants_flush). It should not want it any more then.
    ///
    /// # Errors
    /// That work may be lost.
    fn flush_in_background(&mut self) -> Result<(), Self::Error> {
        self.flush()
    }

    /// Uses the connection so that the server doesn't close it.
    ///
    /// # Errors
    /// Work may be lost, or no later request can succeed. A connection that was lost with nothing at stake is no error.
    fn keep_alive(&mut self) -> Result<(), Self::Error>;
}

/// Tells the time: `Instant::now`, or a test's own clock.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// Why the pool gives no connection, or a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError<E> {
    /// An earlier failure may have lost data.
    #[error("{0}")]
    Failed(E),
    /// The pool has been closed.
    #[error("the connection pool is closed")]
    Closed,
    /// The request failed; others may succeed.
    #[error("{0}")]
    Refused(E),
    /// The thread that carried out the request panicked.
    #[error("the thread that carried out this request panicked")]
    Abandoned,
}
