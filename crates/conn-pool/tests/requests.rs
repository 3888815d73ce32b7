// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests of threads, that are merged while they wait.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use common::{Outcome, Setup, bounded, failed};
use conn_pool::PoolError;

/// Lines up while the connection is away, and gives the outcomes.
fn run_all(setup: &Setup, texts: &[&str]) -> Vec<Outcome> {
    let guard = setup.pool.get().unwrap();
    thread::scope(|scope| {
        let line_up = |(i, text)| setup.line_up(scope, i + 1, move || setup.run(text));
        let threads: Vec<_> = texts.iter().copied().enumerate().map(line_up).collect();
        drop(guard);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn what_goes_together_is_carried_out_together_and_answered_alike() {
    bounded(|| {
        let setup = Setup::new(1);
        let outcomes = run_all(&setup, &["a", "X", "b", "c", "Y"]);
        assert_eq!(setup.log(), ["abc", "XY"]);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        // In any order: each thread tells for itself.
        setup.assert_told(&["X", "Y", "a", "b", "c"], &Ok(()));
        assert_eq!(setup.alive(), 0);

        let outcomes = run_all(&setup, &["a", "X", "?", "Y"]);
        assert_eq!(setup.log()[2..], ["a?", "XY"]);
        let refused = Err(PoolError::Refused("a? failed".into()));
        assert_eq!(outcomes, [refused.clone(), Ok(()), refused, Ok(())]);
    });
}

#[test]
fn who_finds_a_connection_idle_carries_out_its_own() {
    let setup = Setup::new(1);
    assert_eq!((setup.run("a"), setup.run("b")), (Ok(()), Ok(())));
    assert_eq!((setup.log(), setup.alive()), (vec!["a".into(), "b".into()], 0));
}

#[test]
fn a_flush_is_not_passed() {
    bounded(|| {
        let setup = Setup::new(1);
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
    });
}

#[test]
fn a_flush_finds_dirty_what_was_answered_before_it() {
    bounded(|| {
        let setup = &Setup::new(1);
        let guard = setup.pool.get().unwrap();
        thread::scope(|scope| {
            for (place, text) in [(1, "a"), (2, "b"), (3, "c")] {
                setup.line_up(scope, place, move || {
                    setup.run(text).unwrap();
                    // Whoever is answered first: the connection is known to be dirty, also if it is not back.
                    setup.pool.flush().unwrap();
                });
            }
            drop(guard);
        });
        let log = setup.log();
        assert_eq!(log[..2], ["abc", "flush"], "{log:?}");
    });
}

#[test]
fn a_failure_reaches_those_that_wait() {
    bounded(|| {
        let setup = &Setup::new(1);
        let guard = setup.pool.get().unwrap();
        thread::scope(|scope| {
            let waiting = [(1, "a"), (2, "b")]
                .map(|(place, text)| setup.line_up(scope, place, move || setup.run(text)));
            setup.pool.fail("broken".into());
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), failed("broken"));
            }
            drop(guard);
        });
        assert_eq!((setup.log().len(), setup.alive()), (0, 0));
    });
}

#[test]
fn a_fatal_failure_of_one_reaches_all() {
    bounded(|| {
        let setup = &Setup::new(1);
        assert_eq!(run_all(setup, &["a", "#", "X"]), [(); 3].map(|()| failed("a# failed")));
        assert_eq!(setup.run("b"), failed("a# failed"));
        assert_eq!((setup.log(), setup.alive()), (vec!["a#".into()], 0));
    });
}

#[test]
fn a_panic_of_the_one_is_an_error_of_the_others() {
    bounded(|| {
        let setup = &Setup::new(1);
        let guard = setup.pool.get().unwrap();
        thread::scope(|scope| {
            let leader =
                setup.line_up(scope, 1, || catch_unwind(AssertUnwindSafe(|| setup.run("!"))).is_err());
            // By the time it is told, nobody has its memory any more.
            let other = setup.line_up(scope, 2, || (setup.run("b"), setup.alive()));
            drop(guard);
            assert!(leader.join().unwrap());
            assert_eq!(other.join().unwrap(), (Err(PoolError::Abandoned), 0));
        });
        // The connection is back.
        assert_eq!(setup.run("c"), Ok(()));
        assert_eq!(setup.log(), ["!b", "c"]);
    });
}
