// SPDX-License-Identifier: MIT OR Apache-2.0
//! The connections of a pool, as their user implements them.

use std::fmt;

use crate::error::{Failure, Panicked};
use crate::request::{Group, PoolRequest};

/// A connection of the pool.
pub trait Connection: Send {
    /// Why work fails. It is cloned to everyone concerned. A panic becomes one, too.
    type Error: Clone + Send + From<Panicked>;

    /// A request that [`Pool::run`](crate::Pool::run) and [`Workers`](crate::Workers) carry out on
    /// it.
    type Request: PoolRequest<Error = Self::Error>;

    /// Carries out a task. After a panic, nobody knows what the connection has done: the pool fails
    /// for good.
    ///
    /// # Errors
    /// [`Failure`] tells whom it concerns.
    fn carry_out(&mut self, task: Task<'_, Self::Request>) -> Result<(), Failure<Self::Error>>;

    /// Returns its state. It must be [`Dirty`](State::Dirty) before the work that makes it so is
    /// acknowledged to anyone. This is asked under the pool's lock, and may change from dirty to
    /// full while the connection is idle.
    fn state(&self) -> State;

    /// Returns the number of connections that requests should have at a time, at least one: all,
    /// unless an implementation says otherwise. Requests beyond that wait for one of these, and the
    /// other connections stay idle, but for flushes and keep-alives. The pool asks each connection
    /// that comes back, under its lock, and goes by the last answer.
    fn concurrency(&self) -> usize {
        usize::MAX
    }
}

/// A task is something to be done on a connection.
pub enum Task<'a, R: PoolRequest> {
    /// Requests that go together. Where one of them can't be carried out
    /// ([`Affected::One`](crate::Affected::One)), each comes again as a group of its own, so it
    /// must still have what it needs.
    Requests(&'a mut Group<R>),
    /// Makes all earlier work on this connection safe, as someone waits for that.
    Flush,
    /// Makes all earlier work on this connection safe, since it is [`Full`](State::Full). Nobody
    /// waits for that, and the connection should not be full any more afterwards.
    FlushInBackground,
    /// Uses the connection so that the server doesn't close it, and opens it if it is
    /// [`Closed`](State::Closed). A connection that was lost with nothing at stake is no error.
    KeepAlive,
}

impl<R: PoolRequest> fmt::Debug for Task<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests(group) => f.debug_tuple("Requests").field(group).finish(),
            Self::Flush => f.write_str("Flush"),
            Self::FlushInBackground => f.write_str("FlushInBackground"),
            Self::KeepAlive => f.write_str("KeepAlive"),
        }
    }
}

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is not open, and nothing is at stake.
    Closed,
    /// It is open, and nothing is at stake.
    Clean,
    /// It has carried acknowledged work that only a flush makes safe.
    Dirty,
    /// It is dirty, and should be flushed soon: by the next request, or by the
    /// [`Keeper`](crate::Keeper).
    Full,
}

impl State {
    /// Returns true if only a flush makes its work safe.
    pub(crate) fn is_dirty(self) -> bool {
        self >= Self::Dirty
    }
}
