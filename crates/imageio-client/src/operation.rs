// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests that are made of the server, and their heads.

use std::fmt;

use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RANGE};
use hyper::{Method, Request, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::body::RequestBody;
use crate::connection::Flush;
use crate::extents::ExtentsContext;
use crate::url::TransferUrl;
use crate::{Error, Result};

/// A request that is made of the server. `Display` is for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Options,
    Size,
    Read { offset: u64, len: u64 },
    Write { offset: u64, len: u64, flush: Flush },
    Zero { offset: u64, len: u64, flush: Flush },
    Flush { is_prompt: bool },
    Extents(ExtentsContext),
    Checksum { algorithm: &'static str, block_size: u64 },
}

/// The parts that the heads of all requests of a transfer have in common, made once.
pub(crate) struct Heads {
    host: HeaderValue,
    transfer: Uri,
    write: Uri,
    write_and_flush: Uri,
    zero_extents: Uri,
    dirty_extents: Uri,
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
            Self::Size | Self::Read { .. } | Self::Extents(_) | Self::Checksum { .. } => Method::GET,
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
            Self::Checksum { .. } => f.write_str("checksum"),
        }
    }
}

impl Heads {
    /// # Errors
    /// [`Error::Url`] where the URL doesn't fit into a request's head.
    pub(crate) fn new(url: &TransferUrl) -> Result<Self> {
        let unfit = |reason: String| Error::Url(format!("it can't be sent in a request: {reason}"));
        let uri = |suffix: &str| {
            Uri::try_from(format!("{}{suffix}", url.path())).map_err(|error| unfit(error.to_string()))
        };
        let extents = |context: ExtentsContext| uri(&format!("/extents?context={}", context.name()));
        Ok(Self {
            host: HeaderValue::try_from(url.authority()).map_err(|error| unfit(error.to_string()))?,
            transfer: uri("")?,
            write: uri("?flush=n")?,
            write_and_flush: uri("?flush=y")?,
            zero_extents: extents(ExtentsContext::Zero)?,
            dirty_extents: extents(ExtentsContext::Dirty)?,
        })
    }

    /// Asked for once, so made then.
    fn checksum(&self, algorithm: &str, block_size: u64) -> Uri {
        /// All characters but those that RFC 3986, section 2.3, leaves alone.
        const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        let algorithm = utf8_percent_encode(algorithm, ESCAPED);
        let query = format!("checksum?algorithm={algorithm}&block_size={block_size}");
        Uri::try_from(format!("{}/{query}", self.transfer.path()))
            .expect("a short query fits behind the path")
    }

    pub(crate) fn request(&self, operation: Operation, body: RequestBody) -> Request<RequestBody> {
        let length = body.len();
        let mut request = Request::new(body);
        *request.method_mut() = operation.method();
        *request.uri_mut() = match operation {
            Operation::Write { flush: Flush::No, .. } => self.write.clone(),
            Operation::Write { .. } => self.write_and_flush.clone(),
            Operation::Extents(ExtentsContext::Zero) => self.zero_extents.clone(),
            Operation::Extents(ExtentsContext::Dirty) => self.dirty_extents.clone(),
            Operation::Checksum { algorithm, block_size } => self.checksum(algorithm, block_size),
            _ => self.transfer.clone(),
        };
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.extend(operation.header());
        if length > 0 {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        request
    }
}

/// Returns the length of a request's head in HTTP/1.1, in bytes: its line, its headers, and the
/// empty line (RFC 9112, section 2.1).
pub(crate) fn head_length<T>(request: &Request<T>) -> u64 {
    // It is needed for every request, so nothing is formatted for it. The URI is no more than a
    // path and a query.
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let line = request.method().as_str().len() + target + "  HTTP/1.1\r\n".len();
    let headers =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    (line + headers.sum::<usize>() + "\r\n".len()) as u64
}
