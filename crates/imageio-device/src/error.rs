// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the server's errors to a disk's.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use block_device_traits::{Errno, Error};
use conn_pool::{Panicked, PoolError};
use error_reporter::Report;
use imageio_client::StatusCode;

use crate::recovery::Asked;

/// The reason why a transfer can't be opened. The text is one line. A cause isn't repeated in it:
/// it is the [source](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Reaching the server or using the ticket failed.
    #[error(transparent)]
    Client(#[from] imageio_client::Error),

    /// There is no URL where it was to be read from.
    #[error("cannot read the transfer URL from {}", place(file.as_deref()))]
    UrlFile {
        /// The file, or `None` for standard input.
        file: Option<PathBuf>,
        /// The reason why there is none.
        source: io::Error,
    },

    /// The ticket doesn't allow writing.
    #[error("the ticket allows reading only")]
    ReadOnlyTicket,

    /// The size is not known.
    #[error("the server doesn't tell the size of the disk")]
    UnknownSize,

    /// The server's extents don't fit the disk.
    #[error("the server's extents end at {end}, and the disk at {size}")]
    Extents {
        /// The end of the server's extents, in bytes.
        end: u64,
        /// The size that was given, or that the server has told, in bytes.
        size: u64,
    },

    /// No thread for the keeper.
    #[error("cannot start the keeper of the connection pool")]
    Keeper(#[source] io::Error),
}

impl OpenError {
    /// Returns true if this host has no way to the server, so that another URL may lead there.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        use imageio_client::Error::{Connect, Resolve, Tls};
        use imageio_client::TlsError::Broken;
        matches!(self, Self::Client(Resolve { .. } | Connect { .. } | Tls { source: Broken(_), .. }))
    }

    /// Returns true if the server knows no such ticket, or one that has expired (status 403).
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Client(error) if error.status().is_some_and(|status| status.as_u16() == 403))
    }
}

/// Names the place from which a URL was to be read.
fn place(file: Option<&Path>) -> String {
    file.map_or_else(|| "standard input".to_owned(), |file| file.display().to_string())
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

/// An error of the client, with its causes, as one of the device. The same answer means different
/// things to a reader and a writer.
pub(crate) fn device_error(asked: Asked, error: &imageio_client::Error) -> Error {
    Error::new(errno(asked, error), Report::new(error).to_string())
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
