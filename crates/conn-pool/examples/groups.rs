// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that many threads send over two connections: while both are busy, those that wait go
//! together.

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use conn_pool::{Connection, Failure, Outcome, Panicked, Place, Pool, PoolRequest, Shape, State, Task};

/// A number to be sent.
struct Number;

#[derive(Clone, Copy)]
struct AnyNumber;

impl Shape for AnyNumber {
    fn join(self, _other: Self) -> Option<(Self, Place)> {
        Some((self, Place::Behind))
    }
}

impl PoolRequest for Number {
    type Error = Panicked;
    type Shape = AnyNumber;

    fn shape(&self) -> AnyNumber {
        AnyNumber
    }

    fn complete(done: Vec<(Self, Outcome<Panicked>)>) {
        drop(done);
    }
}

/// A connection that counts how often it is used.
struct Line {
    uses: Arc<AtomicUsize>,
    is_dirty: bool,
}

impl Connection for Line {
    type Error = Panicked;
    type Request = Number;

    fn carry_out(&mut self, task: Task<'_, Number>) -> Result<(), Failure<Panicked>> {
        match task {
            Task::Requests(_numbers) => {
                self.uses.fetch_add(1, Relaxed);
                self.is_dirty = true;
                // A server takes its time, and others line up meanwhile.
                thread::yield_now();
            }
            Task::Flush | Task::FlushInBackground => self.is_dirty = false,
            Task::KeepAlive => {}
        }
        Ok(())
    }

    fn state(&self) -> State {
        if self.is_dirty { State::Dirty } else { State::Clean }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let uses = Arc::new(AtomicUsize::new(0));
    let lines = [0, 1].map(|_| Line { uses: Arc::clone(&uses), is_dirty: false });
    let pool = Pool::new(lines, Arc::new(Instant::now));
    thread::scope(|scope| {
        let senders: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..1000).try_for_each(|_| pool.run(Number)))).collect();
        senders.into_iter().try_for_each(|sender| sender.join().unwrap_or(Ok(())))
    })?;
    pool.flush()?;
    writeln!(io::stdout(), "8000 numbers went out in {} requests", uses.load(Relaxed))?;
    pool.close()?;
    Ok(())
}
