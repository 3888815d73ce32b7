// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reasons why an exchange failed, and the errors that put them into words.

use std::fmt;
use std::time::Duration;

use hyper::client::conn::TrySendError;
use hyper::{Request, StatusCode};

use crate::Error;
use crate::body::RequestBody;
use crate::driver::Stalled;
use crate::operation::Operation;
use crate::url::{Scheme, TransferUrl};

/// The reason why an exchange failed, before it is put into words.
pub(crate) enum Failure {
    Refused {
        status: StatusCode,
        text: Vec<u8>,
        /// The server said more, or was not heard to the end.
        cut: bool,
        /// The server announced to close: no use in sending on.
        closes: bool,
    },
    Nonsense(String),
    Http(hyper::Error),
    /// Not a byte of the request went out.
    Unsent(hyper::Error),
    Stalled(Stalled),
}

/// The result of a part of an exchange.
pub(crate) type Exchanged<T> = std::result::Result<T, Failure>;

/// An exchange that failed: what an error tells besides the failure itself.
pub(crate) struct Failed<'a> {
    pub(crate) url: &'a TransferUrl,
    pub(crate) operation: Operation,
    /// The time that the server was last given to make progress.
    pub(crate) timeout: Duration,
    /// The reason why sending broke, if it did.
    pub(crate) send_error: Option<String>,
    /// A byte of the request's body may have been handed to the system.
    pub(crate) body_sent: bool,
}

impl Failed<'_> {
    pub(crate) fn error(self, failure: Failure) -> Error {
        let operation = self.operation.to_string();
        match failure {
            Failure::Refused { status, text, cut, .. } => {
                let explanation = self.url.redact_part(&String::from_utf8_lossy(&text), cut);
                Error::Status { operation, status, explanation, body_sent: self.body_sent }
            }
            Failure::Stalled(Stalled::Timeout) => Error::Timeout { operation, after: self.timeout },
            Failure::Stalled(Stalled::Closed) => lost(&operation, "it was closed", false),
            Failure::Stalled(Stalled::Io(e)) => lost(&operation, &e.to_string(), false),
            Failure::Nonsense(reason) => self.protocol(&reason),
            Failure::Unsent(e) => lost(&operation, &with_source(&e), true),
            Failure::Http(e) if e.is_parse() && self.url.scheme() == Scheme::Http => {
                self.protocol(&format!("{}: should the URL be https, or the port another?", with_source(&e)))
            }
            Failure::Http(e) if e.is_parse() => self.protocol(&with_source(&e)),
            Failure::Http(e) => {
                let reason = self.send_error.unwrap_or_else(|| with_source(&e));
                lost(&operation, &self.url.redact(&reason), false)
            }
        }
    }

    fn protocol(&self, reason: &str) -> Error {
        Error::Protocol { operation: self.operation.to_string(), reason: self.url.redact(reason) }
    }
}

pub(crate) fn lost(operation: &dyn fmt::Display, reason: &str, unsent: bool) -> Error {
    Error::Lost { operation: operation.to_string(), reason: reason.to_owned(), unsent }
}

/// hyper gives back a request of which it has sent nothing.
pub(crate) fn unsent_or_lost(mut error: TrySendError<Request<RequestBody>>) -> Failure {
    match error.take_message() {
        Some(_) => Failure::Unsent(error.into_error()),
        None => Failure::Http(error.into_error()),
    }
}

/// hyper's own words with those of what caused them.
fn with_source(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
