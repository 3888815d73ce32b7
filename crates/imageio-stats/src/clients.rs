// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of the requests that clients have made.

use std::ops::{Add, AddAssign};

use serde::Serialize;

/// Requests of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Requests {
    /// The number of requests that were answered, also with errors. One that went to the device in
    /// pieces is one.
    pub requests: u64,
    /// The number of bytes that the successful ones are about; 0 for requests that are about no
    /// range, or that neither change nor tell its content.
    pub bytes: u64,
    /// The number of requests that were answered with an error. Zeroes that had to be fast, and
    /// can't be, are among them.
    pub errors: u64,
}

impl Requests {
    /// So many requests, about so many bytes, of which so many ended with an error.
    #[must_use]
    pub const fn new(requests: u64, bytes: u64, errors: u64) -> Self {
        Self { requests, bytes, errors }
    }
}

/// The figures of all that the clients of one transfer have asked for. Each figure is right by
/// itself; together they are, once no request is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClientStatistics {
    /// Clients that have come: connections, of which one program may have several.
    pub accepted: u64,
    /// The accepted clients that are still there.
    pub connected: u64,
    /// Reads, also those that the server was not asked for: what is known to be zero, and what was
    /// read ahead.
    pub reads: Requests,
    /// Writes, without zeroes.
    pub writes: Requests,
    /// Zeroes.
    pub zeroes: Requests,
    /// Flushes.
    pub flushes: Requests,
    /// Questions about ranges.
    pub extents: Requests,
    /// All else, such as what is not supported.
    pub others: Requests,
}

impl ClientStatistics {
    /// All kinds of request.
    pub(crate) fn kinds(&self) -> [&Requests; 6] {
        let Self { reads, writes, zeroes, flushes, extents, others, .. } = self;
        [reads, writes, zeroes, flushes, extents, others]
    }

    /// Returns true if any content was asked for or changed.
    pub(crate) fn has_moved(&self) -> bool {
        self.reads.bytes + self.writes.bytes + self.zeroes.bytes > 0
    }
}

impl AddAssign for Requests {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.errors += other.errors;
    }
}

impl Add for Requests {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl AddAssign for ClientStatistics {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.connected += other.connected;
        self.reads += other.reads;
        self.writes += other.writes;
        self.zeroes += other.zeroes;
        self.flushes += other.flushes;
        self.extents += other.extents;
        self.others += other.others;
    }
}
