// SPDX-License-Identifier: MIT OR Apache-2.0
//! The decision after an attempt, however it ended: one table.
//!
//! # Why it is so
//! - **An error status on a connection with unflushed writes** means that the connection can't be
//!   trusted any more, whatever was asked: a proxy may have lost its own connection to the host,
//!   and those writes with it, and may have a new one by the next request.
//! - **Only what surely did not happen is forgotten.** imageio answers 400 also after it has
//!   written a part of the body, and 403 also after an operation, if the ticket was cancelled
//!   meanwhile. Proxies answer 5xx where they have lost the server, which may carry out the request
//!   all the same.
//! - **All that can be tried again is tried again**, reads as well as changes: every operation of
//!   imageio is idempotent.

use std::time::{Duration, Instant};

use imageio_client::{Error, StatusCode};

use crate::outage::Outage;

/// The kind of request that the server was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Read,
    /// A write or a zero.
    Change,
    Flush,
    /// To write again what was unflushed on a lost connection.
    Replay,
}

/// The content at stake on the connection besides the request itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stake {
    /// It carried acknowledged writes that are not flushed.
    pub(crate) unflushed: bool,
    /// The content of unflushed writes is kept, and can be written again.
    pub(crate) is_kept: bool,
}

/// The end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Answered,
    /// It was answered as it should be, and the server has closed the connection.
    AnsweredAndClosed,
    /// Nothing was sent: no connection could be opened, or the server had closed it before.
    NotSent,
    /// Nothing was sent, and it won't be better the next time: certificates that don't fit.
    CannotBeSent,
    /// It was sent, at least in part, and no whole answer came.
    NoAnswer,
    /// The answer breaks the protocol.
    Nonsense,
    /// The server has refused it, and has surely not done it.
    Refused,
    /// 403.
    Forbidden {
        /// The request's body was sent, at least in part, so it may be done.
        maybe_done: bool,
    },
    /// A proxy or the server is overloaded, or has lost what is behind it: 408, 429, 502, 503, 504.
    Unavailable,
    /// 500, and what else is the server's fault.
    Failed,
    /// Any other status: nobody knows what it means for the request.
    Unclear,
}

/// The decision what to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The connection can't be used any more.
    pub(crate) gives_up_connection: bool,
    /// The change may still be carried out.
    pub(crate) is_in_doubt: bool,
    pub(crate) next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Answer,
    /// The request is sent again, if that makes sense by now.
    Again(Again, Failing),
    Fail(Failing),
}

/// The condition under which a request is worth another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// Until `reconnect-timeout`.
    UntilTimeout,
    /// Once: if it fails again, it isn't by chance.
    Once,
    /// While the ticket may come back: a server that was started again is given its tickets a
    /// moment later.
    IfTicketComesBack,
}

/// The extent of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// The request. Parts of it may succeed.
    Part,
    /// The request with all its parts.
    Request,
    /// Everything from now on: data may be lost.
    Transfer,
}

/// The table: what to do after an attempt.
pub(crate) fn decide(asked: Asked, stake: Stake, ended: Ended) -> Decision {
    use Again::{IfTicketComesBack, Once, UntilTimeout};
    use Failing::{Part, Request};
    // The answers to three questions: may it be done, when is it sent again, and what fails if it
    // isn't?
    let (may_be_done, again, failing) = match ended {
        Ended::Answered | Ended::AnsweredAndClosed => return answered(stake, ended),
        Ended::NotSent => (false, Some(UntilTimeout), Request),
        Ended::CannotBeSent => (false, None, Request),
        Ended::NoAnswer => (true, Some(UntilTimeout), Request),
        Ended::Nonsense => (true, Some(Once), Request),
        Ended::Refused => (false, None, Part),
        Ended::Forbidden { maybe_done } => (maybe_done, Some(IfTicketComesBack), Request),
        Ended::Unavailable => (true, Some(UntilTimeout), Request),
        Ended::Failed => (true, Some(Once), Part),
        Ended::Unclear => (true, None, Part),
    };
    let is_refusal = matches!(ended, Ended::Refused | Ended::Forbidden { .. });
    let is_unanswered_change = asked == Asked::Change && matches!(ended, Ended::NoAnswer | Ended::Nonsense);
    let is_lost = !stake.is_kept && (stake.unflushed || is_unanswered_change);
    // Content that is kept can wait to be written again while other requests go on, if the server
    // does anything at all.
    let is_for_the_unflushed = matches!(asked, Asked::Flush | Asked::Replay);
    let failing = match stake.unflushed && (is_for_the_unflushed || again.is_some()) {
        true => Failing::Transfer,
        false => failing,
    };
    Decision {
        gives_up_connection: stake.unflushed || !is_refusal,
        is_in_doubt: matches!(asked, Asked::Change | Asked::Replay) && may_be_done,
        next: match again {
            _ if is_lost => Next::Fail(Failing::Transfer),
            Some(again) => Next::Again(again, failing),
            None => Next::Fail(failing),
        },
    }
}

/// A connection that is closed takes along what was unflushed on it.
fn answered(stake: Stake, ended: Ended) -> Decision {
    let is_closed = ended == Ended::AnsweredAndClosed;
    let is_lost = is_closed && stake.unflushed && !stake.is_kept;
    Decision {
        gives_up_connection: is_closed,
        is_in_doubt: false,
        next: if is_lost { Next::Fail(Failing::Transfer) } else { Next::Answer },
    }
}

impl Ended {
    /// Returns the end of an attempt that has this error.
    pub(crate) fn with(error: &Error) -> Self {
        match error {
            Error::Status { status, body_sent, .. } => Self::with_status(*status, *body_sent),
            Error::Protocol { .. } => Self::Nonsense,
            _ if !error.is_transient() => Self::CannotBeSent,
            _ if error.is_unsent() => Self::NotSent,
            _ => Self::NoAnswer,
        }
    }

    fn with_status(status: StatusCode, body_sent: bool) -> Self {
        match status.as_u16() {
            400 if !body_sent => Self::Refused,
            401 | 404 | 405 | 411 | 416 => Self::Refused,
            403 => Self::Forbidden { maybe_done: body_sent },
            408 | 429 | 502..=504 => Self::Unavailable,
            500.. => Self::Failed,
            _ => Self::Unclear,
        }
    }
}

/// The attempts of one request.
#[derive(Debug)]
pub(crate) struct Attempts {
    /// The time that the server is waited for: after the first failure, or since it answers nobody.
    timeout: Duration,
    began: Instant,
    first_failure: Option<Instant>,
    next_pause: Duration,
    was_sent_again_once: bool,
}

/// The first pause that is one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A failure that took longer is no matter of one part of a request.
const LONG_FOR_A_PART: Duration = Duration::from_secs(10);

/// For so long after a loss, of whichever connection, a server that was started again may not know
/// the ticket.
const TICKET_COMES_BACK: Duration = Duration::from_secs(10);

impl Attempts {
    pub(crate) fn new(timeout: Duration, now: Instant) -> Self {
        let next_pause = Duration::ZERO;
        Self { timeout, began: now, first_failure: None, next_pause, was_sent_again_once: false }
    }

    /// A part of what is to be done is done for good, so the time for the rest of it begins anew.
    pub(crate) fn got_further(&mut self) {
        self.first_failure = None;
        self.next_pause = Duration::ZERO;
    }

    /// Returns the extent of the failure when there is no other attempt. A server that takes long
    /// to fail is in trouble, whatever was asked: the parts of a request would each take as long.
    pub(crate) fn failing(&self, failing: Failing, now: Instant) -> Failing {
        let is_slow = now.saturating_duration_since(self.began) > LONG_FOR_A_PART;
        if failing == Failing::Part && is_slow { Failing::Request } else { failing }
    }

    /// Returns the time to wait before the next attempt, which is the first one at once; `None` if
    /// there is to be none.
    pub(crate) fn next(&mut self, again: Again, outage: &Outage, now: Instant) -> Option<Duration> {
        let mut waited = now.saturating_duration_since(*self.first_failure.get_or_insert(now));
        let makes_sense = match again {
            Again::UntilTimeout => {
                let down = outage.failed(now);
                waited = waited.max(down);
                down <= self.timeout
            }
            Again::Once => !std::mem::replace(&mut self.was_sent_again_once, true),
            Again::IfTicketComesBack => outage.was_within(TICKET_COMES_BACK, now),
        };
        let pause = self.next_pause;
        self.next_pause = (pause * 2).clamp(PAUSES.0, PAUSES.1);
        (makes_sense && (pause.is_zero() || waited + pause <= self.timeout)).then_some(pause)
    }
}

#[cfg(test)]
mod tests;
