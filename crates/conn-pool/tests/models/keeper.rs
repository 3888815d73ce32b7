// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keeper.

use std::time::Duration;

use conn_pool::{Due, PoolError, Workers};

use crate::{FULL, LOST, Setup, failed, lost, model};

/// Flushes what is full, until that is ended.
fn keep(setup: &Setup) {
    while setup.pool.flush_next() {}
}

#[test]
fn the_keeper_is_in_nobodys_way() {
    model(4, || {
        let setup = Setup::new(2);
        let keeper = setup.spawn(|setup| {
            for _ in 0..2 {
                setup.pool.keep_alive(Duration::ZERO, Due::keep_alive);
            }
        });
        let writer = setup.spawn(|setup| {
            assert_eq!(setup.write(1), Ok(()));
            assert_eq!(setup.flush(), Ok(()));
            setup.world.assert_durable(&[1].into());
        });
        writer.join().unwrap();
        assert_eq!(setup.close(), Ok(()));
        keeper.join().unwrap();
    });
}

#[test]
fn the_keeper_tells_everyone_of_a_loss() {
    model(4, || {
        let setup = Setup::new(1);
        assert_eq!(setup.write(LOST), Ok(()));
        let keeper = setup.spawn(|setup| {
            setup.pool.keep_alive(Duration::ZERO, Due::keep_alive);
        });
        let flush = setup.spawn(Setup::flush);
        assert_eq!(flush.join().unwrap(), failed());
        keeper.join().unwrap();
        assert_eq!(setup.close(), Err(lost()));
    });
}

#[test]
fn the_keeper_hands_what_was_submitted_to_a_worker() {
    model(3, || {
        let setup = Setup::new(1);
        let workers = Workers::start(setup.pool.clone()).unwrap();
        let keeper = setup.spawn(|setup| {
            setup.pool.keep_alive(Duration::ZERO, Due::keep_alive);
        });
        workers.submit(setup.request(1));
        keeper.join().unwrap();
        drop(workers);
        assert_eq!(setup.told(&[1]), [Ok(())]);
    });
}

#[test]
fn the_keeper_has_full_connections_and_gives_them_back() {
    model(3, || {
        let setup = Setup::new(1);
        let keeper = setup.spawn(keep);
        let other = setup.spawn(|setup| setup.write(FULL));
        assert_eq!((setup.write(1), setup.flush()), (Ok(()), Ok(())));
        assert_eq!((other.join().unwrap(), setup.close()), (Ok(()), Ok(())));
        setup.pool.end_keeping();
        keeper.join().unwrap();
        setup.told(&[1, FULL]);
    });
}

#[test]
fn what_is_full_is_not_given_to_a_keeper_that_is_away() {
    model(4, || {
        let setup = Setup::new(1);
        let keeper = setup.spawn(|setup| setup.pool.flush_next());
        let other = setup.spawn(|setup| setup.write(FULL));
        assert_eq!(setup.write(FULL + 1), Ok(()));
        assert_eq!((other.join().unwrap(), setup.close()), (Ok(()), Ok(())));
        setup.pool.end_keeping();
        keeper.join().unwrap();
    });
}

#[test]
fn a_keeper_who_is_dismissed_gives_back_what_it_has() {
    model(4, || {
        let setup = Setup::new(1);
        let keeper = setup.spawn(keep);
        let ending = setup.spawn(|setup| setup.pool.end_keeping());
        assert_eq!((setup.write(FULL), setup.close()), (Ok(()), Ok(())));
        ending.join().unwrap();
        keeper.join().unwrap();
    });
}

#[test]
fn a_loss_in_the_background_is_told_to_everyone() {
    model(4, || {
        let setup = Setup::new(1);
        let keeper = setup.spawn(keep);
        assert_eq!(setup.write(LOST), Ok(()));
        let written = setup.write(1);
        assert!(matches!(written, Ok(()) | Err(PoolError::Failed(_))), "{written:?}");
        assert_eq!(setup.flush(), failed());
        assert_eq!(setup.close(), Err(lost()));
        setup.pool.end_keeping();
        keeper.join().unwrap();
    });
}

#[test]
fn a_flush_waits_for_what_the_keeper_has() {
    model(3, || {
        let setup = Setup::new(1);
        let keeper = setup.spawn(keep);
        assert_eq!(setup.write(LOST), Ok(()));
        assert_eq!(setup.flush(), failed());
        assert_eq!(setup.close(), Err(lost()));
        setup.pool.end_keeping();
        keeper.join().unwrap();
    });
}

#[test]
fn workers_go_on_with_what_the_keeper_gives_back() {
    model(2, || {
        let setup = Setup::new(1);
        let workers = Workers::start(setup.pool.clone()).unwrap();
        let keeper = setup.spawn(keep);
        workers.submit(setup.request(FULL));
        workers.submit(setup.request(1));
        assert_eq!(setup.close(), Ok(()));
        drop(workers);
        assert!(setup.told(&[1, FULL]).iter().all(Result::is_ok));
        setup.pool.end_keeping();
        keeper.join().unwrap();
    });
}
