// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of waiting in the pool's line, and of being merged there. `tests/instructions.rs`
//! counts its instructions.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread::{self, Thread};
use std::time::Instant;

use conn_pool::{
    Connection, Failure, Outcome, Panicked, Place, Pool, PoolRequest, Shape, State, Task, Workers,
};

/// Requests that wait, of which all but a few belong to sequential streams.
const WAITING: u64 = 256;
const STREAMS: u64 = 4;
/// One of so many goes with no other.
const LONER: u64 = 32;
const LEN: u64 = 256 << 10;
/// The length up to which they are merged.
const LIMIT: u64 = 4 << 20;
/// The offset of the request that the others wait for.
const GATE: u64 = 1 << 60;

/// The number of requests that are carried out: each stream of 62 requests as three of 16 and one
/// of 14, each loner, and the one that they wait for.
const CARRIED_OUT: u64 = STREAMS * 4 + WAITING / LONER + 1;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo's own arguments aren't numbers.
    let iterations = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(100);
    let counts = Arc::new(Counts::new());
    let pool = Pool::new([Counting(Arc::clone(&counts))], Arc::new(Instant::now));
    let workers = Workers::start(pool)?;
    let started = Instant::now();
    for iteration in 1..=iterations {
        workers.submit(Range::new(GATE, &counts));
        for number in 0..WAITING {
            workers.submit(Range::of_stream(number, &counts));
        }
        counts.gate.wait();
        // The worker has the lock to itself: to contend for it would cost now more, now less.
        while counts.completed.load(SeqCst) < u64::from(iteration) * (WAITING + 1) {
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
    /// Opens when all wait.
    gate: Barrier,
    /// Waits for all that it has submitted.
    submitter: Thread,
}

impl Counts {
    fn new() -> Self {
        let [carried_out, completed] = [0, 0].map(AtomicU64::new);
        Self { carried_out, completed, gate: Barrier::new(2), submitter: thread::current() }
    }
}

/// Does nothing but count.
struct Counting(Arc<Counts>);

impl Connection for Counting {
    type Error = Panicked;
    type Request = Range;

    fn carry_out(&mut self, task: Task<'_, Range>) -> Result<(), Failure<Panicked>> {
        if let Task::Requests(group) = task {
            self.0.carried_out.fetch_add(1, SeqCst);
            if group.shape().offset == GATE {
                self.0.gate.wait();
            }
        }
        Ok(())
    }

    fn state(&self) -> State {
        State::Clean
    }
}

/// A request that is as large as those of `imageio-device`, as they are moved in the line. It has
/// no memory of its own: what `malloc` takes depends on which thread was when where.
struct Range {
    extent: Extent,
    _work: [u64; 8],
    counts: Arc<Counts>,
}

impl Range {
    fn new(offset: u64, counts: &Arc<Counts>) -> Self {
        Self { extent: Extent { offset, len: LEN }, _work: [0; 8], counts: Arc::clone(counts) }
    }

    /// The streams take turns. Who is alone is far from all others.
    fn of_stream(number: u64, counts: &Arc<Counts>) -> Self {
        let in_streams = number - number / LONER;
        let offset = match number % LONER {
            0 => (number + STREAMS) << 40,
            _ => ((in_streams % STREAMS) << 40) + in_streams / STREAMS * LEN,
        };
        Self::new(offset, counts)
    }
}

impl PoolRequest for Range {
    type Error = Panicked;
    type Shape = Extent;

    fn shape(&self) -> Extent {
        self.extent
    }

    fn complete(done: Vec<(Self, Outcome<Panicked>)>) {
        let number = done.len() as u64;
        let Some((range, _)) = done.first() else { return };
        let before = range.counts.completed.fetch_add(number, SeqCst);
        if (before + number).is_multiple_of(WAITING + 1) {
            range.counts.submitter.unpark();
        }
    }
}

/// Merged as the requests of `imageio-device` are.
#[derive(Clone, Copy)]
struct Extent {
    offset: u64,
    len: u64,
}

impl Shape for Extent {
    fn join(self, other: Self) -> Option<(Self, Place)> {
        let len = self.len + other.len;
        if len > LIMIT {
            None
        } else if other.offset + other.len == self.offset {
            Some((Self { offset: other.offset, len }, Place::Before))
        } else if self.offset + self.len == other.offset {
            Some((Self { offset: self.offset, len }, Place::Behind))
        } else {
            None
        }
    }
}
