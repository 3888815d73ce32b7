// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reply chunks ('Structured reply chunk message', 'Extended reply chunk message', 'Structured
//! reply types').

#[cfg(test)]
mod tests;

use super::{Encoded, RequestHeader};
use crate::consts::*;
use crate::{Context, ErrorValue, MAX_DESCRIPTORS, MAX_STRING, Negotiated, ReplyStyle};

/// Bytes of a structured reply chunk without its payload ('Structured reply chunk message').
pub const STRUCTURED_REPLY_LEN: usize = 20;
/// Bytes of an extended reply chunk without its payload ('Extended reply chunk message').
pub const EXTENDED_REPLY_LEN: usize = 32;
/// The most bytes of a chunk in front of what the caller adds: an extended header, and the payload
/// of a hole.
pub const MAX_CHUNK_HEAD: usize = EXTENDED_REPLY_LEN + 12;

/// The length to which an extent is cut if it is too long for a descriptor of 32 bits. It is a
/// multiple of every minimum block size.
const LONGEST_EXTENT: u32 = u32::MAX - 0xffff;

/// Encodes the chunks of the reply to one request, each of which is sent as a whole.
///
/// One with [`Chunk::done`] is the last; the others are followed by more.
///
/// ```
/// # use nbd_wire::{ErrorValue, Negotiated, RequestHeader, simple_reply};
/// fn refuse(negotiated: &Negotiated<'_>, request: &RequestHeader, error: ErrorValue) -> Vec<u8> {
///     match negotiated.chunk(request) {
///         None => simple_reply(request.cookie, Some(error)).to_vec(),
///         Some(chunk) => {
///             let (head, message) = chunk.done().error(error, "try another disk");
///             [&*head, message.as_bytes()].concat()
///         }
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    is_extended: bool,
    is_done: bool,
    cookie: u64,
    /// The request's.
    offset: u64,
    /// In bytes.
    longest_message: usize,
}

/// An extent with one status ('Structured reply types', `NBD_REPLY_TYPE_BLOCK_STATUS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// In bytes: at least one, and a multiple of the minimum block size unless the export ends
    /// here.
    pub length: u64,
    /// The status flags, whose meaning the metadata context defines, such as `NBD_STATE_ZERO`.
    pub status: u32,
}

impl Negotiated<'_> {
    /// The chunks of the reply to `request`. `None` if replies are simple ones.
    ///
    /// If the reply style has chunks, a READ must get nothing else. Other requests need nothing
    /// else.
    #[must_use]
    pub fn chunk(&self, request: &RequestHeader) -> Option<Chunk> {
        let is_extended = match self.style {
            ReplyStyle::Simple => return None,
            ReplyStyle::Structured => false,
            ReplyStyle::Extended => true,
        };
        // A part of a chunk that has no fixed length must not be longer than the maximum payload.
        let longest_message = MAX_STRING.min(self.export.block_size().maximum as usize);
        let RequestHeader { cookie, offset, .. } = *request;
        Some(Chunk { is_extended, is_done: false, cookie, offset, longest_message })
    }
}

impl Chunk {
    /// The last chunk of the reply.
    #[must_use]
    pub fn done(self) -> Self {
        Self { is_done: true, ..self }
    }

    /// The end of a reply, and all of it if the request has succeeded and there is nothing to tell.
    /// It is always the last chunk.
    #[must_use]
    pub fn none(self) -> Encoded<MAX_CHUNK_HEAD> {
        self.done().head(NBD_REPLY_TYPE_NONE, 0)
    }

    /// Content of the export: `length` bytes from `offset` on, at least one, which the caller sends
    /// next. It may be the last chunk only if those bytes are there already.
    #[must_use]
    pub fn offset_data(self, offset: u64, length: u32) -> Encoded<MAX_CHUNK_HEAD> {
        self.head(NBD_REPLY_TYPE_OFFSET_DATA, 8 + u64::from(length)).with(offset.to_be_bytes())
    }

    /// Zeroes of the export: `length` bytes from `offset` on, at least one, of which none are sent.
    #[must_use]
    pub fn offset_hole(self, offset: u64, length: u32) -> Encoded<MAX_CHUNK_HEAD> {
        let head = self.head(NBD_REPLY_TYPE_OFFSET_HOLE, 12);
        head.with(offset.to_be_bytes()).with(length.to_be_bytes())
    }

    /// An error of the whole request. The caller sends what this gives of the message next, which
    /// ends at a NUL, and is cut between characters if it is longer than the protocol allows.
    #[must_use]
    pub fn error(self, error: ErrorValue, message: &str) -> (Encoded<MAX_CHUNK_HEAD>, &str) {
        self.error_head(NBD_REPLY_TYPE_ERROR, error, message, 0)
    }

    /// An error at `offset`, which is inside of what the request is about. The caller sends what
    /// this gives of the message next, as with [`Chunk::error`], and then the bytes at the end.
    #[must_use]
    pub fn error_offset(
        self,
        error: ErrorValue,
        message: &str,
        offset: u64,
    ) -> (Encoded<MAX_CHUNK_HEAD>, &str, [u8; 8]) {
        let (head, message) = self.error_head(NBD_REPLY_TYPE_ERROR_OFFSET, error, message, 8);
        (head, message, offset.to_be_bytes())
    }

    /// The status of `context`: the caller sends so many [descriptors](Chunk::descriptor) next, at
    /// least one, and no more than [`Negotiated::max_descriptors`]. The first of them begins at the
    /// request's offset, each where the last one ends, and only the last may go beyond the request,
    /// but not beyond the export.
    ///
    /// A request without an error gets exactly one of these for each context.
    #[must_use]
    pub fn block_status(self, context: Context, descriptors: usize) -> Encoded<MAX_CHUNK_HEAD> {
        debug_assert!((1..=MAX_DESCRIPTORS).contains(&descriptors), "{descriptors} descriptors in one chunk");
        let id = context.id.to_be_bytes();
        let descriptors = descriptors as u64;
        match self.is_extended {
            true => {
                let head = self.head(NBD_REPLY_TYPE_BLOCK_STATUS_EXT, 8 + 16 * descriptors);
                head.with(id).with((descriptors as u32).to_be_bytes())
            }
            false => self.head(NBD_REPLY_TYPE_BLOCK_STATUS, 4 + 8 * descriptors).with(id),
        }
    }

    /// A descriptor, 8 bytes long, or 16 with extended headers.
    ///
    /// If an extent is too long for a descriptor of 32 bits, its length is cut. That makes no
    /// difference: only the last descriptor can be so long, as requests are not, and clients ask
    /// again about what it does not cover.
    #[must_use]
    pub fn descriptor(self, descriptor: Descriptor) -> Encoded<16> {
        let Descriptor { length, status } = descriptor;
        match self.is_extended {
            true => Encoded::new().with(length.to_be_bytes()).with(u64::from(status).to_be_bytes()),
            false => {
                let length = u32::try_from(length).unwrap_or(LONGEST_EXTENT);
                Encoded::new().with(length.to_be_bytes()).with(status.to_be_bytes())
            }
        }
    }

    /// `more` bytes follow the message.
    fn error_head(
        self,
        kind: u16,
        error: ErrorValue,
        message: &str,
        more: u64,
    ) -> (Encoded<MAX_CHUNK_HEAD>, &str) {
        let message = shortened(message.split('\0').next().unwrap_or_default(), self.longest_message);
        // It is never longer than MAX_STRING.
        let len = message.len() as u16;
        let head = self.head(kind, 6 + u64::from(len) + more);
        (head.with(error.to_wire().to_be_bytes()).with(len.to_be_bytes()), message)
    }

    /// `length` is that of the payload.
    fn head(self, kind: u16, length: u64) -> Encoded<MAX_CHUNK_HEAD> {
        let magic = if self.is_extended { NBD_EXTENDED_REPLY_MAGIC } else { NBD_STRUCTURED_REPLY_MAGIC };
        let flags = if self.is_done { NBD_REPLY_FLAG_DONE } else { 0 };
        let head = Encoded::new().with(magic.to_be_bytes()).with(flags.to_be_bytes());
        let head = head.with(kind.to_be_bytes()).with(self.cookie.to_be_bytes());
        match self.is_extended {
            true => head.with(self.offset.to_be_bytes()).with(length.to_be_bytes()),
            // No READ is checked as good that has more content than has room here, and the rest is
            // short.
            false => head.with((length as u32).to_be_bytes()),
        }
    }
}

/// Cuts a text to at most `longest` bytes, without a part of a character.
fn shortened(text: &str, longest: usize) -> &str {
    let mut end = text.len().min(longest);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
