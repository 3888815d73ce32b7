// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection to one transfer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, HeaderName, RANGE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};

use crate::body::RequestBody;
use crate::capabilities::Capabilities;
use crate::connector::Timeouts;
use crate::driver::{Driver, Stalled};
use crate::extents::{self, Extent, ExtentsContext};
use crate::stream::Stream;
use crate::url::TransferUrl;
use crate::{Error, Result};

/// How much of an error's text is read: the server sends one line.
const ERROR_TEXT_LIMIT: usize = 4 << 10;

/// How long an `OPTIONS` answer may be.
const OPTIONS_LIMIT: usize = 64 << 10;

/// How long the list of extents may be: some 3 million extents.
const EXTENTS_LIMIT: usize = 256 << 20;

/// Whether data must be on stable storage before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Before the answer.
    Yes,
    /// Some time before a later flush on the same connection is answered.
    No,
}

/// One HTTP/1.1 connection to one transfer. Calls block.
///
/// After an error that leaves doubt about the state of the stream the connection is closed for good: it never connects
/// again by itself, because a flush on a new connection need not cover what was written on the old one.
pub struct Connection {
    url: Arc<TransferUrl>,
    timeouts: Timeouts,
    same_host: bool,
    open: Option<Open>,
}

struct Open {
    driver: Driver,
    sender: SendRequest<RequestBody>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("url", &self.url)
            .field("open", &self.is_open())
            .finish_non_exhaustive()
    }
}

/// A whole answer, its body taken in by the caller.
struct Answer<T> {
    headers: HeaderMap,
    status: StatusCode,
    body: T,
}

impl Connection {
    pub(crate) fn new(
        stream: Stream,
        url: Arc<TransferUrl>,
        timeouts: Timeouts,
        same_host: bool,
    ) -> Result<Self> {
        let (driver, sender) =
            Driver::handshake(stream).map_err(|e| lost("connect", &e.to_string(), true))?;
        Ok(Self { url, timeouts, same_host, open: Some(Open { driver, sender }) })
    }

    /// Whether another request can be sent. False after the server announced to close, and after any doubt.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the server is on this host: the peer has this end's address, or a unix socket is used.
    #[must_use]
    pub fn is_same_host(&self) -> bool {
        self.same_host
    }

    /// `OPTIONS`: what the server offers. 405 and 204 are those of old servers and proxies, and mean nothing but plain
    /// reading and writing on one connection.
    ///
    /// # Errors
    /// [`Error::Status`] (403: the ticket is unknown, expired or cancelled), or [`Error::Protocol`] for an answer that
    /// isn't the JSON expected.
    pub fn options(&mut self) -> Result<Capabilities> {
        let operation = "OPTIONS";
        let request = self.request(Method::OPTIONS, "", &[], RequestBody::empty());
        let answer = self.collect(
            operation,
            request,
            self.timeouts.data,
            OPTIONS_LIMIT,
            &[StatusCode::OK, StatusCode::NO_CONTENT, StatusCode::METHOD_NOT_ALLOWED],
        )?;
        if answer.status != StatusCode::OK {
            return Ok(Capabilities::old_server());
        }
        let allow = answer.headers.get(ALLOW).and_then(|value| value.to_str().ok());
        Capabilities::parse(&answer.body, allow).map_err(|e| self.nonsense(operation, &e.to_string()))
    }

    /// Fills `buf` from `offset` in bytes.
    ///
    /// # Errors
    /// [`Error::Status`] (416: past the end); [`Error::Protocol`] where the answer is for another range.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let operation = format!("read {} bytes at {offset}", buf.len());
        let answer = self.get_range(&operation, offset, buf)?;
        let expected = format!("bytes {offset}-{}/", offset + buf.len() as u64 - 1);
        match content_range(&answer.headers) {
            // The length is right; a proxy may drop this header.
            None => Ok(()),
            Some(range) if range.starts_with(&expected) => Ok(()),
            Some(range) => {
                let reason = format!("Content-Range: {range}");
                Err(self.nonsense(&operation, &reason))
            }
        }
    }

    /// The size of the transfer in bytes, or `None` where the server doesn't tell.
    ///
    /// # Errors
    /// [`Error::Status`] for what is neither 206 nor 416.
    pub fn size(&mut self) -> Result<Option<u64>> {
        let mut first = [0];
        // An empty disk has no first byte; its 416 tells the size too.
        let request = self.request(Method::GET, "", &[(RANGE, "bytes=0-0".into())], RequestBody::empty());
        let answer =
            self.run("read the size", request, self.timeouts.data, async |response| {
                match response.status() {
                    StatusCode::PARTIAL_CONTENT => fill(response, &mut first).await,
                    StatusCode::RANGE_NOT_SATISFIABLE => discard(response, ERROR_TEXT_LIMIT).await,
                    _ => Err(refused(response).await),
                }
            })?;
        let size = content_range(&answer.headers).and_then(|range| range.rsplit_once('/'));
        Ok(size.and_then(|(_, size)| size.trim().parse().ok()))
    }

    /// Writes the chunks, one after another, at `offset` in bytes. No clone of them outlives the call.
    ///
    /// # Errors
    /// [`Error::Status`] (403: not allowed; 416: past the end), also where the server answers before all was sent.
    pub fn write(
        &mut self,
        offset: u64,
        chunks: impl IntoIterator<Item = Bytes>,
        flush: Flush,
    ) -> Result<()> {
        self.put(offset, RequestBody::chunks(chunks.into_iter().collect()), flush)
    }

    /// Writes `len` zero bytes at `offset`: for servers without [`zero`](Self::zero).
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_zeroes(&mut self, offset: u64, len: u64, flush: Flush) -> Result<()> {
        self.put(offset, RequestBody::zeroes(len), flush)
    }

    /// Makes `len` bytes at `offset` read as zeroes, by whatever means the server's storage has.
    ///
    /// # Errors
    /// [`Error::Status`] (403: not allowed; 416: past the end).
    pub fn zero(&mut self, offset: u64, len: u64, flush: Flush) -> Result<()> {
        let flush = flush == Flush::Yes;
        let json = format!(r#"{{"op":"zero","offset":{offset},"size":{len},"flush":{flush}}}"#);
        self.patch(&format!("zero {len} bytes at {offset}"), json)
    }

    /// Brings what was written **on this connection** to stable storage.
    ///
    /// # Errors
    /// Any [`Error`]: then data may be lost.
    pub fn flush(&mut self) -> Result<()> {
        self.patch("flush", r#"{"op":"flush"}"#.into())
    }

    /// The disk's extents, in order and without gaps.
    ///
    /// # Errors
    /// [`Error::Status`] (404: no such context for this transfer).
    pub fn extents(&mut self, context: ExtentsContext) -> Result<Vec<Extent>> {
        let operation = format!("{} extents", context.name());
        let query = format!("/extents?context={}", context.name());
        let request = self.request(Method::GET, &query, &[], RequestBody::empty());
        let patience = self.timeouts.operation;
        let answer = self.collect(&operation, request, patience, EXTENTS_LIMIT, &[StatusCode::OK])?;
        extents::parse(&answer.body).map_err(|reason| self.nonsense(&operation, &reason))
    }

    fn get_range(&mut self, operation: &str, offset: u64, buf: &mut [u8]) -> Result<Answer<()>> {
        let range = format!("bytes={offset}-{}", offset + buf.len() as u64 - 1);
        let request = self.request(Method::GET, "", &[(RANGE, range)], RequestBody::empty());
        self.run(operation, request, self.timeouts.data, async |response| match response.status() {
            StatusCode::PARTIAL_CONTENT => fill(response, buf).await,
            _ => Err(refused(response).await),
        })
    }

    fn put(&mut self, offset: u64, body: RequestBody, flush: Flush) -> Result<()> {
        if body.len() == 0 {
            return Ok(());
        }
        let operation = format!("write {} bytes at {offset}", body.len());
        let range = format!("bytes {offset}-{}/*", offset + body.len() - 1);
        let (query, patience) = match flush {
            Flush::Yes => ("?flush=y", self.timeouts.operation),
            Flush::No => ("?flush=n", self.timeouts.data),
        };
        let request = self.request(Method::PUT, query, &[(CONTENT_RANGE, range)], body);
        self.run(&operation, request, patience, accepted).map(|_| ())
    }

    fn patch(&mut self, operation: &str, json: String) -> Result<()> {
        let body = RequestBody::chunks([Bytes::from(json)].into());
        let headers = [(CONTENT_TYPE, "application/json".to_owned())];
        let request = self.request(Method::PATCH, "", &headers, body);
        self.run(operation, request, self.timeouts.operation, accepted).map(|_| ())
    }

    fn request(
        &self,
        method: Method,
        suffix: &str,
        headers: &[(HeaderName, String)],
        body: RequestBody,
    ) -> Request<RequestBody> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{suffix}", self.url.path()))
            .header(HOST, self.url.authority());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(body).expect("the path comes from a parsed URL and the headers are digits and names")
    }

    /// An exchange whose answer is wanted whole, of at most `limit` bytes.
    fn collect(
        &mut self,
        operation: &str,
        request: Request<RequestBody>,
        patience: Duration,
        limit: usize,
        expected: &[StatusCode],
    ) -> Result<Answer<Vec<u8>>> {
        self.run(operation, request, patience, async |response| {
            if !expected.contains(&response.status()) {
                return Err(refused(response).await);
            }
            let mut bytes = Vec::new();
            let mut body = response.into_body();
            while let Some(data) = next_data(&mut body).await? {
                if bytes.len() + data.len() > limit {
                    return Err(Failure::Nonsense(format!("longer than {limit} bytes")));
                }
                bytes.extend_from_slice(&data);
            }
            Ok(bytes)
        })
    }

    /// Sends a request, takes in the answer with `receive`, and decides whether the connection can go on.
    fn run<T>(
        &mut self,
        operation: &str,
        request: Request<RequestBody>,
        patience: Duration,
        receive: impl AsyncFnOnce(Response<Incoming>) -> Result2<T>,
    ) -> Result<Answer<T>> {
        // Taken out: an early return closes the connection.
        let Some(mut open) = self.open.take() else {
            return Err(lost(operation, "it was closed before", true));
        };
        let sent = request.body().sent();
        // Slow storage may delay the answer, but not the taking in of the request.
        let data = self.timeouts.data;
        let patience = || if sent.is_whole() { patience } else { data };
        let exchange = async {
            let response = open.sender.try_send_request(request).await.map_err(unsent_or_lost)?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = receive(response).await?;
            Ok(Answer { headers, status, body })
        };
        let result = match open.driver.block_on(exchange, patience) {
            Ok(result) => result,
            Err(stalled) => Err(Failure::Stalled(stalled)),
        };
        // A body that didn't go out whole leaves the server reading the rest of it as the next request.
        let clean = match &result {
            Ok(_) | Err(Failure::Refused { .. }) => sent.is_whole() && open.is_ready(patience),
            Err(_) => false,
        };
        let outcome = match result {
            // hyper may have taken in more of the body than the server did.
            Ok(_) if !sent.is_whole() || open.driver.send_error().is_some() => {
                Err(Failure::Nonsense("it came before the whole request was sent".into()))
            }
            other => other,
        };
        let outcome = outcome.map_err(|failure| self.error(operation, patience(), &open, failure));
        if clean {
            self.open = Some(open);
        }
        outcome
    }

    fn nonsense(&mut self, operation: &str, reason: &str) -> Error {
        self.open = None;
        Error::Protocol { operation: operation.into(), reason: self.url.redact(reason) }
    }

    fn error(&self, operation: &str, patience: Duration, open: &Open, failure: Failure) -> Error {
        let protocol = |reason: &str| Error::Protocol {
            operation: operation.to_owned(),
            reason: self.url.redact(reason),
        };
        match failure {
            Failure::Refused { status, text } => Error::Status {
                operation: operation.to_owned(),
                status,
                explanation: self.url.redact(&String::from_utf8_lossy(&text)),
            },
            Failure::Stalled(Stalled::Timeout) => {
                Error::Timeout { operation: operation.to_owned(), after: patience }
            }
            Failure::Stalled(Stalled::Closed) => lost(operation, "closed", false),
            Failure::Stalled(Stalled::Io(e)) => lost(operation, &e.to_string(), false),
            Failure::Nonsense(reason) => protocol(&reason),
            Failure::Unsent(e) => lost(operation, &with_source(&e), true),
            Failure::Http(e) if e.is_parse() => protocol(&with_source(&e)),
            Failure::Http(e) => {
                let reason = open.driver.send_error().unwrap_or_else(|| with_source(&e));
                lost(operation, &self.url.redact(&reason), false)
            }
        }
    }
}

impl Open {
    /// Waits until hyper has put the exchange behind it. It fails where the server closes.
    fn is_ready(&mut self, patience: impl Fn() -> Duration) -> bool {
        matches!(self.driver.block_on(self.sender.ready(), patience), Ok(Ok(())))
    }
}

/// Why an exchange failed, before it is put into words.
enum Failure {
    Refused {
        status: StatusCode,
        text: Vec<u8>,
    },
    Nonsense(String),
    Http(hyper::Error),
    /// Not a byte of the request went out.
    Unsent(hyper::Error),
    Stalled(Stalled),
}

type Result2<T> = std::result::Result<T, Failure>;

fn unsent_or_lost(mut error: TrySendError<Request<RequestBody>>) -> Failure {
    match error.take_message() {
        Some(_) => Failure::Unsent(error.into_error()),
        None => Failure::Http(error.into_error()),
    }
}

fn lost(operation: &str, reason: &str, unsent: bool) -> Error {
    Error::Lost { operation: operation.to_owned(), reason: reason.to_owned(), unsent }
}

/// The next bytes of an answer.
async fn next_data(body: &mut Incoming) -> Result2<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        // Trailers carry nothing for us.
        if let Ok(data) = frame.map_err(Failure::Http)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Takes in exactly `buf.len()` bytes.
async fn fill(response: Response<Incoming>, buf: &mut [u8]) -> Result2<()> {
    let announced = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if let Some(length) = announced.filter(|length| *length != buf.len().to_string()) {
        return Err(Failure::Nonsense(format!("Content-Length: {length}, expected {}", buf.len())));
    }
    let mut body = response.into_body();
    let mut filled = 0;
    while let Some(data) = next_data(&mut body).await? {
        let Some(room) = buf.get_mut(filled..filled + data.len()) else {
            return Err(Failure::Nonsense(format!("more than the {} bytes asked for", buf.len())));
        };
        room.copy_from_slice(&data);
        filled += data.len();
    }
    if filled < buf.len() {
        return Err(Failure::Nonsense(format!("{filled} bytes instead of {}", buf.len())));
    }
    Ok(())
}

/// Expects 200, and takes in its body, which holds nothing.
async fn accepted(response: Response<Incoming>) -> Result2<()> {
    if response.status() != StatusCode::OK {
        return Err(refused(response).await);
    }
    discard(response, ERROR_TEXT_LIMIT).await
}

async fn discard(response: Response<Incoming>, limit: usize) -> Result2<()> {
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(data) = next_data(&mut body).await? {
        length += data.len();
        if length > limit {
            return Err(Failure::Nonsense(format!("longer than {limit} bytes")));
        }
    }
    Ok(())
}

/// The server's refusal with its words, as far as they come: the connection may break off.
async fn refused(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let mut text = Vec::new();
    let mut body = response.into_body();
    while let Ok(Some(data)) = next_data(&mut body).await {
        let room = ERROR_TEXT_LIMIT - text.len();
        text.extend_from_slice(&data[..data.len().min(room)]);
        if text.len() == ERROR_TEXT_LIMIT {
            break;
        }
    }
    Failure::Refused { status, text }
}

fn content_range(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_RANGE)?.to_str().ok()
}

/// hyper's own words with those of what caused them.
fn with_source(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
