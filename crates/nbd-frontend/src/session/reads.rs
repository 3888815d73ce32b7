// SPDX-License-Identifier: MIT OR Apache-2.0
//! READs: from what was read ahead, in pieces, or as a whole.

use std::io::BufReader;
use std::sync::Arc;

use block_device_traits::{Batch, QueuedDevice, piece_end};
use nbd_wire::{Command, ErrorValue, ReplyStyle, RequestHeader};

use super::Session;
use super::pieces::Whole;
use super::queue_depth::QueueDepth;
use super::read_ahead::ReadAhead;
use super::reply::Slice;
use crate::transport::Incoming;

/// A READ that was found to be possible.
#[derive(Clone, Copy)]
pub(super) struct ReadRequest {
    pub(super) request: RequestHeader,
    pub(super) offset: u64,
    pub(super) length: u32,
    /// In one chunk.
    pub(super) df: bool,
    /// Nothing else of this client is in flight.
    pub(super) is_alone: bool,
}

impl<D: QueuedDevice> Session<'_, D> {
    /// Answers a READ, or hands it to the device, and reads ahead.
    pub(super) fn receive_read(
        &self,
        read: ReadRequest,
        input: &BufReader<Incoming<'_>>,
        depth: &mut QueueDepth,
        ahead: &mut ReadAhead<'_, D>,
    ) {
        let ReadRequest { request, offset, length, df, is_alone } = read;
        let command: Result<Command, ErrorValue> = Ok(Command::Read { offset, length, df });
        ahead.note(&(offset..offset + u64::from(length)), is_alone);
        let may_have_waited = !ahead.is_empty();
        if let Some(slices) = self.take_ahead(&read, input, ahead) {
            self.job(request, command, None).succeed_with(slices);
        } else if may_have_waited && self.control.is_stopping() {
            // For a server that doesn't answer, perhaps: it is not to be waited for once more.
            self.job(request, command, None).fail_stopping();
        } else if u64::from(length) > self.longest_read() && !df && self.has_chunks() {
            self.hand_out_read(Whole::new(self.job(request, command, None), length), offset);
        } else {
            let buffer = self.buffers.take(length as usize);
            self.start(self.job(request, command, Some(buffer)), input, depth);
        }
        ahead.go_on(length.into());
    }

    /// The content, if it was read ahead.
    fn take_ahead(
        &self,
        read: &ReadRequest,
        input: &BufReader<Incoming<'_>>,
        ahead: &mut ReadAhead<'_, D>,
    ) -> Option<Vec<Slice>> {
        if ahead.is_empty() {
            return None;
        }
        // It isn't answered yet, so a client that has sent more has more than one request in
        // flight.
        if !read.is_alone || has_more(input) {
            ahead.forget();
            return None;
        }
        if read.df {
            // Else it would be read ahead once more for each.
            ahead.forget();
            return None;
        }
        ahead.take(&(read.offset..read.offset + u64::from(read.length)))
    }

    /// Hands a long READ to the device piece by piece.
    fn hand_out_read(&self, whole: Arc<Whole>, mut offset: u64) {
        let end = offset + u64::from(whole.length());
        while offset < end {
            let piece_end = piece_end(&(offset..end), self.longest_read());
            let buffer = self.buffers.take((piece_end - offset) as usize);
            let piece = whole.read_piece(offset, buffer);
            self.device.submit(block_device_traits::Request::Read { offset }, piece);
            offset = piece_end;
        }
        whole.let_go(&mut Batch::default());
    }

    pub(super) fn has_chunks(&self) -> bool {
        self.negotiated.style != ReplyStyle::Simple
    }
}

/// Returns true if the client has sent something that was not looked at.
pub(super) fn has_more(input: &BufReader<Incoming<'_>>) -> bool {
    !input.buffer().is_empty() || input.get_ref().has_more()
}
