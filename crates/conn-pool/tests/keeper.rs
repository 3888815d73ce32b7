// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keeper, and what it does with connections, by a clock that the tests set.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Error, Fails, LIMIT, PANIC, Setup, bounded, failed};
use conn_pool::{Affected, Keeper};

/// This time is so short that connections are due again and again, by the real clock.
const SHORT: Duration = Duration::from_millis(1);

fn with_real_clock(connections: usize) -> Setup {
    Setup::with_clock(connections, true, Arc::new(Mutex::new(Instant::now())), Arc::new(Instant::now))
}

#[test]
fn what_was_idle_for_long_is_used_and_nothing_else() {
    bounded(|| {
        let setup = Setup::new(3);
        let start = *setup.now.lock().unwrap();
        assert_eq!(setup.keep_alive(), start + LIMIT);
        setup.pass(LIMIT / 2);
        setup.run("-").unwrap();
        assert_eq!(setup.keep_alive(), start + LIMIT);
        assert_eq!(setup.count("alive"), 0);
        setup.pass(LIMIT / 2);
        // Two were unused for the whole limit; the third is due next.
        setup.keep_alive();
        assert_eq!(setup.count("alive"), 2);
        assert_eq!(setup.keep_alive(), start + LIMIT / 2 + LIMIT);
    });
}

#[test]
fn one_connection_is_kept_in_use_while_nothing_happens() {
    bounded(|| {
        let setup = &Setup::with_connections(3, false);
        let start = *setup.now.lock().unwrap();
        assert_eq!(setup.keep_alive(), start + LIMIT);
        setup.pass(LIMIT / 2);
        setup.keep_alive();
        assert_eq!(setup.count("alive"), 0);
        setup.pass(LIMIT / 2);
        for n in 1..4 {
            // No client has come yet. The one that was opened is used on.
            let gate = setup.gate("alive");
            thread::scope(|scope| {
                scope.spawn(|| setup.keep_alive());
                assert_eq!(gate.entered(), 0);
                gate.pass();
            });
            setup.keep_alive();
            assert_eq!(setup.count("alive"), n);
            setup.pass(LIMIT);
        }
    });
}

#[test]
fn the_others_are_free_while_one_is_kept_alive() {
    bounded(|| {
        let setup = &Setup::new(2);
        setup.pass(LIMIT);
        thread::scope(|scope| {
            let alive = setup.gate("alive");
            scope.spawn(|| setup.pool.keep_alive(LIMIT, |due| drop(scope.spawn(|| due.keep_alive()))));
            let held = [alive.entered(), alive.entered()];
            assert_ne!(held[0], held[1]);
            let waiting = setup.line_up(scope, 1, || setup.run("1"));
            alive.pass();
            assert_eq!(waiting.join().unwrap(), Ok(()));
            assert_eq!(setup.count("alive"), 2);
            drop(alive);
        });
    });
}

#[test]
fn a_connection_that_is_due_but_not_used_comes_back() {
    let setup = Setup::new(1);
    setup.pass(LIMIT);
    setup.pool.keep_alive(LIMIT, drop);
    assert_eq!((setup.run("1"), setup.count("alive")), (Ok(()), 0));
}

#[test]
fn a_failed_keep_alive_is_reported_by_every_later_request() {
    bounded(|| {
        for (fails, told) in [(Fails::With(Affected::Pool), "alive failed"), (Fails::Panics, PANIC)] {
            let setup = Setup::new(2);
            setup.pass(LIMIT);
            setup.set_fails(Some(fails));
            setup.keep_alive();
            setup.set_fails(None);
            for _ in 0..3 {
                assert_eq!((setup.run("1"), setup.pool.flush()), (failed(told), failed(told)));
            }
            assert_eq!(setup.pool.close(), Err(Error(told.into())));
        }
    });
}

#[test]
fn a_keep_alive_that_fails_with_nothing_at_stake_concerns_nobody() {
    let setup = Setup::new(1);
    setup.pass(LIMIT);
    setup.set_fails(Some(Fails::With(Affected::Group)));
    setup.keep_alive();
    assert_eq!((setup.count("alive"), setup.run("1")), (1, Ok(())));
}

#[test]
fn what_is_full_is_flushed_one_at_a_time() {
    bounded(|| {
        let setup = &Setup::new(2);
        setup.set_full();
        thread::scope(|scope| {
            setup.run("1").unwrap();
            let (background, gate) = (setup.gate("background"), setup.gate("flush"));
            scope.spawn(|| assert!(setup.pool.flush_next()));
            let first = background.entered();
            // The other becomes full, too, but is free.
            setup.run("2").unwrap();
            setup.run("3").unwrap();
            assert_eq!(setup.unflushed(), 3);
            // A flush covers what the keeper has, and needs not repeat it.
            let flush = scope.spawn(|| setup.pool.flush());
            assert_ne!(gate.entered(), first);
            gate.pass();
            background.pass();
            flush.join().unwrap().unwrap();
            assert_eq!(setup.unflushed(), 0);
        });
        assert_eq!((setup.count("background"), setup.count("flush")), (1, 1));
    });
}

#[test]
fn an_idle_connection_that_comes_to_be_full_is_flushed_too() {
    bounded(|| {
        let setup = Setup::new(2);
        setup.run("1").unwrap();
        setup.set_full();
        // The flush comes as soon as the keeper begins to wait.
        assert!(setup.pool.flush_next());
        assert_eq!((setup.unflushed(), setup.count("background")), (0, 1));
    });
}

#[test]
fn a_failed_flush_in_the_background_is_reported_by_every_later_request() {
    bounded(|| {
        for (fails, told) in [(Fails::With(Affected::Pool), "background failed"), (Fails::Panics, PANIC)] {
            let setup = Setup::new(2);
            setup.set_full();
            setup.run("1").unwrap();
            setup.set_fails(Some(fails));
            assert!(setup.pool.flush_next());
            setup.set_fails(None);
            assert_eq!((setup.run("2"), setup.pool.flush()), (failed(told), failed(told)));
            assert_eq!(setup.pool.close(), Err(Error(told.into())));
        }
    });
}

#[test]
fn a_flush_that_is_refused_in_the_background_is_left_to_the_next_request() {
    bounded(|| {
        let setup = &Setup::new(1);
        setup.set_full();
        setup.run("1").unwrap();
        setup.set_fails(Some(Fails::With(Affected::Group)));
        thread::scope(|scope| {
            scope.spawn(|| while setup.pool.flush_next() {});
            setup.wait_until(|| setup.count("background") == 1);
            setup.set_fails(None);
            // The request makes it full once more, and then it is tried again.
            setup.run("2").unwrap();
            setup.wait_until(|| setup.unflushed() == 0);
            setup.pool.end_keeping();
        });
        assert_eq!((setup.count("background"), setup.pool.failure()), (2, None));
    });
}

#[test]
fn without_a_keeper_what_is_full_goes_to_the_next() {
    bounded(|| {
        let setup = Setup::new(1);
        setup.set_full();
        for _ in 0..3 {
            setup.run("1").unwrap();
        }
        setup.pool.end_keeping();
        assert!(!setup.pool.flush_next());
        setup.pass(LIMIT);
        setup.keep_alive();
        setup.run("2").unwrap();
        assert_eq!(setup.log(), ["1", "1", "1", "2"]);
    });
}

#[test]
fn a_connection_that_hangs_does_not_keep_the_keeper_from_the_others() {
    bounded(|| {
        let setup = &with_real_clock(2);
        let hanging = setup.gate("alive");
        let keeper = Keeper::start(setup.pool.clone(), Some(SHORT)).unwrap();
        let [first, second] = [hanging.entered(), hanging.entered()];
        assert_ne!(first, second, "both are under way at the same time");
        // One hangs on, while the other is used again and again.
        let again = setup.gate("alive");
        hanging.pass();
        for _ in 0..3 {
            again.entered();
            again.pass();
        }
        // Dropping the keeper waits for the one that hangs.
        thread::scope(|scope| {
            let dropping = scope.spawn(|| drop(keeper));
            setup.wait_until(|| !setup.pool.flush_next());
            assert!(!dropping.is_finished());
            drop((hanging, again));
        });
    });
}

#[test]
fn keep_alives_go_on_while_a_flush_in_the_background_hangs() {
    bounded(|| {
        let setup = &with_real_clock(2);
        setup.set_full();
        setup.run("1").unwrap();
        let hanging = setup.gate("background");
        let keeper = Keeper::start(setup.pool.clone(), Some(SHORT)).unwrap();
        let flushed = hanging.entered();
        let alive = setup.gate("alive");
        for _ in 0..3 {
            assert_ne!(alive.entered(), flushed);
            alive.pass();
        }
        drop((hanging, alive));
        drop(keeper);
        assert_eq!((setup.unflushed(), setup.pool.failure()), (0, None));
    });
}

#[test]
fn the_keeper_ends_when_its_handle_is_dropped_and_its_work_is_done() {
    bounded(|| {
        for limit in [None, Some(LIMIT)] {
            let setup = &Setup::new(1);
            setup.set_full();
            let gate = setup.gate("background");
            let keeper = Keeper::start(setup.pool.clone(), limit).unwrap();
            setup.run("1").unwrap();
            gate.entered();
            thread::scope(|scope| {
                let dropping = scope.spawn(|| drop(keeper));
                assert!(!dropping.is_finished(), "the keeper is still at work");
                gate.pass();
            });
            assert_eq!(setup.unflushed(), 0);
        }
    });
}

#[test]
fn a_panic_of_the_keeper_fails_the_pool_at_once() {
    bounded(|| {
        let panics = Arc::new(AtomicBool::new(false));
        let now = Arc::new(Mutex::new(Instant::now()));
        let clock = {
            let (panics, now) = (Arc::clone(&panics), Arc::clone(&now));
            move || {
                assert!(!panics.swap(false, SeqCst), "this panic is part of the test");
                *now.lock().unwrap()
            }
        };
        let setup = Setup::with_clock(1, true, now, Arc::new(clock));
        panics.store(true, SeqCst);
        let _keeper = Keeper::start(setup.pool.clone(), Some(LIMIT)).unwrap();
        setup.wait_until(|| setup.pool.failure().is_some());
        assert_eq!(setup.run("1"), failed(PANIC));
    });
}
