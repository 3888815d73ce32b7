// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests of threads, which are carried out together where they wait together.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::Mutex;
use std::thread;

use common::{Error, Outcome, PANIC, Setup, bounded, failed, refused};
use conn_pool::PoolError;

/// Lines up while the connection is away, and gives the outcomes.
fn run_all(setup: &Setup, texts: &[&str]) -> Vec<Outcome> {
    thread::scope(|scope| {
        let held = setup.hold(scope, "-");
        let line_up = |(i, text)| setup.line_up(scope, i + 1, move || setup.run(text));
        let threads: Vec<_> = texts.iter().copied().enumerate().map(line_up).collect();
        drop(held);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn waiters_are_served_in_the_order_they_came() {
    bounded(|| {
        let setup = Setup::new(1);
        run_all(&setup, &["1", "2", "3", "4", "5"]);
        assert_eq!(setup.log(), ["-", "1", "2", "3", "4", "5"]);
    });
}

#[test]
fn what_goes_together_is_carried_out_together() {
    bounded(|| {
        let setup = Setup::new(1);
        let outcomes = run_all(&setup, &["a", "X", "b", "c", "Y"]);
        assert_eq!(setup.log(), ["-", "abc", "XY"]);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        // In any order: each thread tells for itself.
        setup.assert_told(&["-", "X", "Y", "a", "b", "c"], &Ok(()));
        assert_eq!(setup.alive(), 0);
    });
}

#[test]
fn who_finds_a_connection_idle_carries_out_its_own() {
    let setup = Setup::new(1);
    assert_eq!((setup.run("a"), setup.run("b")), (Ok(()), Ok(())));
    assert_eq!((setup.log(), setup.alive()), (vec!["a".into(), "b".into()], 0));
}

#[test]
fn a_bad_request_fails_none_that_was_carried_out_with_it() {
    bounded(|| {
        let setup = Setup::new(1);
        let outcomes = run_all(&setup, &["a", "X", "?", "b", "Y"]);
        assert_eq!(setup.log(), ["-", "a?b", "a", "?", "b", "XY"]);
        assert_eq!(outcomes, [Ok(()), Ok(()), refused("? failed"), Ok(()), Ok(())]);
        assert_eq!(setup.alive(), 0);
    });
}

#[test]
fn a_fatal_failure_of_one_that_is_carried_out_alone_fails_the_rest() {
    bounded(|| {
        let setup = Setup::new(1);
        // Together they fail as `?` does, which comes first.
        let outcomes = run_all(&setup, &["a", "?", "#", "b"]);
        assert_eq!(setup.log(), ["-", "a?#b", "a", "?", "#"]);
        assert_eq!(outcomes, [Ok(()), refused("? failed"), failed("# failed"), failed("# failed")]);
        assert_eq!(setup.alive(), 0);
    });
}

#[test]
fn a_failure_of_a_group_is_told_to_all_of_it_and_to_nobody_else() {
    bounded(|| {
        let setup = Setup::new(1);
        let outcomes = run_all(&setup, &["a", "X", "%"]);
        assert_eq!(setup.log(), ["-", "a%", "X"]);
        assert_eq!(outcomes, [refused("a% failed"), Ok(()), refused("a% failed")]);
        assert_eq!(setup.run("?"), refused("? failed"), "who is alone is not tried again");
        assert_eq!(setup.log()[3..], ["?"]);
    });
}

#[test]
fn nobody_is_told_before_the_connection_is_known_to_be_dirty() {
    bounded(|| {
        let setup = &Setup::new(1);
        thread::scope(|scope| {
            let held = setup.hold(scope, "-");
            for (place, text) in [(1, "a"), (2, "?"), (3, "c")] {
                setup.line_up(scope, place, move || {
                    let _ = setup.run(text);
                    // Whoever is answered first: the connection is known to be dirty, also if it is
                    // not back.
                    setup.pool.flush().unwrap();
                    assert_eq!(setup.unflushed(), 0);
                });
            }
            drop(held);
        });
        let log = setup.log();
        assert_eq!(log[..6], ["-", "a?c", "a", "?", "c", "flush"], "{log:?}");
    });
}

#[test]
fn a_failure_reaches_those_that_wait() {
    bounded(|| {
        let setup = &Setup::new(1);
        thread::scope(|scope| {
            let held = setup.hold(scope, "-");
            let waiting = [(1, "a"), (2, "b")]
                .map(|(place, text)| setup.line_up(scope, place, move || setup.run(text)));
            setup.pool.fail(Error("broken".into()));
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), failed("broken"));
            }
            assert_eq!(setup.alive(), 1, "but for the one that is held up");
            drop(held);
        });
        assert_eq!((setup.log(), setup.alive()), (vec!["-".into()], 0));
    });
}

#[test]
fn a_fatal_failure_of_one_reaches_all() {
    bounded(|| {
        let setup = &Setup::new(1);
        assert_eq!(run_all(setup, &["a", "#", "X"]), [(); 3].map(|()| failed("a# failed")));
        assert_eq!(setup.run("b"), failed("a# failed"));
        assert_eq!((setup.log(), setup.alive()), (vec!["-".into(), "a#".into()], 0));
    });
}

#[test]
fn after_a_panic_nobody_knows_what_was_done_and_the_pool_fails() {
    bounded(|| {
        let setup = &Setup::new(1);
        thread::scope(|scope| {
            let held = setup.hold(scope, "-");
            // The panic stays in the pool: its caller has an error like the others.
            let leader = setup.line_up(scope, 1, || setup.run("!"));
            // By the time it is told, nobody has its memory any more.
            let other = setup.line_up(scope, 2, || (setup.run("b"), setup.alive()));
            let behind = setup.line_up(scope, 3, || setup.run("X"));
            drop(held);
            assert_eq!(leader.join().unwrap(), failed(PANIC));
            assert_eq!(other.join().unwrap(), (failed(PANIC), 0));
            assert_eq!(behind.join().unwrap(), failed(PANIC));
        });
        assert_eq!(setup.run("c"), failed(PANIC));
        assert_eq!(setup.log(), ["-", "!b"]);
        assert_eq!(setup.pool.close(), Err(Error(PANIC.into())));
        assert_eq!(setup.dropped(), 1);
    });
}

#[test]
fn every_request_is_told_once_also_where_it_is_refused() {
    bounded(|| {
        let setup = Setup::new(1);
        assert_eq!(setup.pool.close(), Ok(()));
        assert_eq!(setup.run("a"), Err(PoolError::Closed));
        setup.assert_told(&["a"], &Err(PoolError::Closed));
        let nothing = Setup::new(0);
        assert_eq!(nothing.run("a"), Err(PoolError::Closed), "there is nothing to wait for");
    });
}

#[test]
fn connections_beyond_the_need_stay_unused() {
    bounded(|| {
        let setup = Setup::new(3);
        let used = Mutex::new(Vec::new());
        for _ in 0..3 {
            setup.pass(common::LIMIT);
            setup.keep_alive();
            thread::scope(|scope| {
                let gate = setup.gate("1");
                scope.spawn(|| setup.run("1").unwrap());
                used.lock().unwrap().push(gate.entered());
            });
            setup.pool.flush().unwrap();
        }
        let used = used.into_inner().unwrap();
        assert!(used.iter().all(|id| *id == used[0]), "{used:?}");
        assert_eq!((setup.count("alive"), setup.count("flush")), (9, 3));
    });
}
