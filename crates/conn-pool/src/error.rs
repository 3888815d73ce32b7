// SPDX-License-Identifier: MIT OR Apache-2.0
//! The outcomes of work.

use std::any::Any;

/// Why a task failed, and whom that concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<E> {
    /// The error that everyone who is affected is told.
    pub error: E,
    /// The requests that the failure affects.
    pub affected: Affected,
}

/// The requests that a failure concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affected {
    /// One request of the group can't be carried out, and nobody knows which. Each request of the
    /// group is then carried out alone, on the same connection. A request that was alone is
    /// refused.
    One,
    /// All requests of the group fail. Requests of other groups may succeed.
    Group,
    /// Earlier work may be lost, so every later request fails, too.
    Pool,
}

/// The outcome of a request or a flush.
pub type Outcome<E> = Result<(), PoolError<E>>;

/// Why a request or a flush failed. These are all the reasons there can be, so that callers handle
/// each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError<E> {
    /// Work may be lost, by this request or by an earlier one.
    #[error("{0}")]
    Failed(E),
    /// The pool has been closed.
    #[error("the connection pool is closed")]
    Closed,
    /// The request failed; others may succeed.
    #[error("{0}")]
    Refused(E),
}

impl<E> From<Failure<E>> for PoolError<E> {
    fn from(failure: Failure<E>) -> Self {
        match failure.affected {
            Affected::One | Affected::Group => Self::Refused(failure.error),
            Affected::Pool => Self::Failed(failure.error),
        }
    }
}

/// A thread panicked while it used a connection. Nobody knows what it had done by then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a thread panicked: {0}")]
pub struct Panicked(String);

impl Panicked {
    /// Takes the message out of what [`catch_unwind`](std::panic::catch_unwind) returns.
    pub(crate) fn new(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Self(text.unwrap_or("without a message").to_owned())
    }
}
