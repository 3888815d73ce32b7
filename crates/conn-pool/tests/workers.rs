// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that are submitted, so that nobody waits for them.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::thread;

use common::{Error, Notes, Outcome, PANIC, Setup, bounded, failed, refused};
use conn_pool::{PoolError, Workers};

/// Submits requests while the one connection is busy with another, and waits until that is told of.
fn submit_behind(setup: &Setup, workers: &Workers<Notes>, first: &'static str, texts: &[&str]) {
    let gate = setup.hold_up(first, || workers.submit(setup.request(first)));
    texts.iter().for_each(|text| workers.submit(setup.request(text)));
    assert_eq!(setup.pool.waiting(), texts.len());
    drop(gate);
    assert_eq!(setup.next().0, first);
}

#[test]
fn what_goes_together_is_carried_out_together_and_all_are_told() {
    bounded(|| {
        let setup = Setup::new(1);
        let workers = setup.workers();
        submit_behind(&setup, &workers, "1", &["a", "X", "b", "c", "Y"]);
        setup.assert_told(&["a", "b", "c"], &Ok(()));
        setup.assert_told(&["X", "Y"], &Ok(()));
        assert_eq!(setup.log(), ["1", "abc", "XY"]);

        submit_behind(&setup, &workers, "2", &["a", "?"]);
        // One client's bad request doesn't fail another's.
        assert_eq!(setup.next(), ("a".into(), Ok(())));
        assert_eq!(setup.next(), ("?".into(), refused("? failed")));
        drop(workers);
        assert_eq!(setup.alive(), 0);
    });
}

#[test]
fn first_come_first_served() {
    bounded(|| {
        let setup = Setup::new(1);
        let workers = setup.workers();
        let texts = ["1", "2", "3", "4", "5"];
        submit_behind(&setup, &workers, "0", &texts);
        assert_eq!(texts.map(|_| setup.next()), texts.map(|text| (text.to_owned(), Ok(()))));
        assert_eq!(setup.log()[1..], texts);
    });
}

#[test]
fn as_many_requests_are_under_way_as_there_are_connections() {
    bounded(|| {
        let setup = Setup::new(3);
        let workers = setup.workers();
        let gates = ["1", "2", "3"].map(|text| setup.hold_up(text, || workers.submit(setup.request(text))));
        workers.submit(setup.request("4"));
        assert_eq!(setup.pool.waiting(), 1);
        drop(gates);
        setup.assert_told(&["1", "2", "3", "4"], &Ok(()));
    });
}

#[test]
fn requests_have_no_more_connections_than_are_of_use_and_more_as_soon_as_they_are() {
    bounded(|| {
        let setup = Setup::new(3);
        let workers = setup.workers();
        setup.spare(2);
        assert_eq!(setup.run("0"), Ok(()));
        setup.assert_told(&["0"], &Ok(()));
        let first = setup.hold_up("1", || workers.submit(setup.request("1")));
        let others = ["2", "3", "4"].map(|text| (text, setup.gate(text)));
        others.iter().for_each(|(text, _)| workers.submit(setup.request(text)));
        assert_eq!(setup.pool.waiting(), 3, "two connections are idle");
        setup.spare(0);
        drop(first);
        // The connection that came back has the first of them, and those that were idle have the
        // others.
        others.iter().for_each(|(_, gate)| _ = gate.entered());
        assert_eq!(setup.pool.waiting(), 0);
        drop(others);
        setup.assert_told(&["1", "2", "3", "4"], &Ok(()));
    });
}

#[test]
fn a_flush_has_a_connection_that_requests_may_not_have() {
    bounded(|| {
        let setup = Setup::new(2);
        let workers = setup.workers();
        let gates = ["a", "B"].map(|text| setup.hold_up(text, || workers.submit(setup.request(text))));
        setup.spare(1);
        drop(gates);
        setup.assert_told(&["B", "a"], &Ok(()));
        let gate = setup.hold_up("1", || workers.submit(setup.request("1")));
        workers.submit(setup.request("2"));
        assert_eq!(setup.pool.waiting(), 1);
        thread::scope(|scope| {
            let flush = setup.line_up(scope, 2, || setup.pool.flush());
            // Of the two that are dirty, the idle one is flushed at once.
            setup.wait_until(|| setup.log().contains(&"flush".to_owned()));
            drop(gate);
            assert_eq!(flush.join().unwrap(), Ok(()));
        });
        setup.assert_told(&["1", "2"], &Ok(()));
    });
}

#[test]
fn closing_serves_who_waits_though_connections_are_idle() {
    bounded(|| {
        let setup = Setup::new(3);
        setup.spare(2);
        assert_eq!(setup.run("0"), Ok(()));
        let workers = setup.workers();
        let gate = setup.hold_up("1", || workers.submit(setup.request("1")));
        ["2", "3"].iter().for_each(|text| workers.submit(setup.request(text)));
        thread::scope(|scope| {
            let close = scope.spawn(|| setup.pool.close());
            // The idle ones are closed, and only then may the other go on.
            setup.wait_until(|| setup.dropped() == 2);
            drop(gate);
            assert_eq!(close.join().unwrap(), Ok(()));
        });
        setup.assert_told(&["0", "1", "2", "3"], &Ok(()));
    });
}

#[test]
fn a_flush_is_not_passed() {
    bounded(|| {
        let setup = Setup::new(1);
        let workers = setup.workers();
        workers.submit(setup.request("first"));
        setup.assert_told(&["first"], &Ok(()));
        let gate = setup.hold_up("1", || workers.submit(setup.request("1")));
        workers.submit(setup.request("a"));
        thread::scope(|scope| {
            setup.line_up(scope, 2, || setup.pool.flush().unwrap());
            workers.submit(setup.request("b"));
            workers.submit(setup.request("c"));
            drop(gate);
        });
        drop(workers);
        assert_eq!(setup.log()[..5], ["first", "1", "a", "flush", "bc"]);
    });
}

#[test]
fn who_waits_anyway_does_the_work_where_a_connection_is_idle_and_a_worker_does_it_elsewhere() {
    bounded(|| {
        let setup = Setup::new(1);
        let workers = setup.workers();
        workers.carry_out(setup.request("a"));
        assert_eq!(setup.told.try_recv(), Ok(("a".into(), Ok(()))), "it is done by the return");
        let gate = setup.hold_up("1", || workers.submit(setup.request("1")));
        workers.carry_out(setup.request("b"));
        assert_eq!(setup.pool.waiting(), 1, "the return is at once");
        drop(gate);
        setup.assert_told(&["1"], &Ok(()));
        setup.assert_told(&["b"], &Ok(()));
        workers.carry_out(setup.request("?"));
        setup.assert_told(&["?"], &refused("? failed"));
        workers.carry_out(setup.request("#"));
        setup.assert_told(&["#"], &failed("# failed"));
        workers.carry_out(setup.request("c"));
        setup.assert_told(&["c"], &failed("# failed"));
        drop(workers);
        assert_eq!((setup.log(), setup.alive()), (["a", "1", "b", "?", "#"].map(String::from).into(), 0));
    });
}

#[test]
fn what_comes_while_somebody_else_does_the_work_is_a_workers() {
    bounded(|| {
        let setup = &Setup::new(1);
        let workers = &setup.workers();
        thread::scope(|scope| {
            let gate = setup.hold_up("1", || drop(scope.spawn(|| workers.carry_out(setup.request("1")))));
            workers.submit(setup.request("2"));
            drop(gate);
            // The connection is back before anyone is told, so the worker may be done first.
            setup.assert_told(&["1", "2"], &Ok(()));
        });
    });
}

#[test]
fn a_flush_finds_dirty_what_was_completed_before_it() {
    bounded(|| {
        let setup = Setup::new(2);
        let workers = setup.workers();
        for _ in 0..200 {
            workers.submit(setup.request("1"));
            setup.assert_told(&["1"], &Ok(()));
            setup.pool.flush().unwrap();
            workers.carry_out(setup.request("2"));
            setup.assert_told(&["2"], &Ok(()));
            setup.pool.flush().unwrap();
        }
        let expected = ["1", "flush", "2", "flush"].repeat(200);
        assert_eq!(setup.log(), expected);
    });
}

#[test]
fn a_fatal_failure_ends_all_that_wait_and_all_that_come() {
    bounded(|| {
        let setup = &Setup::new(1);
        let workers = setup.workers();
        let gate = setup.hold_up("#", || workers.submit(setup.request("#")));
        workers.submit(setup.request("a"));
        workers.submit(setup.request("1"));
        thread::scope(|scope| {
            let thread = setup.line_up(scope, 3, || setup.run("2"));
            drop(gate);
            assert_eq!(thread.join().unwrap(), failed("# failed"));
        });
        setup.assert_told(&["#", "1", "2", "a"], &failed("# failed"));
        workers.submit(setup.request("b"));
        assert_eq!(setup.told.try_recv(), Ok(("b".into(), failed("# failed"))));
        drop(workers);
        assert_eq!((setup.log(), setup.alive()), (vec!["#".into()], 0));
    });
}

#[test]
fn a_panic_fails_the_pool_and_all_are_told() {
    bounded(|| {
        for is_submitted in [true, false] {
            let setup = &Setup::new(2);
            let workers = setup.workers();
            thread::scope(|scope| {
                let [one, other] = ["1", "2"].map(|text| setup.hold(scope, text));
                if is_submitted {
                    workers.submit(setup.request("!"));
                } else {
                    setup.line_up(scope, 1, || assert_eq!(setup.run("!"), failed(PANIC)));
                }
                workers.submit(setup.request("a"));
                let thread = setup.line_up(scope, 3, || (setup.run("b"), setup.alive()));
                workers.submit(setup.request("X"));
                drop(one);
                setup.assert_told(&["1"], &Ok(()));
                // The requests that were carried out together fail, and so do those that wait in
                // line.
                setup.assert_told(&["!", "X", "a", "b"], &failed(PANIC));
                assert_eq!(thread.join().unwrap(), (failed(PANIC), 1), "the other one is still held up");
                drop(other);
            });
            setup.assert_told(&["2"], &Ok(()));
            // The threads live on.
            workers.submit(setup.request("c"));
            setup.assert_told(&["c"], &failed(PANIC));
            drop(workers);
            assert_eq!(setup.pool.close(), Err(Error(PANIC.into())));
            assert_eq!((setup.count("!ab"), setup.alive(), setup.dropped()), (1, 0, 2));
        }
    });
}

#[test]
fn a_panic_of_a_completion_harms_nobody_else() {
    bounded(|| {
        let setup = Setup::new(1);
        let workers = setup.workers();
        submit_behind(&setup, &workers, "~", &["1", "~", "2"]);
        let rest = [(); 3].map(|()| setup.next());
        assert_eq!(rest, ["1", "~", "2"].map(|text| (text.to_owned(), Ok(()))));

        // Nor where they are told of a failure.
        let gate = setup.hold_up("3", || workers.submit(setup.request("3")));
        thread::scope(|scope| {
            workers.submit(setup.request("4"));
            let thread = setup.line_up(scope, 2, || setup.run("~"));
            workers.submit(setup.request("~"));
            // All that wait are told by one call, which panics at the first of these; threads are
            // told all the same.
            setup.pool.fail(Error("broken".into()));
            assert_eq!(thread.join().unwrap(), failed("broken"));
        });
        setup.assert_told(&["4", "~"], &failed("broken"));
        drop(gate);
        setup.assert_told(&["3"], &Ok(()));
    });
}

#[test]
fn a_connection_goes_from_threads_to_workers_and_back() {
    bounded(|| {
        let setup = &Setup::new(1);
        let workers = setup.workers();
        thread::scope(|scope| {
            let held = setup.hold(scope, "-");
            workers.submit(setup.request("a"));
            workers.submit(setup.request("1"));
            // To a worker, which takes a thread's request along.
            let merged = setup.line_up(scope, 3, || setup.run("b"));
            // From the worker, which does "1" before, to a thread that takes what was submitted
            // along.
            let thread = setup.line_up(scope, 4, || setup.run("X"));
            workers.submit(setup.request("Y"));
            drop(held);
            assert_eq!((merged.join().unwrap(), thread.join().unwrap()), (Ok(()), Ok(())));
        });
        setup.assert_told(&["-", "1", "X", "Y", "a", "b"], &Ok(()));
        assert_eq!(setup.log(), ["-", "ab", "1", "XY"]);
        drop(workers);
        assert_eq!(setup.alive(), 0);
    });
}

#[test]
fn threads_workers_and_flushes_get_on_with_each_other() {
    const ROUNDS: usize = 300;
    bounded(|| {
        let setup = &Setup::new(3);
        let workers = &setup.workers();
        thread::scope(|scope| {
            for text in ["a", "X", "1", "b"] {
                scope.spawn(move || (0..ROUNDS).for_each(|_| workers.submit(setup.request(text))));
                scope.spawn(move || (0..ROUNDS).for_each(|_| setup.run(text).unwrap()));
            }
            for _ in 0..2 {
                scope.spawn(|| (0..ROUNDS).for_each(|_| workers.flush(|outcome| outcome.unwrap())));
                scope.spawn(|| (0..ROUNDS).for_each(|_| setup.pool.flush().unwrap()));
            }
        });
        for _ in 0..8 * ROUNDS {
            assert_eq!(setup.next().1, Ok(()));
        }
        assert_eq!(setup.told.len(), 0, "each is told once");
        let letters: usize = setup.log().iter().filter(|text| *text != "flush").map(String::len).sum();
        assert_eq!(letters, 8 * ROUNDS);
    });
}

#[test]
fn dropping_the_workers_waits_for_what_was_submitted() {
    bounded(|| {
        let setup = Setup::new(2);
        let workers = setup.workers();
        let gates = ["1", "2"].map(|text| setup.hold_up(text, || workers.submit(setup.request(text))));
        for text in ["3", "4"] {
            workers.submit(setup.request(text));
        }
        thread::scope(|scope| {
            let dropping = setup.line_up(scope, 3, move || drop(workers));
            assert!(!dropping.is_finished());
            drop(gates);
        });
        let told: Vec<(String, Outcome)> = setup.told.try_iter().collect();
        assert_eq!(told.len(), 4);
        assert!(told.iter().all(|(_, outcome)| outcome.is_ok()), "{told:?}");
        assert_eq!(setup.count("flush"), 2, "what is dirty is flushed");
        assert_eq!(setup.pool.close(), Ok(()));
    });
}

#[test]
fn a_closed_pool_refuses_what_is_submitted() {
    bounded(|| {
        let setup = Setup::new(1);
        let workers = setup.workers();
        let gate = setup.hold_up("1", || workers.submit(setup.request("1")));
        workers.submit(setup.request("2"));
        thread::scope(|scope| {
            let closing = setup.line_up(scope, 2, || setup.pool.close());
            workers.submit(setup.request("3"));
            let closed = Err(PoolError::Closed);
            assert_eq!(setup.told.try_recv(), Ok(("3".into(), closed.clone())));
            // The requests that were in line are served.
            drop(gate);
            setup.assert_told(&["1"], &Ok(()));
            setup.assert_told(&["2"], &Ok(()));
            assert_eq!(closing.join().unwrap(), Ok(()));
            workers.submit(setup.request("4"));
            assert_eq!(setup.told.try_recv(), Ok(("4".into(), closed)));
        });
        assert_eq!(setup.log(), ["1", "2", "flush"]);
    });
}
