// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the server's errors to a disk's.

use std::{fmt, io};

use block_device_traits::{Errno, Error};
use conn_pool::{Panicked, PoolError};
use imageio_client::StatusCode;

use crate::recovery::Asked;

/// The reason why a transfer can't be opened: one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Reaching the server or using the ticket failed.
    #[error("{0}")]
    Client(#[from] imageio_client::Error),

    /// There is no URL where it was to be read from.
    #[error("url={from}: {reason}")]
    UrlFile {
        /// `+` and the file, or `-` for standard input.
        from: String,
        /// The reason why there is none.
        reason: String,
    },

    /// The ticket doesn't allow writing.
    #[error(
        "the ticket allows reading only: open it read-only (-r), or ask for a transfer that allows upload"
    )]
    ReadOnlyTicket,

    /// The size is not known.
    #[error("the server doesn't tell the size of the disk: give it with size=BYTES")]
    UnknownSize,

    /// The server's extents don't fit the disk.
    #[error(
        "the server's extents end at {end}, and the disk at {size}: the size that is given with size= must be the disk's"
    )]
    Extents {
        /// The end of the server's extents, in bytes.
        end: u64,
        /// The size that was given, or that the server has told, in bytes.
        size: u64,
    },

    /// No thread for the keeper.
    #[error("cannot start the keeper of the connection pool: {0}")]
    Keeper(io::Error),
}

impl OpenError {
    /// Returns true if this host has no way to the server, so that another URL may lead there.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        use imageio_client::Error::{Connect, Resolve, Tls};
        matches!(self, Self::Client(Resolve { .. } | Connect { .. } | Tls { broken: true, .. }))
    }

    /// Returns true if the server knows no such ticket, or one that has expired (status 403).
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Client(error) if error.status().is_some_and(|status| status.as_u16() == 403))
    }
}

/// The reason why a request failed, as the pool knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause(pub(crate) Error);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Panicked> for Cause {
    /// Nobody knows what became of the request.
    fn from(panicked: Panicked) -> Self {
        Self(Error::new(Errno::Io, format!("data may be lost: bug: {panicked}")))
    }
}

/// An error of the client as one of the device. The same answer means different things to a reader
/// and a writer.
pub(crate) fn device_error(asked: Asked, error: &imageio_client::Error) -> Error {
    Error::new(errno(asked, error), error.to_string())
}

fn errno(asked: Asked, error: &imageio_client::Error) -> Errno {
    match error.status() {
        Some(StatusCode::FORBIDDEN) => Errno::Perm,
        Some(StatusCode::RANGE_NOT_SATISFIABLE) if asked == Asked::Change => Errno::NoSpc,
        Some(StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::BAD_REQUEST) => Errno::Inval,
        _ => Errno::Io,
    }
}

/// The pool's error as one of the device.
pub(crate) fn pool_error(error: PoolError<Cause>) -> Error {
    match error {
        PoolError::Failed(Cause(error)) | PoolError::Refused(Cause(error)) => error,
        PoolError::Closed => Error::new(Errno::Shutdown, "the transfer is being closed"),
    }
}
