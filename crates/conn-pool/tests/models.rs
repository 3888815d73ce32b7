// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every order in which a few threads can use a pool, one after another, up to a number of preemptions: nobody waits for
//! ever, each request is answered once, and what was acknowledged before a flush is durable after it.
//!
//! `RUSTFLAGS="--cfg loom --cfg oneshot_loom" cargo test -p conn-pool --release --test models --target-dir target/loom`;
//! `cargo xtask test` does so, too.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::collections::BTreeSet;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conn_pool::{Connection, Failure, Outcome, Pool, PoolError, Request, Workers};
use loom::model::Builder;
use loom::thread;

/// A write.
type Number = u32;
/// This one breaks its connection.
const FATAL: Number = 100;
/// This one is only refused.
const BAD: Number = 200;
/// After this one, the connection breaks when it is flushed.
const LOST: Number = 300;
/// After this one or the last, the connection wants to be flushed.
const FULL: Number = 400;

/// What the server has, and what its clients were told. No thread waits for it, so it is none of loom's affair.
#[derive(Default)]
struct World {
    durable: Mutex<BTreeSet<Number>>,
    acknowledged: Mutex<BTreeSet<Number>>,
    /// Each completion of what was submitted.
    told: Mutex<Vec<(Number, Outcome<String>)>>,
}

impl World {
    fn acknowledged(&self) -> BTreeSet<Number> {
        self.acknowledged.lock().unwrap().clone()
    }

    fn assert_durable(&self, numbers: &BTreeSet<Number>) {
        let durable = self.durable.lock().unwrap();
        assert!(numbers.is_subset(&durable), "lost: {numbers:?}, durable: {durable:?}");
    }
}

struct Link {
    world: Arc<World>,
    unflushed: BTreeSet<Number>,
    broken: bool,
}

impl Connection for Link {
    type Error = String;
    type Request = Writes;

    fn carry_out(&mut self, request: &mut Writes) -> Result<(), Failure<String>> {
        assert!(!self.broken, "a broken connection is used");
        if request.numbers.contains(&BAD) {
            return Err(Failure { error: "bad".into(), is_fatal: false });
        }
        self.broken = request.numbers.contains(&FATAL);
        if self.broken {
            return Err(Failure { error: "lost".into(), is_fatal: true });
        }
        self.unflushed.extend(&request.numbers);
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        !self.unflushed.is_empty()
    }

    fn wants_flush(&self) -> bool {
        self.unflushed.contains(&FULL) || self.unflushed.contains(&LOST)
    }

    fn flush(&mut self) -> Result<(), String> {
        if self.unflushed.contains(&LOST) {
            self.broken = true;
            self.unflushed.clear();
        }
        if self.broken {
            return Err("lost".into());
        }
        self.world.durable.lock().unwrap().append(&mut self.unflushed);
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), String> {
        self.flush()
    }
}

/// Writes that went together.
struct Writes {
    world: Arc<World>,
    numbers: Vec<Number>,
}

impl Request<String> for Writes {
    fn goes_with(&self, other: &Self) -> bool {
        // As with disks: only what is of one kind.
        self.numbers[0] / 10 == other.numbers[0] / 10
    }

    fn merge(&mut self, mut other: Self) {
        self.numbers.append(&mut other.numbers);
    }

    fn complete(self, outcome: &Outcome<String>) {
        if outcome.is_ok() {
            self.world.acknowledged.lock().unwrap().extend(&self.numbers);
        }
        self.world.told.lock().unwrap().extend(self.numbers.iter().map(|&number| (number, outcome.clone())));
    }
}

/// A handle to what all threads of a model share.
#[derive(Clone)]
struct Setup {
    world: Arc<World>,
    pool: Pool<Link>,
}

impl Setup {
    fn new(connections: usize) -> Self {
        let world = Arc::<World>::default();
        let link = |_| Link { world: Arc::clone(&world), unflushed: BTreeSet::new(), broken: false };
        // Each look at the clock is a moment later.
        let (start, looks) = (Instant::now(), AtomicU64::new(0));
        let clock = move || start + Duration::from_secs(looks.fetch_add(1, SeqCst));
        Self { pool: Pool::new((0..connections).map(link), Arc::new(clock)), world }
    }

    fn request(&self, number: Number) -> Writes {
        Writes { world: Arc::clone(&self.world), numbers: vec![number] }
    }

    fn write(&self, number: Number) -> Outcome<String> {
        self.pool.run(self.request(number))
    }

    /// Flushes, and checks what that promises.
    fn flush(&self) -> Outcome<String> {
        let before = self.world.acknowledged();
        let outcome = self.pool.flush();
        if outcome.is_ok() {
            self.world.assert_durable(&before);
        }
        outcome
    }

    /// Closes, and checks what that promises.
    fn close(&self) -> Result<(), String> {
        let outcome = self.pool.close();
        if outcome.is_ok() {
            self.world.assert_durable(&self.world.acknowledged());
        }
        outcome
    }

    fn spawn<T: 'static>(&self, work: impl FnOnce(&Self) -> T + 'static) -> thread::JoinHandle<T> {
        let setup = self.clone();
        thread::spawn(move || work(&setup))
    }

    /// A thread for each of these writes.
    fn writers<const N: usize>(&self, numbers: [Number; N]) -> [thread::JoinHandle<Outcome<String>>; N] {
        numbers.map(|number| self.spawn(move |setup| setup.write(number)))
    }

    /// That each of these was answered once.
    fn told(&self, numbers: &[Number]) -> Vec<Outcome<String>> {
        let mut told = mem::take(&mut *self.world.told.lock().unwrap());
        told.sort_by_key(|(number, _)| *number);
        assert_eq!(told.iter().map(|(number, _)| *number).collect::<Vec<_>>(), numbers);
        told.into_iter().map(|(_, outcome)| outcome).collect()
    }
}

/// All orders with so many preemptions; `LOOM_MAX_PREEMPTIONS` for another bound. With four threads, each more takes ten
/// times as long.
fn model(preemptions: usize, threads: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(threads);
}

#[test]
fn who_waits_for_a_connection_gets_it() {
    model(4, || {
        let setup = Setup::new(1);
        let others = setup.writers([1, 20]);
        let guard = setup.pool.get().unwrap();
        drop(guard);
        assert!(others.into_iter().all(|thread| thread.join().unwrap() == Ok(())));
        setup.told(&[1, 20]);
        assert_eq!(setup.close(), Ok(()));
    });
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
        drop(setup.pool.get().unwrap());
        others.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

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
fn the_keeper_is_in_nobodys_way() {
    model(4, || {
        let setup = Setup::new(2);
        let keeper = setup.spawn(|setup| {
            for _ in 0..2 {
                setup.pool.keep_alive(Duration::ZERO);
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
            setup.pool.keep_alive(Duration::ZERO);
        });
        let flush = setup.spawn(Setup::flush);
        assert_eq!(flush.join().unwrap(), Err(PoolError::Failed("lost".into())));
        keeper.join().unwrap();
        assert_eq!(setup.close(), Err("lost".into()));
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
        assert_eq!(flush.join().unwrap(), Err(PoolError::Failed("lost".into())));
        assert_eq!(setup.close(), Err("lost".into()));
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
        assert_eq!(setup.flush(), Err(PoolError::Failed("lost".into())));
        assert_eq!(setup.close(), Err("lost".into()));
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
fn a_refused_request_refuses_what_was_merged_and_nothing_else() {
    model(4, || {
        let setup = Setup::new(1);
        let others = setup.writers([BAD + 1, 1]);
        assert_eq!(setup.write(BAD), Err(PoolError::Refused("bad".into())));
        let [neighbour, other] = others.map(|thread| thread.join().unwrap());
        assert!(matches!(neighbour, Ok(()) | Err(PoolError::Refused(_))), "{neighbour:?}");
        assert_eq!((other, setup.close()), (Ok(()), Ok(())));
    });
}

#[test]
fn workers_answer_all_that_was_submitted() {
    model(4, || {
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
fn two_workers_serve_two_who_submit() {
    model(3, || {
        let setup = Setup::new(2);
        let workers = Arc::new(Workers::start(setup.pool.clone()).unwrap());
        let other = setup.spawn({
            let workers = Arc::clone(&workers);
            move |setup| workers.submit(setup.request(1))
        });
        workers.submit(setup.request(20));
        other.join().unwrap();
        assert_eq!(setup.close(), Ok(()));
        drop(workers);
        assert!(setup.told(&[1, 20]).iter().all(Result::is_ok));
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
                assert!(closed.is_err() && told.contains(&Err(PoolError::Failed("lost".into()))), "{told:?}");
            } else {
                assert!(flushed.is_ok() && closed.is_ok() && told.iter().all(Result::is_ok), "{told:?}");
            }
        });
    }
}

#[test]
fn workers_answer_also_what_comes_while_the_pool_is_closed() {
    model(4, || {
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
    model(4, || {
        let setup = Setup::new(1);
        let workers = Workers::start(setup.pool.clone()).unwrap();
        let flush = setup.spawn(Setup::flush);
        workers.submit(setup.request(FATAL));
        workers.submit(setup.request(1));
        let _ = flush.join().unwrap();
        assert_eq!(setup.close(), Err("lost".into()));
        drop(workers);
        let told = setup.told(&[1, FATAL]);
        assert!(told.iter().all(|outcome| matches!(outcome, Err(PoolError::Failed(_)))), "{told:?}");
    });
}

#[test]
fn the_keeper_hands_what_was_submitted_to_a_worker() {
    model(4, || {
        let setup = Setup::new(1);
        let workers = Workers::start(setup.pool.clone()).unwrap();
        let keeper = setup.spawn(|setup| {
            setup.pool.keep_alive(Duration::ZERO);
        });
        workers.submit(setup.request(1));
        keeper.join().unwrap();
        drop(workers);
        assert_eq!(setup.told(&[1]), [Ok(())]);
    });
}

/// Looks after what wants to be flushed, until that is ended.
fn keep(setup: &Setup) {
    while setup.pool.flush_next(Duration::MAX) {}
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
fn a_connection_that_is_given_to_a_keeper_who_leaves_is_not_lost() {
    model(4, || {
        let setup = Setup::new(1);
        let keeper = setup.spawn(|setup| assert!(setup.pool.flush_next(Duration::ZERO)));
        let other = setup.spawn(|setup| setup.write(FULL));
        assert_eq!(setup.write(FULL + 1), Ok(()));
        assert_eq!((other.join().unwrap(), setup.close()), (Ok(()), Ok(())));
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
        assert_eq!(setup.flush(), Err(PoolError::Failed("lost".into())));
        assert_eq!(setup.close(), Err("lost".into()));
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
        assert_eq!(setup.flush(), Err(PoolError::Failed("lost".into())));
        assert_eq!(setup.close(), Err("lost".into()));
        setup.pool.end_keeping();
        keeper.join().unwrap();
    });
}

#[test]
fn workers_go_on_with_what_the_keeper_gives_back() {
    model(3, || {
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
