// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scripted faults: which request goes wrong, and how.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The kinds of request, as faults and the log tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// A connection was accepted: not a request, but a place where faults can happen, before any TLS handshake.
    Accept,
    /// `OPTIONS`.
    Options,
    /// `GET` of data.
    Get,
    /// `PUT` of data.
    Put,
    /// `PATCH` with op zero.
    Zero,
    /// `PATCH` with op flush.
    Flush,
    /// `GET …/extents`.
    Extents,
    /// `GET …/checksum`.
    Checksum,
    /// Anything else, also a `PATCH` that could not be understood.
    Other,
}

/// What goes wrong.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum What {
    /// The request is answered as ever, without `connection: close`; then the connection is closed.
    CloseAfterAnswer,
    /// The request is carried out, but the connection is closed instead of an answer.
    LoseAnswer,
    /// The connection is closed (FIN) after `after` bytes of the request's body were stored (`PUT`; all of it, if it is
    /// shorter) or after that many bytes of the answer's body were sent (requests with an answer's body: then the
    /// answer announced more than it sent). A zero or flush is not carried out.
    Close {
        /// Bytes of body.
        after: u64,
    },
    /// As `Close`, but the connection is reset (RST); a unix socket is only closed. Of an answer's body the client gets
    /// no more than `after` bytes, and exactly as many if they fit in its receive buffer (some 64 KiB): a reset throws
    /// away what is still on the way.
    Reset {
        /// Bytes of body.
        after: u64,
    },
    /// The connection is closed as soon as all of the request is there, and a `PUT` or zero is carried out when the test
    /// opens the gate: over whatever was written to that place meanwhile. A flush is not carried out.
    CarryOutLate(Gate),
    /// The same with this answer, as of a proxy that has lost the server; the connection stays open.
    FailAndCarryOutLate {
        /// HTTP status.
        status: u16,
        /// When it is carried out.
        gate: Gate,
    },
    /// Answers before the body is read, then closes, as the real server does when it knows better.
    AnswerEarly {
        /// HTTP status.
        status: u16,
        /// The line of explanation.
        text: String,
    },
    /// Reads the body, does nothing with it, answers this. The connection stays open, unless it is a 403.
    Status {
        /// HTTP status.
        status: u16,
        /// The line of explanation.
        text: String,
    },
    /// The request is carried out, and answered after this time.
    Delay(Duration),
    /// The request is carried out, and answered when the test opens the gate. (With another fault for the same
    /// request: that fault happens when the gate opens.)
    Block(Gate),
    /// A `GET` is answered with this many bytes, whatever it asked for.
    WrongLength(u64),
    /// The body is read; an answer never comes. The connection stays open.
    NoAnswer,
}

/// One fault: by default it happens once, at the first request that matches.
///
/// ```
/// use fake_imageio::{Fault, Op, What};
/// let third_write = Fault::on(Op::Put).nth(3).then(What::Reset { after: 4096 });
/// let on_connection_2 = Fault::any().connection(2).then(What::NoAnswer);
/// ```
#[derive(Debug, Clone)]
pub struct Fault {
    when: When,
    what: What,
}

/// Which requests a fault is for; all that is set must match. Finish it with [`When::then`].
#[derive(Debug, Clone, Default)]
pub struct When {
    op: Option<Op>,
    connection: Option<u64>,
    offset: Option<u64>,
    skip: u64,
    every: bool,
}

impl Fault {
    /// A fault for requests of one kind.
    #[must_use]
    pub fn on(op: Op) -> When {
        When { op: Some(op), ..When::default() }
    }

    /// A fault for requests of any kind.
    #[must_use]
    pub fn any() -> When {
        When::default()
    }
}

impl When {
    /// Only on the connection with this number (from 1, in the order of accepting).
    #[must_use]
    pub fn connection(mut self, id: u64) -> Self {
        self.connection = Some(id);
        self
    }

    /// Only requests that start at this byte.
    #[must_use]
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// The n-th matching request since the fault was set, counted from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        self.skip = n.saturating_sub(1);
        self
    }

    /// Not only once, but every time from the first (or [`nth`](Self::nth)) on.
    #[must_use]
    pub fn every(mut self) -> Self {
        self.every = true;
        self
    }

    /// What happens.
    #[must_use]
    pub fn then(self, what: What) -> Fault {
        Fault { when: self, what }
    }

    fn matches(&self, op: Op, connection: u64, offset: u64) -> bool {
        // A fault for "any" request is not one for accepting a connection.
        let op_matches = self.op.map_or(op != Op::Accept, |wanted| wanted == op);
        op_matches
            && self.connection.is_none_or(|wanted| wanted == connection)
            && self.offset.is_none_or(|wanted| wanted == offset)
    }
}

/// The faults that are still to happen.
#[derive(Debug, Default)]
pub(crate) struct Script(Mutex<Vec<Fault>>);

/// What happens to one request.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// Delays and gates, to be waited for in turn.
    holds: Vec<What>,
    pub(crate) what: Option<What>,
}

impl Fate {
    pub(crate) async fn hold(&mut self) {
        for hold in self.holds.drain(..) {
            match hold {
                What::Delay(time) => tokio::time::sleep(time).await,
                What::Block(gate) => gate.pass().await,
                _ => {}
            }
        }
    }
}

impl Script {
    pub(crate) fn new(faults: Vec<Fault>) -> Self {
        Self(Mutex::new(faults))
    }

    pub(crate) fn add(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Counts a request, and tells what happens to it. Of faults that exclude each other the oldest wins, the others
    /// wait for the next match.
    pub(crate) fn fate(&self, op: Op, connection: u64, offset: u64) -> Fate {
        let mut fate = Fate::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|fault| {
            if !fault.when.matches(op, connection, offset) {
                return true;
            }
            if fault.when.skip > 0 {
                fault.when.skip -= 1;
                return true;
            }
            match &fault.what {
                hold @ (What::Delay(_) | What::Block(_)) => fate.holds.push(hold.clone()),
                _ if fate.what.is_some() => return true,
                what => fate.what = Some(what.clone()),
            }
            fault.when.every
        });
        fate
    }
}

/// Holds requests back until the test opens it; once open, it stays open. Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    // (open, requests that reached the gate)
    state: Mutex<(bool, usize)>,
    arrived: Condvar,
    opened: Notify,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets all requests pass, those that wait and those to come.
    pub fn open(&self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).0 = true;
        self.0.opened.notify_waiters();
    }

    /// Waits until `n` requests have reached the gate; false if they have not within `timeout`.
    #[must_use]
    pub fn wait_reached(&self, n: usize, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.1 < n {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.0.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub(crate) async fn pass(&self) {
        // Created before the look at `open`: a notify_waiters() from here on is not missed.
        let opened = self.0.opened.notified();
        {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.1 += 1;
            self.0.arrived.notify_all();
            if state.0 {
                return;
            }
        }
        opened.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_match_is_counted_among_matches_only() {
        let script = Script::new(vec![Fault::on(Op::Put).connection(2).nth(2).then(What::NoAnswer)]);
        let hit = |op, connection| script.fate(op, connection, 0).what.is_some();
        let hits = [hit(Op::Put, 1), hit(Op::Put, 2), hit(Op::Get, 2), hit(Op::Put, 2), hit(Op::Put, 2)];
        assert_eq!(hits, [false, false, false, true, false]);
    }

    #[test]
    fn every_happens_again_and_any_is_not_for_accepting() {
        let script = Script::new(vec![Fault::any().offset(4).every().then(What::CloseAfterAnswer)]);
        assert!(script.fate(Op::Zero, 1, 4).what.is_some());
        assert!(script.fate(Op::Get, 1, 4).what.is_some());
        assert!(script.fate(Op::Get, 1, 0).what.is_none());
        assert!(script.fate(Op::Accept, 1, 4).what.is_none());
    }

    #[test]
    fn a_gate_and_a_fault_combine_but_two_faults_take_turns() {
        let gate = Gate::new();
        let script = Script::new(vec![
            Fault::any().then(What::Block(gate)),
            Fault::any().then(What::NoAnswer),
            Fault::any().then(What::CloseAfterAnswer),
        ]);
        let first = script.fate(Op::Get, 1, 0);
        assert_eq!(first.holds.len(), 1);
        assert!(matches!(first.what, Some(What::NoAnswer)));
        assert!(matches!(script.fate(Op::Get, 1, 0).what, Some(What::CloseAfterAnswer)));
    }

    #[test]
    fn an_open_gate_holds_nothing() {
        let gate = Gate::new();
        assert!(!gate.wait_reached(1, Duration::ZERO));
        gate.open();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(gate.pass());
        assert!(gate.wait_reached(1, Duration::ZERO));
    }
}
