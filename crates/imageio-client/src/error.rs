// SPDX-License-Identifier: MIT OR Apache-2.0
//! The errors of a connection, which tell whose fault they are.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper::StatusCode;

/// The result of talking to an imageio server.
pub type Result<T> = std::result::Result<T, Error>;

/// Every failure of this crate. The text is one line, and never holds the ticket. A cause isn't
/// repeated in it: it is the [source](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The transfer URL can't be used.
    #[error("bad transfer URL: {0}")]
    Url(String),

    /// The CA file can't be used.
    #[error("the CA file {} can't be used", path.display())]
    CaFile {
        /// The file as it was given.
        path: PathBuf,
        /// The reason why it can't be used.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The system has no certificates to verify others with.
    #[error("this system has no root certificates")]
    NoRoots,

    /// The host name has no address.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name looked up.
        host: String,
        /// The resolver's error.
        source: io::Error,
    },

    /// No connection to the server.
    #[error("cannot connect to {peer}")]
    Connect {
        /// Address or socket.
        peer: String,
        /// The error of the last attempt.
        source: io::Error,
    },

    /// The TLS handshake failed.
    #[error("TLS to {peer} failed")]
    Tls {
        /// Host and port.
        peer: String,
        /// The reason.
        source: TlsError,
    },

    /// The server made no progress for too long. The connection is closed.
    #[error("{operation}: the server made no progress for {} s", after.as_secs_f32())]
    Timeout {
        /// The operation that the server was asked for.
        operation: String,
        /// The time that this side waited.
        after: Duration,
    },

    /// The connection was lost before the answer was complete.
    #[error("{operation}: the connection to the server was lost: {reason}")]
    Lost {
        /// The operation that the server was asked for.
        operation: String,
        /// The transport's words.
        reason: String,
        /// Not a byte of the request had been sent: the server can't have acted on it.
        unsent: bool,
    },

    /// The server refused.
    #[error("{operation}: {} {}{}", status.as_u16(), reason_phrase(*status), explained(*status, explanation))]
    Status {
        /// The operation that the server was asked for.
        operation: String,
        /// The HTTP status.
        status: StatusCode,
        /// The server's own words: one line, may be empty.
        explanation: String,
        /// A byte of the request's body may have been handed to the system before this answer came,
        /// so that the server may have got it. False for a request without a body.
        body_sent: bool,
    },

    /// The server's answer breaks the protocol. The connection is closed.
    #[error("{operation}: the server's answer makes no sense: {reason}")]
    Protocol {
        /// The operation that the server was asked for.
        operation: String,
        /// The fault in the answer.
        reason: String,
    },
}

/// The reason why a TLS handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The server's certificate is signed by a CA that isn't trusted.
    #[error("the server's certificate is not signed by a CA that is trusted here")]
    UntrustedCa,

    /// One side refused the other for another reason, and perhaps what to do about it.
    #[error("{0}")]
    Refused(String),

    /// The connection broke, or the server was silent: neither side refused the other.
    #[error("{0}")]
    Broken(String),
}

/// The party that has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The caller, who gave the URL, the ticket, the certificates or the range.
    Caller,
    /// The imageio server or its storage.
    Server,
    /// The network between the caller and the server.
    Network,
}

impl Error {
    /// The party that has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Url(_) | Self::CaFile { .. } | Self::NoRoots | Self::Tls { .. } => Fault::Caller,
            Self::Resolve { .. } | Self::Connect { .. } | Self::Timeout { .. } | Self::Lost { .. } => {
                Fault::Network
            }
            Self::Status { status, .. } if status.is_client_error() => Fault::Caller,
            Self::Status { .. } | Self::Protocol { .. } => Fault::Server,
        }
    }

    /// The HTTP status, where the server answered with one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Returns true if the connection broke rather than the request failed: on a new connection,
    /// the same request may pass.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Returns true if it is the way to the server that failed, for now: later, on a new
    /// connection, the same request may pass.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Tls { source, .. } => matches!(source, TlsError::Broken(_)),
            Self::Resolve { .. } | Self::Connect { .. } | Self::Timeout { .. } | Self::Lost { .. } => true,
            _ => false,
        }
    }

    /// Returns true if the connection was already gone when the request was to be sent, so that it
    /// had no effect.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        matches!(
            self,
            Self::Lost { unsent: true, .. } | Self::Resolve { .. } | Self::Connect { .. } | Self::Tls { .. }
        )
    }
}

fn reason_phrase(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("(unknown status)")
}

/// The server's words, without a full stop at their end, and what to do where they never say why.
fn explained(status: StatusCode, explanation: &str) -> String {
    let words = explanation.trim_end_matches('.');
    let log = if status == StatusCode::INTERNAL_SERVER_ERROR { LOG } else { "" };
    [words, log].into_iter().filter(|text| !text.is_empty()).map(|text| format!(": {text}")).collect()
}

/// The server tells the reason of a failure of its own to nobody else.
const LOG: &str = "the imageio server may tell the reason in /var/log/ovirt-imageio/daemon.log of its host";

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: StatusCode, explanation: &str) -> String {
        let (operation, explanation) = ("flush".to_owned(), explanation.to_owned());
        Error::Status { operation, status, explanation, body_sent: false }.to_string()
    }

    #[test]
    fn a_failure_of_the_server_says_where_its_reason_is() {
        let expected = format!("flush: 500 Internal Server Error: check logs: {LOG}");
        assert_eq!(refused(StatusCode::INTERNAL_SERVER_ERROR, "check logs"), expected);
        let expected = format!("flush: 500 Internal Server Error: {LOG}");
        assert_eq!(refused(StatusCode::INTERNAL_SERVER_ERROR, ""), expected);
    }

    #[test]
    fn a_full_stop_of_the_server_does_not_end_the_line() {
        assert_eq!(refused(StatusCode::FORBIDDEN, "No such ticket."), "flush: 403 Forbidden: No such ticket");
        assert_eq!(refused(StatusCode::FORBIDDEN, ""), "flush: 403 Forbidden");
    }
}
