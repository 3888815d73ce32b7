// SPDX-License-Identifier: MIT OR Apache-2.0
//! The number of requests, and the time that they took.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use imageio_stats::{ClientStatistics, Requests};

/// The kinds of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
    Zero,
    Flush,
    Extents,
}

const ALL: [Operation; 5] =
    [Operation::Read, Operation::Write, Operation::Zero, Operation::Flush, Operation::Extents];

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Zero => "zero",
            Self::Flush => "flush",
            Self::Extents => "extents",
        }
    }
}

/// Of one kind of request. Each number is right by itself; together they are, once no request is
/// under way.
struct Counters {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
    longest: AtomicU64,
}

impl Counters {
    const fn new() -> Self {
        Self {
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            longest: AtomicU64::new(0),
        }
    }

    fn count(&self, bytes: u64, took: Duration, succeeded: bool) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.requests.fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
        self.longest.fetch_max(nanos, Relaxed);
        let (counter, n) = if succeeded { (&self.bytes, bytes) } else { (&self.errors, 1) };
        counter.fetch_add(n, Relaxed);
    }

    fn reset(&self) {
        for counter in [&self.requests, &self.bytes, &self.errors, &self.nanos, &self.longest] {
            counter.store(0, Relaxed);
        }
    }

    fn requests(&self) -> Requests {
        Requests::new(self.requests.load(Relaxed), self.bytes.load(Relaxed), self.errors.load(Relaxed))
    }

    fn line(&self, name: &str) -> String {
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        let requests = self.requests.load(Relaxed);
        let total = seconds(self.nanos.load(Relaxed));
        let mean = total * 1e3 / requests.max(1) as f64;
        let longest = seconds(self.longest.load(Relaxed)) * 1e3;
        let (bytes, errors) = (self.bytes.load(Relaxed), self.errors.load(Relaxed));
        format!(
            "imageio: {name:<9} {requests:>9} {bytes:>15} {errors:>7} {total:>9.3} {mean:>9.3} {longest:>9.3}"
        )
    }
}

static COUNTERS: [Counters; 5] = [const { Counters::new() }; 5];

/// Clients that have come.
static ACCEPTED: AtomicU64 = AtomicU64::new(0);

/// Clients that are there.
static CONNECTED: AtomicU64 = AtomicU64::new(0);

/// A client is there as long as this lives.
pub(crate) struct Connected(());

impl Connected {
    /// One has come.
    pub(crate) fn new() -> Self {
        ACCEPTED.fetch_add(1, Relaxed);
        CONNECTED.fetch_add(1, Relaxed);
        Self(())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        CONNECTED.fetch_sub(1, Relaxed);
    }
}

/// Takes note of a request that is done. Bytes count where it succeeded.
pub(crate) fn count(operation: Operation, bytes: u64, took: Duration, succeeded: bool) {
    COUNTERS[operation as usize].count(bytes, took, succeeded);
}

/// Forgets all.
pub(crate) fn reset() {
    COUNTERS.iter().for_each(Counters::reset);
    ACCEPTED.store(0, Relaxed);
    CONNECTED.store(0, Relaxed);
}

/// Translates the counters of clients' requests into the words of both doors.
pub(crate) fn clients() -> ClientStatistics {
    let requests = |operation: Operation| COUNTERS[operation as usize].requests();
    let mut clients = ClientStatistics::default();
    clients.accepted = ACCEPTED.load(Relaxed);
    clients.connected = CONNECTED.load(Relaxed);
    clients.reads = requests(Operation::Read);
    clients.writes = requests(Operation::Write);
    clients.zeroes = requests(Operation::Zero);
    clients.flushes = requests(Operation::Flush);
    clients.extents = requests(Operation::Extents);
    // A question moves no content.
    clients.extents.bytes = 0;
    clients
}

/// A table, line by line. The time is that of all requests added up, also of those that ran side by
/// side.
pub(crate) fn table() -> Vec<String> {
    let head = "imageio: operation  requests           bytes  errors    time s   mean ms    max ms";
    let lines = ALL.iter().map(|&operation| COUNTERS[operation as usize].line(operation.name()));
    std::iter::once(head.to_owned()).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_lines_up_with_the_head() {
        let counters = Counters::new();
        counters.count(4096, Duration::from_millis(2), true);
        counters.count(4096, Duration::from_millis(4), false);
        let line = counters.line("write");
        assert_eq!(line.len(), table()[0].len());
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["imageio:", "write", "2", "4096", "1", "0.006", "3.000", "4.000"]);
    }
}
