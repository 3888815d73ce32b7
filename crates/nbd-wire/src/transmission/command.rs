// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that clients request.

use bitflags::bitflags;

use crate::consts::*;
use crate::contexts::Contexts;

bitflags! {
    /// The flags of a request, which say how its command is executed ('Command flags'). Unknown
    /// bits are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CommandFlags: u16 {
        /// Durable before the reply.
        const FUA = NBD_CMD_FLAG_FUA;
        /// Make no hole.
        const NO_HOLE = NBD_CMD_FLAG_NO_HOLE;
        /// Don't fragment: one content chunk at most.
        const DF = NBD_CMD_FLAG_DF;
        /// One descriptor for each context.
        const REQ_ONE = NBD_CMD_FLAG_REQ_ONE;
        /// Fast, or not at all.
        const FAST_ZERO = NBD_CMD_FLAG_FAST_ZERO;
        /// With extended headers, the length is that of a payload.
        const PAYLOAD_LEN = NBD_CMD_FLAG_PAYLOAD_LEN;
        const _ = !0;
    }
}

/// A request that the export takes: inside its size, aligned, and without flags that it does not
/// know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// READ of at least one byte. Its payload fits into one chunk.
    Read {
        /// The offset of the first byte to read.
        offset: u64,
        /// The number of bytes to read.
        length: u32,
        /// One content chunk at most.
        df: bool,
    },
    /// WRITE of at least one byte.
    Write {
        /// The offset of the first byte to write.
        offset: u64,
        /// The number of bytes to write, which is the length of the payload.
        length: u32,
        /// Durable before the reply.
        fua: bool,
    },
    /// WRITE_ZEROES of at least one byte, as long as the client likes.
    Zero {
        /// The offset of the first byte to zero.
        offset: u64,
        /// The number of bytes to zero.
        length: u64,
        /// FUA, NO_HOLE, FAST_ZERO.
        flags: CommandFlags,
    },
    /// FLUSH.
    Flush,
    /// TRIM of at least one byte, as long as the client likes.
    Trim {
        /// The offset of the first byte to discard.
        offset: u64,
        /// The number of bytes to discard.
        length: u64,
        /// Durable before the reply.
        fua: bool,
    },
    /// CACHE of at least one byte, as long as the client likes.
    Cache {
        /// The offset of the first byte to cache.
        offset: u64,
        /// The number of bytes to cache.
        length: u64,
    },
    /// BLOCK_STATUS of at least one byte, as long as the client likes. The reply has one status
    /// chunk for each context.
    BlockStatus {
        /// The offset in bytes at which the first descriptor begins.
        offset: u64,
        /// The number of bytes that the client asks about. Without `req_one` it is a hint.
        length: u64,
        /// One descriptor for each context, which does not go beyond the length.
        req_one: bool,
        /// The contexts to tell of, of which there is at least one.
        contexts: Contexts,
    },
    /// BLOCK_STATUS whose length and contexts are in its payload. Read that, and pass it to
    /// [`RequestHeader::check_status_payload`](crate::RequestHeader::check_status_payload).
    BlockStatusPayload {
        /// The length of the payload in bytes: no more than
        /// [`MAX_STATUS_PAYLOAD`](crate::MAX_STATUS_PAYLOAD).
        payload_len: usize,
    },
    /// A request of length zero: it succeeds without doing anything.
    Nothing,
    /// DISC: no reply; finish what is in flight and close.
    Disconnect,
}
