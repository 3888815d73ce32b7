// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that only take notes, and requests that are letters.
#![allow(dead_code, unreachable_pub, reason = "no test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot tell")]

mod gate;
mod letter;

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use conn_pool::{
    Affected, Clock, Connection, Due, Failure, Group, Panicked, Pool, PoolError, State, Task, Workers,
};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded as bounded_channel, unbounded};

pub use gate::Gate;
use letter::Letter;

/// Longer than anything here takes; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The time for which a connection may be idle.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The message of the error that a panic becomes if it is part of a test.
pub const PANIC: &str = "a thread panicked: this panic is part of the test";

pub type Outcome = conn_pool::Outcome<Error>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub String);

impl From<Panicked> for Error {
    fn from(panicked: Panicked) -> Self {
        Self(panicked.to_string())
    }
}

pub fn failed(error: &str) -> Outcome {
    Err(PoolError::Failed(Error(error.into())))
}

pub fn refused(error: &str) -> Outcome {
    Err(PoolError::Refused(Error(error.into())))
}

/// Submits a flush; its outcome comes by the channel.
pub fn submit_flush(workers: &Workers<Notes>) -> Receiver<Outcome> {
    let (tell, told) = unbounded();
    workers.flush(move |outcome| tell.send(outcome).unwrap());
    told
}

/// Runs a test that would hang if it failed: then it fails.
pub fn bounded(test: impl FnOnce() + Send + 'static) {
    let (done, is_done) = bounded_channel::<()>(0);
    let thread = thread::Builder::new().spawn(move || {
        let _done = done;
        test();
    });
    // The sender is dropped at the end of the test, also in a panic.
    let ended = is_done.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Disconnected);
    assert!(ended, "it hangs");
    if let Err(panic) = thread.unwrap().join() {
        resume_unwind(panic);
    }
}

/// The state that the connections and the requests of a test have in common.
#[derive(Default)]
struct World {
    /// A line for each thing that was carried out.
    log: Mutex<Vec<String>>,
    /// Requests whose memory is still lent.
    alive: AtomicUsize,
    /// Requests that a flush has made safe, and those that wait for one.
    flushed: AtomicUsize,
    unflushed: AtomicUsize,
    /// Dirty connections are full.
    full: AtomicBool,
    /// The number of connections that requests are not to have.
    spare: AtomicUsize,
    /// The number of all connections.
    connections: AtomicUsize,
    /// The way in which flushes and keep-alives fail, if they do.
    fails: Mutex<Option<Fails>>,
    gates: Mutex<Vec<Barrier>>,
    /// Connections that were dropped.
    dropped: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
pub enum Fails {
    With(Affected),
    Panics,
}

/// A barrier at which tasks announce themselves on the first channel, and go on by the second.
#[derive(Clone)]
struct Barrier {
    what: &'static str,
    entered: Sender<usize>,
    may_go: Receiver<()>,
}

/// Takes down what is carried out. Requests panic at `!`, are refused at `?`, alone or together at
/// `%`, and break at `#`; `-` only reads.
pub struct Notes {
    id: usize,
    world: Arc<World>,
    is_open: bool,
    unflushed: usize,
}

impl Notes {
    fn requests(&mut self, group: &Group<Letter>) -> Result<(), Failure<Error>> {
        let text: String = group.iter().map(|letter| &*letter.text).collect();
        self.enter(&text);
        assert!(!text.contains('!'), "this panic is part of the test");
        let affected = text.chars().find_map(|c| match c {
            '?' => Some(Affected::One),
            '%' => Some(Affected::Group),
            '#' => Some(Affected::Pool),
            _ => None,
        });
        if let Some(affected) = affected {
            return Err(Failure { error: Error(format!("{text} failed")), affected });
        }
        if text != "-" {
            self.unflushed += group.len();
            self.world.unflushed.fetch_add(group.len(), SeqCst);
        }
        Ok(())
    }

    /// Notes a task, which may have to wait.
    fn enter(&mut self, text: &str) {
        self.is_open = true;
        self.world.log.lock().unwrap().push(text.to_owned());
        let gates = self.world.gates.lock().unwrap().clone();
        if let Some(gate) = gates.iter().find(|gate| gate.what == text) {
            // The test may have opened it by dropping it.
            let _ = gate.entered.send(self.id).map(|()| gate.may_go.recv());
        }
    }

    fn flush(&mut self, name: &str) -> Result<(), Failure<Error>> {
        self.other(name)?;
        self.world.flushed.fetch_add(self.unflushed, SeqCst);
        self.world.unflushed.fetch_sub(self.unflushed, SeqCst);
        self.unflushed = 0;
        Ok(())
    }

    fn other(&mut self, name: &str) -> Result<(), Failure<Error>> {
        self.enter(name);
        let fails = *self.world.fails.lock().unwrap();
        match fails {
            None => Ok(()),
            Some(Fails::With(affected)) => Err(Failure { error: Error(format!("{name} failed")), affected }),
            Some(Fails::Panics) => panic!("this panic is part of the test"),
        }
    }
}

impl Connection for Notes {
    type Error = Error;
    type Request = Letter;

    fn carry_out(&mut self, task: Task<'_, Letter>) -> Result<(), Failure<Error>> {
        match task {
            Task::Requests(group) => self.requests(group),
            Task::Flush => self.flush("flush"),
            Task::FlushInBackground => self.flush("background"),
            Task::KeepAlive => self.other("alive"),
        }
    }

    fn state(&self) -> State {
        match self.unflushed {
            0 if !self.is_open => State::Closed,
            0 => State::Clean,
            _ if self.world.full.load(SeqCst) => State::Full,
            _ => State::Dirty,
        }
    }

    fn concurrency(&self) -> usize {
        self.world.connections.load(SeqCst) - self.world.spare.load(SeqCst)
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.world.dropped.fetch_add(1, SeqCst);
    }
}

pub struct Setup {
    pub pool: Pool<Notes>,
    world: Arc<World>,
    pub now: Arc<Mutex<Instant>>,
    tell: Sender<(String, Outcome)>,
    /// Which requests were completed, and how.
    pub told: Receiver<(String, Outcome)>,
}

impl Setup {
    /// A pool of open connections.
    pub fn new(connections: usize) -> Self {
        Self::with_connections(connections, true)
    }

    pub fn with_connections(connections: usize, is_open: bool) -> Self {
        // Far enough from the clock's zero to look back by the idle limit.
        let now = Arc::new(Mutex::new(Instant::now() + 10 * LIMIT));
        let clock = Arc::clone(&now);
        Self::with_clock(connections, is_open, now, Arc::new(move || *clock.lock().unwrap()))
    }

    pub fn with_clock(connections: usize, is_open: bool, now: Arc<Mutex<Instant>>, clock: Clock) -> Self {
        let world = Arc::<World>::default();
        world.connections.store(connections, SeqCst);
        let connection = |id| Notes { id, world: Arc::clone(&world), is_open, unflushed: 0 };
        let pool = Pool::new((0..connections).map(connection), clock);
        let (tell, told) = unbounded();
        Self { pool, world, now, tell, told }
    }

    pub fn workers(&self) -> Workers<Notes> {
        Workers::start(self.pool.clone()).unwrap()
    }

    pub fn request(&self, text: &str) -> Letter {
        self.request_told(text, self.tell.clone())
    }

    /// Makes a request whose end is told here.
    pub fn request_told(&self, text: &str, told: Sender<(String, Outcome)>) -> Letter {
        self.world.alive.fetch_add(1, SeqCst);
        Letter { text: text.into(), told, world: Arc::clone(&self.world) }
    }

    pub fn run(&self, text: &str) -> Outcome {
        self.pool.run(self.request(text))
    }

    /// Returns the next that was told, and what it was told.
    #[track_caller]
    pub fn next(&self) -> (String, Outcome) {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    /// Asserts that these were told next, in whatever order.
    #[track_caller]
    pub fn assert_told(&self, texts: &[&str], outcome: &Outcome) {
        let told: Vec<_> = texts.iter().map(|_| self.next()).collect();
        let mut names: Vec<_> = told.iter().map(|(text, _)| &**text).collect();
        names.sort_unstable();
        assert_eq!(names, texts);
        assert!(told.iter().all(|(_, told)| told == outcome), "{told:?}");
    }

    /// From the next connection that comes back on, requests are not to have so many of the
    /// connections.
    pub fn spare(&self, connections: usize) {
        self.world.spare.store(connections, SeqCst);
    }

    /// Holds up tasks with this text, or `flush`, `background`, or `alive`.
    pub fn gate(&self, what: &'static str) -> Gate {
        let (entered, has_entered) = unbounded();
        let (go, may_go) = unbounded();
        self.world.gates.lock().unwrap().insert(0, Barrier { what, entered, may_go });
        Gate { entered: has_entered, go }
    }

    /// Starts `work`, and waits until its task stands at the gate.
    pub fn hold_up(&self, what: &'static str, start: impl FnOnce()) -> Gate {
        let gate = self.gate(what);
        start();
        gate.entered();
        gate
    }

    /// Has a thread use a connection for a request until the gate is opened.
    pub fn hold<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, what: &'static str) -> Gate {
        self.hold_up(what, || drop(scope.spawn(move || self.run(what).unwrap())))
    }

    /// Starts `work`, which must wait in line as the `place`-th.
    pub fn line_up<'scope, T: Send + 'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        place: usize,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        let thread = scope.spawn(work);
        self.wait_until(|| self.pool.waiting() >= place);
        thread
    }

    #[track_caller]
    pub fn wait_until(&self, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "it does not happen");
            thread::yield_now();
        }
    }

    /// Keeps alive what is due, one after the other. When to look again.
    pub fn keep_alive(&self) -> Instant {
        self.pool.keep_alive(LIMIT, Due::keep_alive)
    }

    /// Lets time go by.
    pub fn pass(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
    }

    pub fn set_full(&self) {
        self.world.full.store(true, SeqCst);
    }

    /// Has flushes and keep-alives fail in this way from now on, or succeed.
    pub fn set_fails(&self, fails: Option<Fails>) {
        *self.world.fails.lock().unwrap() = fails;
    }

    pub fn log(&self) -> Vec<String> {
        self.world.log.lock().unwrap().clone()
    }

    /// Counts how often this was carried out.
    pub fn count(&self, what: &str) -> usize {
        self.world.log.lock().unwrap().iter().filter(|text| *text == what).count()
    }

    pub fn alive(&self) -> usize {
        self.world.alive.load(SeqCst)
    }

    pub fn flushed(&self) -> usize {
        self.world.flushed.load(SeqCst)
    }

    pub fn unflushed(&self) -> usize {
        self.world.unflushed.load(SeqCst)
    }

    pub fn dropped(&self) -> usize {
        self.world.dropped.load(SeqCst)
    }
}
