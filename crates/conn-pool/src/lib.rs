// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fixed pool of connections, for servers that close idle connections and where only a flush on
//! the *same* connection makes written data safe.
//!
//! A user implements [`Connection`], which carries out a [`Task`], and [`PoolRequest`], which is
//! told how it has ended. The pool decides which connection a request gets, which requests go
//! together, and which connections a flush has to visit.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//!
//! use conn_pool::{Connection, Failure, Outcome, Panicked, Place, Pool, PoolRequest, Shape, State};
//! use conn_pool::Task;
//!
//! /// A line for a log. Lines go together, in the order in which they came.
//! struct Line(&'static str);
//!
//! #[derive(Clone, Copy)]
//! struct AnyLine;
//!
//! impl Shape for AnyLine {
//!     fn join(self, _other: Self) -> Option<(Self, Place)> {
//!         Some((self, Place::Behind))
//!     }
//! }
//!
//! impl PoolRequest for Line {
//!     // Only a panic makes this log fail.
//!     type Error = Panicked;
//!     type Shape = AnyLine;
//!
//!     fn shape(&self) -> AnyLine {
//!         AnyLine
//!     }
//!
//!     fn complete(done: Vec<(Self, Outcome<Panicked>)>) {
//!         drop(done);
//!     }
//! }
//!
//! /// A connection to a log, which is a list here.
//! #[derive(Default)]
//! struct Log {
//!     unflushed: Vec<&'static str>,
//!     flushed: Vec<&'static str>,
//! }
//!
//! impl Connection for Log {
//!     type Error = Panicked;
//!     type Request = Line;
//!
//!     fn carry_out(&mut self, task: Task<'_, Line>) -> Result<(), Failure<Panicked>> {
//!         match task {
//!             Task::Requests(lines) => self.unflushed.extend(lines.iter().map(|line| line.0)),
//!             Task::Flush | Task::FlushInBackground => self.flushed.append(&mut self.unflushed),
//!             Task::KeepAlive => {}
//!         }
//!         Ok(())
//!     }
//!
//!     fn state(&self) -> State {
//!         if self.unflushed.is_empty() { State::Clean } else { State::Dirty }
//!     }
//! }
//! let pool = Pool::new([Log::default(), Log::default()], Arc::new(Instant::now));
//! pool.run(Line("one"))?;
//! // Every connection that holds unflushed lines is flushed.
//! pool.flush()?;
//! pool.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Why this pool
//!
//! Pools for databases lend a connection and take it back; whoever has it may do anything. Here the
//! pool carries out the work itself. So it knows which connections hold data that is not safe yet,
//! a flush can visit exactly these, and requests that wait for a connection can go out as one. The
//! number of connections is fixed, because servers of this kind limit it. The pool has no async
//! API: its threads block, and time is a parameter ([`Clock`]), so that tests hold it.
//!
//! # Threads and lifecycle
//!
//! A [`Pool`] starts no thread: [`Pool::run`] and [`Pool::flush`] do their work in the thread that
//! calls them. [`Workers`] add threads for requests that nobody waits for, and a [`Keeper`] adds
//! those that keep connections alive. Dropping [`Workers`] or the [`Keeper`] ends and joins their
//! threads. [`Pool::close`] waits for what is under way, drops the connections, and is the end:
//! later requests get [`PoolError::Closed`].
//!
//! # Errors
//!
//! A [`Failure`] says whom it concerns: one request, the requests that went together, or everybody.
//! A failure of everybody means that data may be lost: the pool keeps it, and every later request
//! gets it.
//!
//! # The files, from below
//! | file | what it has | what it doesn't know |
//! |---|---|---|
//! | `error`, `request`, `connection` | what users implement, and what they are told | the pool |
//! | `line` | who waits, in which order, and what goes together | connections, threads, time |
//! | `slots` | which connection is where, and when it was used | who waits, threads, clocks |
//! | `flushes` | whose turn it is to flush | connections, threads |
//! | `news` | what those who wait are told | who is next |
//! | `dispatcher` | turns events into effects: who is given a connection | what is done with it |
//! | `pool` | all that can be done with a pool, by the thread that asks | threads of its own |
//! | `workers`, `keeper` | threads on top | the dispatcher |
//!
//! A file uses only those above it in this table.
//!
//! # Invariants
//! - One lock, that of the dispatcher. It is never held while a connection is used, a channel is
//!   waited on, or a request is told of its end. Nothing else is locked by this crate, so there is
//!   no order of locks.
//! - A connection is in one of three places: idle in its slot, busy with someone or on the way
//!   there, or gone (after [`Pool::close`]). An idle connection never coexists with a waiter that
//!   wants it and may have it.
//! - Requests are given no more connections at a time than the one that came back last
//!   [says](Connection::concurrency). As long as a request waits, others have connections, or
//!   somebody has one who gives it back.
//! - Whoever waits for a connection has none. So no cycle of waiting exists, whatever the callers
//!   do.
//! - Waiters are served in the order of their tickets. A flush keeps its ticket for all its
//!   connections.
//! - A failure, once set, stays: data may be lost, and no later success may hide that. It is set
//!   before the connection goes back and before anyone is told, so nobody takes the connection
//!   unaware.
//! - Nobody is told of an end before the pool knows that the connection is dirty: a flush that
//!   follows the answer finds it so, or waits for it.
//!
//! # Who waits for whom
//! - [`Pool::run`] waits in line for a connection, or for the thread that carries out its request
//!   with others.
//! - [`Pool::flush`] waits for the flush that runs, then leads the next, or waits for whoever leads
//!   it. The leader waits in line for one connection after the other, has workers flush them, all
//!   but one at a time, and waits for these workers. Without workers, it flushes by itself.
//! - A worker waits for an order: a job, to flush or close a connection that another thread visits,
//!   or to lead a flush for those that were submitted. There is one worker more than there are
//!   connections, and one flush at a time, so a worker is idle whenever a connection is.
//! - [`Pool::close`] waits until no flush runs or waits, then in line for each connection, and for
//!   the workers that close them. Dropping [`Workers`] closes the pool, and waits for the workers,
//!   which are sent home at the end of that.
//! - The keeper waits for connections that are full, and for the time when one is due. Nobody waits
//!   for the keeper, but a flush or the closer for a connection that it has. It has several
//!   threads, so one connection whose server doesn't answer keeps it from no other.
//!
//! # Requests that wait together
//! A request that finds an idle connection has it at once, unless as many are in use as are of use
//! at a time ([`Connection::concurrency`]); nothing waits for company. When a connection comes
//! free, the first in line gets it and takes along those that wait and can be carried out with it
//! ([`Shape::join`]), from anywhere in the line up to the first flush that waits for this
//! connection: a flush is never passed. A thread that had to be woken for the work takes along once
//! more: it may have come to its turn much later.
//!
//! The requests of a [`Group`] stay the original ones. Where one of them can't be carried out, each
//! is carried out alone, and gets its own outcome: so one client's bad request doesn't fail
//! another's.
//!
//! [`Pool::run`] lets others have the processor once before the work, and once after it: then
//! everyone has been told, and the connection is about to come back, so those that come again may
//! be in line for it by then.
//!
//! # Flushing in the background
//! A connection that is [full](State::Full) when it comes back is given to whoever waits for it,
//! else to the keeper, if that waits for work: so one at a time is flushed, and the others go on.
//! Idle ones that are full are given to the keeper when it begins to wait, and when another
//! connection comes back. Whoever is given one may have its request flush it.
//!
//! # Panics
//! After a panic while a connection was used, nobody knows what was done: the pool fails for good
//! with what [`Panicked`] becomes, and all threads live on. A panic of the keeper's own fails the
//! pool, too. A panic of a completion harms nobody else. [`Connection::state`],
//! [`PoolRequest::shape`], [`Shape::join`], the [`Clock`] and the drop of a connection must not
//! panic.

mod connection;
mod debug;
mod dispatcher;
mod error;
mod flushes;
mod keeper;
mod line;
mod news;
mod pool;
mod request;
mod slots;
mod sync;
mod workers;

pub use connection::{Connection, State, Task};
pub use error::{Affected, Failure, Outcome, Panicked, PoolError};
pub use keeper::Keeper;
pub use pool::{Clock, Due, Pool};
pub use request::{Group, Place, PoolRequest, Shape};
pub use workers::{Submitter, Workers};

/// Threads may share these, or it doesn't compile.
#[expect(dead_code, reason = "it is for the compiler alone")]
const fn may_be_shared<C: Connection>() {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Pool<C>>();
    is_send_and_sync::<Submitter<C>>();
    is_send_and_sync::<Workers<C>>();
    is_send_and_sync::<Keeper<C>>();
}
