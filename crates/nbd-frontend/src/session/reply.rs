// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is sent for a request: a simple reply, or chunks.

use std::ops::Range;
use std::sync::Arc;

use block_device::Extent;
use buffer_pool::Buffer;
use nbd_wire::{
    Chunk, Context, Descriptor, Encoded, ErrorValue, MAX_CHUNK_HEAD, SIMPLE_REPLY_LEN, simple_reply,
};

/// A simple reply, or one chunk: it is sent as a whole.
pub(super) struct Reply {
    head: Head,
    payload: Payload,
    /// Nothing follows for its request.
    is_last: bool,
    /// Bytes that the socket has taken.
    sent: usize,
}

enum Head {
    Simple([u8; SIMPLE_REPLY_LEN]),
    Chunk(Encoded<MAX_CHUNK_HEAD>),
}

enum Payload {
    Nothing,
    Buffer(Buffer),
    /// A part of what several chunks share.
    Part(Arc<Buffer>, Range<usize>),
    /// A message, or descriptors.
    Bytes(Vec<u8>),
}

impl Reply {
    /// A simple reply, with the content if it answers a READ.
    pub(super) fn simple(cookie: u64, result: Result<Option<Buffer>, ErrorValue>) -> Self {
        let head = Head::Simple(simple_reply(cookie, result.as_ref().err().copied()));
        let payload = result.ok().flatten().map_or(Payload::Nothing, Payload::Buffer);
        Self { head, payload, is_last: true, sent: 0 }
    }

    /// The end of a reply that tells nothing else.
    pub(super) fn done(chunk: Chunk) -> Self {
        Self::last(chunk.none(), Payload::Nothing)
    }

    /// An error, with a text for whoever reads the client's log.
    pub(super) fn error(chunk: Chunk, error: ErrorValue, message: &str) -> Self {
        let (head, message) = chunk.done().error(error, message);
        Self::last(head, Payload::Bytes(message.as_bytes().to_vec()))
    }

    /// All that was read, from `offset` on, in one chunk.
    pub(super) fn content(chunk: Chunk, offset: u64, buffer: Buffer) -> Self {
        let head = chunk.done().offset_data(offset, length(&(0..buffer.len())));
        Self::last(head, Payload::Buffer(buffer))
    }

    /// What was read, from `offset` on, in a chunk for each part: zeroes are told, and not sent.
    pub(super) fn content_with_holes(
        chunk: Chunk,
        offset: u64,
        buffer: Buffer,
        holes: Vec<Range<usize>>,
    ) -> Vec<Self> {
        let parts = parts(buffer.len(), holes);
        let buffer = Arc::new(buffer);
        let chunks = parts.into_iter().map(|Part { range, is_hole }| {
            let is_last = range.end == buffer.len();
            let chunk = if is_last { chunk.done() } else { chunk };
            let (at, length) = (offset + range.start as u64, length(&range));
            let (head, payload) = match is_hole {
                true => (chunk.offset_hole(at, length), Payload::Nothing),
                false => (chunk.offset_data(at, length), Payload::Part(Arc::clone(&buffer), range)),
            };
            Self { head: Head::Chunk(head), payload, is_last, sent: 0 }
        });
        chunks.collect()
    }

    /// What a metadata context tells.
    pub(super) fn status(chunk: Chunk, context: Context, extents: &[Extent], is_last: bool) -> Self {
        let chunk = if is_last { chunk.done() } else { chunk };
        let mut descriptors = Vec::with_capacity(16 * extents.len());
        for Extent { length, status } in extents {
            // A status that a context of 32 bits has no room for is not one of its own.
            let status = u32::try_from(*status).unwrap_or(u32::MAX);
            descriptors.extend_from_slice(&chunk.descriptor(Descriptor { length: *length, status }));
        }
        let head = Head::Chunk(chunk.block_status(context, extents.len()));
        Self { head, payload: Payload::Bytes(descriptors), is_last, sent: 0 }
    }

    fn last(head: Encoded<MAX_CHUNK_HEAD>, payload: Payload) -> Self {
        Self { head: Head::Chunk(head), payload, is_last: true, sent: 0 }
    }

    /// Whether nothing follows for its request.
    pub(super) fn is_last(&self) -> bool {
        self.is_last
    }

    /// What the socket has not taken yet.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        let head: &[u8] = match &self.head {
            Head::Simple(head) => head,
            Head::Chunk(head) => head,
        };
        let payload = match &self.payload {
            Payload::Nothing => &[],
            Payload::Buffer(buffer) => &buffer[..],
            Payload::Part(buffer, range) => &buffer[range.clone()],
            Payload::Bytes(bytes) => bytes,
        };
        let of_head = self.sent.min(head.len());
        [&head[of_head..], &payload[self.sent - of_head..]]
    }

    /// How many bytes the socket has not taken yet.
    pub(super) fn left(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    /// The socket has taken so many bytes more.
    pub(super) fn sent(&mut self, n: usize) {
        self.sent += n;
    }
}

/// The length of a part of a payload, which is never longer than 4 GiB.
fn length(range: &Range<usize>) -> u32 {
    range.len() as u32
}

#[derive(Debug, PartialEq, Eq)]
struct Part {
    range: Range<usize>,
    is_hole: bool,
}

/// The parts of `len` bytes, which are some, with `holes` in them.
fn parts(len: usize, mut holes: Vec<Range<usize>>) -> Vec<Part> {
    holes.sort_unstable_by_key(|hole| hole.start);
    let mut parts: Vec<Part> = Vec::with_capacity(2 * holes.len() + 1);
    let mut add = |range: Range<usize>, is_hole| match parts.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if last.is_hole == is_hole => last.range.end = range.end,
        _ => parts.push(Part { range, is_hole }),
    };
    let mut at = 0;
    for hole in holes {
        let (start, end) = (hole.start.max(at), hole.end.min(len));
        if start < end {
            add(at..start, false);
            add(start..end, true);
            at = end;
        }
    }
    add(at..len, false);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_divide_what_was_read() {
        let of = |len, holes: &[Range<usize>]| {
            let parts = parts(len, holes.to_vec());
            parts.into_iter().map(|part| (part.range, part.is_hole)).collect::<Vec<_>>()
        };
        assert_eq!(of(10, &[]), [(0..10, false)]);
        assert_eq!(of(10, &[0..5, 5..10]), [(0..10, true)]);
        assert_eq!(
            of(10, &[5..7, 2..3]),
            [(0..2, false), (2..3, true), (3..5, false), (5..7, true), (7..10, false)]
        );
        assert_eq!(of(10, &[0..4, 4..6]), [(0..6, true), (6..10, false)], "neighbours are one");
        assert_eq!(of(10, &[3..6, 4..5, 9..20]), [(0..3, false), (3..6, true), (6..9, false), (9..10, true)]);
    }
}
