// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that are merged while they wait, with a connection that only takes notes.

#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use conn_pool::{Connection, Pool, PoolError, Request};

/// Takes down what is carried out and flushed.
struct Notes {
    log: Arc<Mutex<Vec<String>>>,
    dirty: bool,
}

impl Connection for Notes {
    type Error = String;
    type Request = Letters;

    fn is_dirty(&self) -> bool {
        self.dirty
    }

    fn flush(&mut self) -> Result<(), String> {
        self.log.lock().unwrap().push("flush".into());
        self.dirty = false;
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Merges with others of the same case. Counts how many are alive, as those who wait may have lent memory by them.
struct Letters {
    text: String,
    alive: Arc<AtomicUsize>,
}

impl Request for Letters {
    /// The text, and how many requests were alive when it was carried out.
    type Answer = (String, usize);

    fn merge(&mut self, other: Self) -> Result<(), Self> {
        if self.text.chars().all(char::is_uppercase) != other.text.chars().all(char::is_uppercase) {
            return Err(other);
        }
        self.text.push_str(&other.text);
        Ok(())
    }
}

impl Drop for Letters {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, SeqCst);
    }
}

type Outcome = Result<(String, usize), PoolError<String>>;

struct Setup {
    pool: Pool<Notes>,
    log: Arc<Mutex<Vec<String>>>,
    alive: Arc<AtomicUsize>,
}

impl Setup {
    fn new() -> Self {
        let log = Arc::<Mutex<Vec<String>>>::default();
        let connection = Notes { log: Arc::clone(&log), dirty: false };
        Self { pool: Pool::new([connection], Arc::new(Instant::now)), log, alive: Arc::default() }
    }

    fn request(&self, text: &str) -> Letters {
        self.alive.fetch_add(1, SeqCst);
        Letters { text: text.into(), alive: Arc::clone(&self.alive) }
    }

    fn run(&self, text: &str) -> Outcome {
        self.pool.run(self.request(text), |connection, request| {
            connection.log.lock().unwrap().push(request.text.clone());
            connection.dirty = true;
            (request.text.clone(), self.alive.load(SeqCst))
        })
    }

    fn panic(&self, text: &str) {
        let _ = self.pool.run(self.request(text), |_, _| panic!("this is a test"));
    }

    /// Starts `work`, which must wait in line as the `place`-th.
    fn line_up<'scope, T: Send + 'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        place: usize,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        let thread = scope.spawn(work);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.pool.waiting() < place {
            assert!(Instant::now() < deadline, "it doesn't wait");
            thread::yield_now();
        }
        thread
    }

    /// Lines up while the connection is away, and gives the outcomes.
    fn run_all(&self, texts: &[&str]) -> Vec<Outcome> {
        let guard = self.pool.get().unwrap();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..texts.len())
                .map(|i| {
                    let text = texts[i].to_owned();
                    self.line_up(scope, i + 1, move || self.run(&text))
                })
                .collect();
            drop(guard);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

#[test]
fn what_goes_together_is_carried_out_together_and_answered_alike() {
    let setup = Setup::new();
    let outcomes = setup.run_all(&["a", "X", "b", "c", "Y"]);
    assert_eq!(setup.log(), ["abc", "XY"]);
    let texts: Vec<_> = outcomes.iter().map(|outcome| &*outcome.as_ref().unwrap().0).collect();
    assert_eq!(texts, ["abc", "XY", "abc", "abc", "XY"]);
    assert_eq!(setup.alive.load(SeqCst), 0);
}

#[test]
fn who_finds_a_connection_idle_carries_out_its_own() {
    let setup = Setup::new();
    assert_eq!(setup.run("a"), Ok(("a".into(), 1)));
    assert_eq!(setup.run("b"), Ok(("b".into(), 1)));
    assert_eq!(setup.log(), ["a", "b"]);
}

#[test]
fn a_flush_is_not_passed() {
    let setup = Setup::new();
    setup.run("first").unwrap();
    let guard = setup.pool.get().unwrap();
    thread::scope(|scope| {
        setup.line_up(scope, 1, || setup.run("a").unwrap());
        setup.line_up(scope, 2, || setup.pool.flush().unwrap());
        setup.line_up(scope, 3, || setup.run("b").unwrap());
        setup.line_up(scope, 4, || setup.run("c").unwrap());
        drop(guard);
    });
    assert_eq!(setup.log(), ["first", "a", "flush", "bc"]);
}

#[test]
fn a_flush_finds_dirty_what_was_answered_before_it() {
    let setup = Setup::new();
    let guard = setup.pool.get().unwrap();
    thread::scope(|scope| {
        for (place, text) in [(1, "a"), (2, "b"), (3, "c")] {
            setup.line_up(scope, place, || {
                setup.run(text).unwrap();
                // Whoever is answered first: the connection is back, and known to be dirty.
                setup.pool.flush().unwrap();
            });
        }
        drop(guard);
    });
    let log = setup.log();
    assert_eq!(log[..2], ["abc", "flush"], "{log:?}");
}

#[test]
fn a_failure_reaches_those_that_wait() {
    let setup = Setup::new();
    let guard = setup.pool.get().unwrap();
    thread::scope(|scope| {
        let waiting =
            [(1, "a"), (2, "b")].map(|(place, text)| setup.line_up(scope, place, || setup.run(text)));
        setup.pool.fail("broken".into());
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), Err(PoolError::Failed("broken".into())));
        }
        drop(guard);
    });
    assert_eq!((setup.log().len(), setup.alive.load(SeqCst)), (0, 0));
}

#[test]
fn a_panic_of_the_one_is_an_error_of_the_others() {
    let setup = Setup::new();
    let guard = setup.pool.get().unwrap();
    thread::scope(|scope| {
        let leader = setup.line_up(scope, 1, || catch_unwind(AssertUnwindSafe(|| setup.panic("a"))));
        let other = setup.line_up(scope, 2, || setup.run("b"));
        drop(guard);
        assert!(leader.join().unwrap().is_err());
        assert_eq!(other.join().unwrap(), Err(PoolError::Abandoned));
    });
    // The connection is back.
    assert_eq!((setup.alive.load(SeqCst), setup.run("c")), (0, Ok(("c".into(), 1))));
}
