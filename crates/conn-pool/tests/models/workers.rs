// SPDX-License-Identifier: MIT OR Apache-2.0
//! Models of submitted requests and flushes, which the workers carry out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use conn_pool::{PoolError, Workers};

use crate::{FATAL, LOST, Setup, failed, lost, model};

#[test]
fn workers_answer_all_that_was_submitted() {
    model(3, || {
        let setup = Setup::new(1);
        let workers = Workers::start(setup.pool.clone()).unwrap();
        let flush = setup.spawn(Setup::flush);
        workers.submit(setup.request(1));
        workers.submit(setup.request(2));
        workers.submit(setup.request(30));
        assert_eq!(flush.join().unwrap(), Ok(()));
        drop(workers);
        assert!(setup.told(&[1, 2, 30]).iter().all(Result::is_ok));
        assert_eq!(setup.close(), Ok(()));
    });
}

#[test]
fn the_workers_of_two_connections_serve_what_is_submitted() {
    model(2, || {
        let setup = Setup::new(2);
        let workers = Workers::start(setup.pool.clone()).unwrap();
        workers.submit(setup.request(1));
        workers.submit(setup.request(20));
        assert_eq!(setup.close(), Ok(()));
        drop(workers);
        assert!(setup.told(&[1, 20]).iter().all(Result::is_ok));
    });
}

#[test]
fn nobody_waits_for_ever_where_requests_have_fewer_connections_for_a_while() {
    model(2, || {
        let setup = Setup::new(2);
        setup.world.spare.store(1, SeqCst);
        let workers = Workers::start(setup.pool.clone()).unwrap();
        workers.submit(setup.request(1));
        workers.submit(setup.request(20));
        setup.world.spare.store(0, SeqCst);
        workers.submit(setup.request(40));
        assert_eq!(setup.close(), Ok(()));
        drop(workers);
        assert!(setup.told(&[1, 20, 40]).iter().all(Result::is_ok));
    });
}

#[test]
fn who_does_the_work_itself_leaves_what_comes_meanwhile_to_a_worker() {
    for number in [1, FATAL] {
        model(3, move || {
            let setup = Setup::new(1);
            let workers = Arc::new(Workers::start(setup.pool.clone()).unwrap());
            let other = setup.spawn({
                let workers = Arc::clone(&workers);
                move |setup| workers.carry_out(setup.request(number))
            });
            workers.submit(setup.request(2));
            let flushed = setup.flush();
            other.join().unwrap();
            let closed = setup.close();
            drop(workers);
            let told = setup.told(&BTreeSet::from([number, 2]).into_iter().collect::<Vec<_>>());
            if number == FATAL {
                assert!(closed.is_err() && told.contains(&failed()), "{told:?}");
            } else {
                assert!(flushed.is_ok() && closed.is_ok() && told.iter().all(Result::is_ok), "{told:?}");
            }
        });
    }
}

#[test]
fn workers_answer_also_what_comes_while_the_pool_is_closed() {
    model(3, || {
        let setup = Setup::new(1);
        let workers = Workers::start(setup.pool.clone()).unwrap();
        let close = setup.spawn(Setup::close);
        workers.submit(setup.request(1));
        workers.submit(setup.request(2));
        assert_eq!(close.join().unwrap(), Ok(()));
        drop(workers);
        let told = setup.told(&[1, 2]);
        assert!(told.iter().all(|outcome| matches!(outcome, Ok(()) | Err(PoolError::Closed))), "{told:?}");
        setup.world.assert_durable(&setup.world.acknowledged());
    });
}

#[test]
fn workers_tell_all_of_a_loss() {
    model(3, || {
        let setup = Setup::new(1);
        let workers = Workers::start(setup.pool.clone()).unwrap();
        let flush = setup.spawn(Setup::flush);
        workers.submit(setup.request(FATAL));
        workers.submit(setup.request(1));
        let _ = flush.join().unwrap();
        assert_eq!(setup.close(), Err(lost()));
        drop(workers);
        let told = setup.told(&[1, FATAL]);
        assert!(told.iter().all(|outcome| matches!(outcome, Err(PoolError::Failed(_)))), "{told:?}");
    });
}

#[test]
fn submitted_flushes_and_those_of_threads_cover_what_each_was_asked_for() {
    model(3, || {
        let setup = Setup::new(1);
        let workers = Arc::new(Workers::start(setup.pool.clone()).unwrap());
        let other = setup.spawn(|setup| {
            assert_eq!((setup.write(1), setup.flush()), (Ok(()), Ok(())));
            setup.world.assert_durable(&[1].into());
        });
        setup.submit_flush(&workers);
        setup.submit_flush(&workers);
        other.join().unwrap();
        drop(workers);
        assert_eq!(setup.flushed(), [Ok(()), Ok(())]);
        assert_eq!(setup.close(), Ok(()));
    });
}

#[test]
fn workers_and_the_leader_flush_two_connections() {
    for number in [1, LOST] {
        model(1, move || {
            let setup = Setup::new(2);
            let workers = Workers::start(setup.pool.clone()).unwrap();
            workers.submit(setup.request(number));
            workers.submit(setup.request(20));
            let told = setup.flush();
            setup.submit_flush(&workers);
            let closed = setup.close();
            drop(workers);
            if number == LOST {
                assert_eq!(closed, Err(lost()));
            } else {
                assert!(told.is_ok() && closed.is_ok() && setup.flushed() == [Ok(())]);
                setup.world.assert_durable(&[1, 20].into());
            }
        });
    }
}

#[test]
fn a_flush_of_two_connections_and_a_request_are_in_nobodys_way() {
    model(1, || {
        let setup = Setup::new(2);
        let workers = Workers::start(setup.pool.clone()).unwrap();
        workers.submit(setup.request(1));
        workers.submit(setup.request(20));
        setup.submit_flush(&workers);
        workers.submit(setup.request(40));
        drop(workers);
        assert_eq!(setup.flushed(), [Ok(())]);
        assert!(setup.told(&[1, 20, 40]).iter().all(Result::is_ok));
        setup.world.assert_durable(&[1, 20, 40].into());
    });
}

#[test]
fn dropping_the_workers_tells_each_submitted_flush_once() {
    for number in [1, LOST] {
        model(3, move || {
            let setup = Setup::new(1);
            let workers = Workers::start(setup.pool.clone()).unwrap();
            assert_eq!(setup.write(number), Ok(()));
            let flush = setup.spawn(Setup::flush);
            setup.submit_flush(&workers);
            drop(workers);
            let [told] = setup.flushed().try_into().unwrap();
            let expected = if number == LOST { failed() } else { Ok(()) };
            assert_eq!(told, expected);
            let flushed = flush.join().unwrap();
            assert!(flushed == expected || flushed == Err(PoolError::Closed), "{flushed:?}");
        });
    }
}
