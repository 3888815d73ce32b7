// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long to wait for a server.

use std::time::Duration;

/// How long to wait. Never for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, and as much again for the TLS handshake.
    pub connect: Duration,
    /// For the next byte of a read or write or of an answer, and for an answer's head.
    pub data: Duration,
    /// For the answer to what may take a server minutes: zero, flush, extents, checksum.
    pub operation: Duration,
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
