// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading requests.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::sync::Arc;

use block_device_traits::{Batch, QueuedDevice, write_pieces};
use io_buffer_pool::Buffer;
use nbd_wire::{
    BadMagic, Command, EXTENDED_REQUEST_HEADER_LEN, ErrorValue, MAX_STATUS_PAYLOAD, PayloadTooLong,
    REQUEST_HEADER_LEN, ReplyStyle, RequestHeader,
};

use super::pieces::Whole;
use super::queue_depth::QueueDepth;
use super::read_ahead::ReadAhead;
use super::reads::ReadRequest;
use super::{Job, Session};
use crate::export::MAX_PAYLOAD;
use crate::transport::Incoming;

/// A refused WRITE with a longer payload, in bytes, is taken for an attack rather than read to its
/// end. A payload that is not far too long is an honest mistake, which gets an answer.
const MAX_DRAIN: u64 = 2 * MAX_PAYLOAD as u64;

/// Why no further request is read.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("disconnected")]
    Disconnect,
    #[error("the server stops")]
    Stopping,
    #[error("the connection ended: {0}")]
    Lost(#[from] io::Error),
    #[error(transparent)]
    BadMagic(#[from] BadMagic),
    #[error(transparent)]
    TooLong(#[from] PayloadTooLong),
}

impl End {
    /// Returns true if the client has said that it is done.
    pub(super) fn is_in_order(&self) -> bool {
        matches!(self, Self::Disconnect)
    }

    /// Returns true if nobody is there any more for the replies. Clients that say goodbye, and
    /// those that have only closed their own half of the connection in good order, are told of what
    /// is in flight; of these two, the second can't be told from one that died.
    pub(super) fn leaves_replies(&self) -> bool {
        match self {
            Self::Disconnect | Self::Stopping => false,
            Self::Lost(_) | Self::BadMagic(_) | Self::TooLong(_) => true,
        }
    }
}

impl<D: QueuedDevice> Session<'_, D> {
    /// Reads one request and its payload, and hands it to the device. Waits for room before the
    /// payload is read, and before a READ is handed out.
    pub(super) fn receive(
        &self,
        input: &mut BufReader<Incoming<'_>>,
        depth: &mut QueueDepth,
        ahead: &mut ReadAhead<'_, D>,
    ) -> Result<(), End> {
        self.replies.wait_for_room();
        if self.control.is_stopping() {
            return Err(End::Stopping);
        }
        let request = self.read_header(input)?;
        self.adjust_memory();
        let others = self.replies.unanswered();
        depth.note_request(others);
        request.check_payload_len(self.negotiated.export)?;
        let mut command = request.check(&self.negotiated);
        let mut buffer = None;
        match command {
            Ok(Command::Disconnect) => return Err(End::Disconnect),
            Ok(Command::Read { offset, length, df }) => {
                let read = ReadRequest { request, offset, length, df, is_alone: others == 0 };
                self.receive_read(read, input, depth, ahead);
                return Ok(());
            }
            // It needs the memory, and makes what was read ahead worthless.
            Ok(Command::Write { .. }) => ahead.forget(),
            Ok(_) | Err(_) => {}
        }
        match command {
            // A write that must be durable goes as a whole: who knows all of it makes it so at
            // once.
            Ok(Command::Write { offset, length, fua }) => {
                let range = offset..offset + u64::from(length);
                let mut pieces = write_pieces(range.clone(), self.longest_write()).peekable();
                if !fua && pieces.peek().is_some_and(|first| *first != range) {
                    let whole = Whole::new(self.job(request, command, None), length);
                    return self.receive_pieces(input, whole, pieces);
                }
                read_payload(input, buffer.insert(self.buffers.take(length as usize)))?;
            }
            Ok(Command::BlockStatusPayload { payload_len }) => {
                let payload = &mut [0; MAX_STATUS_PAYLOAD][..payload_len];
                read_payload(input, payload)?;
                command = request.check_status_payload(&self.negotiated, payload);
            }
            Ok(_) => {}
            Err(_) => drain(input, request.payload_len())?,
        }
        self.start(self.job(request, command, buffer), input, depth);
        Ok(())
    }

    fn read_header(&self, input: &mut BufReader<Incoming<'_>>) -> Result<RequestHeader, End> {
        Ok(match self.negotiated.style {
            ReplyStyle::Simple | ReplyStyle::Structured => {
                let mut header = [0; REQUEST_HEADER_LEN];
                input.read_exact(&mut header)?;
                RequestHeader::decode(&header)?
            }
            ReplyStyle::Extended => {
                let mut header = [0; EXTENDED_REQUEST_HEADER_LEN];
                input.read_exact(&mut header)?;
                RequestHeader::decode_extended(&header)?
            }
        })
    }

    pub(super) fn job(
        &self,
        request: RequestHeader,
        command: Result<Command, ErrorValue>,
        buffer: Option<Buffer>,
    ) -> Job {
        Job::new(request, command, buffer, &self.negotiated, &self.replies)
    }

    /// Reads a long payload piece by piece, and hands each piece to the device as soon as it is
    /// there.
    fn receive_pieces(
        &self,
        input: &mut BufReader<Incoming<'_>>,
        whole: Arc<Whole>,
        pieces: impl Iterator<Item = Range<u64>>,
    ) -> Result<(), End> {
        let result = self.hand_out_pieces(input, &whole, pieces);
        if let Err(lost) = &result {
            whole.lost(lost);
        }
        whole.let_go(&mut Batch::default());
        Ok(result?)
    }

    fn hand_out_pieces(
        &self,
        input: &mut BufReader<Incoming<'_>>,
        whole: &Arc<Whole>,
        pieces: impl Iterator<Item = Range<u64>>,
    ) -> io::Result<()> {
        for piece in pieces {
            let mut buffer = self.buffers.take((piece.end - piece.start) as usize);
            read_payload(input, &mut buffer)?;
            let (data, completion) = whole.write_piece(piece.start, buffer);
            let request = block_device_traits::Request::Write { offset: piece.start, data, fua: false };
            self.device.submit(request, completion);
        }
        Ok(())
    }
}

/// Takes the part of the payload that is in the buffer already, and reads the rest past the buffer.
fn read_payload(input: &mut BufReader<Incoming<'_>>, payload: &mut [u8]) -> io::Result<()> {
    let ahead = input.buffer().len().min(payload.len());
    let (first, rest) = payload.split_at_mut(ahead);
    first.copy_from_slice(&input.buffer()[..ahead]);
    input.consume(ahead);
    input.get_mut().read_whole(rest)
}

/// Skips the payload of a refused request, so that the next header is found.
fn drain(input: &mut BufReader<Incoming<'_>>, length: u64) -> Result<(), End> {
    if length > MAX_DRAIN {
        return Err(PayloadTooLong(length).into());
    }
    match io::copy(&mut input.take(length), &mut io::sink())? {
        skipped if skipped == length => Ok(()),
        _ => Err(End::Lost(io::ErrorKind::UnexpectedEof.into())),
    }
}
