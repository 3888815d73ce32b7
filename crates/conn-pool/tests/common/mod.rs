// SPDX-License-Identifier: MIT OR Apache-2.0
//! A connection that only takes notes, and requests that are letters.
#![allow(dead_code, unreachable_pub, reason = "no test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot tell")]

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use conn_pool::{Connection, Failure, Pool, PoolError, Request};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded as bounded_channel, unbounded};

/// Longer than anything here takes; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub type Outcome = conn_pool::Outcome<String>;

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

/// What the connections and the requests of a test have in common.
#[derive(Default)]
pub struct World {
    /// What was carried out, and flushes.
    log: Mutex<Vec<String>>,
    /// Requests whose memory is still lent.
    alive: AtomicUsize,
    /// Announces each request on the first channel, and lets it go on by the second.
    gate: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

/// Takes down what is carried out and flushed. It panics at `!`, refuses `?`, and breaks at `#`.
pub struct Notes {
    world: Arc<World>,
    dirty: bool,
}

impl Connection for Notes {
    type Error = String;
    type Request = Letters;

    fn carry_out(&mut self, request: &mut Letters) -> Result<(), Failure<String>> {
        let gate = self.world.gate.lock().unwrap().clone();
        if let Some((entered, may_go)) = gate {
            entered.send(()).unwrap();
            may_go.recv().unwrap();
        }
        let text = request.text();
        self.world.log.lock().unwrap().push(text.clone());
        assert!(!text.contains('!'), "this panic is part of the test");
        if text.contains(['?', '#']) {
            return Err(Failure { error: format!("{text} failed"), is_fatal: text.contains('#') });
        }
        self.dirty = true;
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.dirty
    }

    fn flush(&mut self) -> Result<(), String> {
        self.world.log.lock().unwrap().push("flush".into());
        self.dirty = false;
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Small letters go with each other, as do capitals, and `!`, `?` and `#` with small letters; anything else goes alone.
pub struct Letters(Vec<Part>);

/// One of the requests that were merged. Counts how many are alive, as those who wait may have lent memory by them.
struct Part {
    text: String,
    told: Sender<(String, Outcome)>,
    world: Arc<World>,
}

impl Letters {
    fn text(&self) -> String {
        self.0.iter().map(|part| &*part.text).collect()
    }

    fn kind(&self) -> Option<bool> {
        let is_capital = |c: char| match c {
            'a'..='z' | '!' | '?' | '#' => Some(false),
            'A'..='Z' => Some(true),
            _ => None,
        };
        self.text().chars().next().and_then(is_capital)
    }
}

impl Request<String> for Letters {
    fn goes_with(&self, other: &Self) -> bool {
        self.kind().is_some() && self.kind() == other.kind()
    }

    fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    fn complete(self, outcome: &Outcome) {
        for part in &self.0 {
            part.told.send((part.text.clone(), outcome.clone())).unwrap();
            assert!(part.text != "~", "this panic is part of the test");
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.world.alive.fetch_sub(1, SeqCst);
    }
}

pub struct Setup {
    pub pool: Pool<Notes>,
    world: Arc<World>,
    tell: Sender<(String, Outcome)>,
    /// Which requests were completed, and how.
    pub told: Receiver<(String, Outcome)>,
}

impl Setup {
    pub fn new(connections: usize) -> Self {
        let world = Arc::<World>::default();
        let connection = |_| Notes { world: Arc::clone(&world), dirty: false };
        let pool = Pool::new((0..connections).map(connection), Arc::new(Instant::now));
        let (tell, told) = unbounded();
        Self { pool, world, tell, told }
    }

    pub fn request(&self, text: &str) -> Letters {
        self.world.alive.fetch_add(1, SeqCst);
        let world = Arc::clone(&self.world);
        Letters(vec![Part { text: text.into(), told: self.tell.clone(), world }])
    }

    pub fn run(&self, text: &str) -> Outcome {
        self.pool.run(self.request(text))
    }

    /// Who was told next, and what.
    pub fn next(&self) -> (String, Outcome) {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    /// That these were told next, in whatever order.
    #[track_caller]
    pub fn assert_told(&self, texts: &[&str], outcome: &Outcome) {
        let told: Vec<_> = texts.iter().map(|_| self.next()).collect();
        let mut names: Vec<_> = told.iter().map(|(text, _)| &**text).collect();
        names.sort_unstable();
        assert_eq!(names, texts);
        assert!(told.iter().all(|(_, told)| told == outcome), "{told:?}");
    }

    /// Holds the next request up. It announces itself on the one channel and goes on by the other.
    pub fn gate(&self) -> (Receiver<()>, Sender<()>) {
        let (entered, has_entered) = unbounded();
        let (go, may_go) = unbounded();
        *self.world.gate.lock().unwrap() = Some((entered, may_go));
        (has_entered, go)
    }

    /// Lets `start` begin a request, and holds that up until the gate's channel is sent something; it alone.
    pub fn hold_up(&self, start: impl FnOnce()) -> Sender<()> {
        let (entered, go) = self.gate();
        start();
        entered.recv_timeout(PATIENCE).unwrap();
        *self.world.gate.lock().unwrap() = None;
        go
    }

    /// Starts `work`, which must wait in line as the `place`-th.
    pub fn line_up<'scope, T: Send + 'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        place: usize,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        let thread = scope.spawn(work);
        let deadline = Instant::now() + PATIENCE;
        while self.pool.waiting() < place {
            assert!(Instant::now() < deadline, "it doesn't wait");
            thread::yield_now();
        }
        thread
    }

    pub fn log(&self) -> Vec<String> {
        self.world.log.lock().unwrap().clone()
    }

    pub fn alive(&self) -> usize {
        self.world.alive.load(SeqCst)
    }
}

pub fn failed(error: &str) -> Outcome {
    Err(PoolError::Failed(error.into()))
}
