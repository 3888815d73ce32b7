// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests of threads.

use std::sync::atomic::Ordering::SeqCst;

use conn_pool::PoolError;

use crate::{BAD, Error, FATAL, Setup, failed, lost, model};

#[test]
fn who_waits_for_a_connection_gets_it() {
    model(4, || {
        let setup = Setup::new(1);
        let others = setup.writers([1, 20]);
        assert_eq!(setup.write(40), Ok(()));
        assert!(others.into_iter().all(|thread| thread.join().unwrap() == Ok(())));
        setup.told(&[1, 20, 40]);
        assert_eq!(setup.close(), Ok(()));
    });
}

#[test]
fn who_waits_gets_a_connection_also_where_requests_may_have_more_or_less_meanwhile() {
    for (before, after) in [(1, 0), (0, 1), (1, 1)] {
        model(3, move || {
            let setup = Setup::new(2);
            setup.world.spare.store(before, SeqCst);
            let others = setup.writers([1, 20]);
            assert_eq!(setup.write(40), Ok(()));
            setup.world.spare.store(after, SeqCst);
            assert_eq!(setup.flush(), Ok(()));
            let closed = setup.close();
            for outcome in others.map(|thread| thread.join().unwrap()) {
                assert!(matches!(outcome, Ok(()) | Err(PoolError::Closed)), "{outcome:?}");
            }
            assert_eq!(closed, Ok(()));
        });
    }
}

#[test]
fn requests_that_wait_together_are_all_answered() {
    model(4, || {
        let setup = Setup::new(1);
        let others = setup.writers([1, 2]);
        assert_eq!(setup.write(3), Ok(()));
        assert!(others.into_iter().all(|thread| thread.join().unwrap() == Ok(())));
        setup.told(&[1, 2, 3]);
        assert_eq!(setup.close(), Ok(()));
    });
}

#[test]
fn whoever_is_answered_first_can_flush_what_was_written_together() {
    model(4, || {
        let setup = Setup::new(1);
        let others = [1, 2].map(|number| {
            setup.spawn(move |setup| {
                assert_eq!((setup.write(number), setup.flush()), (Ok(()), Ok(())));
                setup.world.assert_durable(&[number].into());
            })
        });
        assert_eq!(setup.write(40), Ok(()));
        others.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_bad_request_is_refused_and_nothing_that_was_carried_out_with_it() {
    model(4, || {
        let setup = Setup::new(1);
        let others = setup.writers([BAD + 1, 1]);
        assert_eq!(setup.write(BAD), Err(PoolError::Refused(Error("bad".into()))));
        let [neighbour, other] = others.map(|thread| thread.join().unwrap());
        assert_eq!((neighbour, other, setup.close()), (Ok(()), Ok(()), Ok(())));
        setup.told(&[1, BAD, BAD + 1]);
    });
}

#[test]
fn a_loss_is_told_to_everyone_and_for_ever() {
    model(4, || {
        let setup = Setup::new(2);
        let others = [1, FATAL].map(|number| {
            setup.spawn(move |setup| {
                let written = setup.write(number);
                let flushed = setup.flush();
                assert!(number != FATAL || (written.is_err() && flushed.is_err()));
                assert!(written.is_ok() || flushed.is_err(), "a flush hides a failure");
            })
        });
        let _ = setup.flush();
        others.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(setup.flush(), failed());
        assert_eq!(setup.close(), Err(lost()));
    });
}

#[test]
fn a_loss_ends_the_wait_of_those_in_line() {
    model(4, || {
        let setup = Setup::new(1);
        let others = setup.writers([1, FATAL]);
        let closed = setup.close();
        let [written, lost] = others.map(|thread| thread.join().unwrap());
        assert!(matches!(written, Ok(()) | Err(PoolError::Failed(_) | PoolError::Closed)), "{written:?}");
        match lost {
            Err(PoolError::Failed(_)) => assert!(closed.is_err()),
            Err(PoolError::Closed) => assert_eq!(closed, Ok(())),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn closing_serves_who_is_in_line_and_refuses_who_comes_later() {
    model(4, || {
        let setup = Setup::new(1);
        let others = setup.writers([1, 2]);
        assert_eq!(setup.close(), Ok(()));
        assert_eq!(setup.write(3), Err(PoolError::Closed));
        for outcome in others.map(|thread| thread.join().unwrap()) {
            assert!(matches!(outcome, Ok(()) | Err(PoolError::Closed)), "{outcome:?}");
        }
        setup.world.assert_durable(&setup.world.acknowledged());
    });
}
