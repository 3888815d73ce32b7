// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is worth another attempt, and when.

use std::time::{Duration, Instant};

use imageio_client::{Error, StatusCode};

use crate::ledger::Ledger;

/// The first pause that is one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A server that was started again is given its tickets a moment later. So long after a loss, of whichever connection, it
/// may not know this one.
pub(crate) const TICKET_COMES_BACK: Duration = Duration::from_secs(10);

/// The attempts of one request.
#[derive(Debug)]
pub(crate) struct Retry {
    /// After the first failure, but for one attempt at once.
    patience: Duration,
    first_failure: Option<Instant>,
    next_pause: Duration,
    /// The server failed, and was asked again.
    asked_again: bool,
}

/// What an error means for another attempt.
enum Chance {
    None,
    /// The server failed: all that it may have lost is sent again, but only once.
    Once,
    /// Not by itself.
    IfTicketComesBack,
    /// The way to the server failed.
    Good,
}

impl Chance {
    fn after(error: &Error) -> Self {
        match error.status() {
            _ if error.is_transient() => Self::Good,
            None if matches!(error, Error::Protocol { .. }) => Self::Once,
            None => Self::None,
            Some(StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT) => {
                Self::Good
            }
            Some(StatusCode::FORBIDDEN) => Self::IfTicketComesBack,
            Some(status) if status.is_server_error() => Self::Once,
            Some(_) => Self::None,
        }
    }
}

impl Retry {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, first_failure: None, next_pause: Duration::ZERO, asked_again: false }
    }

    /// Whether to try again; it waits until that makes sense.
    pub(crate) fn pause(&mut self, error: &Error, ledger: &Ledger) -> bool {
        let since = self.first_failure.get_or_insert_with(Instant::now).elapsed();
        let has_chance = match Chance::after(error) {
            Chance::None => false,
            Chance::Once => !std::mem::replace(&mut self.asked_again, true),
            Chance::IfTicketComesBack => ledger.has_lost_within(TICKET_COMES_BACK),
            Chance::Good => {
                ledger.connection_lost();
                true
            }
        };
        let pause = self.next_pause;
        self.next_pause = (pause * 2).clamp(PAUSES.0, PAUSES.1);
        has_chance && (pause.is_zero() || since + pause <= self.patience) && !ledger.pause(pause)
    }
}
