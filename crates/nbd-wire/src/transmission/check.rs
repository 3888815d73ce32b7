// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which requests an export takes, and what the others are answered.

use super::{CommandFlags, RequestHeader};
use crate::consts::*;
use crate::{ErrorValue, Export, TransmissionFlags};

/// A request that the export takes: inside its size, aligned, and without flags that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// READ of at least one byte.
    Read {
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u32,
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
        length: u32,
        /// FUA, NO_HOLE, FAST_ZERO.
        flags: CommandFlags,
    },
    /// FLUSH.
    Flush,
    /// A request of length zero: it succeeds without doing anything.
    Nothing,
    /// DISC: no reply; finish what is in flight and close.
    Disconnect,
}

impl RequestHeader {
    /// The command to execute on `export`, or the error to answer ('Request types', 'Error values').
    ///
    /// # Errors
    /// `EPERM` for writing to a read-only export, `ENOSPC` for writing past its end, `EINVAL` for the rest: reading
    /// past the end, a payload over the maximum, a misaligned request, unknown commands and flags.
    pub fn check(&self, export: &Export) -> Result<Command, ErrorValue> {
        if self.kind == NBD_CMD_DISC {
            return Ok(Command::Disconnect);
        }
        self.check_kind(export.flags())?;
        self.check_flags(export.flags())?;
        self.check_range(export)?;
        Ok(self.command())
    }

    fn check_kind(&self, offered: TransmissionFlags) -> Result<(), ErrorValue> {
        let writes = matches!(self.kind, NBD_CMD_WRITE | NBD_CMD_WRITE_ZEROES | NBD_CMD_TRIM);
        let known = match self.kind {
            NBD_CMD_READ | NBD_CMD_WRITE => true,
            NBD_CMD_WRITE_ZEROES => offered.contains(TransmissionFlags::SEND_WRITE_ZEROES),
            NBD_CMD_FLUSH => offered.contains(TransmissionFlags::SEND_FLUSH),
            _ => false,
        };
        match known {
            _ if writes && offered.contains(TransmissionFlags::READ_ONLY) => Err(ErrorValue::Perm),
            true => Ok(()),
            false => Err(ErrorValue::Inval),
        }
    }

    fn check_flags(&self, offered: TransmissionFlags) -> Result<(), ErrorValue> {
        let mut allowed = CommandFlags::empty();
        // Once offered, FUA is accepted on every command: clients are known to set it on reads.
        allowed.set(CommandFlags::FUA, offered.contains(TransmissionFlags::SEND_FUA));
        if self.kind == NBD_CMD_WRITE_ZEROES {
            allowed |= CommandFlags::NO_HOLE;
            allowed.set(CommandFlags::FAST_ZERO, offered.contains(TransmissionFlags::SEND_FAST_ZERO));
        }
        if allowed.contains(self.flags) { Ok(()) } else { Err(ErrorValue::Inval) }
    }

    fn check_range(&self, export: &Export) -> Result<(), ErrorValue> {
        if self.kind == NBD_CMD_FLUSH {
            return if (self.offset, self.length) == (0, 0) { Ok(()) } else { Err(ErrorValue::Inval) };
        }
        let outside = if self.kind == NBD_CMD_READ { ErrorValue::Inval } else { ErrorValue::NoSpc };
        let end =
            self.offset.checked_add(self.length.into()).filter(|end| *end <= export.size()).ok_or(outside)?;
        let sizes = export.block_size();
        let minimum = u64::from(sizes.minimum);
        // The last block of an export whose size is not a multiple stays within reach.
        let aligned =
            self.offset.is_multiple_of(minimum) && (end.is_multiple_of(minimum) || end == export.size());
        let too_long = self.kind != NBD_CMD_WRITE_ZEROES && self.length > sizes.maximum;
        if aligned && !too_long { Ok(()) } else { Err(ErrorValue::Inval) }
    }

    /// The command of a request that has passed the checks.
    fn command(&self) -> Command {
        let Self { offset, length, flags, .. } = *self;
        match self.kind {
            NBD_CMD_FLUSH => Command::Flush,
            _ if length == 0 => Command::Nothing,
            NBD_CMD_READ => Command::Read { offset, length },
            NBD_CMD_WRITE => Command::Write { offset, length, fua: flags.contains(CommandFlags::FUA) },
            _ => Command::Zero { offset, length, flags },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SizeConstraints;

    const SIZE: u64 = 1 << 30;
    const MIB: u32 = 1 << 20;

    fn everything() -> TransmissionFlags {
        TransmissionFlags::all() - TransmissionFlags::READ_ONLY
    }

    fn check(offered: TransmissionFlags, request: (u16, u16, u64, u32)) -> Result<Command, ErrorValue> {
        check_blocks(offered, SizeConstraints::default(), request)
    }

    fn check_blocks(
        offered: TransmissionFlags,
        blocks: SizeConstraints,
        (kind, flags, offset, length): (u16, u16, u64, u32),
    ) -> Result<Command, ErrorValue> {
        let export = Export::new("", SIZE, offered, blocks).unwrap();
        RequestHeader { flags: CommandFlags::from_bits_retain(flags), kind, cookie: 1, offset, length }
            .check(&export)
    }

    #[test]
    fn good_requests_become_commands() {
        let (fua, offset, length) = (false, 512, 512);
        for (request, command) in [
            ((0, 0, 512, 512), Command::Read { offset, length }),
            ((0, 1, 512, 512), Command::Read { offset, length }),
            ((0, 0, 0, 32 * MIB), Command::Read { offset: 0, length: 32 * MIB }),
            ((0, 0, SIZE - 512, 512), Command::Read { offset: SIZE - 512, length }),
            ((1, 0, 512, 512), Command::Write { offset, length, fua }),
            ((1, 1, 512, 512), Command::Write { offset, length, fua: true }),
            ((1, 0, 0, 32 * MIB), Command::Write { offset: 0, length: 32 * MIB, fua }),
            ((2, 0xffff, 7, 7), Command::Disconnect),
            ((3, 0, 0, 0), Command::Flush),
            ((3, 1, 0, 0), Command::Flush),
            (
                (6, 0, 0, SIZE as u32),
                Command::Zero { offset: 0, length: SIZE as u32, flags: CommandFlags::empty() },
            ),
            ((6, 2, 512, 512), Command::Zero { offset, length, flags: CommandFlags::NO_HOLE }),
            ((6, 19, 512, 512), Command::Zero { offset, length, flags: CommandFlags::from_bits_retain(19) }),
            ((0, 0, 5, 0), Command::Nothing),
            ((1, 0, SIZE, 0), Command::Nothing),
            ((6, 0, 0, 0), Command::Nothing),
        ] {
            assert_eq!(check(everything(), request), Ok(command), "{request:?}");
        }
    }

    #[test]
    fn bad_requests_get_the_error_of_the_protocol() {
        for (request, value) in [
            // Out of range, also where offset + length overflows.
            ((0, 0, SIZE - 1, 2), ErrorValue::Inval),
            ((0, 0, u64::MAX, 2), ErrorValue::Inval),
            ((0, 0, SIZE + 1, 0), ErrorValue::Inval),
            ((1, 0, SIZE - 1, 2), ErrorValue::NoSpc),
            ((1, 0, u64::MAX, u32::MAX), ErrorValue::NoSpc),
            ((6, 0, SIZE - 1, 2), ErrorValue::NoSpc),
            ((6, 0, u64::MAX, 2), ErrorValue::NoSpc),
            // Over the maximum payload.
            ((0, 0, 0, 32 * MIB + 1), ErrorValue::Inval),
            ((1, 0, 0, 32 * MIB + 1), ErrorValue::Inval),
            // Unknown or not offered commands: TRIM, CACHE, BLOCK_STATUS, RESIZE and no command at all.
            ((4, 0, 0, 512), ErrorValue::Inval),
            ((5, 0, 0, 512), ErrorValue::Inval),
            ((7, 0, 0, 512), ErrorValue::Inval),
            ((8, 0, 0, 512), ErrorValue::Inval),
            ((0xffff, 0, 0, 0), ErrorValue::Inval),
            // Flags that are unknown or belong to another command: NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN.
            ((0, 2, 0, 512), ErrorValue::Inval),
            ((0, 4, 0, 512), ErrorValue::Inval),
            ((6, 8, 0, 512), ErrorValue::Inval),
            ((1, 16, 0, 512), ErrorValue::Inval),
            ((1, 32, 0, 512), ErrorValue::Inval),
            ((1, 0x8000, 0, 512), ErrorValue::Inval),
            ((3, 2, 0, 0), ErrorValue::Inval),
            // The fields of FLUSH are reserved.
            ((3, 0, 512, 0), ErrorValue::Inval),
            ((3, 0, 0, 512), ErrorValue::Inval),
        ] {
            assert_eq!(check(everything(), request), Err(value), "{request:?}");
        }
    }

    #[test]
    fn what_was_not_offered_is_refused() {
        let none = TransmissionFlags::empty();
        for request in [(0, 1, 0, 512), (1, 1, 0, 512), (3, 0, 0, 0), (6, 0, 0, 512)] {
            assert_eq!(check(none, request), Err(ErrorValue::Inval), "{request:?}");
        }
        let slow = everything() - TransmissionFlags::SEND_FAST_ZERO;
        assert_eq!(check(slow, (6, 16, 0, 512)), Err(ErrorValue::Inval));
    }

    #[test]
    fn a_read_only_export_is_not_written_to() {
        let read_only = TransmissionFlags::READ_ONLY | TransmissionFlags::SEND_FLUSH;
        for kind in [1, 4, 6] {
            assert_eq!(check(read_only, (kind, 0, 0, 512)), Err(ErrorValue::Perm), "{kind}");
        }
        assert_eq!(check(read_only, (3, 0, 0, 0)), Ok(Command::Flush));
        assert!(check(read_only, (0, 0, 0, 512)).is_ok());
    }

    #[test]
    fn the_minimum_block_size_is_enforced_but_for_the_last_block() {
        let blocks = SizeConstraints { minimum: 4096, ..SizeConstraints::default() };
        let export = Export::new("", 10_000, everything(), blocks).unwrap();
        let check = |kind, offset, length| {
            RequestHeader { flags: CommandFlags::empty(), kind, cookie: 0, offset, length }
                .check(&export)
                .err()
        };
        for kind in [0, 1, 6] {
            assert_eq!(check(kind, 512, 4096), Some(ErrorValue::Inval));
            assert_eq!(check(kind, 4096, 512), Some(ErrorValue::Inval));
            assert_eq!(check(kind, 4096, 4096), None);
            assert_eq!(check(kind, 8192, 10_000 - 8192), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_gets_an_answer_and_no_command_leaves_the_export(header: [u8; 24], blocks in 0..=16u32) {
            let mut bytes = *b"\x25\x60\x95\x13************************";
            bytes[4..].copy_from_slice(&header);
            let request = RequestHeader::decode(&bytes).unwrap();
            let (kind, offset) = (request.kind % 9, request.offset % (2 * SIZE));
            let blocks = SizeConstraints { minimum: 1 << blocks, preferred: 1 << 16, maximum: 1 << 25 };
            for request in [request, RequestHeader { kind, offset, ..request }] {
                let checked = check_blocks(everything(), blocks, (kind, 0, request.offset, request.length));
                if let Ok(Command::Read { offset, length } | Command::Write { offset, length, .. }) = checked {
                    proptest::prop_assert!(offset + u64::from(length) <= SIZE && length <= 1 << 25);
                }
            }
        }
    }
}
