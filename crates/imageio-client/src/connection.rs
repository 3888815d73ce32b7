// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection to one transfer.

mod checksum;
mod extents;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::ALLOW;
use hyper::http::response::Parts;
use hyper::{HeaderMap, StatusCode};

use crate::answer::{accepted, collected, content_range, discard, receive, receive_start, refused};
use crate::body::RequestBody;
use crate::canceller::Canceller;
use crate::capabilities::Capabilities;
use crate::driver::{Driver, Stalled};
use crate::failure::{Exchanged, Failed, Failure, lost, unsent_or_lost};
use crate::operation::{Heads, Operation};
use crate::scatter_buffer::ScatterBuffer;
use crate::sending::Sending;
use crate::stream::Stream;
use crate::timeouts::Timeouts;
use crate::url::TransferUrl;
use crate::{Error, Result};

/// The greatest length of an `OPTIONS` answer, in bytes.
const OPTIONS_LIMIT: usize = 64 << 10;

/// The time by which data must be on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Before the answer, which may take as long as a flush.
    Yes,
    /// Before the answer, for which the server has no more time than without: a flush that nobody
    /// has asked for.
    Prompt,
    /// Some time before a later flush on the same connection is answered.
    No,
}

/// One HTTP/1.1 connection to one transfer. Calls block.
///
/// After an error that leaves doubt about the state of the stream the connection is closed for
/// good: it never connects again by itself, because a flush on a new connection need not cover what
/// was written on the old one.
pub struct Connection {
    url: Arc<TransferUrl>,
    heads: Arc<Heads>,
    timeouts: Timeouts,
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
        heads: Arc<Heads>,
        timeouts: Timeouts,
    ) -> Result<Self> {
        let (driver, sender) =
            Driver::handshake(stream).map_err(|e| lost(&"connect", &e.to_string(), true))?;
        Ok(Self { url, heads, timeouts, open: Some(Open { driver, sender }) })
    }

    /// Returns true if another request can be sent. None can after the server announced to close,
    /// nor after any doubt.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// `OPTIONS`: what the server offers. One that tells nothing of that offers plain reading and
    /// writing on one connection.
    ///
    /// # Errors
    /// As [`advertised`](Self::advertised).
    pub fn options(&mut self) -> Result<Capabilities> {
        Ok(self.advertised()?.unwrap_or_else(Capabilities::old_server))
    }

    /// `OPTIONS`: what the server says that it offers, or `None` where it answers 405 or 204, as
    /// old servers and proxies do.
    ///
    /// # Errors
    /// [`Error::Status`] (403: the ticket is unknown, expired or cancelled), or [`Error::Protocol`]
    /// for an answer that isn't the JSON expected.
    pub fn advertised(&mut self) -> Result<Option<Capabilities>> {
        let answer = self.collect(
            Operation::Options,
            OPTIONS_LIMIT,
            &[StatusCode::OK, StatusCode::NO_CONTENT, StatusCode::METHOD_NOT_ALLOWED],
        )?;
        if answer.status != StatusCode::OK {
            return Ok(None);
        }
        let allow = answer.headers.get(ALLOW).and_then(|value| value.to_str().ok());
        let parsed = Capabilities::parse(&answer.body, allow);
        parsed.map(Some).map_err(|e| self.nonsense(Operation::Options, &e.to_string()))
    }

    /// Fills `buf` from `offset` in bytes.
    ///
    /// # Errors
    /// [`Error::Status`] (416: past the end); [`Error::Protocol`] where the answer is for another
    /// range.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read_vectored(offset, &mut [buf])
    }

    /// Fills the buffers, one after another, from `offset` in bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_vectored(&mut self, offset: u64, bufs: &mut [&mut [u8]]) -> Result<()> {
        let len = bufs.iter().map(|buf| buf.len() as u64).sum();
        if len == 0 {
            return Ok(());
        }
        let operation = Operation::Read { offset, len };
        let timeout = self.timeout(operation);
        let mut buffer = ScatterBuffer::new(bufs);
        let start = async |head: &Parts, body| match head.status {
            StatusCode::PARTIAL_CONTENT => receive_start(head, body, len).await,
            _ => Err(refused(head, body).await),
        };
        let rest = |open: &mut Open, start: Answer<Vec<Bytes>>| {
            for data in &start.body {
                buffer.put(data);
            }
            open.receive_rest(&mut buffer, timeout).map(|()| start.headers)
        };
        let headers = self.run_and(operation, RequestBody::empty(), start, rest)?;
        let Some(told) = content_range(&headers) else {
            // The length is right; a proxy may drop this header.
            return Ok(());
        };
        let asked = operation.range().unwrap_or_default();
        let is_right = told.strip_prefix("bytes ").and_then(|range| range.strip_prefix(&*asked));
        if is_right.is_some_and(|rest| rest.starts_with('/')) {
            return Ok(());
        }
        let reason = format!("Content-Range: {told}");
        Err(self.nonsense(operation, &reason))
    }

    /// The size of the transfer in bytes, or `None` where the server doesn't tell.
    ///
    /// # Errors
    /// [`Error::Status`] for what is neither 206 nor 416.
    pub fn size(&mut self) -> Result<Option<u64>> {
        // An empty disk has no first byte; its 416 tells the size too.
        let answer =
            self.run(Operation::Size, RequestBody::empty(), async |head, body| match head.status {
                StatusCode::PARTIAL_CONTENT => receive(head, body, 1).await.map(drop),
                StatusCode::RANGE_NOT_SATISFIABLE => discard(body).await,
                _ => Err(refused(head, body).await),
            })?;
        let size = content_range(&answer.headers).and_then(|range| range.rsplit_once('/'));
        Ok(size.and_then(|(_, size)| size.trim().parse().ok()))
    }

    /// Writes the chunks, one after another, at `offset` in bytes. No clone of them outlives the
    /// call.
    ///
    /// # Errors
    /// [`Error::Status`] (403: not allowed; 416: past the end), also where the server answers
    /// before all was sent.
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
        self.patch(Operation::Zero { offset, len, flush })
    }

    /// Brings what was written **on this connection** to stable storage.
    ///
    /// # Errors
    /// Any [`Error`]: then data may be lost.
    pub fn flush(&mut self) -> Result<()> {
        self.patch(Operation::Flush { is_prompt: false })
    }

    /// Flushes as promptly as a write ([`Flush::Prompt`]): where there isn't much to flush, and the
    /// connection may as well be lost.
    ///
    /// # Errors
    /// Any [`Error`]: then data may be lost.
    pub fn flush_promptly(&mut self) -> Result<()> {
        self.patch(Operation::Flush { is_prompt: true })
    }

    /// The means for another thread to end this connection, whatever it is waiting for. Nothing, if
    /// it is closed.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        let readiness = self.open.as_ref().map(|open| open.driver.readiness());
        Canceller::new(readiness.as_ref())
    }

    fn put(&mut self, offset: u64, body: RequestBody, flush: Flush) -> Result<()> {
        if body.len() == 0 {
            return Ok(());
        }
        let operation = Operation::Write { offset, len: body.len(), flush };
        self.run(operation, body, accepted).map(|_| ())
    }

    fn patch(&mut self, operation: Operation) -> Result<()> {
        let body = RequestBody::chunks([Bytes::from(operation.json())].into());
        self.run(operation, body, accepted).map(|_| ())
    }

    /// The time that the server may take for the answer, once it has the request.
    fn timeout(&self, operation: Operation) -> Duration {
        match operation {
            Operation::Options
            | Operation::Size
            | Operation::Read { .. }
            | Operation::Write { flush: Flush::No | Flush::Prompt, .. }
            | Operation::Flush { is_prompt: true } => self.timeouts.data,
            Operation::Write { flush: Flush::Yes, .. }
            | Operation::Zero { .. }
            | Operation::Flush { is_prompt: false }
            | Operation::Extents(_)
            | Operation::Checksum { .. } => self.timeouts.operation,
        }
    }

    /// An exchange whose answer is wanted whole, of at most `limit` bytes.
    fn collect(
        &mut self,
        operation: Operation,
        limit: usize,
        expected: &[StatusCode],
    ) -> Result<Answer<Vec<u8>>> {
        self.run(operation, RequestBody::empty(), async |head, body| {
            if !expected.contains(&head.status) {
                return Err(refused(head, body).await);
            }
            collected(body, limit).await
        })
    }

    /// Sends a request, and takes in the answer with `take_in`.
    fn run<T>(
        &mut self,
        operation: Operation,
        body: RequestBody,
        take_in: impl AsyncFnOnce(&Parts, Incoming) -> Exchanged<T>,
    ) -> Result<Answer<T>> {
        self.run_and(operation, body, take_in, |_, answer| Ok(answer))
    }

    /// Sends a request, takes in the answer with `take_in` and what is left of it with `finish`,
    /// and decides whether the connection can go on.
    fn run_and<T, U>(
        &mut self,
        operation: Operation,
        body: RequestBody,
        take_in: impl AsyncFnOnce(&Parts, Incoming) -> Exchanged<T>,
        finish: impl FnOnce(&mut Open, Answer<T>) -> Exchanged<U>,
    ) -> Result<U> {
        // Taken out: an early return closes the connection.
        let Some(mut open) = self.open.take() else {
            return Err(lost(&operation, "it was closed before", true));
        };
        let request = self.heads.request(operation, body);
        let readiness = open.driver.readiness();
        readiness.reading_body.store(false, Relaxed);
        let sending = Sending::new(&readiness, &request);
        // Slow storage may delay the answer, but not the taking in of the request.
        let (data, timeout) = (self.timeouts.data, self.timeout(operation));
        let timeout = || match operation {
            _ if !sending.is_done() => data,
            // The server sends nothing of them before it has them all.
            Operation::Extents(_) if readiness.reading_body.load(Relaxed) => data,
            _ => timeout,
        };
        let exchange = async {
            let response = open.sender.try_send_request(request).await.map_err(unsent_or_lost)?;
            readiness.begin_body();
            let (head, body) = response.into_parts();
            let body = take_in(&head, body).await?;
            Ok(Answer { headers: head.headers, status: head.status, body })
        };
        let result =
            open.driver.block_on(exchange, timeout).unwrap_or_else(|stalled| Err(Failure::Stalled(stalled)));
        let result = result.and_then(|answer| finish(&mut open, answer));
        let result = match result {
            Ok(_) if !sending.is_done() => {
                Err(Failure::Nonsense("it came before the whole request was sent".into()))
            }
            other => other,
        };
        // A body that didn't go out whole leaves the server reading the rest of it as the next
        // request.
        let clean = match &result {
            Ok(_) | Err(Failure::Refused { closes: false, .. }) => {
                sending.is_done() && open.is_ready(timeout)
            }
            Err(_) => false,
        };
        let outcome = result.map_err(|failure| {
            let (send_error, body_sent) = (open.driver.send_error(), sending.has_reached_body());
            let failed = Failed { url: &self.url, operation, timeout: timeout(), send_error, body_sent };
            failed.error(failure)
        });
        if clean {
            self.open = Some(open);
        }
        outcome
    }

    fn nonsense(&mut self, operation: Operation, reason: &str) -> Error {
        self.open = None;
        Error::Protocol { operation: operation.to_string(), reason: self.url.redact(reason) }
    }
}

impl Open {
    /// Takes in what is left of an answer straight from the stream, as hyper would copy it twice.
    fn receive_rest(&mut self, buffer: &mut ScatterBuffer<'_, '_>, timeout: Duration) -> Exchanged<()> {
        if buffer.free().is_none() {
            return Ok(());
        }
        let Some((mut stream, ahead)) = self.driver.detach() else {
            return Err(Failure::Stalled(Stalled::Closed));
        };
        if !buffer.put(&ahead) {
            return Err(Failure::Nonsense("it has more than was asked for".into()));
        }
        self.driver.fill(&mut stream, buffer, timeout).map_err(Failure::Stalled)?;
        self.sender = self.driver.attach(stream).map_err(Failure::Http)?;
        Ok(())
    }

    /// Waits until hyper has put the exchange behind it. It fails where the server closes.
    fn is_ready(&mut self, timeout: impl Fn() -> Duration) -> bool {
        matches!(self.driver.block_on(self.sender.ready(), timeout), Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests;
