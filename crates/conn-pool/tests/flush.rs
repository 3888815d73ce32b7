// SPDX-License-Identifier: MIT OR Apache-2.0
//! Flushes, of threads and submitted.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use common::{Error, Fails, Outcome, PANIC, PATIENCE, Setup, bounded, failed, refused, submit_flush};
use conn_pool::{Affected, PoolError};
use crossbeam::channel::Receiver;

#[track_caller]
fn outcome(told: &Receiver<Outcome>) -> Outcome {
    let outcome = told.recv_timeout(PATIENCE).unwrap();
    assert!(told.recv_timeout(PATIENCE).is_err(), "it is told once");
    outcome
}

#[test]
fn a_newcomer_does_not_overtake_a_flush() {
    bounded(|| {
        let setup = &Setup::new(1);
        setup.run("first").unwrap();
        thread::scope(|scope| {
            let held = setup.hold(scope, "-");
            setup.line_up(scope, 1, || setup.run("a").unwrap());
            setup.line_up(scope, 2, || setup.pool.flush().unwrap());
            setup.line_up(scope, 3, || setup.run("b").unwrap());
            setup.line_up(scope, 4, || setup.run("c").unwrap());
            drop(held);
        });
        assert_eq!(setup.log(), ["first", "-", "a", "flush", "bc"]);
    });
}

#[test]
fn only_dirty_connections_are_flushed() {
    bounded(|| {
        let setup = Setup::new(4);
        setup.run("1").unwrap();
        setup.pool.flush().unwrap();
        setup.pool.flush().unwrap();
        assert_eq!((setup.log(), setup.unflushed()), (vec!["1".into(), "flush".into()], 0));
    });
}

#[test]
fn a_flush_waits_for_a_busy_connection_only_if_it_was_dirty_before() {
    bounded(|| {
        let setup = &Setup::new(2);
        thread::scope(|scope| {
            let clean = setup.hold(scope, "1");
            // Not acknowledged to anyone yet: no concern of this flush.
            setup.pool.flush().unwrap();
            drop(clean);
        });
        assert_eq!(setup.log(), ["1"]);
        thread::scope(|scope| {
            // The connection used last is taken first, so this one is dirty.
            let dirty = setup.hold(scope, "-");
            setup.line_up(scope, 1, || setup.pool.flush().unwrap());
            drop(dirty);
        });
        assert_eq!((setup.log(), setup.unflushed()), (["1", "-", "flush"].map(String::from).into(), 0));
    });
}

#[test]
fn flushes_that_wait_share_the_next_one() {
    bounded(|| {
        let setup = &Setup::new(1);
        let workers = &setup.workers();
        setup.run("1").unwrap();
        thread::scope(|scope| {
            let gate = setup.hold_up("flush", || drop(scope.spawn(|| setup.pool.flush().unwrap())));
            let mut submitted = Vec::new();
            for n in 0..5 {
                setup.line_up(scope, 2 * n + 1, || setup.pool.flush().unwrap());
                submitted.push(submit_flush(workers));
            }
            assert_eq!(setup.pool.waiting(), 10);
            drop(gate);
            assert!(submitted.iter().all(|told| outcome(told) == Ok(())));
        });
        // All ten came while the first ran, and found nothing left to flush.
        assert_eq!(setup.count("flush"), 1);
    });
}

#[test]
fn those_that_wait_for_the_next_flush_share_its_work_and_its_outcome() {
    bounded(|| {
        let setup = &Setup::new(2);
        let workers = &setup.workers();
        thread::scope(|scope| {
            let second = setup.hold(scope, "2");
            setup.run("1").unwrap();
            let gate = setup.hold_up("flush", || drop(scope.spawn(|| setup.pool.flush().unwrap())));
            let waiters: Vec<_> = (1..=5).map(|n| setup.line_up(scope, n, || setup.pool.flush())).collect();
            let submitted = [(); 5].map(|()| submit_flush(workers));
            // Work for the next flush, which fails.
            drop(second);
            setup.wait_until(|| setup.unflushed() == 2 && setup.told.len() == 2);
            gate.pass();
            gate.entered();
            assert_eq!(setup.pool.waiting(), 0, "one leads, the others follow it");
            setup.set_fails(Some(Fails::With(Affected::Pool)));
            drop(gate);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), failed("flush failed"));
            }
            assert!(submitted.iter().all(|told| outcome(told) == failed("flush failed")));
        });
        assert_eq!(setup.count("flush"), 2);
    });
}

#[test]
fn sixteen_flushes_on_four_connections_under_load_end_and_cover_what_came_before() {
    bounded(|| {
        let setup = &Setup::new(4);
        let workers = &setup.workers();
        let acknowledged = &AtomicUsize::new(0);
        let assert_flushed = move |before: usize| {
            let flushed = setup.flushed();
            assert!(flushed >= before, "{flushed} of {before} flushed");
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        setup.run("1").unwrap();
                        acknowledged.fetch_add(1, SeqCst);
                    }
                });
            }
            for _ in 0..8 {
                scope.spawn(move || {
                    for _ in 0..100 {
                        let before = acknowledged.load(SeqCst);
                        setup.pool.flush().unwrap();
                        assert_flushed(before);
                        let before = acknowledged.load(SeqCst);
                        assert_eq!(outcome(&submit_flush(workers)), Ok(()));
                        assert_flushed(before);
                    }
                });
            }
        });
        setup.pool.flush().unwrap();
        assert_eq!(setup.unflushed(), 0);
    });
}

#[test]
fn a_failed_flush_is_kept_and_told_to_all() {
    bounded(|| {
        let setup = &Setup::new(2);
        setup.run("1").unwrap();
        setup.set_fails(Some(Fails::With(Affected::Pool)));
        thread::scope(|scope| {
            let gate = setup.gate("flush");
            let leader = scope.spawn(|| setup.pool.flush());
            gate.entered();
            let other = setup.hold(scope, "-");
            let follower = setup.line_up(scope, 1, || setup.pool.flush());
            let waiter = setup.line_up(scope, 2, || setup.run("2"));
            drop(gate);
            assert_eq!(leader.join().unwrap(), failed("flush failed"));
            assert_eq!(follower.join().unwrap(), failed("flush failed"));
            assert_eq!(waiter.join().unwrap(), failed("flush failed"));
            drop(other);
        });
        setup.set_fails(None);
        assert_eq!(setup.run("3"), failed("flush failed"));
        assert_eq!(setup.pool.flush(), failed("flush failed"));
        assert_eq!(setup.pool.failure(), Some(Error("flush failed".into())));
    });
}

#[test]
fn a_refused_flush_is_told_to_those_who_waited_for_it_and_the_connection_stays_dirty() {
    bounded(|| {
        let setup = &Setup::new(1);
        let workers = &setup.workers();
        for affected in [Affected::One, Affected::Group] {
            setup.run("1").unwrap();
            setup.set_fails(Some(Fails::With(affected)));
            assert_eq!(setup.pool.flush(), refused("flush failed"));
            assert_eq!(outcome(&submit_flush(workers)), refused("flush failed"));
            setup.set_fails(None);
            assert_eq!(setup.pool.failure(), None);
            assert_eq!((setup.unflushed(), setup.pool.flush(), setup.unflushed()), (1, Ok(()), 0));
        }
    });
}

#[test]
fn a_panic_in_a_flush_fails_the_pool() {
    bounded(|| {
        let setup = &Setup::new(2);
        let workers = &setup.workers();
        setup.run("1").unwrap();
        setup.set_fails(Some(Fails::Panics));
        thread::scope(|scope| {
            let gate = setup.gate("flush");
            let leader = scope.spawn(|| setup.pool.flush());
            gate.entered();
            let follower = setup.line_up(scope, 1, || setup.pool.flush());
            let submitted = submit_flush(workers);
            drop(gate);
            assert_eq!(leader.join().unwrap(), failed(PANIC));
            assert_eq!(follower.join().unwrap(), failed(PANIC));
            assert_eq!(outcome(&submitted), failed(PANIC));
        });
        assert_eq!((setup.run("2"), outcome(&submit_flush(workers))), (failed(PANIC), failed(PANIC)));
        assert_eq!(setup.pool.close(), Err(Error(PANIC.into())));
    });
}

#[test]
fn a_failure_reaches_flushes_that_wait_while_another_hangs() {
    bounded(|| {
        let setup = &Setup::new(1);
        let workers = &setup.workers();
        setup.run("1").unwrap();
        thread::scope(|scope| {
            let gate = setup.hold_up("flush", || drop(scope.spawn(|| setup.pool.flush())));
            let follower = setup.line_up(scope, 1, || setup.pool.flush());
            let submitted = submit_flush(workers);
            setup.pool.fail(Error("broken".into()));
            assert_eq!(follower.join().unwrap(), failed("broken"));
            assert_eq!(outcome(&submitted), failed("broken"));
            drop(gate);
        });
    });
}

#[test]
fn a_submitted_flush_does_not_block_and_leaves_the_workers_to_others() {
    bounded(|| {
        let setup = &Setup::new(1);
        let workers = &setup.workers();
        setup.run("1").unwrap();
        let gate = setup.gate("flush");
        let first = submit_flush(workers);
        gate.entered();
        // The line goes on behind it, as soon as the connection is back.
        workers.submit(setup.request("2"));
        let second = submit_flush(workers);
        assert_eq!(setup.pool.waiting(), 2);
        assert!(first.is_empty() && second.is_empty());
        drop(gate);
        assert_eq!((outcome(&first), outcome(&second)), (Ok(()), Ok(())));
        setup.pool.close().unwrap();
        assert_eq!(outcome(&submit_flush(workers)), Err(PoolError::Closed));
    });
}

#[test]
fn a_panic_of_a_flushs_completion_harms_nobody_else() {
    bounded(|| {
        let setup = &Setup::new(1);
        let workers = setup.workers();
        setup.run("1").unwrap();
        let gate = setup.hold_up("flush", || workers.flush(|_| panic!("this panic is part of the test")));
        workers.flush(|_| panic!("this panic is part of the test"));
        let other = submit_flush(&workers);
        drop(gate);
        assert_eq!((outcome(&other), setup.run("2")), (Ok(()), Ok(())));
        drop(workers);
        assert_eq!(setup.pool.failure(), None);
    });
}

#[test]
fn dropping_the_workers_waits_for_flushes_that_were_submitted() {
    bounded(|| {
        for is_led_by_a_thread in [true, false] {
            let setup = &Setup::new(2);
            let workers = setup.workers();
            setup.run("1").unwrap();
            thread::scope(|scope| {
                let gate = setup.gate("flush");
                if is_led_by_a_thread {
                    scope.spawn(|| setup.pool.flush().unwrap());
                } else {
                    workers.flush(|outcome| outcome.unwrap());
                }
                gate.entered();
                let told = submit_flush(&workers);
                let dropping = scope.spawn(move || drop(workers));
                setup.wait_until(|| setup.run("2") == Err(PoolError::Closed));
                assert!(told.is_empty() && !dropping.is_finished());
                drop(gate);
                dropping.join().unwrap();
                // Whoever waited for a flush before is served, and told by now.
                assert_eq!(told.try_recv(), Ok(Ok(())));
            });
            assert_eq!((setup.unflushed(), setup.pool.close()), (0, Ok(())));
        }
    });
}
