// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every order in which a few threads can use a pool, one after another, up to a number of
//! preemptions: nobody waits for ever, each request is answered once, and what was acknowledged
//! before a flush is durable after it.
//!
//! `RUSTFLAGS="--cfg loom --cfg oneshot_loom" cargo test -p conn-pool --release --test models
//! --target-dir target/loom`; `cargo xtask test` does so, too.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod flushes;
mod keeper;
mod requests;
mod workers;

use std::collections::BTreeSet;
use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conn_pool::{
    Affected, Connection, Failure, Panicked, Place, Pool, PoolError, PoolRequest, Shape, State, Task, Workers,
};
use loom::model::Builder;
use loom::thread;

type Outcome = conn_pool::Outcome<Error>;

/// A write.
type Number = u32;
/// This one breaks its connection.
const FATAL: Number = 100;
/// This one is only refused.
const BAD: Number = 200;
/// After this one, the connection breaks when it is flushed.
const LOST: Number = 300;
/// After this one or the last, the connection is full.
const FULL: Number = 400;

#[derive(Debug, Clone, PartialEq)]
struct Error(String);

impl From<Panicked> for Error {
    fn from(panicked: Panicked) -> Self {
        Self(panicked.to_string())
    }
}

fn lost() -> Error {
    Error("lost".into())
}

fn failed() -> Outcome {
    Err(PoolError::Failed(lost()))
}

/// The data that the server has, and the answers that its clients were given. No thread waits for
/// it, so it is none of loom's affair.
#[derive(Default)]
struct World {
    durable: Mutex<BTreeSet<Number>>,
    acknowledged: Mutex<BTreeSet<Number>>,
    /// Each completion of a request, and how often a submitted flush has ended.
    told: Mutex<Vec<(Number, Outcome)>>,
    flushed: Mutex<Vec<Outcome>>,
    /// The number of connections that requests are not to have.
    spare: AtomicUsize,
}

impl World {
    fn acknowledged(&self) -> BTreeSet<Number> {
        self.acknowledged.lock().unwrap().clone()
    }

    fn assert_durable(&self, numbers: &BTreeSet<Number>) {
        let durable = self.durable.lock().unwrap();
        assert!(numbers.is_subset(&durable), "lost: {numbers:?}, durable: {durable:?}");
    }
}

struct Link {
    world: Arc<World>,
    connections: usize,
    unflushed: BTreeSet<Number>,
    broken: bool,
}

impl Link {
    fn write(&mut self, numbers: &BTreeSet<Number>) -> Result<(), Failure<Error>> {
        assert!(!self.broken, "a broken connection is used");
        if numbers.contains(&BAD) {
            return Err(Failure { error: Error("bad".into()), affected: Affected::One });
        }
        self.broken = numbers.contains(&FATAL);
        if self.broken {
            return Err(Failure { error: lost(), affected: Affected::Pool });
        }
        self.unflushed.extend(numbers);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure<Error>> {
        if self.unflushed.contains(&LOST) {
            self.broken = true;
            self.unflushed.clear();
        }
        if self.broken {
            return Err(Failure { error: lost(), affected: Affected::Pool });
        }
        self.world.durable.lock().unwrap().append(&mut self.unflushed);
        Ok(())
    }
}

impl Connection for Link {
    type Error = Error;
    type Request = Write;

    fn carry_out(&mut self, task: Task<'_, Write>) -> Result<(), Failure<Error>> {
        match task {
            Task::Requests(group) => self.write(&group.iter().map(|write| write.number).collect()),
            Task::Flush | Task::FlushInBackground | Task::KeepAlive => self.flush(),
        }
    }

    fn state(&self) -> State {
        if self.unflushed.contains(&FULL) || self.unflushed.contains(&LOST) {
            State::Full
        } else if self.unflushed.is_empty() {
            State::Clean
        } else {
            State::Dirty
        }
    }

    fn concurrency(&self) -> usize {
        self.connections - self.world.spare.load(SeqCst)
    }
}

struct Write {
    world: Arc<World>,
    number: Number,
}

impl PoolRequest for Write {
    type Error = Error;
    type Shape = Kind;

    fn shape(&self) -> Kind {
        Kind(self.number / 10)
    }

    fn complete(done: Vec<(Self, Outcome)>) {
        for (Self { world, number }, outcome) in done {
            if outcome.is_ok() {
                world.acknowledged.lock().unwrap().insert(number);
            }
            world.told.lock().unwrap().push((number, outcome));
        }
    }
}

/// Only requests of one kind go together, as those of disks do.
#[derive(Clone, Copy, PartialEq)]
struct Kind(Number);

impl Shape for Kind {
    fn join(self, other: Self) -> Option<(Self, Place)> {
        (self == other).then_some((self, Place::Behind))
    }
}

/// A handle to what all threads of a model share.
#[derive(Clone)]
struct Setup {
    world: Arc<World>,
    pool: Pool<Link>,
}

impl Setup {
    fn new(connections: usize) -> Self {
        let world = Arc::<World>::default();
        let link =
            |_| Link { world: Arc::clone(&world), connections, unflushed: BTreeSet::new(), broken: false };
        // Each look at the clock is a moment later.
        let (start, looks) = (Instant::now(), AtomicU64::new(0));
        let clock = move || start + Duration::from_secs(looks.fetch_add(1, SeqCst));
        Self { pool: Pool::new((0..connections).map(link), Arc::new(clock)), world }
    }

    fn request(&self, number: Number) -> Write {
        Write { world: Arc::clone(&self.world), number }
    }

    fn write(&self, number: Number) -> Outcome {
        self.pool.run(self.request(number))
    }

    /// Flushes, and checks what that promises.
    fn flush(&self) -> Outcome {
        let before = self.world.acknowledged();
        let outcome = self.pool.flush();
        if outcome.is_ok() {
            self.world.assert_durable(&before);
        }
        outcome
    }

    /// Submits a flush, and checks what that promises when it ends.
    fn submit_flush(&self, workers: &Workers<Link>) {
        let (before, world) = (self.world.acknowledged(), Arc::clone(&self.world));
        workers.flush(move |outcome| {
            if outcome.is_ok() {
                world.assert_durable(&before);
            }
            world.flushed.lock().unwrap().push(outcome);
        });
    }

    /// Takes the outcomes of the submitted flushes.
    fn flushed(&self) -> Vec<Outcome> {
        mem::take(&mut *self.world.flushed.lock().unwrap())
    }

    /// Closes, and checks what that promises.
    fn close(&self) -> Result<(), Error> {
        let outcome = self.pool.close();
        if outcome.is_ok() {
            self.world.assert_durable(&self.world.acknowledged());
        }
        outcome
    }

    fn spawn<T: 'static>(&self, work: impl FnOnce(&Self) -> T + 'static) -> thread::JoinHandle<T> {
        let setup = self.clone();
        thread::spawn(move || work(&setup))
    }

    /// A thread for each of these writes.
    fn writers<const N: usize>(&self, numbers: [Number; N]) -> [thread::JoinHandle<Outcome>; N] {
        numbers.map(|number| self.spawn(move |setup| setup.write(number)))
    }

    /// Checks that each of these was answered once.
    fn told(&self, numbers: &[Number]) -> Vec<Outcome> {
        let mut told = mem::take(&mut *self.world.told.lock().unwrap());
        told.sort_by_key(|(number, _)| *number);
        assert_eq!(told.iter().map(|(number, _)| *number).collect::<Vec<_>>(), numbers);
        told.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

/// All orders with so many preemptions; `LOOM_MAX_PREEMPTIONS` for another bound. With four
/// threads, each more takes ten times as long; and each thread more, too: so four are for models of
/// three threads, and two or three for larger ones.
fn model(preemptions: usize, threads: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(threads);
}
