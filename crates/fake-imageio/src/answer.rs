// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers, and their bodies as they stream out of the disk.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::backend::Disk;
use crate::journal::Entry;
use crate::stream::{Conn, Cut};

/// An answer before it is tied to a connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) content: Content,
    /// Say `connection: close`, and do it.
    pub(crate) close: bool,
    /// Cut the connection off after so many bytes of the body.
    pub(crate) cut: Option<(u64, Cut)>,
}

/// The source of a body's bytes.
#[derive(Debug)]
pub(crate) enum Content {
    Text(Bytes),
    Range { disk: Arc<Disk>, offset: u64, len: u64 },
}

impl Content {
    fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Range { len, .. } => *len,
        }
    }

    /// The piece that starts `at` bytes into the body, at most `len` long.
    fn piece(&self, at: u64, len: u64) -> io::Result<Bytes> {
        match self {
            // A text's length fits in usize, and so do positions in it.
            Self::Text(text) => Ok(text.slice(at as usize..(at + len) as usize)),
            Self::Range { disk, offset, .. } => disk.chunk(offset + at, len),
        }
    }
}

impl Answer {
    pub(crate) fn empty(status: u16) -> Self {
        let content = Content::Text(Bytes::new());
        Self { status, headers: Vec::new(), content, close: false, cut: None }
    }

    pub(crate) fn json(text: String) -> Self {
        Self::empty(200).header("content-type", "application/json").text(text)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((HeaderName::from_static(name), value.into()));
        self
    }

    /// A body of one line.
    pub(crate) fn text(mut self, mut line: String) -> Self {
        line.push('\n');
        self.content = Content::Text(line.into());
        self
    }

    /// Ties it to a connection and to the record of its request.
    pub(crate) fn send(self, conn: &Arc<Conn>, record: Entry) -> Response<AnswerBody> {
        record.answering(self.status);
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 2);
        headers.insert("server", HeaderValue::from_static("imageio/fake"));
        for (name, value) in self.headers {
            // Only the server's own words get here, and texts that a test chose.
            headers.insert(name, HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("invalid")));
        }
        if self.close {
            headers.insert("connection", HeaderValue::from_static("close"));
            conn.said_close.store(true, Ordering::SeqCst);
        }
        conn.in_flight.fetch_add(1, Ordering::SeqCst);
        let body = AnswerBody {
            conn: Arc::clone(conn),
            content: self.content,
            sent: 0,
            cut: self.cut,
            mark: None,
            record,
        };
        let mut response = Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = headers;
        response
    }
}

/// A refusal: an error's status and its line of explanation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) content_range: Option<String>,
}

impl Refusal {
    pub(crate) fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), content_range: None }
    }

    /// Outside the disk.
    pub(crate) fn range(size: u64) -> Self {
        let content_range = Some(format!("bytes */{size}"));
        Self { content_range, ..Self::new(416, "Requested range out of allowed range") }
    }
}

impl From<io::Error> for Refusal {
    /// Like the real server: the client does not learn the cause, the log does.
    fn from(error: io::Error) -> Self {
        log::error!("the backend failed: {error}");
        Self::new(500, "Server failed to perform the request, check logs")
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut answer = Self::empty(refusal.status).header("content-type", "text/plain; charset=UTF-8");
        if let Some(range) = refusal.content_range {
            answer = answer.header("content-range", range);
        }
        // A 403 always closes: the ticket will not get better.
        answer.close = refusal.status == 403;
        // These have no body.
        if matches!(refusal.status, 204 | 304) { answer } else { answer.text(refusal.text) }
    }
}

/// A body under way.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    conn: Arc<Conn>,
    content: Content,
    sent: u64,
    cut: Option<(u64, Cut)>,
    /// The connection's count of flushes when all was sent that may be before the cut.
    mark: Option<u64>,
    record: Entry,
}

impl AnswerBody {
    /// Waits until the client can have what was sent, then cuts.
    fn poll_cut(&mut self, how: Cut, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let conn = Arc::clone(&self.conn);
        let mark = *self.mark.get_or_insert_with(|| conn.flushes());
        if conn.poll_flushed_since(mark, cx).is_ready() {
            conn.cut(how);
        }
        // The connection's task sees the cut, and drops this body.
        Poll::Pending
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut left = self.content.len() - self.sent;
        if let Some((after, how)) = self.cut {
            left = left.min(after.saturating_sub(self.sent));
            if left == 0 {
                return self.poll_cut(how, cx);
            }
        }
        if left == 0 {
            return Poll::Ready(None);
        }
        let piece = match self.content.piece(self.sent, left) {
            Ok(piece) => piece,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        self.sent += piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.sent == self.content.len() && self.cut.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.len() - self.sent)
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // This comes before the client can have the end of the answer, and the log says it when the
        // connection is idle.
        self.conn.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.is_end_stream() {
            self.record.finish();
        }
        if self.conn.close_when_idle.load(Ordering::SeqCst) {
            self.conn.changed.notify_one();
        }
    }
}

/// The answer that a handler gives hyper; it has no errors of its own, they are answers.
pub(crate) type Handled = Result<Response<AnswerBody>, Infallible>;
