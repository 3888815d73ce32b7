// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a pool.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::thread;

use common::{Error, Fails, PANIC, Setup, bounded};
use conn_pool::{Affected, PoolError};

#[test]
fn closing_waits_serves_those_in_line_flushes_and_drops() {
    bounded(|| {
        let setup = &Setup::new(2);
        thread::scope(|scope| {
            let first = setup.hold(scope, "1");
            let second = setup.hold(scope, "-");
            let in_line = setup.line_up(scope, 1, || setup.run("2"));
            let closing = setup.line_up(scope, 2, || setup.pool.close());
            assert_eq!(setup.run("3"), Err(PoolError::Closed));
            drop(first);
            in_line.join().unwrap().unwrap();
            assert!(!closing.is_finished());
            drop(second);
            closing.join().unwrap().unwrap();
        });
        assert_eq!((setup.unflushed(), setup.dropped()), (0, 2));
        assert_eq!(setup.pool.flush(), Err(PoolError::Closed));
        assert_eq!(setup.pool.close(), Ok(()));
    });
}

#[test]
fn whoever_waits_for_a_flush_is_served_before_the_end() {
    bounded(|| {
        let setup = &Setup::new(1);
        setup.run("1").unwrap();
        thread::scope(|scope| {
            let gate = setup.hold_up("flush", || drop(scope.spawn(|| setup.pool.flush().unwrap())));
            let flush = setup.line_up(scope, 1, || setup.pool.flush());
            let closing = setup.line_up(scope, 2, || setup.pool.close());
            drop(gate);
            assert_eq!((flush.join().unwrap(), closing.join().unwrap()), (Ok(()), Ok(())));
        });
    });
}

/// Two connections that are dirty.
fn two_dirty() -> Setup {
    let setup = Setup::new(2);
    thread::scope(|scope| drop(["1", "2"].map(|text| setup.hold(scope, text))));
    assert_eq!(setup.unflushed(), 2);
    setup
}

#[test]
fn a_failed_flush_at_the_end_is_reported_and_the_others_are_not_waited_for() {
    bounded(|| {
        // Nobody flushes the connection again: its work is lost in any case.
        for affected in [Affected::One, Affected::Group, Affected::Pool] {
            let setup = two_dirty();
            setup.set_fails(Some(Fails::With(affected)));
            assert_eq!(setup.pool.close(), Err(Error("flush failed".into())));
            assert_eq!((setup.count("flush"), setup.dropped()), (1, 2));
        }
    });
}

#[test]
fn a_panic_in_a_flush_at_the_end_is_reported() {
    bounded(|| {
        let setup = two_dirty();
        setup.set_fails(Some(Fails::Panics));
        assert_eq!(setup.pool.close(), Err(Error(PANIC.into())));
        assert_eq!((setup.count("flush"), setup.dropped()), (1, 2));
        assert_eq!(setup.pool.close(), Err(Error(PANIC.into())));
    });
}
