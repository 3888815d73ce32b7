// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of what the server saw, in the order in which it saw it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::Op;

/// The transport by which a client reached the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// TCP: plain HTTP, or HTTPS if the server has TLS.
    Tcp,
    /// The unix socket, always plain HTTP.
    Unix,
}

/// The side that ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClosedBy {
    /// The client closed or reset it.
    Client,
    /// The server, after an answer that said `connection: close`.
    Server,
    /// The server, because no request came for the inactivity timeout.
    Inactivity,
    /// The server, as a fault or the test's handle told it to.
    Fault,
    /// The end of the server.
    Shutdown,
}

/// One request. `start` and `end` are ticks of one logical clock for the whole server: of two
/// events, the one with the smaller tick came first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestRecord {
    /// The connection it came on, as in [`ConnectionRecord::id`].
    pub connection: u64,
    /// The transport of that connection.
    pub transport: Transport,
    /// The HTTP method.
    pub method: String,
    /// The operation that was asked for.
    pub op: Op,
    /// First byte, 0 where it has no meaning.
    pub offset: u64,
    /// Bytes, 0 where it has no meaning.
    pub size: u64,
    /// It asked for its data to be flushed (or is a flush).
    pub flush: bool,
    /// The name of the [fault](crate::What::name) that happened to it, but for those that only
    /// delay.
    pub fault: Option<&'static str>,
    /// The status of the answer; `None` if there was none (yet).
    pub status: Option<u16>,
    /// When the head of the request had been read.
    pub start: u64,
    /// Just before the answer, or the last of its body, could leave the server; `None` if it never
    /// did (yet).
    pub end: Option<u64>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionRecord {
    /// Counts from 1, in the order of accepting.
    pub id: u64,
    /// The transport by which it reached the server.
    pub transport: Transport,
    /// Tick at which it was accepted.
    pub accepted: u64,
    /// Tick at which it was closed, if it was.
    pub closed: Option<u64>,
    /// The side that closed the connection, if it was closed.
    pub closed_by: Option<ClosedBy>,
    /// Requests received.
    pub requests: u64,
    /// Bytes written or zeroed since the last flush on this connection. Once it is closed: what was
    /// lost track of.
    pub unflushed: u64,
}

impl ConnectionRecord {
    /// Bytes that were unflushed when the connection closed; `None` while it is open.
    #[must_use]
    pub fn unflushed_at_close(&self) -> Option<u64> {
        self.closed.map(|_| self.unflushed)
    }
}

/// A copy of what the server saw so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Log {
    /// In the order of their start.
    pub requests: Vec<RequestRecord>,
    /// In the order of accepting.
    pub connections: Vec<ConnectionRecord>,
}

impl Log {
    /// The requests of one kind.
    pub fn of(&self, op: Op) -> impl Iterator<Item = &RequestRecord> {
        self.requests.iter().filter(move |request| request.op == op)
    }

    /// The requests of one connection.
    pub fn on(&self, connection: u64) -> impl Iterator<Item = &RequestRecord> {
        self.requests.iter().filter(move |request| request.connection == connection)
    }

    /// The connections that are open.
    pub fn open(&self) -> impl Iterator<Item = &ConnectionRecord> {
        self.connections.iter().filter(|connection| connection.closed.is_none())
    }

    /// Bytes that were unflushed when their connection closed, all connections together.
    #[must_use]
    pub fn lost_unflushed(&self) -> u64 {
        self.connections.iter().filter_map(ConnectionRecord::unflushed_at_close).sum()
    }
}

#[derive(Debug, Default)]
struct State {
    clock: u64,
    log: Log,
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn connection(&mut self, id: u64) -> &mut ConnectionRecord {
        // Ids count from 1, and no connection is ever removed.
        &mut self.log.connections[id as usize - 1]
    }
}

/// The recorder to which connections report what they see.
#[derive(Debug)]
pub(crate) struct Recorder {
    state: Mutex<State>,
    changed: Condvar,
    requests: bool,
}

/// The facts that are known of a request when it starts.
pub(crate) struct Started<'a> {
    pub(crate) connection: u64,
    pub(crate) method: &'a str,
    pub(crate) op: Op,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) flush: bool,
    pub(crate) fault: Option<&'static str>,
}

impl Recorder {
    /// A recorder that keeps requests only if `requests` is set, and connections always.
    pub(crate) fn new(requests: bool) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), requests }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn accepted(&self, transport: Transport) -> u64 {
        let mut state = self.state();
        let accepted = state.tick();
        let id = state.log.connections.len() as u64 + 1;
        state.log.connections.push(ConnectionRecord {
            id,
            transport,
            accepted,
            closed: None,
            closed_by: None,
            requests: 0,
            unflushed: 0,
        });
        self.changed.notify_all();
        id
    }

    pub(crate) fn closed(&self, id: u64, by: ClosedBy) {
        let mut state = self.state();
        let tick = state.tick();
        let connection = state.connection(id);
        connection.closed = Some(tick);
        connection.closed_by = Some(by);
        self.changed.notify_all();
    }

    /// Adds to the unflushed bytes of a connection.
    pub(crate) fn wrote(&self, connection: u64, bytes: u64) {
        self.state().connection(connection).unflushed += bytes;
    }

    /// A flush on a connection covers all that was written on it.
    pub(crate) fn flushed(&self, connection: u64) {
        self.state().connection(connection).unflushed = 0;
    }

    pub(crate) fn begin(self: &Arc<Self>, started: &Started<'_>) -> Entry {
        let mut state = self.state();
        let connection = state.connection(started.connection);
        connection.requests += 1;
        let transport = connection.transport;
        let start = state.tick();
        let index = self.requests.then_some(state.log.requests.len());
        if self.requests {
            state.log.requests.push(RequestRecord {
                connection: started.connection,
                transport,
                method: started.method.to_owned(),
                op: started.op,
                offset: started.offset,
                size: started.size,
                flush: started.flush,
                fault: started.fault,
                status: None,
                start,
                end: None,
            });
        }
        self.changed.notify_all();
        Entry { recorder: Arc::clone(self), index }
    }

    pub(crate) fn snapshot(&self) -> Log {
        self.state().log.clone()
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.log.open().count(), state.log.connections.len())
    }

    pub(crate) fn wait_for(&self, timeout: Duration, mut done: impl FnMut(&Log) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        loop {
            if done(&state.log) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The record of a request under way.
#[derive(Debug)]
pub(crate) struct Entry {
    recorder: Arc<Recorder>,
    index: Option<usize>,
}

impl Entry {
    /// The status is known, though the answer's body may take a while.
    pub(crate) fn answering(&self, status: u16) {
        if let Some(index) = self.index {
            self.recorder.state().log.requests[index].status = Some(status);
            self.recorder.changed.notify_all();
        }
    }

    /// Nothing holds the answer back any more.
    pub(crate) fn finish(&mut self) {
        if let Some(index) = self.index.take() {
            let mut state = self.recorder.state();
            let tick = state.tick();
            state.log.requests[index].end = Some(tick);
            self.recorder.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_order_events_of_different_connections() {
        let recorder = Arc::new(Recorder::new(true));
        let a = recorder.accepted(Transport::Tcp);
        let b = recorder.accepted(Transport::Unix);
        let started = |connection, op| Started {
            connection,
            method: "PUT",
            op,
            offset: 0,
            size: 4,
            flush: false,
            fault: None,
        };
        let mut write = recorder.begin(&started(a, Op::Put));
        let mut flush = recorder.begin(&started(b, Op::Flush));
        recorder.wrote(a, 4);
        write.finish();
        flush.finish();
        recorder.closed(a, ClosedBy::Client);
        let log = recorder.snapshot();
        let (write, flush) = (&log.requests[0], &log.requests[1]);
        assert!(flush.start < write.end.unwrap() && write.end < flush.end);
        assert_eq!(log.lost_unflushed(), 4);
        assert_eq!(log.open().map(|c| c.id).collect::<Vec<_>>(), [b]);
        assert_eq!(recorder.counts(), (1, 2));
    }

    #[test]
    fn waiting_ends_at_the_event_or_at_the_deadline() {
        let recorder = Recorder::new(false);
        std::thread::scope(|scope| {
            let waiter =
                scope.spawn(|| recorder.wait_for(Duration::from_secs(60), |log| log.open().count() == 1));
            recorder.accepted(Transport::Tcp);
            assert!(waiter.join().unwrap());
        });
        assert!(!recorder.wait_for(Duration::ZERO, |_| false));
    }
}
