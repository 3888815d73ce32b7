// SPDX-License-Identifier: MIT OR Apache-2.0
//! The transmission phase: request headers in, simple replies out, without allocation.

mod check;

pub use check::Command;

use bitflags::bitflags;

use crate::ErrorValue;
use crate::consts::*;

/// Bytes of a request header ('Request message').
pub const REQUEST_HEADER_LEN: usize = 28;
/// Bytes of a simple reply without its payload ('Simple reply message').
pub const SIMPLE_REPLY_LEN: usize = 16;

bitflags! {
    /// How a command is to be executed ('Command flags'); unknown bits are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CommandFlags: u16 {
        /// Durable before the reply.
        const FUA = NBD_CMD_FLAG_FUA;
        /// Make no hole.
        const NO_HOLE = NBD_CMD_FLAG_NO_HOLE;
        /// Fast, or not at all.
        const FAST_ZERO = NBD_CMD_FLAG_FAST_ZERO;
        const _ = !0;
    }
}

/// A request header as the client sent it ('Request message').
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// Command flags, known or not.
    pub flags: CommandFlags,
    /// The command: `NBD_CMD_READ` and so on, or anything else.
    pub kind: u16,
    /// Opaque to the server and sent back with the reply; need not be unique.
    pub cookie: u64,
    /// Where, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub length: u32,
}

/// The bytes are not a request header: the stream is out of step, and only a disconnect helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client sent {0:#010x} where a request should begin")]
pub struct BadMagic(pub u32);

impl RequestHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// [`BadMagic`].
    pub fn decode(bytes: &[u8; REQUEST_HEADER_LEN]) -> Result<Self, BadMagic> {
        let magic = number(&bytes[..4]) as u32;
        if magic != NBD_REQUEST_MAGIC {
            return Err(BadMagic(magic));
        }
        Ok(Self {
            flags: CommandFlags::from_bits_retain(number(&bytes[4..6]) as u16),
            kind: number(&bytes[6..8]) as u16,
            cookie: number(&bytes[8..16]),
            offset: number(&bytes[16..24]),
            length: number(&bytes[24..]) as u32,
        })
    }

    /// How many bytes follow the header: they must be read even if the request is refused.
    #[must_use]
    pub fn payload_len(&self) -> u32 {
        if self.kind == NBD_CMD_WRITE { self.length } else { 0 }
    }

    /// The command's name for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.kind {
            NBD_CMD_READ => "READ",
            NBD_CMD_WRITE => "WRITE",
            NBD_CMD_DISC => "DISC",
            NBD_CMD_FLUSH => "FLUSH",
            NBD_CMD_TRIM => "TRIM",
            NBD_CMD_CACHE => "CACHE",
            NBD_CMD_WRITE_ZEROES => "WRITE_ZEROES",
            NBD_CMD_BLOCK_STATUS => "BLOCK_STATUS",
            NBD_CMD_RESIZE => "RESIZE",
            _ => "an unknown command",
        }
    }
}

/// A simple reply; after a successful READ, its payload follows ('Simple reply message').
#[must_use]
pub fn simple_reply(cookie: u64, error: Option<ErrorValue>) -> [u8; SIMPLE_REPLY_LEN] {
    let mut reply = [0; SIMPLE_REPLY_LEN];
    reply[..4].copy_from_slice(&NBD_SIMPLE_REPLY_MAGIC.to_be_bytes());
    reply[4..8].copy_from_slice(&error.map_or(0, ErrorValue::to_wire).to_be_bytes());
    reply[8..].copy_from_slice(&cookie.to_be_bytes());
    reply
}

/// A big-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; REQUEST_HEADER_LEN] =
        *b"\x25\x60\x95\x13\x00\x11\x00\x06\x01\x02\x03\x04\x05\x06\x07\x08\
        \x00\x00\x00\x01\x00\x00\x02\x00\x00\x01\x00\x00";

    #[test]
    fn a_header_is_decoded() {
        let request = RequestHeader::decode(&HEADER).unwrap();
        let flags = CommandFlags::FUA | CommandFlags::FAST_ZERO;
        assert_eq!(
            request,
            RequestHeader {
                flags,
                kind: 6,
                cookie: 0x0102_0304_0506_0708,
                offset: (1 << 32) + 512,
                length: 65536
            }
        );
        assert_eq!((request.payload_len(), request.name()), (0, "WRITE_ZEROES"));
    }

    #[test]
    fn another_magic_is_refused() {
        let mut header = HEADER;
        header[3] = 0x14;
        assert_eq!(RequestHeader::decode(&header), Err(BadMagic(0x2560_9514)));
    }

    #[test]
    fn replies_have_the_layout_of_the_protocol() {
        assert_eq!(simple_reply(1, None), *b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x01");
        assert_eq!(
            simple_reply(u64::MAX, Some(ErrorValue::Shutdown))[4..],
            [[0, 0, 0, 108], [255; 4], [255; 4]].concat()
        );
    }
}
