// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors in the terms of a disk's client.

/// The kinds of failure that a client of a disk can tell apart: exactly those of the NBD protocol
/// (`doc/proto.md`, 'Error values').
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Errno {
    /// Operation not permitted.
    Perm,
    /// Input/output error.
    Io,
    /// Cannot allocate memory.
    NoMem,
    /// Invalid argument.
    Inval,
    /// No space left on device.
    NoSpc,
    /// Value too large.
    Overflow,
    /// Operation not supported.
    NotSup,
    /// The device is being shut down.
    Shutdown,
}

impl Errno {
    /// The symbol of `errno.h`, such as `EIO`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Perm => "EPERM",
            Self::Io => "EIO",
            Self::NoMem => "ENOMEM",
            Self::Inval => "EINVAL",
            Self::NoSpc => "ENOSPC",
            Self::Overflow => "EOVERFLOW",
            Self::NotSup => "ENOTSUP",
            Self::Shutdown => "ESHUTDOWN",
        }
    }
}

/// A failed request: what the client is told, and what the log says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    errno: Errno,
    message: String,
}

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of kind `errno`, explained in one line.
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self { errno, message: message.into() }
    }

    /// The error number that the client is told.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }
}
