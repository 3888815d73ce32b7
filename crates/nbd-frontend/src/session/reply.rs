// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reply to a request: a simple reply, or chunks.

use std::ops::Range;
use std::sync::Arc;

use block_device_traits::Extent;
use io_buffer_pool::Buffer;
use nbd_wire::{
    Chunk, Context, Descriptor, Encoded, ErrorValue, MAX_CHUNK_HEAD, SIMPLE_REPLY_LEN, simple_reply,
};

/// A simple reply or a part of it, or one chunk: it is sent as a whole, and nothing comes between
/// the parts of a simple reply.
pub(super) struct Reply {
    head: Head,
    payload: Payload,
    /// Nothing follows for its request.
    is_last: bool,
    /// Bytes that the socket has taken.
    sent: usize,
}

/// A part of what was read, perhaps for other requests, too.
pub(super) struct Slice {
    /// The offset of the slice on the disk, in bytes.
    pub(super) offset: u64,
    pub(super) buffer: Arc<Buffer>,
    /// The range of the slice in the buffer, which is not empty.
    pub(super) range: Range<usize>,
    /// The parts of the buffer that are zero without having been filled.
    pub(super) holes: Arc<[Range<usize>]>,
}

impl Slice {
    /// All that was read, from `offset` on.
    pub(super) fn whole(offset: u64, buffer: Buffer, holes: Vec<Range<usize>>) -> Self {
        let range = 0..buffer.len();
        Self { offset, buffer: Arc::new(buffer), range, holes: holes.into() }
    }
}

enum Head {
    /// The reply before this has it.
    Nothing,
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

    /// An error at `offset`.
    pub(super) fn error_at(chunk: Chunk, error: ErrorValue, message: &str, offset: u64) -> Self {
        let (head, message, offset) = chunk.done().error_offset(error, message, offset);
        Self::last(head, Payload::Bytes([message.as_bytes(), &offset].concat()))
    }

    /// One chunk with all of the buffer's content, which was read from `offset` on.
    pub(super) fn content(chunk: Chunk, offset: u64, buffer: Buffer, is_last: bool) -> Self {
        let head = done_if(is_last, chunk).offset_data(offset, length(&(0..buffer.len())));
        Self { head: Head::Chunk(head), payload: Payload::Buffer(buffer), is_last, sent: 0 }
    }

    /// The chunks of all slices, and no others.
    pub(super) fn chunks(chunk: Chunk, slices: Vec<Slice>) -> impl Iterator<Item = Self> {
        let last = slices.len().saturating_sub(1);
        slices.into_iter().enumerate().flat_map(move |(at, slice)| Self::slice(chunk, slice, at == last))
    }

    /// The chunks of a slice, one for each part of it: zeroes are told, and not sent.
    pub(super) fn slice(chunk: Chunk, slice: Slice, is_last: bool) -> impl Iterator<Item = Self> {
        let Slice { offset, buffer, range: Range { start, end }, holes } = slice;
        parts(start..end, &holes).into_iter().map(move |Part { range, is_hole }| {
            let is_last = is_last && range.end == end;
            let chunk = done_if(is_last, chunk);
            let (at, length) = (offset + (range.start - start) as u64, length(&range));
            let (head, payload) = match is_hole {
                true => (chunk.offset_hole(at, length), Payload::Nothing),
                false => (chunk.offset_data(at, length), Payload::Part(Arc::clone(&buffer), range)),
            };
            Self { head: Head::Chunk(head), payload, is_last, sent: 0 }
        })
    }

    /// A simple reply in several parts, which have no holes.
    pub(super) fn simple_in_parts(cookie: u64, slices: Vec<Slice>) -> impl Iterator<Item = Self> {
        let last = slices.len().saturating_sub(1);
        slices.into_iter().enumerate().map(move |(at, Slice { buffer, range, .. })| Self {
            head: if at == 0 { Head::Simple(simple_reply(cookie, None)) } else { Head::Nothing },
            payload: Payload::Part(buffer, range),
            is_last: at == last,
            sent: 0,
        })
    }

    /// Writes what a metadata context tells.
    pub(super) fn status(chunk: Chunk, context: Context, extents: &[Extent], is_last: bool) -> Self {
        let chunk = done_if(is_last, chunk);
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

    /// Returns true if nothing follows for its request.
    pub(super) fn is_last(&self) -> bool {
        self.is_last
    }

    /// Returns the bytes that the socket has not taken yet.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        let head: &[u8] = match &self.head {
            Head::Nothing => &[],
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

    /// Returns the number of bytes that the socket has not taken yet.
    pub(super) fn left(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    /// The socket has taken so many bytes more.
    pub(super) fn sent(&mut self, n: usize) {
        self.sent += n;
    }
}

fn done_if(is_last: bool, chunk: Chunk) -> Chunk {
    if is_last { chunk.done() } else { chunk }
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

/// The parts of a range, which is not empty, with `holes` in it.
fn parts(of: Range<usize>, holes: &[Range<usize>]) -> Vec<Part> {
    let mut holes = holes.to_vec();
    holes.sort_unstable_by_key(|hole| hole.start);
    let mut parts: Vec<Part> = Vec::with_capacity(2 * holes.len() + 1);
    let mut add = |range: Range<usize>, is_hole| match parts.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if last.is_hole == is_hole => last.range.end = range.end,
        _ => parts.push(Part { range, is_hole }),
    };
    let mut at = of.start;
    for hole in holes {
        let (start, end) = (hole.start.max(at), hole.end.min(of.end));
        if start < end {
            add(at..start, false);
            add(start..end, true);
            at = end;
        }
    }
    add(at..of.end, false);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_divide_what_was_read() {
        let of = |range, holes: &[Range<usize>]| {
            let parts = parts(range, holes);
            parts.into_iter().map(|part| (part.range, part.is_hole)).collect::<Vec<_>>()
        };
        assert_eq!(of(0..10, &[]), [(0..10, false)]);
        assert_eq!(of(0..10, &[0..5, 5..10]), [(0..10, true)]);
        assert_eq!(
            of(0..10, &[5..7, 2..3]),
            [(0..2, false), (2..3, true), (3..5, false), (5..7, true), (7..10, false)]
        );
        assert_eq!(of(0..10, &[0..4, 4..6]), [(0..6, true), (6..10, false)], "neighbours are one");
        assert_eq!(
            of(3..8, &[0..2, 2..4, 7..9]),
            [(3..4, true), (4..7, false), (7..8, true)],
            "a part of it"
        );
        assert_eq!(
            of(0..10, &[3..6, 4..5, 9..20]),
            [(0..3, false), (3..6, true), (6..9, false), (9..10, true)]
        );
    }
}
