// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attempts at a request: each on an open connection, until `recovery` has it answered or failed.

use std::sync::Arc;
use std::time::Instant;

use block_device_traits::{Errno, Error};
use conn_pool::Affected;
use error_reporter::Report;
use imageio_client::Connection;

use super::{Common, Failure, ReplayingConnection};
use crate::counters::Exchange;
use crate::error::{Cause, device_error};
use crate::recovery::{self, Again, Asked, Attempts, Decision, Ended, Failing, Next, Stake};
use crate::statistics::Awaited;

impl ReplayingConnection {
    /// Sends a request until it is answered or fails.
    pub(super) fn send_again_and_again(
        &mut self,
        asked: Asked,
        exchange: Exchange,
        mut send: impl FnMut(&mut Connection) -> imageio_client::Result<()>,
    ) -> Result<(), Failure> {
        let mut attempts = self.attempts();
        loop {
            self.open(asked, &mut attempts)?;
            if asked == Asked::Flush && !self.is_dirty {
                return Ok(());
            }
            let result = self.attempt(exchange, &mut send);
            let decision = self.decide(asked, &result);
            if self.goes_on(asked, decision, result, &mut attempts)? {
                return Ok(());
            }
        }
    }

    /// Opens the connection if it has to be, and writes again what was unflushed on a lost one.
    /// Writing again ends with a flush, so none is left to be sent then.
    pub(super) fn open(&mut self, asked: Asked, attempts: &mut Attempts) -> Result<(), Failure> {
        while self.open.is_none() && (asked != Asked::Flush || self.is_dirty) {
            let (asked, result) = match self.is_dirty {
                true => (Asked::Replay, self.replay(attempts)?),
                false => (asked, self.connect()),
            };
            // An open connection says nothing yet of what the server does after an answer.
            if result.is_ok() {
                continue;
            }
            let decision = self.decide(asked, &result);
            self.goes_on(asked, decision, result, attempts)?;
        }
        Ok(())
    }

    pub(super) fn connect(&mut self) -> imageio_client::Result<()> {
        let Common { connector, counters, .. } = &*self.common;
        self.open = Some(counters.connect(self.owner, |moved| connector.connect_counted(moved))?);
        Ok(())
    }

    /// Uses the connection, which is open, once.
    pub(super) fn attempt(
        &mut self,
        exchange: Exchange,
        send: impl FnOnce(&mut Connection) -> imageio_client::Result<()>,
    ) -> imageio_client::Result<()> {
        let connection = self.open.as_mut().expect("it was opened before");
        let (result, time) = self.common.counters.exchange(self.owner, exchange, || send(connection));
        if result.is_ok() && !exchange.is_nothing() {
            self.common.link.answered(exchange, time);
            self.common.outage.answered();
        }
        if !connection.is_open() {
            self.give_up_connection();
            if result.as_ref().err().is_none_or(|error| error.status().is_none()) {
                self.common.outage.connection_lost(Instant::now());
            }
        }
        result
    }

    /// Decides about the next step after an attempt. A connection that can't be trusted is closed.
    pub(super) fn decide(&mut self, asked: Asked, result: &imageio_client::Result<()>) -> Decision {
        let ended = match result {
            Ok(()) if self.open.is_some() => Ended::Answered,
            Ok(()) => Ended::AnsweredAndClosed,
            Err(error) => Ended::with(error),
        };
        // A flush that was answered leaves nothing unflushed.
        let is_flushed = asked == Asked::Flush && result.is_ok();
        let stake = Stake { unflushed: self.is_dirty && !is_flushed, is_kept: self.keeps() };
        match ended {
            Ended::Answered => self.closes_early = false,
            Ended::AnsweredAndClosed if stake.unflushed => self.closes_early = true,
            _ => {}
        }
        let decision = recovery::decide(asked, stake, ended);
        if decision.gives_up_connection {
            self.give_up_connection();
        }
        decision
    }

    /// Closes the connection, if it is open, though nobody has asked for that.
    pub(super) fn give_up_connection(&mut self) {
        if self.open.take().is_some() {
            self.common.counters.lost();
        }
    }

    /// Returns true if the request is answered. Otherwise it is to be sent again, and this has
    /// waited until that makes sense.
    pub(super) fn goes_on(
        &mut self,
        asked: Asked,
        decision: Decision,
        result: imageio_client::Result<()>,
        attempts: &mut Attempts,
    ) -> Result<bool, Failure> {
        let (failing, error) = match (decision.next, result) {
            (Next::Answer, _) => return Ok(true),
            (Next::Again(again, _), Err(error)) if self.waits(again, attempts) => {
                log::info!("a connection is opened again: {}", Report::new(error));
                self.common.counters.again();
                return Ok(false);
            }
            (next @ (Next::Again(_, failing) | Next::Fail(failing)), Err(error)) => {
                let error = self.with_reason(next, device_error(asked, &error));
                let now = Instant::now();
                if matches!(next, Next::Again(Again::UntilTimeout, _)) {
                    self.common.outage.gave_up(&error, now);
                }
                (attempts.failing(failing, now), error)
            }
            (Next::Again(..) | Next::Fail(_), Ok(())) => {
                let text = "the server closed a connection whose writes are not flushed";
                (Failing::Transfer, Error::new(Errno::Io, text))
            }
        };
        Err(self.failure(failing, error))
    }

    pub(super) fn attempts(&self) -> Attempts {
        Attempts::new(self.common.reconnect_timeout, Instant::now())
    }

    /// Waits until another attempt makes sense. Returns false if none does.
    fn waits(&mut self, again: Again, attempts: &mut Attempts) -> bool {
        if again == Again::IfTicketComesBack && self.bring_ticket_back() {
            attempts.got_further();
        }
        let Common { outage, counters, .. } = &*self.common;
        let _busy = counters.busy(self.owner, Awaited::Connection, None);
        let pause = attempts.next(again, outage, Instant::now());
        pause.is_some_and(|pause| outage.wait(pause))
    }

    /// Returns true if the server knows the ticket again. It was a loss for all connections: what
    /// they have of the ticket is of no use any more, and those that are refused next are to be
    /// tried again.
    fn bring_ticket_back(&mut self) -> bool {
        let Some(keeper) = self.common.ticket_keeper.clone() else { return false };
        let counters = Arc::clone(&self.common.counters);
        let _busy = counters.busy(self.owner, Awaited::Connection, None);
        let is_back = self.common.outage.bring_ticket_back(|| keeper.bring_back());
        if is_back {
            self.give_up_connection();
        }
        is_back
    }

    /// A ticket that was lost for good has a reason that only its keeper knows.
    fn with_reason(&self, next: Next, error: Error) -> Error {
        let keeper = self.common.ticket_keeper.as_ref();
        let keeper = keeper.filter(|_| matches!(next, Next::Again(Again::IfTicketComesBack, _)));
        match keeper.and_then(|keeper| keeper.why_lost()) {
            Some(reason) => Error::new(error.errno(), format!("{error}: {reason}")),
            None => error,
        }
    }

    pub(super) fn failure(&self, failing: Failing, error: Error) -> Failure {
        let (affected, error) = match failing {
            Failing::Part => (Affected::One, error),
            // It may have been woken by the failure of all.
            Failing::Request => (Affected::Group, self.common.outage.cause().unwrap_or(error)),
            Failing::Transfer => {
                let lost = Error::new(error.errno(), format!("data may be lost: {error}"));
                (Affected::Pool, self.common.outage.end(lost))
            }
        };
        Failure { error: Cause(error), affected }
    }

    /// Returns true if unflushed content is kept, to be written again.
    pub(super) fn keeps(&self) -> bool {
        !self.common.replay_buffer.is_off()
    }
}
