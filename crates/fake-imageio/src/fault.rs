// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scripted faults: which request goes wrong, and how.

use std::time::Duration;

use crate::gate::Gate;

/// The kinds of request, as faults and the log tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// A connection was accepted: not a request, but a place where faults can happen, before any
    /// TLS handshake.
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
    /// `GET …/extents`, of zeroes and holes.
    Extents,
    /// `GET …/extents?context=dirty`.
    DirtyExtents,
    /// `GET …/checksum`.
    Checksum,
    /// Anything else, also a `PATCH` that could not be understood.
    Other,
}

/// The way in which a request goes wrong.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum What {
    /// The request is answered as ever, without `connection: close`; then the connection is closed.
    CloseAfterAnswer,
    /// The request is carried out, but the connection is closed instead of an answer.
    LoseAnswer,
    /// The connection is closed (FIN) after `after` bytes of the request's body were stored (`PUT`;
    /// all of it, if it is
    /// shorter) or after that many bytes of the answer's body were sent (requests with an answer's
    /// body: then the answer announced more than it sent). A zero or flush is not carried out.
    Close {
        /// Bytes of body.
        after: u64,
    },
    /// The connection is reset (RST) instead of closed; a unix socket is only closed. Of an
    /// answer's body the client gets no more than `after` bytes, and exactly as many if they fit in
    /// its receive buffer (some 64 KiB): a reset throws away what is still on the way.
    Reset {
        /// Bytes of body.
        after: u64,
    },
    /// The connection is closed as soon as all of the request is there, and a `PUT` or zero is
    /// carried out when the test opens the gate: over whatever was written to that place meanwhile.
    /// A flush is not carried out.
    CarryOutLate(Gate),
    /// The request is answered by this status, as by a proxy that has lost the server, and carried
    /// out when the test opens the gate; the connection stays open.
    FailAndCarryOutLate {
        /// HTTP status.
        status: u16,
        /// The gate that has the request carried out.
        gate: Gate,
    },
    /// Answers before the body is read, then closes, as the real server does when it knows better.
    AnswerEarly {
        /// HTTP status.
        status: u16,
        /// The line of explanation.
        text: String,
    },
    /// Reads the body, does nothing with it, answers this. The connection stays open, unless it is
    /// a 403.
    Status {
        /// HTTP status.
        status: u16,
        /// The line of explanation.
        text: String,
    },
    /// Reads the body, answers this, and has done so much of what was asked for.
    Answer {
        /// HTTP status.
        status: u16,
        /// The line of explanation.
        text: String,
        /// The part of the request that is carried out.
        done: Done,
        /// Say `connection: close`, and do it.
        close: bool,
    },
    /// The way to the server was lost a moment before, as by
    /// [`FakeServer::lose_way`](crate::FakeServer::lose_way): the request is answered by this
    /// status. `done` of it is carried out all the same, on the new way.
    LoseWay {
        /// HTTP status.
        status: u16,
        /// All connections lose their way, not only this one.
        all: bool,
        /// The part of the request that is carried out.
        done: Done,
    },
    /// At each block that an unaligned change has to read and write back, on a [block
    /// device](crate::Builder::block_device): it waits in between until the test opens the gate.
    /// This doesn't exclude another fault for the same request.
    HoldBlock(Gate),
    /// Each such block waits for this time: see `HoldBlock`.
    DelayBlock(Duration),
    /// The request is carried out, and answered after this time.
    Delay(Duration),
    /// The request is carried out, and answered when the test opens the gate. (With another fault
    /// for the same request: that fault happens when the gate opens.)
    Block(Gate),
    /// A `GET` is answered with this many bytes, whatever it asked for.
    WrongLength(u64),
    /// The body is read; an answer never comes. The connection stays open.
    NoAnswer,
}

/// The part that is carried out of a request that is answered by an error.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Done {
    /// Nothing.
    Not,
    /// All of it, before the answer.
    Yes,
    /// All of it, when the test opens the gate: over whatever was written to that place meanwhile.
    /// On a [block device](crate::Builder::block_device), an unaligned change has read its blocks
    /// before the answer.
    Late(Gate),
    /// The first bytes of a `PUT` or zero, and nothing of others.
    Part(u64),
}

impl What {
    /// An [`Answer`](Self::Answer) after which the connection stays open.
    #[must_use]
    pub fn answer(status: u16, done: Done) -> Self {
        Self::Answer { status, text: "for a reason".to_owned(), done, close: false }
    }

    /// Returns its name in the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::CloseAfterAnswer => "close after answer",
            Self::LoseAnswer => "lose answer",
            Self::Close { .. } => "close",
            Self::Reset { .. } => "reset",
            Self::CarryOutLate(_) => "carry out late",
            Self::AnswerEarly { .. } => "answer early",
            Self::Status { .. } | Self::Answer { done: Done::Not, .. } => "answer, not done",
            Self::Answer { done: Done::Yes, .. } => "answer, done",
            Self::Answer { done: Done::Part(_), .. } => "answer, done in part",
            Self::FailAndCarryOutLate { .. } | Self::Answer { done: Done::Late(_), .. } => {
                "answer, done late"
            }
            Self::LoseWay { .. } => "lose way",
            Self::Delay(_) => "delay",
            Self::Block(_) => "block",
            Self::DelayBlock(_) => "delay block",
            Self::HoldBlock(_) => "hold block",
            Self::WrongLength(_) => "wrong length",
            Self::NoAnswer => "no answer",
        }
    }

    /// In general words, where there are some.
    pub(crate) fn unfold(self) -> Self {
        match self {
            Self::Status { status, text } => {
                Self::Answer { status, text, done: Done::Not, close: status == 403 }
            }
            Self::FailAndCarryOutLate { status, gate } => {
                let text = "the server is lost".to_owned();
                Self::Answer { status, text, done: Done::Late(gate), close: status == 403 }
            }
            other => other,
        }
    }
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
    pub(crate) when: When,
    pub(crate) what: What,
}

/// Which requests a fault is for; all that is set must match. Finish it with [`When::then`].
#[derive(Debug, Clone, Default)]
pub struct When {
    op: Option<Op>,
    connection: Option<u64>,
    offset: Option<u64>,
    pub(crate) skip: u64,
    pub(crate) every: bool,
}

impl Fault {
    /// Sets what happens to these requests.
    #[must_use]
    pub fn what(&self) -> &What {
        &self.what
    }

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

    /// Sets what happens to these requests.
    #[must_use]
    pub fn then(self, what: What) -> Fault {
        Fault { when: self, what }
    }

    pub(crate) fn matches(&self, op: Op, connection: u64, offset: u64) -> bool {
        // A fault for "any" request is not one for accepting a connection.
        let op_matches = self.op.map_or(op != Op::Accept, |wanted| wanted == op);
        op_matches
            && self.connection.is_none_or(|wanted| wanted == connection)
            && self.offset.is_none_or(|wanted| wanted == offset)
    }
}
