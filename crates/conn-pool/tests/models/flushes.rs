// SPDX-License-Identifier: MIT OR Apache-2.0
//! Flushes, and closing.

use conn_pool::PoolError;

use crate::{LOST, Setup, failed, lost, model};

#[test]
fn a_flush_makes_durable_what_was_acknowledged() {
    model(4, || {
        let setup = Setup::new(2);
        let others = [1, 20].map(|number| {
            setup.spawn(move |setup| {
                assert_eq!(setup.write(number), Ok(()));
            })
        });
        assert_eq!(setup.flush(), Ok(()));
        others.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(setup.flush(), Ok(()));
        setup.world.assert_durable(&[1, 20].into());
    });
}

#[test]
fn flushes_that_come_together_cover_what_each_was_asked_for() {
    model(4, || {
        let setup = Setup::new(1);
        let others = [1, 2].map(|number| {
            setup.spawn(move |setup| {
                assert_eq!((setup.write(number), setup.flush()), (Ok(()), Ok(())));
                setup.world.assert_durable(&[number].into());
            })
        });
        assert_eq!(setup.flush(), Ok(()));
        others.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn closing_twice_at_once_is_closing() {
    model(4, || {
        let setup = Setup::new(2);
        assert_eq!(setup.write(1), Ok(()));
        let other = setup.spawn(|setup| setup.pool.close());
        let flush = setup.spawn(Setup::flush);
        assert_eq!(setup.pool.close(), Ok(()));
        assert_eq!(other.join().unwrap(), Ok(()));
        assert!(matches!(flush.join().unwrap(), Ok(()) | Err(PoolError::Closed)));
        setup.world.assert_durable(&[1].into());
    });
}

#[test]
fn a_failed_flush_is_known_before_anyone_gets_the_connection() {
    model(4, || {
        let setup = Setup::new(1);
        assert_eq!(setup.write(LOST), Ok(()));
        let flush = setup.spawn(Setup::flush);
        let written = setup.write(1);
        assert!(matches!(written, Ok(()) | Err(PoolError::Failed(_))), "{written:?}");
        assert_eq!(flush.join().unwrap(), failed());
        assert_eq!(setup.close(), Err(lost()));
    });
}
