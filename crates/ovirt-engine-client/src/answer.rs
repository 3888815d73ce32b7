// SPDX-License-Identifier: MIT OR Apache-2.0
//! The answers of the engine.

use std::io::ErrorKind;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Request, words};
use crate::{Error, NoAnswer, Result, Secret, wire};

/// An answer, whatever it says.
pub(crate) struct Reply {
    pub(crate) request: Request,
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// The reason why the engine refuses. Actions wrap it (`Fault`, `Action` of the API's model).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fault {
    #[serde(deserialize_with = "wire::text")]
    reason: String,
    #[serde(deserialize_with = "wire::text")]
    detail: String,
    fault: Option<Box<Fault>>,
    action: Option<Box<Fault>>,
}

impl Fault {
    fn innermost(self) -> Self {
        match (self.fault, self.action) {
            (Some(fault), _) | (None, Some(fault)) => fault.innermost(),
            (None, None) => Self { fault: None, action: None, ..self },
        }
    }
}

/// The answer to a login (RFC 6749, section 5, and oVirt's own fields).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    access_token: Secret,
    #[serde(deserialize_with = "wire::text")]
    error: String,
    #[serde(deserialize_with = "wire::text")]
    error_code: String,
    #[serde(deserialize_with = "wire::text")]
    error_description: String,
}

impl Request {
    pub(crate) fn new(method: &'static str, path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        Self { method, path: path.to_owned() }
    }
}

impl Reply {
    /// The answer, unless it is an error.
    pub(crate) fn accept(self) -> Result<Self> {
        match self.status {
            200..=299 => Ok(self),
            300..=399 => Err(self.not_understood("it leads to another place")),
            401 => Err(Error::Login { reason: "the token that it gave out is not accepted".to_owned() }),
            status => {
                // A proxy's error has no fault in it.
                let fault = serde_json::from_slice::<Fault>(&self.body).unwrap_or_default().innermost();
                Err(Error::Refused {
                    request: self.request,
                    status,
                    reason: fault.reason,
                    detail: fault.detail,
                })
            }
        }
    }

    /// Returns true if this is the answer of an engine that is in order to a request for the API's
    /// root (`Api` of the API's model).
    pub(crate) fn is_of_engine(&self) -> bool {
        let root = serde_json::from_slice::<serde_json::Value>(&self.body).unwrap_or_default();
        self.status == 200 && root.get("product_info").is_some()
    }

    /// Returns the value that the answer tells.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| self.not_understood(&error.to_string()))
    }

    /// The elements of the list that is told.
    pub(crate) fn list<T: DeserializeOwned>(self) -> Result<Vec<T>> {
        let value = serde_json::from_slice(&self.body);
        value.and_then(wire::unwrap).map_err(|error| self.not_understood(&error.to_string()))
    }

    /// The token that is given out.
    pub(crate) fn token(self) -> Result<Secret> {
        if self.status >= 500 {
            return self.accept().map(|_| Secret::default());
        }
        if self.status == 404 || (300..400).contains(&self.status) {
            return Err(Error::Url { reason: format!("there is no login (status {})", self.status) });
        }
        let login: Login = match serde_json::from_slice(&self.body) {
            Ok(login) => login,
            Err(_) if self.status >= 400 => return self.accept().map(|_| Secret::default()),
            Err(_) => return Err(Error::Url { reason: "what answers there is no engine".to_owned() }),
        };
        if !login.access_token.reveal().is_empty() {
            return Ok(login.access_token);
        }
        let reason = [login.error_description, login.error, login.error_code];
        let reason = reason.into_iter().find(|reason| !reason.is_empty());
        match reason {
            // While it starts, it answers without a word.
            None => self.accept().map(|_| Secret::default()),
            Some(reason) => Err(Error::Login { reason: words(&reason) }),
        }
    }

    fn not_understood(&self, reason: &str) -> Error {
        Error::Answer { request: self.request.clone(), reason: reason.to_owned() }
    }
}

/// An error before there was an answer.
pub(crate) fn unreachable(request: &Request, host: &str, error: &ureq::Error) -> Error {
    let may_be_done = request.method != "GET" && was_sent(error);
    let (request, host) = (request.clone(), host.to_owned());
    Error::Unreachable { request, host, source: explain(error), may_be_done }
}

/// The engine is there, and not in order yet.
pub(crate) fn starting(request: &Request, host: &str) -> Error {
    let (request, host) = (request.clone(), host.to_owned());
    Error::Unreachable { request, host, source: NoAnswer::Starting, may_be_done: false }
}

/// An error in the middle of the answer.
pub(crate) fn cut_off(request: &Request, host: &str, error: &ureq::Error) -> Error {
    let source = match explain(error) {
        NoAnswer::Failed(reason) => NoAnswer::Failed(format!("the answer has broken off: {reason}")),
        reason => reason,
    };
    let may_be_done = request.method != "GET";
    Error::Unreachable { request: request.clone(), host: host.to_owned(), source, may_be_done }
}

/// Returns true if the request may have reached the engine. Certificates are verified before
/// anything is sent.
fn was_sent(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => !is_not_connected(error),
        ureq::Error::Timeout(timeout) => !matches!(timeout, ureq::Timeout::Resolve | ureq::Timeout::Connect),
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Rustls(_)
        | ureq::Error::Tls(_)
        | ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::InvalidProxyUrl
        | ureq::Error::ConnectProxyFailed(_) => false,
        _ => true,
    }
}

fn is_not_connected(error: &std::io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

fn explain(error: &ureq::Error) -> NoAnswer {
    use rustls::{CertificateError, Error as Tls};
    match certificate_error(error) {
        Some(Tls::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            NoAnswer::UntrustedCa
        }
        Some(error) => NoAnswer::Failed(error.to_string()),
        None if matches!(error, ureq::Error::Timeout(_)) => NoAnswer::TimedOut,
        None => match error {
            // Without a word for where it was met, which is no user's.
            ureq::Error::Io(error) if is_not_connected(error) => NoAnswer::NotConnected(error.to_string()),
            ureq::Error::Io(error) => NoAnswer::Failed(error.to_string()),
            error => NoAnswer::Failed(error.to_string()),
        },
    }
}

/// Returns the error of TLS, if it is one: it may be wrapped by an error of I/O.
fn certificate_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}
