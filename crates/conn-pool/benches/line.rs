// SPDX-License-Identifier: MIT OR Apache-2.0
//! What it costs to wait in the pool's line, and to be merged there. `tests/instructions.rs` counts its instructions.

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::{self, Thread};
use std::time::Instant;

use conn_pool::{Connection, Failure, Outcome, Pool, Request, Workers};

/// Requests that wait, of which all but a few belong to sequential streams.
const WAITING: u64 = 256;
const STREAMS: u64 = 4;
/// One of so many goes with no other.
const LONER: u64 = 32;
const LEN: u64 = 256 << 10;
/// How long they become by merging.
const LIMIT: u64 = 4 << 20;

/// What goes out: each stream of 62 requests as three of 16 and one of 14.
const CARRIED_OUT: u64 = STREAMS * 4 + WAITING / LONER;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo's own arguments aren't numbers.
    let iterations = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(100);
    let counts = Arc::new(Counts::new());
    let pool = Pool::new([Counting(Arc::clone(&counts))], Arc::new(Instant::now));
    let workers = Workers::start(pool.clone())?;
    let started = Instant::now();
    for iteration in 1..=iterations {
        let guard = pool.get()?;
        for number in 0..WAITING {
            workers.submit(Range::new(number, &counts));
        }
        drop(guard);
        // The worker has the lock to itself: to contend for it would cost now more, now less.
        while counts.completed.load(SeqCst) < u64::from(iteration) * WAITING {
            thread::park();
        }
    }
    let each = started.elapsed() / iterations;
    assert_eq!(counts.carried_out.load(SeqCst), u64::from(iterations) * CARRIED_OUT, "they were merged");
    writeln!(io::stdout(), "line: {each:?} for {WAITING} requests")?;
    Ok(())
}

struct Counts {
    carried_out: AtomicU64,
    completed: AtomicU64,
    /// Waits for all that it has submitted.
    submitter: Thread,
}

impl Counts {
    fn new() -> Self {
        Self { carried_out: AtomicU64::new(0), completed: AtomicU64::new(0), submitter: thread::current() }
    }
}

/// Does nothing but count.
struct Counting(Arc<Counts>);

impl Connection for Counting {
    type Error = Infallible;
    type Request = Range;

    fn carry_out(&mut self, _: &mut Range) -> Result<(), Failure<Self::Error>> {
        self.0.carried_out.fetch_add(1, SeqCst);
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        false
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Merged as the requests of `imageio-device` are, and as large, as they are moved in the line. It has no memory of its
/// own: what `malloc` takes depends on which thread was when where.
struct Range {
    offset: u64,
    len: u64,
    requests: u64,
    _work: [u64; 7],
    counts: Arc<Counts>,
}

impl Range {
    /// The streams take turns. Who is alone is far from all others.
    fn new(number: u64, counts: &Arc<Counts>) -> Self {
        let in_streams = number - number / LONER;
        let offset = match number % LONER {
            0 => (number + STREAMS) << 40,
            _ => ((in_streams % STREAMS) << 40) + in_streams / STREAMS * LEN,
        };
        Self { offset, len: LEN, requests: 1, _work: [0; 7], counts: Arc::clone(counts) }
    }
}

impl Request<Infallible> for Range {
    fn goes_with(&self, other: &Self) -> bool {
        let is_adjacent = other.offset + other.len == self.offset || self.offset + self.len == other.offset;
        is_adjacent && self.len + other.len <= LIMIT
    }

    fn merge(&mut self, other: Self) {
        self.offset = self.offset.min(other.offset);
        self.len += other.len;
        self.requests += other.requests;
    }

    fn complete(self, _: &Outcome<Infallible>) {
        let before = self.counts.completed.fetch_add(self.requests, SeqCst);
        if (before + self.requests).is_multiple_of(WAITING) {
            self.counts.submitter.unpark();
        }
    }
}
