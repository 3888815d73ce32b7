// SPDX-License-Identifier: MIT OR Apache-2.0
//! The errors of a request, each in one line that says who is at fault.

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use crate::{DiskStatus, Kind, TransferPhase};

/// The result of asking the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// The reason why the engine didn't do what it was asked for. No text of it has a password, a token
/// or a ticket. A cause isn't repeated in it: it is the [source](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine's address can't be used.
    #[error("the engine's URL: {reason}: https://ENGINE/ovirt-engine/api is expected")]
    Url {
        /// The reason why the URL can't be used.
        reason: String,
    },

    /// The user's name can't be used.
    #[error("the engine's user: a name and its profile are expected, such as admin@internal")]
    User,

    /// The file with the engine's CA can't be read.
    #[error("the engine's CA file {} can't be read", path.display())]
    CaFile {
        /// The file as it was given.
        path: PathBuf,
        /// The reason why it can't be read.
        source: io::Error,
    },

    /// What was given for the engine's CA has no certificate that can be used.
    #[error("the engine's CA can't be used, as a PEM file with it is expected")]
    Certificates(#[source] Option<io::Error>),

    /// The system has no certificates to verify the engine's with.
    #[error("this system has no root certificates")]
    NoRoots,

    /// The engine can't be reached, or doesn't answer.
    #[error("the engine at {host} gives no answer to {request}")]
    Unreachable {
        /// The request.
        request: Request,
        /// The engine's host.
        host: String,
        /// The reason.
        source: NoAnswer,
        /// The request may have been carried out all the same.
        may_be_done: bool,
    },

    /// The user can't log in.
    #[error("the engine refuses the login: {reason}")]
    Login {
        /// The engine's words.
        reason: String,
    },

    /// The engine has answered with an error.
    #[error("the engine refuses {request}: {status}{}", fault(reason, detail))]
    Refused {
        /// The request.
        request: Request,
        /// The status of HTTP.
        status: u16,
        /// The engine's reason, if it told one.
        reason: String,
        /// The engine's details, if it told any.
        detail: String,
    },

    /// A disk is in use by another transfer.
    #[error("{refusal}: transfer {id} ({phase}) has the disk: {advice}")]
    InUse {
        /// The engine's words.
        refusal: Box<Error>,
        /// The other transfer.
        id: String,
        /// Its phase.
        phase: TransferPhase,
        /// The advice to the user.
        advice: &'static str,
    },

    /// The answer isn't what the API's documentation says.
    #[error(
        "the engine's answer to {request} can't be understood: {reason}: is it an oVirt engine of 4.3 or later?"
    )]
    Answer {
        /// The request.
        request: Request,
        /// The reason why the answer can't be understood.
        reason: String,
    },

    /// There is none of this name or id.
    #[error("the engine has no {kind} '{}'{}", name.escape_debug(), kind.advice())]
    Missing {
        /// The kind of object that was looked for.
        kind: Kind,
        /// The name or id that was looked for.
        name: String,
    },

    /// There are several of this name.
    #[error("the engine has {} {kind}s '{}': use an id: {}", ids.len(), name.escape_debug(), ids.join(", "))]
    Ambiguous {
        /// The kind of object that was looked for.
        kind: Kind,
        /// The name that was looked for.
        name: String,
        /// The ids of all that have this name.
        ids: Vec<String>,
    },

    /// A disk can't be used.
    #[error("disk {id} is {status}: {advice}")]
    Disk {
        /// The disk.
        id: String,
        /// Its status.
        status: DiskStatus,
        /// The advice to the user.
        advice: &'static str,
    },

    /// A transfer didn't come to where it was to come.
    #[error("the engine has ended transfer {id} ({phase}): {advice}")]
    Transfer {
        /// The transfer.
        id: String,
        /// Its phase.
        phase: TransferPhase,
        /// The advice to the user.
        advice: &'static str,
    },

    /// A backup has failed.
    #[error(
        "the engine has ended backup {id} ({phase}): see the events of the virtual machine in the engine"
    )]
    Backup {
        /// The backup.
        id: String,
        /// Its phase, or that it is gone.
        phase: String,
    },

    /// The engine has not done in time what was waited for.
    #[error("the engine has not {what} within {} s", time.as_secs())]
    TimedOut {
        /// The act that was waited for, as in "the engine has not ...".
        what: String,
        /// The time that it was waited for.
        time: Duration,
    },

    /// The one who waited was stopped.
    #[error("the wait was ended while the engine had not yet {what}")]
    Stopped {
        /// The act that was waited for, as in "the engine had not yet ...".
        what: String,
    },
}

/// The reason why the engine gives no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// The engine's certificate is signed by a CA that isn't trusted.
    #[error("its certificate is not signed by a CA that is trusted here")]
    UntrustedCa,

    /// The answer has not come in time.
    #[error("it has not answered in time")]
    TimedOut,

    /// What answers is not the engine yet.
    #[error("it is not in order, and may be starting")]
    Starting,

    /// No connection to the engine's host could be made.
    #[error("{0}")]
    NotConnected(String),

    /// The connection failed, or had no use.
    #[error("{0}")]
    Failed(String),
}

/// A request, as messages name it: without what is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub(crate) method: &'static str,
    /// Behind the API's root, and without a query.
    pub(crate) path: String,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// The words of an engine as a part of a line: without the brackets around them, the full stop at
/// their end, and what a terminal would obey. They may come from whoever answers in its place.
pub(crate) fn words(text: &str) -> String {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let shown = |c: char| match c {
        '\n' => " ".to_owned(),
        '\'' | '"' => c.to_string(),
        c => c.escape_debug().to_string(),
    };
    inner.trim_end_matches(['.', ' ']).chars().map(shown).collect()
}

fn fault(reason: &str, detail: &str) -> String {
    let told = [reason, detail].map(words);
    told.into_iter().filter(|text| !text.is_empty()).map(|text| format!(": {text}")).collect()
}

impl Error {
    /// Returns true if asking again later may help: the engine is being started again, or the
    /// network is down.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Refused { status: 408 | 429 | 500 | 502 | 503 | 504, .. }
        )
    }

    /// Returns true if the request may have been carried out, though nobody told so.
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        match self {
            Self::Unreachable { may_be_done, .. } => *may_be_done,
            // A proxy in front of the engine has lost it.
            Self::Refused { status, .. } => matches!(status, 502 | 504),
            Self::Answer { .. } => true,
            _ => false,
        }
    }

    /// Returns true if the engine doesn't have (any more) the thing that was asked about.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Refused { status: 404, .. })
    }

    /// The status of HTTP that the engine has answered with, if it is an error.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use error_reporter::Report;

    use super::*;

    #[test]
    fn the_engine_s_words_are_a_part_of_a_line() {
        for (text, expected) in [
            ("[Cannot add Disk. The name 'x' is in use.]", "Cannot add Disk. The name 'x' is in use"),
            (" Please try again later. \n", "Please try again later"),
            ("Disk [x]", "Disk [x]"),
            ("two\nlines\x1b[31m", "two lines\\u{1b}[31m"),
            ("", ""),
        ] {
            assert_eq!(words(text), expected);
        }
        assert_eq!(fault("Operation Failed", "[]"), ": Operation Failed");
    }

    #[test]
    fn an_error_and_its_cause_are_told_once_each() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let (request, host) = (Request::new("GET", "/disks?search=x"), "engine".to_owned());
        let source = NoAnswer::TimedOut;
        let told = [
            (
                Error::CaFile { path: "ca.pem".into(), source: missing() },
                "the engine's CA file ca.pem can't be read: entity not found",
            ),
            (
                Error::Certificates(Some(missing())),
                "the engine's CA can't be used, as a PEM file with it is expected: entity not found",
            ),
            (
                Error::Unreachable { request, host, source, may_be_done: false },
                "the engine at engine gives no answer to GET /disks: it has not answered in time",
            ),
        ];
        for (error, expected) in told {
            let cause = error.source().unwrap().to_string();
            assert!(!error.to_string().contains(&cause), "{error}");
            assert_eq!(Report::new(error).to_string(), expected);
        }
    }
}
