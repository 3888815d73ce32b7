// SPDX-License-Identifier: MIT OR Apache-2.0
//! The body of a request.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The number of zero bytes that go out with one system call.
const ZERO_CHUNK: usize = 128 << 10;
static ZEROES: [u8; ZERO_CHUNK] = [0; ZERO_CHUNK];

/// A request's body, of known length.
pub(crate) struct RequestBody {
    source: Source,
    left: u64,
}

enum Source {
    Chunks(VecDeque<Bytes>),
    Zeroes,
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        Self::chunks(VecDeque::new())
    }

    /// The chunks one after another, none of them copied.
    pub(crate) fn chunks(chunks: VecDeque<Bytes>) -> Self {
        let left = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self::new(Source::Chunks(chunks), left)
    }

    /// `len` zero bytes, which take no memory.
    pub(crate) fn zeroes(len: u64) -> Self {
        Self::new(Source::Zeroes, len)
    }

    fn new(source: Source, left: u64) -> Self {
        Self { source, left }
    }

    /// In bytes, before anything was sent.
    pub(crate) fn len(&self) -> u64 {
        self.left
    }

    fn next_chunk(&mut self) -> Option<Bytes> {
        match &mut self.source {
            Source::Chunks(chunks) => chunks.pop_front(),
            Source::Zeroes if self.left == 0 => None,
            // The minimum with a usize fits one.
            Source::Zeroes => Some(Bytes::from_static(&ZEROES[..self.left.min(ZERO_CHUNK as u64) as usize])),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = self.next_chunk();
        if let Some(chunk) = &chunk {
            self.left -= chunk.len() as u64;
        }
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
