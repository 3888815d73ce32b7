// SPDX-License-Identifier: MIT OR Apache-2.0
//! The error numbers of the transmission phase.

/// The errors a reply can carry; the discriminants are the numbers on the wire ('Error values').
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ErrorValue {
    /// Operation not permitted.
    Perm = 1,
    /// Input/output error.
    Io = 5,
    /// Cannot allocate memory; the protocol asks servers to avoid it.
    NoMem = 12,
    /// Invalid argument.
    Inval = 22,
    /// No space left on device.
    NoSpc = 28,
    /// Value too large; only for lengths that could be split.
    Overflow = 75,
    /// Operation not supported; only for fast zeroes.
    NotSup = 95,
    /// The server is being shut down.
    Shutdown = 108,
}

impl ErrorValue {
    /// The number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self as u32
    }

    /// The protocol's name, such as `NBD_EIO`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Perm => "NBD_EPERM",
            Self::Io => "NBD_EIO",
            Self::NoMem => "NBD_ENOMEM",
            Self::Inval => "NBD_EINVAL",
            Self::NoSpc => "NBD_ENOSPC",
            Self::Overflow => "NBD_EOVERFLOW",
            Self::NotSup => "NBD_ENOTSUP",
            Self::Shutdown => "NBD_ESHUTDOWN",
        }
    }
}

impl std::fmt::Display for ErrorValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
