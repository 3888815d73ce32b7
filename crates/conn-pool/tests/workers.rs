// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that are submitted, so that nobody waits for them.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use common::{Notes, Outcome, Setup, bounded, failed};
use conn_pool::{PoolError, Workers};

fn start(setup: &Setup) -> Workers<Notes> {
    Workers::start(setup.pool.clone()).unwrap()
}

/// Submits requests while the one worker is busy with another, and waits until that is told of.
fn submit_behind(setup: &Setup, workers: &Workers<Notes>, first: &str, texts: &[&str]) {
    let go = setup.hold_up(|| workers.submit(setup.request(first)));
    texts.iter().for_each(|text| workers.submit(setup.request(text)));
    assert_eq!(setup.pool.waiting(), texts.len());
    go.send(()).unwrap();
    assert_eq!(setup.next().0, first);
}

#[test]
fn what_goes_together_is_carried_out_together_and_all_are_told() {
    bounded(|| {
        let setup = Setup::new(1);
        let workers = start(&setup);
        submit_behind(&setup, &workers, "1", &["a", "X", "b", "c", "Y"]);
        setup.assert_told(&["a", "b", "c"], &Ok(()));
        setup.assert_told(&["X", "Y"], &Ok(()));
        assert_eq!(setup.log(), ["1", "abc", "XY"]);

        submit_behind(&setup, &workers, "2", &["a", "?"]);
        setup.assert_told(&["?", "a"], &Err(PoolError::Refused("a? failed".into())));
        drop(workers);
        assert_eq!(setup.alive(), 0);
    });
}

#[test]
fn first_come_first_served() {
    bounded(|| {
        let setup = Setup::new(1);
        let workers = start(&setup);
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
        let workers = start(&setup);
        let (entered, go) = setup.gate();
        for text in ["1", "2", "3", "4"] {
            workers.submit(setup.request(text));
        }
        (0..3).for_each(|_| entered.recv().unwrap());
        assert_eq!(setup.pool.waiting(), 1);
        (0..4).for_each(|_| go.send(()).unwrap());
        setup.assert_told(&["1", "2", "3", "4"], &Ok(()));
    });
}

#[test]
fn a_flush_is_not_passed() {
    bounded(|| {
        let setup = Setup::new(1);
        let workers = start(&setup);
        workers.submit(setup.request("first"));
        setup.assert_told(&["first"], &Ok(()));
        let go = setup.hold_up(|| workers.submit(setup.request("1")));
        workers.submit(setup.request("a"));
        thread::scope(|scope| {
            setup.line_up(scope, 2, || setup.pool.flush().unwrap());
            workers.submit(setup.request("b"));
            workers.submit(setup.request("c"));
            go.send(()).unwrap();
        });
        drop(workers);
        assert_eq!(setup.log()[..5], ["first", "1", "a", "flush", "bc"]);
    });
}

#[test]
fn who_waits_anyway_does_the_work_where_a_connection_is_idle_and_a_worker_does_it_elsewhere() {
    bounded(|| {
        let setup = Setup::new(1);
        let workers = start(&setup);
        workers.carry_out(setup.request("a"));
        assert_eq!(setup.told.try_recv(), Ok(("a".into(), Ok(()))), "it is done by the return");
        let go = setup.hold_up(|| workers.submit(setup.request("1")));
        workers.carry_out(setup.request("b"));
        assert_eq!(setup.pool.waiting(), 1, "the return is at once");
        go.send(()).unwrap();
        setup.assert_told(&["1"], &Ok(()));
        setup.assert_told(&["b"], &Ok(()));
        // A panic is an error of the request alone.
        workers.carry_out(setup.request("!"));
        setup.assert_told(&["!"], &Err(PoolError::Abandoned));
        workers.carry_out(setup.request("#"));
        setup.assert_told(&["#"], &failed("# failed"));
        workers.carry_out(setup.request("c"));
        setup.assert_told(&["c"], &failed("# failed"));
        drop(workers);
        assert_eq!((setup.log(), setup.alive()), (["a", "1", "b", "!", "#"].map(String::from).into(), 0));
    });
}

#[test]
fn what_comes_while_somebody_else_does_the_work_is_a_workers() {
    bounded(|| {
        let setup = &Setup::new(1);
        let workers = &start(setup);
        thread::scope(|scope| {
            let go = setup.hold_up(|| drop(scope.spawn(|| workers.carry_out(setup.request("1")))));
            workers.submit(setup.request("2"));
            go.send(()).unwrap();
            // The connection is back before anyone is told, so the worker may be done first.
            setup.assert_told(&["1", "2"], &Ok(()));
        });
    });
}

#[test]
fn a_flush_finds_dirty_what_was_completed_before_it() {
    bounded(|| {
        let setup = Setup::new(2);
        let workers = start(&setup);
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
        let workers = start(setup);
        let go = setup.hold_up(|| workers.submit(setup.request("#")));
        workers.submit(setup.request("a"));
        workers.submit(setup.request("1"));
        thread::scope(|scope| {
            let thread = setup.line_up(scope, 3, || setup.run("2"));
            go.send(()).unwrap();
            assert_eq!(thread.join().unwrap(), failed("# failed"));
        });
        setup.assert_told(&["#", "1", "a"], &failed("# failed"));
        workers.submit(setup.request("b"));
        assert_eq!(setup.told.try_recv(), Ok(("b".into(), failed("# failed"))));
        drop(workers);
        assert_eq!((setup.log(), setup.alive()), (vec!["#".into()], 0));
    });
}

#[test]
fn a_panic_is_an_error_of_all_that_were_merged_and_the_worker_lives_on() {
    bounded(|| {
        let setup = &Setup::new(1);
        let workers = start(setup);
        let held = setup.pool.get().unwrap();
        workers.submit(setup.request("!"));
        workers.submit(setup.request("a"));
        thread::scope(|scope| {
            let thread = setup.line_up(scope, 3, || (setup.run("b"), setup.alive()));
            drop(held);
            assert_eq!(thread.join().unwrap(), (Err(PoolError::Abandoned), 0));
        });
        setup.assert_told(&["!", "a", "b"], &Err(PoolError::Abandoned));
        workers.submit(setup.request("c"));
        setup.assert_told(&["c"], &Ok(()));
        assert_eq!(setup.log(), ["!ab", "c"]);
    });
}

#[test]
fn a_panic_of_a_thread_is_an_error_of_what_was_submitted() {
    bounded(|| {
        let setup = &Setup::new(1);
        let workers = start(setup);
        let held = setup.pool.get().unwrap();
        thread::scope(|scope| {
            let leader =
                setup.line_up(scope, 1, || catch_unwind(AssertUnwindSafe(|| setup.run("!"))).is_err());
            workers.submit(setup.request("a"));
            drop(held);
            assert!(leader.join().unwrap());
        });
        setup.assert_told(&["!", "a"], &Err(PoolError::Abandoned));
        workers.submit(setup.request("b"));
        setup.assert_told(&["b"], &Ok(()));
    });
}

#[test]
fn a_panic_of_a_completion_harms_nobody_else() {
    bounded(|| {
        let setup = Setup::new(1);
        let workers = start(&setup);
        submit_behind(&setup, &workers, "~", &["1", "~", "2"]);
        let rest = [(); 3].map(|()| setup.next());
        assert_eq!(rest, ["1", "~", "2"].map(|text| (text.to_owned(), Ok(()))));

        // Nor where they are told of a failure.
        let held = setup.pool.get().unwrap();
        for text in ["~", "3"] {
            workers.submit(setup.request(text));
        }
        setup.pool.fail("broken".into());
        setup.assert_told(&["3", "~"], &failed("broken"));
        drop(held);
    });
}

#[test]
fn a_connection_goes_from_threads_to_workers_and_back() {
    bounded(|| {
        let setup = &Setup::new(1);
        let workers = start(setup);
        let held = setup.pool.get().unwrap();
        workers.submit(setup.request("a"));
        workers.submit(setup.request("1"));
        thread::scope(|scope| {
            // To a worker, which takes a thread's request along.
            let merged = setup.line_up(scope, 3, || setup.run("b"));
            // From the worker, which does "1" before, to a thread that takes what was submitted along.
            let thread = setup.line_up(scope, 4, || setup.run("X"));
            workers.submit(setup.request("Y"));
            drop(held);
            assert_eq!((merged.join().unwrap(), thread.join().unwrap()), (Ok(()), Ok(())));
        });
        setup.assert_told(&["1", "X", "Y", "a", "b"], &Ok(()));
        assert_eq!(setup.log(), ["ab", "1", "XY"]);
        drop(workers);
        assert_eq!(setup.alive(), 0);
    });
}

#[test]
fn threads_workers_and_flushes_get_on_with_each_other() {
    const ROUNDS: usize = 300;
    bounded(|| {
        let setup = &Setup::new(3);
        let workers = &start(setup);
        thread::scope(|scope| {
            for text in ["a", "X", "1", "b"] {
                scope.spawn(move || (0..ROUNDS).for_each(|_| workers.submit(setup.request(text))));
                scope.spawn(move || (0..ROUNDS).for_each(|_| setup.run(text).unwrap()));
            }
            for _ in 0..2 {
                scope.spawn(|| (0..ROUNDS).for_each(|_| drop(setup.pool.get().unwrap())));
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
        let workers = start(&setup);
        let (entered, go) = setup.gate();
        for text in ["1", "2", "3", "4"] {
            workers.submit(setup.request(text));
        }
        entered.recv().unwrap();
        thread::scope(|scope| {
            let dropping = setup.line_up(scope, 3, move || drop(workers));
            assert!(!dropping.is_finished());
            (0..4).for_each(|_| go.send(()).unwrap());
        });
        let told: Vec<(String, Outcome)> = setup.told.try_iter().collect();
        assert_eq!(told.len(), 4);
        assert!(told.iter().all(|(_, outcome)| outcome.is_ok()), "{told:?}");
        let log = setup.log();
        assert_eq!(log.iter().filter(|text| *text == "flush").count(), 2, "what is dirty is flushed");
        assert_eq!(setup.pool.close(), Ok(()));
    });
}

#[test]
fn a_closed_pool_refuses_what_is_submitted() {
    bounded(|| {
        let setup = Setup::new(1);
        let workers = start(&setup);
        let go = setup.hold_up(|| workers.submit(setup.request("1")));
        workers.submit(setup.request("2"));
        thread::scope(|scope| {
            let closing = setup.line_up(scope, 2, || setup.pool.close());
            workers.submit(setup.request("3"));
            let closed = Err(PoolError::Closed);
            assert_eq!(setup.told.try_recv(), Ok(("3".into(), closed.clone())));
            // Those that were in line are served.
            go.send(()).unwrap();
            setup.assert_told(&["1"], &Ok(()));
            setup.assert_told(&["2"], &Ok(()));
            assert_eq!(closing.join().unwrap(), Ok(()));
            workers.submit(setup.request("4"));
            assert_eq!(setup.told.try_recv(), Ok(("4".into(), closed)));
        });
        assert_eq!(setup.log(), ["1", "2", "flush"]);
    });
}
