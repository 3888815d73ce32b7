// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server has done.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a server has done from start to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Connections, whether or not their negotiation succeeded.
    pub sessions: u64,
    /// Connections that were closed at once, as their address had all the sessions that it may have.
    pub refused: u64,
    /// Requests answered.
    pub requests: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Bytes that clients have read.
    pub bytes_read: u64,
    /// Bytes that clients have written, without zeroes.
    pub bytes_written: u64,
    /// Sessions that were cut off at the end of the grace period.
    pub cut_off: u64,
}

/// The same while the server runs.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sessions: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) bytes_read: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    /// The clients that have chosen an export and not left yet.
    pub(crate) clients: AtomicU64,
}

/// A client that is there until this is dropped.
pub(crate) struct Present<'a>(&'a Counters);

impl Counters {
    /// A client has chosen an export.
    pub(crate) fn enter(&self) -> Present<'_> {
        self.clients.fetch_add(1, Relaxed);
        Present(self)
    }

    /// The numbers so far.
    pub(crate) fn outcome(&self, cut_off: u64) -> Outcome {
        Outcome {
            sessions: self.sessions.load(Relaxed),
            refused: self.refused.load(Relaxed),
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            cut_off,
        }
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Relaxed);
    }
}

/// Counts `by` more.
pub(crate) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Relaxed);
}
