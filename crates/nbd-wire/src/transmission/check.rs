// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which requests an export takes, and what the others are answered.

#[cfg(test)]
mod tests;

use super::{Command, CommandFlags, RequestHeader};
use crate::consts::*;
use crate::contexts::{Contexts, MAX_CONTEXTS};
use crate::{ErrorValue, Negotiated, ReplyStyle, TransmissionFlags};

/// The longest payload of BLOCK_STATUS in bytes: a length, and the ID of each context ('Request
/// types').
pub const MAX_STATUS_PAYLOAD: usize = status_payload(MAX_CONTEXTS);

const fn status_payload(ids: usize) -> usize {
    8 + 4 * ids
}

impl RequestHeader {
    /// The command to execute, or the error to answer ('Request types', 'Error values').
    ///
    /// # Errors
    /// `EPERM` for writing to a read-only export, `ENOSPC` for writing past its end, `EOVERFLOW`
    /// for a READ over the maximum payload where replies are made of chunks, `EINVAL` for the rest:
    /// reading past the end, a payload over the maximum, a misaligned request, unknown commands and
    /// flags, BLOCK_STATUS without a context or of length zero.
    pub fn check(&self, negotiated: &Negotiated<'_>) -> Result<Command, ErrorValue> {
        if self.kind == NBD_CMD_DISC {
            return Ok(Command::Disconnect);
        }
        self.check_kind(negotiated)?;
        self.check_flags(negotiated.flags)?;
        if self.kind == NBD_CMD_BLOCK_STATUS && self.flags.contains(CommandFlags::PAYLOAD_LEN) {
            return self.announced_status_payload(negotiated.contexts);
        }
        self.check_range(negotiated)?;
        self.command(negotiated.contexts)
    }

    /// The command of a BLOCK_STATUS that was [checked](Self::check) to be
    /// [`Command::BlockStatusPayload`], and whose payload was read ('Request types').
    ///
    /// # Errors
    /// `EINVAL` if the payload is not as long as announced, if an ID occurs twice or was not
    /// selected, and for what is an error without a payload, too.
    pub fn check_status_payload(
        &self,
        negotiated: &Negotiated<'_>,
        payload: &[u8],
    ) -> Result<Command, ErrorValue> {
        let (length, ids) = payload.split_first_chunk().ok_or(ErrorValue::Inval)?;
        let (ids, rest) = ids.as_chunks::<4>();
        if !rest.is_empty() || payload.len() as u64 != self.payload_len() {
            return Err(ErrorValue::Inval);
        }
        let ids = ids.iter().copied().map(u32::from_be_bytes);
        let contexts = negotiated.contexts.subset(ids).ok_or(ErrorValue::Inval)?;
        // From here on, it is like one without a payload.
        let flags = self.flags - CommandFlags::PAYLOAD_LEN;
        let request = Self { flags, length: u64::from_be_bytes(*length), ..*self };
        request.check(&Negotiated { contexts, ..*negotiated })
    }

    /// Nothing longer can have each ID once.
    #[cold]
    fn announced_status_payload(&self, contexts: Contexts) -> Result<Command, ErrorValue> {
        let fits = |ids: &usize| status_payload(*ids) as u64 == self.length;
        let ids = (1..=contexts.len()).find(fits).ok_or(ErrorValue::Inval)?;
        Ok(Command::BlockStatusPayload { payload_len: status_payload(ids) })
    }

    fn check_kind(&self, negotiated: &Negotiated<'_>) -> Result<(), ErrorValue> {
        let offered = negotiated.flags;
        let writes = matches!(self.kind, NBD_CMD_WRITE | NBD_CMD_WRITE_ZEROES | NBD_CMD_TRIM);
        if writes && offered.contains(TransmissionFlags::READ_ONLY) {
            return Err(ErrorValue::Perm);
        }
        let known = match self.kind {
            NBD_CMD_READ | NBD_CMD_WRITE => true,
            NBD_CMD_WRITE_ZEROES => offered.contains(TransmissionFlags::SEND_WRITE_ZEROES),
            NBD_CMD_FLUSH => offered.contains(TransmissionFlags::SEND_FLUSH),
            NBD_CMD_TRIM => offered.contains(TransmissionFlags::SEND_TRIM),
            NBD_CMD_CACHE => offered.contains(TransmissionFlags::SEND_CACHE),
            NBD_CMD_BLOCK_STATUS => !negotiated.contexts.is_empty(),
            _ => false,
        };
        if known { Ok(()) } else { Err(ErrorValue::Inval) }
    }

    fn check_flags(&self, offered: TransmissionFlags) -> Result<(), ErrorValue> {
        // Most requests have none.
        let is_good = self.flags.is_empty() || self.allowed_flags(offered).contains(self.flags);
        if is_good { Ok(()) } else { Err(ErrorValue::Inval) }
    }

    fn allowed_flags(&self, offered: TransmissionFlags) -> CommandFlags {
        let mut allowed = CommandFlags::empty();
        // Once offered, FUA is accepted on every command: clients are known to set it on reads.
        allowed.set(CommandFlags::FUA, offered.contains(TransmissionFlags::SEND_FUA));
        match self.kind {
            NBD_CMD_READ => allowed.set(CommandFlags::DF, offered.contains(TransmissionFlags::SEND_DF)),
            // Without it, the request is understood as well: see `payload_len`.
            NBD_CMD_WRITE => allowed.set(CommandFlags::PAYLOAD_LEN, self.is_extended),
            NBD_CMD_WRITE_ZEROES => {
                allowed |= CommandFlags::NO_HOLE;
                allowed.set(CommandFlags::FAST_ZERO, offered.contains(TransmissionFlags::SEND_FAST_ZERO));
            }
            NBD_CMD_BLOCK_STATUS => {
                allowed |= CommandFlags::REQ_ONE;
                let payload = offered.contains(TransmissionFlags::BLOCK_STATUS_PAYLOAD);
                allowed.set(CommandFlags::PAYLOAD_LEN, payload);
            }
            _ => {}
        }
        allowed
    }

    fn check_range(&self, negotiated: &Negotiated<'_>) -> Result<(), ErrorValue> {
        if self.kind == NBD_CMD_FLUSH {
            return if (self.offset, self.length) == (0, 0) { Ok(()) } else { Err(ErrorValue::Inval) };
        }
        let export = negotiated.export;
        let outside = match self.kind {
            NBD_CMD_WRITE | NBD_CMD_WRITE_ZEROES => ErrorValue::NoSpc,
            _ => ErrorValue::Inval,
        };
        let end = self.offset.checked_add(self.length).filter(|end| *end <= export.size()).ok_or(outside)?;
        let minimum = u64::from(export.block_size().minimum);
        // The last block of an export whose size is not a multiple stays within reach.
        let aligned =
            self.offset.is_multiple_of(minimum) && (end.is_multiple_of(minimum) || end == export.size());
        if !aligned {
            return Err(ErrorValue::Inval);
        }
        self.check_length(export.block_size().maximum, negotiated.style)
    }

    /// Refuses payloads over the maximum. Other commands have no limit, as a longer one needs no
    /// more memory.
    fn check_length(&self, maximum: u32, style: ReplyStyle) -> Result<(), ErrorValue> {
        let (longest, error) = match (self.kind, style) {
            (NBD_CMD_WRITE, _) | (NBD_CMD_READ, ReplyStyle::Simple) => (maximum, ErrorValue::Inval),
            // The length of a chunk counts the offset in front of the content.
            (NBD_CMD_READ, ReplyStyle::Structured) => (maximum.min(u32::MAX - 8), ErrorValue::Overflow),
            (NBD_CMD_READ, ReplyStyle::Extended) => (maximum, ErrorValue::Overflow),
            _ => return Ok(()),
        };
        if self.length <= u64::from(longest) { Ok(()) } else { Err(error) }
    }

    /// The command of a request that has passed the checks.
    fn command(&self, contexts: Contexts) -> Result<Command, ErrorValue> {
        let Self { offset, length, flags, .. } = *self;
        let fua = flags.contains(CommandFlags::FUA);
        Ok(match self.kind {
            NBD_CMD_FLUSH => Command::Flush,
            // A good reply would have to tell of at least one byte.
            NBD_CMD_BLOCK_STATUS if length == 0 => return Err(ErrorValue::Inval),
            _ if length == 0 => Command::Nothing,
            // These two are no longer than the maximum payload.
            NBD_CMD_READ => {
                Command::Read { offset, length: length as u32, df: flags.contains(CommandFlags::DF) }
            }
            NBD_CMD_WRITE => Command::Write { offset, length: length as u32, fua },
            NBD_CMD_TRIM => Command::Trim { offset, length, fua },
            NBD_CMD_CACHE => Command::Cache { offset, length },
            NBD_CMD_BLOCK_STATUS => {
                let req_one = flags.contains(CommandFlags::REQ_ONE);
                Command::BlockStatus { offset, length, req_one, contexts }
            }
            _ => Command::Zero { offset, length, flags },
        })
    }
}
