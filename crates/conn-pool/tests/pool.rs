// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pool and its keeper, with connections that only count, and a clock that stands still.

#![allow(clippy::unwrap_used)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::bounded;
use conn_pool::{Clock, Connection, Failure, Keeper, Pool, PoolError};
use crossbeam::channel::{Receiver, Sender, bounded as bounded_channel, unbounded};

const LIMIT: Duration = Duration::from_secs(20);

/// What the connections of a test have in common.
#[derive(Default)]
struct World {
    flushes: AtomicUsize,
    kept_alive: AtomicUsize,
    dropped: AtomicUsize,
    /// Connections that are dirty want to be flushed.
    full: AtomicBool,
    fail: AtomicBool,
    panic: AtomicBool,
    /// Announces each flush and keep-alive on the first channel, and lets it go on by the second.
    gate: Mutex<Option<(Sender<usize>, Receiver<()>)>>,
}

impl World {
    fn gate(&self) -> (Receiver<usize>, Sender<()>) {
        let (entered, has_entered) = unbounded();
        let (go, may_go) = unbounded();
        *self.gate.lock().unwrap() = Some((entered, may_go));
        (has_entered, go)
    }

    fn open_gate(&self) {
        *self.gate.lock().unwrap() = None;
    }

    fn work(&self, id: usize) -> Result<(), String> {
        let gate = self.gate.lock().unwrap().clone();
        if let Some((entered, may_go)) = gate {
            entered.send(id).unwrap();
            let _ = may_go.recv();
        }
        assert!(!self.panic.swap(false, SeqCst), "a panic that the test asked for");
        if self.fail.load(SeqCst) { Err(format!("connection {id} broke")) } else { Ok(()) }
    }
}

struct Counter {
    id: usize,
    /// Writes made, and how many of them are flushed.
    written: Arc<AtomicUsize>,
    flushed: Arc<AtomicUsize>,
    world: Arc<World>,
}

impl Counter {
    fn write(&self) {
        self.written.fetch_add(1, SeqCst);
    }
}

impl Connection for Counter {
    type Error = String;
    type Request = ();

    fn carry_out(&mut self, (): &mut ()) -> Result<(), Failure<String>> {
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.written.load(SeqCst) > self.flushed.load(SeqCst)
    }

    fn wants_flush(&self) -> bool {
        self.world.full.load(SeqCst) && self.is_dirty()
    }

    fn flush(&mut self) -> Result<(), String> {
        self.world.flushes.fetch_add(1, SeqCst);
        self.world.work(self.id)?;
        self.flushed.store(self.written.load(SeqCst), SeqCst);
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), String> {
        self.world.kept_alive.fetch_add(1, SeqCst);
        self.world.work(self.id)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.world.dropped.fetch_add(1, SeqCst);
    }
}

struct Setup {
    pool: Pool<Counter>,
    world: Arc<World>,
    now: Arc<Mutex<Instant>>,
    counts: Vec<(Arc<AtomicUsize>, Arc<AtomicUsize>)>,
}

impl Setup {
    fn new(connections: usize) -> Self {
        let world = Arc::new(World::default());
        // Far enough from the clock's zero to look back by the idle limit.
        let now = Arc::new(Mutex::new(Instant::now() + 10 * LIMIT));
        let clock: Clock = {
            let now = Arc::clone(&now);
            Arc::new(move || *now.lock().unwrap())
        };
        let counts: Vec<_> = (0..connections).map(|_| (Arc::default(), Arc::default())).collect();
        let counters: Vec<_> = counts
            .iter()
            .enumerate()
            .map(|(id, (written, flushed))| Counter {
                id,
                written: Arc::clone(written),
                flushed: Arc::clone(flushed),
                world: Arc::clone(&world),
            })
            .collect();
        Self { pool: Pool::new(counters, clock), world, now, counts }
    }

    fn pass(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
    }

    /// Until `count` callers wait in the pool.
    fn await_waiting(&self, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.pool.waiting() != count {
            assert!(Instant::now() < deadline, "{} wait instead of {count}", self.pool.waiting());
            thread::yield_now();
        }
    }

    fn dirty(&self) -> usize {
        self.counts.iter().filter(|(written, flushed)| written.load(SeqCst) > flushed.load(SeqCst)).count()
    }
}

#[test]
fn waiters_are_served_in_the_order_they_came() {
    bounded(|| {
        let setup = Setup::new(1);
        let served = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let held = setup.pool.get().unwrap();
            for n in 0..5 {
                let (setup, served) = (&setup, &served);
                scope.spawn(move || {
                    let _guard = setup.pool.get().unwrap();
                    served.lock().unwrap().push(n);
                });
                setup.await_waiting(n + 1);
            }
            drop(held);
        });
        assert_eq!(*served.lock().unwrap(), [0, 1, 2, 3, 4]);
    });
}

#[test]
fn a_newcomer_does_not_overtake_a_flush() {
    bounded(|| {
        let setup = Setup::new(1);
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let held = setup.pool.get().unwrap();
            held.write();
            drop(held);
            let held = setup.pool.get().unwrap();
            scope.spawn(|| {
                setup.pool.flush().unwrap();
                order.lock().unwrap().push("flush");
            });
            setup.await_waiting(1);
            scope.spawn(|| {
                let _guard = setup.pool.get().unwrap();
                assert_eq!(setup.world.flushes.load(SeqCst), 1);
            });
            setup.await_waiting(2);
            drop(held);
        });
        assert_eq!(setup.dirty(), 0);
    });
}

#[test]
fn the_guard_gives_the_connection_back_in_a_panic() {
    bounded(|| {
        let setup = Setup::new(1);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let _guard = setup.pool.get().unwrap();
            panic!("the test's own");
        }));
        assert!(result.is_err());
        drop(setup.pool.get().unwrap());
    });
}

#[test]
fn only_dirty_connections_are_flushed() {
    bounded(|| {
        let setup = Setup::new(4);
        setup.pool.get().unwrap().write();
        setup.pool.flush().unwrap();
        setup.pool.flush().unwrap();
        assert_eq!(setup.world.flushes.load(SeqCst), 1);
        assert_eq!(setup.dirty(), 0);
    });
}

#[test]
fn a_flush_waits_for_a_busy_connection_only_if_it_was_dirty_before() {
    bounded(|| {
        let setup = Setup::new(2);
        let clean = setup.pool.get().unwrap();
        // Not acknowledged to anyone yet: no concern of this flush.
        clean.write();
        setup.pool.flush().unwrap();
        assert_eq!(setup.world.flushes.load(SeqCst), 0);
        drop(clean);

        let dirty = setup.pool.get().unwrap();
        assert!(dirty.is_dirty(), "the connection used last is taken first");
        thread::scope(|scope| {
            scope.spawn(|| setup.pool.flush().unwrap());
            setup.await_waiting(1);
            drop(dirty);
        });
        assert_eq!(setup.dirty(), 0);
    });
}

#[test]
fn flushes_that_wait_share_the_next_one() {
    bounded(|| {
        let setup = Setup::new(1);
        setup.pool.get().unwrap().write();
        let (entered, go) = setup.world.gate();
        thread::scope(|scope| {
            scope.spawn(|| setup.pool.flush().unwrap());
            entered.recv().unwrap();
            for n in 0..10 {
                scope.spawn(|| setup.pool.flush().unwrap());
                setup.await_waiting(n + 1);
            }
            setup.world.open_gate();
            drop(go);
        });
        // All ten came while the first ran, and found nothing left to flush.
        assert_eq!(setup.world.flushes.load(SeqCst), 1);
    });
}

#[test]
fn sixteen_flushes_on_four_connections_under_load_end_and_cover_what_came_before() {
    bounded(|| {
        let setup = Setup::new(4);
        let acknowledged = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let guard = setup.pool.get().unwrap();
                        guard.write();
                        drop(guard);
                        acknowledged.fetch_add(1, SeqCst);
                    }
                });
            }
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let before = acknowledged.load(SeqCst);
                        setup.pool.flush().unwrap();
                        let flushed: usize =
                            setup.counts.iter().map(|(_, flushed)| flushed.load(SeqCst)).sum();
                        assert!(flushed >= before, "{flushed} of {before} flushed");
                    }
                });
            }
        });
        setup.pool.flush().unwrap();
        assert_eq!(setup.dirty(), 0);
    });
}

#[test]
fn those_that_wait_for_the_next_flush_share_its_work_and_its_outcome() {
    bounded(|| {
        let setup = Setup::new(2);
        let (first, second) = (setup.pool.get().unwrap(), setup.pool.get().unwrap());
        first.write();
        drop(first);
        let (entered, go) = setup.world.gate();
        thread::scope(|scope| {
            scope.spawn(|| setup.pool.flush().unwrap());
            entered.recv().unwrap();
            let waiters: Vec<_> = (0..10)
                .map(|n| {
                    let waiter = scope.spawn(|| setup.pool.flush());
                    setup.await_waiting(n + 1);
                    waiter
                })
                .collect();
            // Work for the next flush, which fails.
            second.write();
            drop(second);
            go.send(()).unwrap();
            entered.recv().unwrap();
            assert_eq!(setup.pool.waiting(), 0, "one leads, the others follow it");
            setup.world.fail.store(true, SeqCst);
            setup.world.open_gate();
            drop(go);
            for waiter in waiters {
                assert!(matches!(waiter.join().unwrap(), Err(PoolError::Failed(_))));
            }
        });
        assert_eq!(setup.world.flushes.load(SeqCst), 2);
    });
}

#[test]
fn a_failed_flush_is_kept_and_told_to_all() {
    bounded(|| {
        let setup = Setup::new(2);
        setup.pool.get().unwrap().write();
        let (entered, go) = setup.world.gate();
        setup.world.fail.store(true, SeqCst);
        let failure = PoolError::Failed("connection 0 broke".to_owned());
        thread::scope(|scope| {
            let leader = scope.spawn(|| setup.pool.flush());
            entered.recv().unwrap();
            let follower = scope.spawn(|| setup.pool.flush());
            let other = setup.pool.get().unwrap();
            let waiter = scope.spawn(|| setup.pool.get().map(drop));
            setup.await_waiting(2);
            setup.world.open_gate();
            drop(go);
            assert_eq!(leader.join().unwrap(), Err(failure.clone()));
            assert_eq!(follower.join().unwrap(), Err(failure.clone()));
            // Served by the connection that the failed flush gave back, or refused: never left waiting.
            let _ = waiter.join().unwrap();
            drop(other);
        });
        setup.world.fail.store(false, SeqCst);
        assert_eq!(setup.pool.get().map(drop), Err(failure.clone()));
        assert_eq!(setup.pool.flush(), Err(failure));
        assert_eq!(setup.pool.failure().as_deref(), Some("connection 0 broke"));
    });
}

#[test]
fn a_panic_in_a_flush_passes_the_turn_on() {
    bounded(|| {
        let setup = Setup::new(1);
        setup.pool.get().unwrap().write();
        setup.world.panic.store(true, SeqCst);
        assert!(catch_unwind(AssertUnwindSafe(|| setup.pool.flush())).is_err());
        setup.pool.flush().unwrap();
        assert_eq!(setup.dirty(), 0);
    });
}

#[test]
fn the_keeper_uses_what_was_idle_for_long_and_nothing_else() {
    bounded(|| {
        let setup = Setup::new(3);
        let start = *setup.now.lock().unwrap();
        assert_eq!(setup.pool.keep_alive(LIMIT), start + LIMIT);
        setup.pass(LIMIT / 2);
        drop(setup.pool.get().unwrap());
        assert_eq!(setup.pool.keep_alive(LIMIT), start + LIMIT);
        assert_eq!(setup.world.kept_alive.load(SeqCst), 0);
        setup.pass(LIMIT / 2);
        // Two were unused for the whole limit; the third is due next.
        assert_eq!(setup.pool.keep_alive(LIMIT), start + LIMIT / 2 + LIMIT);
        assert_eq!(setup.world.kept_alive.load(SeqCst), 2);
    });
}

#[test]
fn neither_the_keeper_nor_a_flush_brings_connections_into_use_that_no_request_needed() {
    bounded(|| {
        let setup = Setup::new(3);
        let in_use = setup.pool.get().unwrap().id;
        for _ in 0..3 {
            setup.pass(LIMIT);
            setup.pool.keep_alive(LIMIT);
            let guard = setup.pool.get().unwrap();
            assert_eq!(guard.id, in_use);
            guard.write();
            drop(guard);
            setup.pool.flush().unwrap();
        }
        assert_eq!(setup.world.kept_alive.load(SeqCst), 9);
    });
}

#[test]
fn the_keeper_leaves_the_others_free_while_it_uses_one() {
    bounded(|| {
        let setup = Setup::new(2);
        setup.pass(LIMIT);
        let (entered, go) = setup.world.gate();
        thread::scope(|scope| {
            scope.spawn(|| setup.pool.keep_alive(LIMIT));
            let first = entered.recv().unwrap();
            let other = setup.pool.get().unwrap();
            assert_ne!(other.id, first);
            setup.world.open_gate();
            drop(go);
        });
        assert_eq!(setup.world.kept_alive.load(SeqCst), 1);
    });
}

#[test]
fn a_failed_keep_alive_is_reported_by_every_later_request() {
    bounded(|| {
        let setup = Setup::new(2);
        setup.pass(LIMIT);
        setup.world.fail.store(true, SeqCst);
        setup.pool.keep_alive(LIMIT);
        setup.world.fail.store(false, SeqCst);
        for _ in 0..3 {
            assert!(matches!(setup.pool.get().map(drop), Err(PoolError::Failed(_))));
            assert!(matches!(setup.pool.flush(), Err(PoolError::Failed(_))));
        }
        assert!(setup.pool.close().is_err());
    });
}

/// Uses connections that want to be flushed until the keeper has one of them; its number.
fn give_to_keeper(setup: &Setup, entered: &Receiver<usize>) -> usize {
    setup.world.full.store(true, SeqCst);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        setup.pool.get().unwrap().write();
        if let Ok(id) = entered.try_recv() {
            return id;
        }
        assert!(Instant::now() < deadline, "the keeper does nothing");
        thread::yield_now();
    }
}

#[test]
fn what_wants_to_be_flushed_is_flushed_by_the_keeper_one_at_a_time() {
    bounded(|| {
        let setup = Setup::new(2);
        let (entered, go) = setup.world.gate();
        thread::scope(|scope| {
            scope.spawn(|| assert!(setup.pool.flush_next(Duration::MAX)));
            let first = give_to_keeper(&setup, &entered);
            // The other wants it, too, but is free.
            let other = setup.pool.get().unwrap();
            assert_ne!(other.id, first);
            other.write();
            drop(other);
            assert_eq!(setup.dirty(), 2);
            // A flush covers what the keeper has, and needs not repeat it.
            let flush = scope.spawn(|| setup.pool.flush());
            assert_ne!(entered.recv().unwrap(), first);
            go.send(()).unwrap();
            go.send(()).unwrap();
            flush.join().unwrap().unwrap();
        });
        assert_eq!((setup.dirty(), setup.world.flushes.load(SeqCst)), (0, 2));
    });
}

#[test]
fn an_idle_connection_that_comes_to_want_it_is_flushed_too() {
    bounded(|| {
        let setup = Setup::new(2);
        setup.pool.get().unwrap().write();
        setup.world.full.store(true, SeqCst);
        // As soon as the keeper begins to wait.
        assert!(setup.pool.flush_next(Duration::MAX));
        assert_eq!(setup.dirty(), 0);
    });
}

#[test]
fn a_failed_flush_in_the_background_is_reported_by_every_later_request() {
    bounded(|| {
        let setup = Setup::new(2);
        let (entered, go) = setup.world.gate();
        thread::scope(|scope| {
            scope.spawn(|| while setup.pool.flush_next(Duration::MAX) {});
            give_to_keeper(&setup, &entered);
            setup.world.fail.store(true, SeqCst);
            setup.world.open_gate();
            drop(go);
            while setup.pool.failure().is_none() {
                thread::yield_now();
            }
            setup.world.fail.store(false, SeqCst);
            assert!(matches!(setup.pool.get().map(drop), Err(PoolError::Failed(_))));
            assert!(matches!(setup.pool.flush(), Err(PoolError::Failed(_))));
            assert!(setup.pool.close().is_err());
            setup.pool.end_keeping();
        });
    });
}

#[test]
fn without_a_keeper_what_wants_to_be_flushed_goes_to_the_next() {
    bounded(|| {
        let setup = Setup::new(1);
        setup.world.full.store(true, SeqCst);
        assert!(setup.pool.flush_next(Duration::ZERO));
        for _ in 0..3 {
            setup.pool.get().unwrap().write();
        }
        setup.pool.end_keeping();
        assert!(!setup.pool.flush_next(Duration::MAX));
        setup.pool.get().unwrap().write();
        assert_eq!(setup.world.flushes.load(SeqCst), 0);
    });
}

#[test]
fn closing_waits_serves_those_in_line_flushes_and_drops() {
    bounded(|| {
        let setup = Setup::new(2);
        let first = setup.pool.get().unwrap();
        let second = setup.pool.get().unwrap();
        thread::scope(|scope| {
            let in_line = scope.spawn(|| setup.pool.get().map(|guard| guard.write()));
            setup.await_waiting(1);
            let closing = scope.spawn(|| setup.pool.close());
            setup.await_waiting(2);
            assert_eq!(setup.pool.get().map(drop), Err(PoolError::Closed));
            first.write();
            drop(first);
            in_line.join().unwrap().unwrap();
            assert!(!closing.is_finished());
            drop(second);
            closing.join().unwrap().unwrap();
        });
        assert_eq!(setup.dirty(), 0);
        assert_eq!(setup.world.dropped.load(SeqCst), 2);
        assert_eq!(setup.pool.flush(), Err(PoolError::Closed));
        assert_eq!(setup.pool.close(), Ok(()));
    });
}

#[test]
fn a_failed_flush_at_the_end_is_reported_and_the_others_are_not_waited_for() {
    bounded(|| {
        let setup = Setup::new(2);
        let (first, second) = (setup.pool.get().unwrap(), setup.pool.get().unwrap());
        first.write();
        second.write();
        drop((first, second));
        setup.world.fail.store(true, SeqCst);
        assert!(setup.pool.close().is_err());
        assert_eq!(setup.world.flushes.load(SeqCst), 1);
        assert_eq!(setup.world.dropped.load(SeqCst), 2);
    });
}

#[test]
fn the_keeper_thread_works_and_ends_when_its_handle_is_dropped() {
    bounded(|| {
        let setup = Setup::new(1);
        let pool = setup.pool.clone();
        let (entered, go) = setup.world.gate();
        setup.pass(LIMIT);
        let keeper = Keeper::start(pool, Some(LIMIT)).unwrap();
        entered.recv().unwrap();
        let (dropped, was_dropped) = bounded_channel(1);
        let dropping = thread::Builder::new().spawn(move || {
            drop(keeper);
            dropped.send(()).unwrap();
        });
        assert!(was_dropped.try_recv().is_err(), "the keeper is still at work");
        go.send(()).unwrap();
        was_dropped.recv().unwrap();
        dropping.unwrap().join().unwrap();
    });
}
