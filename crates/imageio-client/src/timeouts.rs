// SPDX-License-Identifier: MIT OR Apache-2.0
//! The limits of the time that a server is waited for.

use std::time::Duration;

/// The limits of the time that a server is waited for. Nothing is waited for without a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For a connection, and as much again for the TLS handshake.
    pub connect: Duration,
    /// For the next byte of a read or write or of an answer, and for an answer's head.
    pub data: Duration,
    /// For the answer to what may take a server minutes: zero, flush, extents, checksum.
    pub operation: Duration,
}

impl Timeouts {
    /// All three at once; [`Timeouts::default`] has values for servers in use.
    #[must_use]
    pub const fn new(connect: Duration, data: Duration, operation: Duration) -> Self {
        Self { connect, data, operation }
    }

    /// Changes it in one expression:
    /// `Timeouts::default().with(|timeouts| timeouts.connect = connect)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Default for Timeouts {
    /// 10 s, 60 s, 15 min.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            data: Duration::from_secs(60),
            operation: Duration::from_secs(15 * 60),
        }
    }
}
