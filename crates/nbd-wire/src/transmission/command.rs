// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a request asks for.

use bitflags::bitflags;

use crate::consts::*;
use crate::contexts::Contexts;

bitflags! {
    /// How a command is to be executed ('Command flags'); unknown bits are kept.
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
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u32,
        /// One content chunk at most.
        df: bool,
    },
    /// WRITE of at least one byte.
    Write {
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes: the length of the payload.
        length: u32,
        /// Durable before the reply.
        fua: bool,
    },
    /// WRITE_ZEROES of at least one byte, as long as the client likes.
    Zero {
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u64,
        /// FUA, NO_HOLE, FAST_ZERO.
        flags: CommandFlags,
    },
    /// FLUSH.
    Flush,
    /// TRIM of at least one byte, as long as the client likes.
    Trim {
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u64,
        /// Durable before the reply.
        fua: bool,
    },
    /// CACHE of at least one byte, as long as the client likes.
    Cache {
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u64,
    },
    /// BLOCK_STATUS of at least one byte, as long as the client likes. The reply has one status
    /// chunk for each context.
    BlockStatus {
        /// Where, in bytes: the first descriptor begins here.
        offset: u64,
        /// How much, in bytes. Without `req_one` it is a hint.
        length: u64,
        /// One descriptor for each context, which does not go beyond the length.
        req_one: bool,
        /// The contexts to tell of, of which there is at least one.
        contexts: Contexts,
    },
    /// BLOCK_STATUS whose length and contexts are in its payload. Read that, and pass it to
    /// [`RequestHeader::check_status_payload`](crate::RequestHeader::check_status_payload).
    BlockStatusPayload {
        /// How much to read, in bytes: no more than
        /// [`MAX_STATUS_PAYLOAD`](crate::MAX_STATUS_PAYLOAD).
        payload_len: usize,
    },
    /// A request of length zero: it succeeds without doing anything.
    Nothing,
    /// DISC: no reply; finish what is in flight and close.
    Disconnect,
}
