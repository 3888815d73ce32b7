// SPDX-License-Identifier: MIT OR Apache-2.0
//! Statistics of a server.
//!
//! A request counts when its answer is put in line for the client, once, whether it went to the
//! device as a whole or in pieces, or was answered without the device. What was read ahead counts
//! when a client asks for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use nbd_wire::RequestHeader;
use nbd_wire::consts::{
    NBD_CMD_BLOCK_STATUS, NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES,
};

/// The statistics of a server from its start to its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Connections, whether or not their negotiation succeeded.
    pub sessions: u64,
    /// Connections that were closed at once, as their address had all the sessions that it may
    /// have.
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

/// Tells what a server has done so far: from any thread, before it runs, while it runs and
/// afterwards.
#[derive(Debug, Clone)]
pub struct Statistics {
    server: Arc<Counters>,
    exports: Vec<Arc<ExportCounters>>,
}

impl Statistics {
    pub(crate) fn new(server: &Arc<Counters>, exports: &[Arc<ExportCounters>]) -> Self {
        Self { server: Arc::clone(server), exports: exports.to_vec() }
    }

    /// The figures so far. Each is right by itself; together they are, once no request is under
    /// way.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            sessions: self.server.sessions.load(Relaxed),
            refused: self.server.refused.load(Relaxed),
            exports: self.exports.iter().map(|export| export.snapshot()).collect(),
        }
    }

    /// Returns the device's reason for the first request that has failed, in the order of exports
    /// if there are several.
    #[must_use]
    pub fn first_failure(&self) -> Option<&str> {
        self.exports.iter().find_map(|export| export.first_failure.get()).map(String::as_str)
    }
}

/// The figures of a server at some moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Connections, whether or not their negotiation succeeded.
    pub sessions: u64,
    /// Connections that were closed at once, as their address had all the sessions that it may
    /// have.
    pub refused: u64,
    /// Of each export, in the order in which they were added.
    pub exports: Vec<ExportSnapshot>,
}

/// The statistics of an export's clients up to a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportSnapshot {
    /// Clients that have chosen this export.
    pub clients: u64,
    /// The accepted clients that are still there.
    pub connected: u64,
    /// True if the last client that has left said so (NBD_CMD_DISC). One that died, or was cut off
    /// as the server stopped, may have had more to do.
    pub said_goodbye: bool,
    /// READ.
    pub reads: Requests,
    /// WRITE.
    pub writes: Requests,
    /// WRITE_ZEROES.
    pub zeroes: Requests,
    /// TRIM.
    pub trims: Requests,
    /// FLUSH.
    pub flushes: Requests,
    /// BLOCK_STATUS.
    pub block_statuses: Requests,
    /// CACHE, and what is no command.
    pub others: Requests,
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Requests {
    /// The number of requests that were answered, also with errors.
    pub requests: u64,
    /// The number of bytes that the successful ones were about: 0 but for READ, WRITE, WRITE_ZEROES
    /// and TRIM.
    pub bytes: u64,
    /// The number of requests that were answered with an error.
    pub errors: u64,
}

/// The counters that concern no export.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sessions: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// The counters of an export's clients and of their requests.
#[derive(Debug, Default)]
pub(crate) struct ExportCounters {
    clients: AtomicU64,
    connected: AtomicU64,
    said_goodbye: AtomicBool,
    first_failure: OnceLock<String>,
    kinds: [KindCounters; KINDS],
}

/// Each kind has a cache line of its own, as its requests are answered by several threads.
#[derive(Debug, Default)]
#[repr(align(64))]
struct KindCounters {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Read,
    Write,
    Zero,
    Trim,
    Flush,
    BlockStatus,
    Other,
}

const KINDS: usize = 7;

impl Kind {
    fn of(request: &RequestHeader) -> Self {
        match request.kind {
            NBD_CMD_READ => Self::Read,
            NBD_CMD_WRITE => Self::Write,
            NBD_CMD_WRITE_ZEROES => Self::Zero,
            NBD_CMD_TRIM => Self::Trim,
            NBD_CMD_FLUSH => Self::Flush,
            NBD_CMD_BLOCK_STATUS => Self::BlockStatus,
            _ => Self::Other,
        }
    }

    fn has_bytes(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::Zero | Self::Trim)
    }
}

/// A client has chosen an export, and is there as long as this lives.
pub(crate) struct Connected<'a>(&'a ExportCounters);

impl ExportCounters {
    pub(crate) fn connect(&self) -> Connected<'_> {
        count(&self.clients, 1);
        count(&self.connected, 1);
        Connected(self)
    }

    /// A client is about to leave.
    pub(crate) fn leave(&self, says_goodbye: bool) {
        self.said_goodbye.store(says_goodbye, Relaxed);
    }

    /// The device has failed to carry out a request.
    pub(crate) fn failed(&self, reason: &str) {
        self.first_failure.get_or_init(|| reason.to_owned());
    }

    /// Returns the number of clients that are connected.
    pub(crate) fn connected(&self) -> u64 {
        self.connected.load(Relaxed)
    }

    /// A request is answered.
    pub(crate) fn answered(&self, request: &RequestHeader, is_error: bool) {
        let kind = Kind::of(request);
        let counters = &self.kinds[kind as usize];
        count(&counters.requests, 1);
        match is_error {
            true => count(&counters.errors, 1),
            false if kind.has_bytes() => count(&counters.bytes, request.length),
            false => {}
        }
    }

    fn snapshot(&self) -> ExportSnapshot {
        let of = |kind: Kind| self.kinds[kind as usize].snapshot();
        ExportSnapshot {
            clients: self.clients.load(Relaxed),
            connected: self.connected.load(Relaxed),
            said_goodbye: self.said_goodbye.load(Relaxed),
            reads: of(Kind::Read),
            writes: of(Kind::Write),
            zeroes: of(Kind::Zero),
            trims: of(Kind::Trim),
            flushes: of(Kind::Flush),
            block_statuses: of(Kind::BlockStatus),
            others: of(Kind::Other),
        }
    }
}

impl KindCounters {
    fn snapshot(&self) -> Requests {
        Requests {
            requests: self.requests.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }
}

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Relaxed);
    }
}

impl Snapshot {
    pub(crate) fn outcome(&self, cut_off: u64) -> Outcome {
        let mut outcome =
            Outcome { sessions: self.sessions, refused: self.refused, cut_off, ..Outcome::default() };
        for export in &self.exports {
            let ExportSnapshot { reads, writes, zeroes, trims, flushes, block_statuses, others, .. } = export;
            for kind in [reads, writes, zeroes, trims, flushes, block_statuses, others] {
                outcome.requests += kind.requests;
                outcome.errors += kind.errors;
            }
            outcome.bytes_read += reads.bytes;
            outcome.bytes_written += writes.bytes;
        }
        outcome
    }
}

/// Counts `by` more.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}
