// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked of the server, and the head of its request.

use std::fmt;

use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RANGE};
use hyper::{Method, Request, Uri};

use crate::body::RequestBody;
use crate::connection::Flush;
use crate::extents::ExtentsContext;
use crate::url::TransferUrl;

/// What is asked of the server. `Display` is for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Options,
    Size,
    Read { offset: u64, len: u64 },
    Write { offset: u64, len: u64, flush: Flush },
    Zero { offset: u64, len: u64, flush: Flush },
    Flush { is_prompt: bool },
    Extents(ExtentsContext),
}

/// What the heads of all requests of a transfer have in common, made once.
pub(crate) struct Heads {
    host: HeaderValue,
    transfer: Uri,
    write: Uri,
    write_and_flush: Uri,
}

impl Operation {
    /// The JSON of a `PATCH`.
    pub(crate) fn json(self) -> String {
        match self {
            Self::Zero { offset, len, flush } => {
                let flush = flush != Flush::No;
                format!(r#"{{"op":"zero","offset":{offset},"size":{len},"flush":{flush}}}"#)
            }
            _ => r#"{"op":"flush"}"#.to_owned(),
        }
    }

    /// The range of a read, as in its header and in that of the answer.
    pub(crate) fn range(self) -> Option<String> {
        match self {
            Self::Read { offset, len } | Self::Write { offset, len, .. } => {
                Some(format!("{offset}-{}", offset + len - 1))
            }
            Self::Size => Some("0-0".to_owned()),
            _ => None,
        }
    }

    fn method(self) -> Method {
        match self {
            Self::Options => Method::OPTIONS,
            Self::Size | Self::Read { .. } | Self::Extents(_) => Method::GET,
            Self::Write { .. } => Method::PUT,
            Self::Zero { .. } | Self::Flush { .. } => Method::PATCH,
        }
    }

    fn header(self) -> Option<(HeaderName, HeaderValue)> {
        let value =
            |text: String| HeaderValue::try_from(text).expect("digits and words are a header's value");
        match (self, self.range()) {
            (Self::Write { .. }, Some(range)) => Some((CONTENT_RANGE, value(format!("bytes {range}/*")))),
            (_, Some(range)) => Some((RANGE, value(format!("bytes={range}")))),
            (Self::Zero { .. } | Self::Flush { .. }, None) => {
                Some((CONTENT_TYPE, HeaderValue::from_static("application/json")))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options => f.write_str("OPTIONS"),
            Self::Size => f.write_str("read the size"),
            Self::Read { offset, len } => write!(f, "read {len} bytes at {offset}"),
            Self::Write { offset, len, .. } => write!(f, "write {len} bytes at {offset}"),
            Self::Zero { offset, len, .. } => write!(f, "zero {len} bytes at {offset}"),
            Self::Flush { .. } => f.write_str("flush"),
            Self::Extents(context) => write!(f, "{} extents", context.name()),
        }
    }
}

impl Heads {
    pub(crate) fn new(url: &TransferUrl) -> Self {
        let host = HeaderValue::try_from(url.authority());
        Self {
            host: host.expect("a parsed URL's host and port are a header's value"),
            transfer: uri(url, ""),
            write: uri(url, "?flush=n"),
            write_and_flush: uri(url, "?flush=y"),
        }
    }

    pub(crate) fn request(
        &self,
        url: &TransferUrl,
        operation: Operation,
        body: RequestBody,
    ) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = operation.method();
        *request.uri_mut() = match operation {
            Operation::Write { flush: Flush::No, .. } => self.write.clone(),
            Operation::Write { .. } => self.write_and_flush.clone(),
            Operation::Extents(context) => uri(url, &format!("/extents?context={}", context.name())),
            _ => self.transfer.clone(),
        };
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.extend(operation.header());
        request
    }
}

fn uri(url: &TransferUrl, suffix: &str) -> Uri {
    Uri::try_from(format!("{}{suffix}", url.path())).expect("the path comes from a parsed URL")
}
