// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request on its way through the device.

use std::ops::Range;
use std::sync::Arc;

use block_device_traits::{Batch, Completion, Extent};
use bytes::Bytes;
use io_buffer_pool::{Buffer, Lease};
use nbd_wire::{Chunk, Command, Context, ErrorValue, Negotiated, RequestHeader};

use super::replies::Replies;
use super::reply::{Reply, Slice};
use crate::export::error_value;

/// A request that has been read. It is answered in any case: if it is dropped, by an error.
pub(super) struct Job {
    pub(super) request: RequestHeader,
    pub(super) command: Result<Command, ErrorValue>,
    /// The chunks of its reply, where it gets any.
    chunk: Option<Chunk>,
    /// The data to be written, or room for the data to be read.
    buffer: Option<Buffer>,
    /// The parts of the buffer that are zero without having been filled.
    holes: Vec<Range<usize>>,
    /// For a buffer that the device has now.
    lease: Option<Lease>,
    replies: Arc<Replies>,
    /// It may change the disk until this is dropped.
    is_change: bool,
    is_answered: bool,
}

impl Job {
    /// Counts as in flight from now on, and as a change of the disk if it is one.
    pub(super) fn new(
        request: RequestHeader,
        command: Result<Command, ErrorValue>,
        buffer: Option<Buffer>,
        negotiated: &Negotiated<'_>,
        replies: &Arc<Replies>,
    ) -> Self {
        let is_change =
            matches!(command, Ok(Command::Write { .. } | Command::Zero { .. } | Command::Trim { .. }));
        replies.started(is_change);
        Self {
            request,
            command,
            chunk: negotiated.chunk(&request),
            buffer,
            holes: Vec::new(),
            lease: None,
            replies: Arc::clone(replies),
            is_change,
            is_answered: false,
        }
    }

    pub(super) fn take_data(&mut self) -> Bytes {
        let Some(buffer) = self.buffer.take() else { return Bytes::new() };
        let (buffer, lease) = buffer.uncounted();
        self.lease = Some(lease);
        Bytes::from_owner(buffer)
    }

    /// Returns the number of contexts that a BLOCK_STATUS is about.
    pub(super) fn contexts(&self) -> usize {
        match self.command {
            Ok(Command::BlockStatus { contexts, .. }) => contexts.len(),
            Ok(_) | Err(_) => 0,
        }
    }

    /// Answers what was found to be wrong with it.
    pub(super) fn refuse(mut self) {
        if let Err(error) = self.command {
            let RequestHeader { offset, length, flags, .. } = self.request;
            let (id, name, flags) = (self.replies.id(), self.request.name(), flags.bits());
            let text = format!("refused {name} of {length} bytes at {offset}, flags {flags:#x}");
            log::debug!("client {id}: {text}: {error}");
            self.answer_error(error, &text, None);
        }
        self.replies.send();
    }

    /// Answers what needs no device.
    pub(super) fn succeed(mut self) {
        self.answer_done();
        self.replies.send();
    }

    /// Answers a READ with what was read before it came.
    pub(super) fn succeed_with(mut self, slices: Vec<Slice>) {
        match self.chunk {
            None => self.push(Reply::simple_in_parts(self.request.cookie, slices), false),
            Some(chunk) => self.push(Reply::chunks(chunk, slices), false),
        }
        self.replies.send();
    }

    /// Puts a part of what was read in line, which has chunks; more follows.
    pub(super) fn add_content(
        &self,
        offset: u64,
        buffer: Buffer,
        holes: Vec<Range<usize>>,
        batch: &mut Batch,
    ) {
        batch.at_end(&self.replies);
        if let Some(chunk) = self.chunk {
            match holes.is_empty() {
                true => self.replies.add([Reply::content(chunk, offset, buffer, false)]),
                false => self.replies.add(Reply::slice(chunk, Slice::whole(offset, buffer, holes), false)),
            }
        }
    }

    /// Answers what went to the device in pieces, or tells at which offset one of them has failed.
    pub(super) fn end_pieces(
        mut self,
        result: std::result::Result<(), (u64, block_device_traits::Error)>,
        batch: &mut Batch,
    ) {
        match result {
            Err((offset, error)) if matches!(self.command, Ok(Command::Read { .. })) => {
                batch.at_end(&self.replies);
                self.fail(&error, Some(offset));
            }
            result => Box::new(self).complete(result.map_err(|(_, error)| error), batch),
        }
    }

    /// Answers a BLOCK_STATUS.
    pub(super) fn complete_status(
        mut self,
        result: block_device_traits::Result<Vec<(Context, Vec<Extent>)>>,
        batch: &mut Batch,
    ) {
        batch.at_end(&self.replies);
        match (result, self.chunk) {
            (Ok(statuses), Some(chunk)) => {
                let last = statuses.len().saturating_sub(1);
                let replies = statuses
                    .iter()
                    .enumerate()
                    .map(|(at, (context, extents))| Reply::status(chunk, *context, extents, at == last));
                self.push(replies, false);
            }
            // No context is selected without chunks, so there is always one.
            (Ok(_), None) => self.answer_error(ErrorValue::Inval, "no metadata context is selected", None),
            (Err(error), _) => self.fail(&error, None),
        }
    }

    fn answer_done(&mut self) {
        let reply = match self.chunk {
            None => Reply::simple(self.request.cookie, Ok(None)),
            Some(chunk) => Reply::done(chunk),
        };
        self.answer(reply, false);
    }

    /// Answers a READ: its content is there.
    fn answer_content(&mut self, buffer: Buffer) {
        match self.chunk {
            None => self.answer(Reply::simple(self.request.cookie, Ok(Some(buffer))), false),
            Some(chunk) if self.holes.is_empty() => {
                self.answer(Reply::content(chunk, self.request.offset, buffer, true), false);
            }
            Some(chunk) => {
                let slice = Slice::whole(self.request.offset, buffer, std::mem::take(&mut self.holes));
                self.push(Reply::slice(chunk, slice, true), false);
            }
        }
    }

    fn answer_error(&mut self, error: ErrorValue, text: &str, offset: Option<u64>) {
        let reply = match (self.chunk, offset) {
            (None, _) => Reply::simple(self.request.cookie, Err(error)),
            (Some(chunk), None) => Reply::error(chunk, error, text),
            (Some(chunk), Some(offset)) => Reply::error_at(chunk, error, text, offset),
        };
        self.answer(reply, true);
    }

    fn answer(&mut self, reply: Reply, is_error: bool) {
        self.push([reply], is_error);
    }

    /// The answer is there.
    fn push(&mut self, replies: impl IntoIterator<Item = Reply>, is_error: bool) {
        self.is_answered = true;
        self.replies.push(&self.request, replies, is_error);
    }

    /// The device's fault, perhaps at one offset.
    fn fail(&mut self, why: &block_device_traits::Error, at: Option<u64>) {
        let error = self.command.map_or_else(|error| error, |command| error_value(why.errno(), command));
        let why = why.to_string();
        self.replies.tell_failure(&self.request, error, &why);
        self.answer_error(error, &why, at);
    }

    /// The server stops, and the device is not asked any more.
    pub(super) fn fail_stopping(mut self) {
        self.fail(
            &block_device_traits::Error::new(block_device_traits::Errno::Shutdown, "the server stops"),
            None,
        );
        self.replies.send();
    }

    /// Returns true if zeroes may be told instead of sent.
    fn may_have_holes(&self) -> bool {
        self.chunk.is_some() && matches!(self.command, Ok(Command::Read { df: false, .. }))
    }
}

impl Completion for Job {
    fn buffer(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }

    fn fill_zeroes(&mut self, range: Range<usize>) {
        if self.may_have_holes() {
            self.holes.push(range);
        } else {
            self.buffer()[range].fill(0);
        }
    }

    fn is_wanted(&self) -> bool {
        self.replies.is_wanted()
    }

    fn complete(mut self: Box<Self>, result: block_device_traits::Result<()>, batch: &mut Batch) {
        batch.at_end(&self.replies);
        match (result, self.command) {
            (Ok(()), Ok(_)) => match self.buffer.take() {
                Some(buffer) => self.answer_content(buffer),
                None => self.answer_done(),
            },
            (Err(error), _) => self.fail(&error, None),
            (Ok(()), Err(error)) => self.answer_error(error, "the request is not possible", None),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.is_answered {
            let why = "bug: the device has dropped the request";
            self.fail(&block_device_traits::Error::new(block_device_traits::Errno::Io, why), None);
            self.replies.send();
        }
        if self.is_change {
            self.replies.change_ended();
        }
    }
}
