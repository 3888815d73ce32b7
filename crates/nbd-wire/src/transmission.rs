// SPDX-License-Identifier: MIT OR Apache-2.0
//! The transmission phase: request headers in, replies out, without allocation.

mod check;
mod chunk;
mod command;
mod encoded;

pub use check::MAX_STATUS_PAYLOAD;
pub use chunk::{Chunk, Descriptor, EXTENDED_REPLY_LEN, MAX_CHUNK_HEAD, STRUCTURED_REPLY_LEN};
pub use command::{Command, CommandFlags};
pub use encoded::Encoded;

use crate::consts::*;
use crate::{ErrorValue, Export};

/// Bytes of a compact request header ('Request message').
pub const REQUEST_HEADER_LEN: usize = 28;
/// Bytes of an extended request header ('Request message').
pub const EXTENDED_REQUEST_HEADER_LEN: usize = 32;
/// Bytes of a simple reply without its payload ('Simple reply message').
pub const SIMPLE_REPLY_LEN: usize = 16;

/// A payload up to this length, in bytes, is never taken for an attack ('Size constraints').
const HONEST_PAYLOAD: u64 = 1 << 25;

/// A request header as the client sent it ('Request message').
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// The header is an extended one, so [`CommandFlags::PAYLOAD_LEN`] tells what the length means.
    pub is_extended: bool,
    /// Command flags, known or not.
    pub flags: CommandFlags,
    /// The command: `NBD_CMD_READ` and so on, or anything else.
    pub kind: u16,
    /// Opaque to the server and sent back with the reply; need not be unique.
    pub cookie: u64,
    /// The offset of the first byte that the request is about.
    pub offset: u64,
    /// The number of bytes: of the export, or of the payload if there is one.
    pub length: u64,
}

/// The bytes are not a request header: the stream is out of step, and only a disconnect helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client sent {0:#010x} where a request should begin")]
#[non_exhaustive]
pub struct BadMagic(pub u32);

/// The client has announced a payload that is too long to be read and refused: only a disconnect
/// helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client sent a payload of {0} bytes")]
pub struct PayloadTooLong(pub u64);

impl RequestHeader {
    /// Reads a compact header: that of clients that have not negotiated extended headers.
    ///
    /// # Errors
    /// [`BadMagic`].
    pub fn decode(bytes: &[u8; REQUEST_HEADER_LEN]) -> Result<Self, BadMagic> {
        Self::read(bytes, NBD_REQUEST_MAGIC)
    }

    /// Reads an extended header: that of clients that have negotiated extended headers.
    ///
    /// # Errors
    /// [`BadMagic`].
    pub fn decode_extended(bytes: &[u8; EXTENDED_REQUEST_HEADER_LEN]) -> Result<Self, BadMagic> {
        Self::read(bytes, NBD_EXTENDED_REQUEST_MAGIC)
    }

    /// The two differ in their magic, and in how many bytes are left for the length.
    fn read<const N: usize>(bytes: &[u8; N], expected: u32) -> Result<Self, BadMagic> {
        let magic = u32::from_be_bytes(field(bytes, 0));
        if magic != expected {
            return Err(BadMagic(magic));
        }
        let is_extended = N == EXTENDED_REQUEST_HEADER_LEN;
        Ok(Self {
            is_extended,
            flags: CommandFlags::from_bits_retain(u16::from_be_bytes(field(bytes, 4))),
            kind: u16::from_be_bytes(field(bytes, 6)),
            cookie: u64::from_be_bytes(field(bytes, 8)),
            offset: u64::from_be_bytes(field(bytes, 16)),
            length: match is_extended {
                true => u64::from_be_bytes(field(bytes, 24)),
                false => u32::from_be_bytes(field(bytes, 24)).into(),
            },
        })
    }

    /// Returns the number of payload bytes that follow the header. They must be read even if the
    /// request is refused.
    ///
    /// With an extended header, [`CommandFlags::PAYLOAD_LEN`] tells of a payload. A WRITE always
    /// has one: clients must set the flag there, but qemu 10.0 is one that forgets it, and sends
    /// the payload nonetheless. Who believed the flag would take the content of disks for requests.
    #[must_use]
    pub fn payload_len(&self) -> u64 {
        let is_told = self.is_extended && self.flags.contains(CommandFlags::PAYLOAD_LEN);
        if is_told || self.kind == NBD_CMD_WRITE { self.length } else { 0 }
    }

    /// Refuses a payload that the protocol wants answered by a disconnect rather than read: one of
    /// an extended header that is longer than the export's maximum, and longer than 32 MiB, up to
    /// which no payload counts as an attack ('Request message', 'Size constraints').
    ///
    /// The caller decides how much of a compact request is read in order to refuse it.
    ///
    /// # Errors
    /// [`PayloadTooLong`].
    pub fn check_payload_len(&self, export: &Export) -> Result<(), PayloadTooLong> {
        let longest = u64::from(export.block_size().maximum).max(HONEST_PAYLOAD);
        match self.payload_len() {
            length if self.is_extended && length > longest => Err(PayloadTooLong(length)),
            _ => Ok(()),
        }
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

/// The bytes of a field at `at`, which the caller knows to be inside.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SizeConstraints, TransmissionFlags};

    const HEADER: [u8; REQUEST_HEADER_LEN] =
        *b"\x25\x60\x95\x13\x00\x11\x00\x06\x01\x02\x03\x04\x05\x06\x07\x08\
        \x00\x00\x00\x01\x00\x00\x02\x00\x00\x01\x00\x00";

    const EXTENDED: [u8; EXTENDED_REQUEST_HEADER_LEN] =
        *b"\x21\xe4\x1c\x71\x00\x11\x00\x06\x01\x02\x03\x04\x05\x06\x07\x08\
        \x00\x00\x00\x01\x00\x00\x02\x00\x00\x00\x01\x00\x00\x01\x00\x00";

    #[test]
    fn a_header_is_decoded() {
        let request = RequestHeader::decode(&HEADER).unwrap();
        let flags = CommandFlags::FUA | CommandFlags::FAST_ZERO;
        let expected = RequestHeader {
            is_extended: false,
            flags,
            kind: 6,
            cookie: 0x0102_0304_0506_0708,
            offset: (1 << 32) + 512,
            length: 65536,
        };
        assert_eq!(request, expected);
        assert_eq!((request.payload_len(), request.name()), (0, "WRITE_ZEROES"));
    }

    #[test]
    fn an_extended_header_has_a_longer_length() {
        let request = RequestHeader::decode(&HEADER).unwrap();
        let expected = RequestHeader { is_extended: true, length: (1 << 40) + 65536, ..request };
        assert_eq!(RequestHeader::decode_extended(&EXTENDED), Ok(expected));
    }

    #[test]
    fn another_magic_is_refused() {
        let mut header = HEADER;
        header[3] = 0x14;
        assert_eq!(RequestHeader::decode(&header), Err(BadMagic(0x2560_9514)));
    }

    #[test]
    fn a_header_of_the_other_form_is_refused() {
        let compact = EXTENDED.first_chunk().unwrap();
        assert_eq!(RequestHeader::decode(compact), Err(BadMagic(0x21e4_1c71)));
        let mut extended = EXTENDED;
        extended[..4].copy_from_slice(&HEADER[..4]);
        assert_eq!(RequestHeader::decode_extended(&extended), Err(BadMagic(0x2560_9513)));
    }

    fn payload(is_extended: bool, kind: u16, flags: u16, length: u64) -> (u64, Result<(), PayloadTooLong>) {
        let flags = CommandFlags::from_bits_retain(flags);
        let request = RequestHeader { is_extended, flags, kind, cookie: 0, offset: 0, length };
        let blocks = SizeConstraints { maximum: 1 << 26, ..SizeConstraints::default() };
        let export = Export::new("", 1, TransmissionFlags::empty(), blocks).unwrap();
        (request.payload_len(), request.check_payload_len(&export))
    }

    #[test]
    fn compact_writes_alone_have_a_payload_whatever_the_flags() {
        for flags in [0, 32, 0xffff] {
            for kind in (0..10).filter(|kind| *kind != 1) {
                assert_eq!(payload(false, kind, flags, 512), (0, Ok(())));
            }
            assert_eq!(payload(false, 1, flags, 512), (512, Ok(())));
        }
    }

    #[test]
    fn the_flag_tells_of_the_payload_of_extended_requests_whatever_the_command() {
        for kind in (0..10).filter(|kind| *kind != 1) {
            assert_eq!(payload(true, kind, 0xffff - 32, 1 << 60), (0, Ok(())));
            assert_eq!(payload(true, kind, 32, 512), (512, Ok(())));
        }
    }

    #[test]
    fn extended_writes_have_a_payload_even_if_the_client_forgets_the_flag() {
        for flags in [0, 1, 32, 33] {
            assert_eq!(payload(true, 1, flags, 512), (512, Ok(())));
            assert_eq!(payload(true, 1, flags, 1 << 60).1, Err(PayloadTooLong(1 << 60)));
        }
    }

    #[test]
    fn a_payload_far_beyond_the_maximum_is_not_read() {
        assert_eq!(payload(true, 1, 32, 1 << 26).1, Ok(()));
        let long = (1 << 26) + 1;
        for kind in 0..10 {
            assert_eq!(payload(true, kind, 32, long).1, Err(PayloadTooLong(long)));
        }
        assert_eq!(payload(false, 1, 0, long).1, Ok(()));
        // 32 MiB are read even where the maximum is less.
        let small = SizeConstraints { maximum: 4096, ..SizeConstraints::default() };
        let export = Export::new("", 1, TransmissionFlags::empty(), small).unwrap();
        let flags = CommandFlags::PAYLOAD_LEN;
        let request =
            RequestHeader { is_extended: true, flags, kind: 1, cookie: 0, offset: 0, length: 1 << 25 };
        assert_eq!(request.check_payload_len(&export), Ok(()));
        let longer = RequestHeader { length: (1 << 25) + 1, ..request };
        assert_eq!(longer.check_payload_len(&export), Err(PayloadTooLong((1 << 25) + 1)));
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
