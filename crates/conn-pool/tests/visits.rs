// SPDX-License-Identifier: MIT OR Apache-2.0
//! Flushes of several connections, and closing them: by workers, several at a time.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::thread;

use common::{Error, Fails, Gate, PATIENCE, Setup, bounded, failed, refused, submit_flush};
use conn_pool::Affected;
use crossbeam::channel::bounded as bounded_channel;

/// A pool of as many connections, of which so many are dirty. Each of these has one request.
fn with_dirty(connections: usize, dirty: usize) -> Setup {
    let setup = Setup::new(connections);
    thread::scope(|scope| drop((0..dirty).map(|_| setup.hold(scope, "1")).collect::<Vec<_>>()));
    setup.assert_told(&vec!["1"; dirty], &Ok(()));
    setup
}

#[track_caller]
fn assert_entered(gate: &Gate, connections: usize) {
    let mut entered: Vec<_> = (0..connections).map(|_| gate.entered()).collect();
    entered.sort_unstable();
    entered.dedup();
    assert_eq!(entered.len(), connections, "each is another one");
}

#[test]
fn several_connections_are_flushed_at_a_time() {
    bounded(|| {
        for is_led_by_a_thread in [true, false] {
            let setup = &with_dirty(4, 3);
            let workers = &setup.workers();
            thread::scope(|scope| {
                let gate = setup.gate("flush");
                let led = is_led_by_a_thread.then(|| {
                    let leader = scope.spawn(|| setup.pool.flush());
                    assert_entered(&gate, 3);
                    leader
                });
                let submitted = submit_flush(workers);
                if led.is_none() {
                    assert_entered(&gate, 3);
                }
                drop(gate);
                assert_eq!(submitted.recv_timeout(PATIENCE), Ok(Ok(())));
                assert!(led.is_none_or(|leader| leader.join().unwrap().is_ok()));
            });
            assert_eq!((setup.count("flush"), setup.unflushed()), (3, 0));
        }
    });
}

#[test]
fn others_are_served_while_storage_takes_its_time_to_flush() {
    bounded(|| {
        let setup = &with_dirty(4, 4);
        let workers = &setup.workers();
        let gate = setup.gate("flush");
        let submitted = submit_flush(workers);
        assert_entered(&gate, 3);
        // The fourth connection is not visited before another one is back.
        workers.submit(setup.request("-"));
        setup.assert_told(&["-"], &Ok(()));
        gate.pass();
        gate.entered();
        workers.submit(setup.request("-"));
        setup.assert_told(&["-"], &Ok(()));
        assert!(submitted.is_empty());
        drop(gate);
        assert_eq!(submitted.recv_timeout(PATIENCE), Ok(Ok(())));
        assert_eq!((setup.count("flush"), setup.unflushed()), (4, 0));
    });
}

#[test]
fn a_failure_is_told_while_other_flushes_take_their_time() {
    for affected in [Affected::One, Affected::Pool] {
        bounded(move || {
            let setup = &with_dirty(4, 3);
            let workers = &setup.workers();
            let gate = setup.gate("flush");
            let submitted = submit_flush(workers);
            assert_entered(&gate, 3);
            gate.pass();
            setup.wait_until(|| setup.unflushed() == 2);
            setup.set_fails(Some(Fails::With(affected)));
            gate.pass();
            let expected =
                if affected == Affected::Pool { failed("flush failed") } else { refused("flush failed") };
            assert_eq!(submitted.recv_timeout(PATIENCE).unwrap(), expected);
            setup.set_fails(None);
            drop(gate);
            assert_eq!(setup.pool.close().is_ok(), affected != Affected::Pool);
            // After a failure for good, closing flushes nothing more.
            let left = if affected == Affected::Pool { 1 } else { 0 };
            assert_eq!(setup.unflushed(), left);
        });
    }
}

#[test]
fn without_workers_a_thread_flushes_one_after_another() {
    bounded(|| {
        let setup = &with_dirty(3, 3);
        thread::scope(|scope| {
            let gate = setup.gate("flush");
            let flush = scope.spawn(|| setup.pool.flush());
            for left in (1..=3).rev() {
                gate.entered();
                assert_eq!(setup.unflushed(), left);
                gate.pass();
            }
            assert_eq!(flush.join().unwrap(), Ok(()));
        });
        assert_eq!((setup.count("flush"), setup.unflushed()), (3, 0));
    });
}

#[test]
fn a_flush_does_not_wait_for_a_worker_that_still_tells_of_its_request() {
    bounded(|| {
        for is_led_by_a_thread in [true, false] {
            let setup = &with_dirty(3, 2);
            let workers = &setup.workers();
            // Nobody listens yet, so that the worker waits in the completion.
            let (tell, told) = bounded_channel(0);
            workers.submit(setup.request_told("-", tell));
            setup.wait_until(|| setup.count("-") == 1);
            let flushed = match is_led_by_a_thread {
                true => setup.pool.flush(),
                false => submit_flush(workers).recv_timeout(PATIENCE).unwrap(),
            };
            assert_eq!(flushed, Ok(()));
            assert_eq!(told.recv_timeout(PATIENCE).unwrap().1, Ok(()));
        }
    });
}

#[test]
fn a_request_that_fails_the_pool_fails_the_flush_that_waits_for_its_connection() {
    bounded(|| {
        let setup = &with_dirty(4, 3);
        let workers = &setup.workers();
        // The connection that was used last is taken first: a dirty one.
        let breaks = setup.hold_up("#", || workers.submit(setup.request("#")));
        let gate = setup.gate("flush");
        let submitted = submit_flush(workers);
        assert_entered(&gate, 2);
        drop(breaks);
        // Two others are still being flushed.
        assert_eq!(submitted.recv_timeout(PATIENCE).unwrap(), failed("# failed"));
        drop(gate);
    });
}

#[test]
fn a_flush_that_goes_well_does_not_hide_that_the_pool_has_failed() {
    bounded(|| {
        let setup = &with_dirty(4, 3);
        let workers = &setup.workers();
        let gate = setup.gate("flush");
        let submitted = submit_flush(workers);
        assert_entered(&gate, 3);
        workers.submit(setup.request("#"));
        assert_eq!(setup.next().1, failed("# failed"));
        drop(gate);
        assert_eq!(submitted.recv_timeout(PATIENCE).unwrap(), failed("# failed"));
    });
}

#[test]
fn all_connections_are_closed_at_a_time() {
    bounded(|| {
        let setup = &with_dirty(3, 3);
        let workers = setup.workers();
        let gate = setup.gate("flush");
        thread::scope(|scope| {
            scope.spawn(|| drop(workers));
            assert_entered(&gate, 3);
            gate.pass();
            setup.wait_until(|| setup.dropped() == 1);
            drop(gate);
        });
        assert_eq!((setup.unflushed(), setup.dropped()), (0, 3));
        assert_eq!(setup.pool.close(), Ok(()));
    });
}

#[test]
fn a_failure_of_one_that_is_closed_by_a_worker_is_reported() {
    bounded(|| {
        let setup = &with_dirty(2, 2);
        let workers = setup.workers();
        setup.set_fails(Some(Fails::With(Affected::One)));
        let gate = setup.gate("flush");
        thread::scope(|scope| {
            let closing = scope.spawn(|| setup.pool.close());
            assert_entered(&gate, 2);
            drop(gate);
            assert_eq!(closing.join().unwrap(), Err(Error("flush failed".into())));
        });
        assert_eq!((setup.count("flush"), setup.dropped()), (2, 2));
        drop(workers);
    });
}
