// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request on its way through the device.

use std::ops::Range;
use std::sync::Arc;

use block_device::{Batch, Completion, Extent};
use buffer_pool::{Buffer, Lease};
use bytes::Bytes;
use nbd_wire::{Chunk, Command, Context, ErrorValue, Negotiated, RequestHeader};

use super::replies::Replies;
use super::reply::Reply;
use crate::export::error_value;

/// A request that has been read. It is answered in any case: if it is dropped, by an error.
pub(super) struct Job {
    pub(super) request: RequestHeader,
    pub(super) command: Result<Command, ErrorValue>,
    /// The chunks of its reply, where it gets any.
    chunk: Option<Chunk>,
    /// What is to be written, or room for what is to be read.
    buffer: Option<Buffer>,
    /// The parts of the buffer that are zero without having been filled.
    holes: Vec<Range<usize>>,
    /// For a buffer that the device has now.
    lease: Option<Lease>,
    replies: Arc<Replies>,
    is_answered: bool,
}

impl Job {
    /// Counts as in flight from now on.
    pub(super) fn new(
        request: RequestHeader,
        command: Result<Command, ErrorValue>,
        buffer: Option<Buffer>,
        negotiated: &Negotiated<'_>,
        replies: &Arc<Replies>,
    ) -> Self {
        replies.started();
        Self {
            request,
            command,
            chunk: negotiated.chunk(&request),
            buffer,
            holes: Vec::new(),
            lease: None,
            replies: Arc::clone(replies),
            is_answered: false,
        }
    }

    pub(super) fn take_data(&mut self) -> Bytes {
        let Some(buffer) = self.buffer.take() else { return Bytes::new() };
        let (buffer, lease) = buffer.uncounted();
        self.lease = Some(lease);
        Bytes::from_owner(buffer)
    }

    /// How many contexts a BLOCK_STATUS is about.
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
            self.answer_error(error, &text);
        }
        self.replies.send();
    }

    /// Answers what needs no device.
    pub(super) fn succeed(mut self) {
        self.answer_done();
        self.replies.send();
    }

    /// Answers a BLOCK_STATUS.
    pub(super) fn complete_status(
        mut self,
        result: block_device::Result<Vec<(Context, Vec<Extent>)>>,
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
                self.is_answered = true;
                self.replies.push(replies, false);
            }
            // No context is selected without chunks, so there is always one.
            (Ok(_), None) => self.answer_error(ErrorValue::Inval, "no metadata context is selected"),
            (Err(error), _) => self.fail(&error),
        }
    }

    fn answer_done(&mut self) {
        let reply = match self.chunk {
            None => Reply::simple(self.request.cookie, Ok(None)),
            Some(chunk) => Reply::done(chunk),
        };
        self.answer(reply, false);
    }

    /// What was read is there.
    fn answer_content(&mut self, buffer: Buffer) {
        match self.chunk {
            None => self.answer(Reply::simple(self.request.cookie, Ok(Some(buffer))), false),
            Some(chunk) if self.holes.is_empty() => {
                self.answer(Reply::content(chunk, self.request.offset, buffer), false);
            }
            Some(chunk) => {
                let holes = std::mem::take(&mut self.holes);
                let replies = Reply::content_with_holes(chunk, self.request.offset, buffer, holes);
                self.is_answered = true;
                self.replies.push(replies, false);
            }
        }
    }

    fn answer_error(&mut self, error: ErrorValue, text: &str) {
        let reply = match self.chunk {
            None => Reply::simple(self.request.cookie, Err(error)),
            Some(chunk) => Reply::error(chunk, error, text),
        };
        self.answer(reply, true);
    }

    fn answer(&mut self, reply: Reply, is_error: bool) {
        self.is_answered = true;
        self.replies.push([reply], is_error);
    }

    /// The device's fault.
    fn fail(&mut self, why: &block_device::Error) {
        let error = self.command.map_or_else(|error| error, |command| error_value(why.errno(), command));
        let RequestHeader { offset, length, .. } = self.request;
        let (id, name) = (self.replies.id(), self.request.name());
        // That a fast zero is not possible is an answer, not a failure.
        let level = if error == ErrorValue::NotSup { log::Level::Debug } else { log::Level::Error };
        log::log!(level, "client {id}: {name} of {length} bytes at {offset}: {error}: {why}");
        self.answer_error(error, &why.to_string());
    }

    /// Whether zeroes may be told instead of sent.
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

    fn complete(mut self: Box<Self>, result: block_device::Result<()>, batch: &mut Batch) {
        batch.at_end(&self.replies);
        match (result, self.command) {
            (Ok(()), Ok(command)) => {
                self.replies.count_bytes(command);
                match self.buffer.take() {
                    Some(buffer) => self.answer_content(buffer),
                    None => self.answer_done(),
                }
            }
            (Err(error), _) => self.fail(&error),
            (Ok(()), Err(error)) => self.answer_error(error, "the request is not possible"),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.is_answered {
            self.fail(&block_device::Error::new(
                block_device::Errno::Io,
                "bug: the device has dropped the request",
            ));
            self.replies.send();
        }
    }
}
