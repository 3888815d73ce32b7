// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking after connections: keeping those alive that are idle, and flushing those that are full.

use std::io;
use std::thread::{Builder, JoinHandle, scope};
use std::time::Duration;

use oneshot::{Receiver, RecvTimeoutError, Sender, channel};

use crate::connection::Connection;
use crate::pool::Pool;

/// Looks after a pool's connections: no open one stays unused for longer than a limit, one is kept
/// in use while nothing happens, and those that are full are flushed, one at a time. A pool has a
/// keeper only once.
///
/// There is a thread that flushes, one that watches the time, and one for each connection that is
/// just being kept alive: a connection whose server doesn't answer keeps nobody from the others.
/// Dropping the keeper stops and joins them all.
pub struct Keeper<C: Connection> {
    pool: Pool<C>,
    /// Dropped to stop the thread that watches the time.
    end: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl<C: Connection + 'static> Keeper<C> {
    /// Starts the keeper. Without a limit, connections are only flushed. The pool's clock should be
    /// the real one.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(pool: Pool<C>, limit: Option<Duration>) -> io::Result<Self> {
        let (end, ended) = channel();
        let mut keeper = Self { pool, end: Some(end), threads: Vec::new() };
        keeper.spawn("pool-flusher", |pool| while pool.flush_next() {})?;
        if let Some(limit) = limit {
            keeper.spawn("pool-keeper", move |pool| keep_alive(pool, limit, &ended))?;
        }
        Ok(keeper)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&Pool<C>) + Send + 'static) -> io::Result<()> {
        let pool = self.pool.clone();
        let thread = Builder::new().name(name.into()).spawn(move || pool.watch(|| work(&pool)))?;
        self.threads.push(thread);
        Ok(())
    }
}

/// Keeps connections alive until that is ended.
fn keep_alive<C: Connection>(pool: &Pool<C>, limit: Duration, ended: &Receiver<()>) {
    scope(|scope| {
        loop {
            let next = pool.keep_alive(limit, |due| {
                let thread = Builder::new().name("keep-alive".into());
                if let Err(error) = thread.spawn_scoped(scope, || pool.watch(|| due.keep_alive())) {
                    log::warn!("a connection is not kept alive, as no thread can be had: {error}");
                }
            });
            let wait = next.saturating_duration_since(pool.now());
            if ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
    });
}

impl<C: Connection> Drop for Keeper<C> {
    fn drop(&mut self) {
        self.pool.end_keeping();
        drop(self.end.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("the pool's keeper panicked");
            }
        }
    }
}
