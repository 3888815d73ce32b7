// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request on its way through the device.

use std::mem;
use std::sync::Arc;

use block_device::{Batch, Completion};
use buffer_pool::{Buffer, Lease};
use bytes::Bytes;
use nbd_wire::{Command, ErrorValue, RequestHeader};

use super::replies::Replies;
use crate::export::error_value;

/// A request that has been read. It is answered in any case: if it is dropped, by an error.
pub(super) struct Job {
    pub(super) request: RequestHeader,
    pub(super) command: Result<Command, ErrorValue>,
    /// What is to be written, or room for what is to be read.
    buffer: Option<Buffer>,
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
        replies: &Arc<Replies>,
    ) -> Self {
        replies.started();
        Self { request, command, buffer, lease: None, replies: Arc::clone(replies), is_answered: false }
    }

    pub(super) fn take_data(&mut self) -> Bytes {
        let Some(buffer) = self.buffer.take() else { return Bytes::new() };
        let (buffer, lease) = buffer.uncounted();
        self.lease = Some(lease);
        Bytes::from_owner(buffer)
    }

    /// Answers what was found to be wrong with it.
    pub(super) fn refuse(mut self) {
        if let Err(error) = self.command {
            let RequestHeader { offset, length, flags, .. } = self.request;
            let (id, name, flags) = (self.replies.id(), self.request.name(), flags.bits());
            log::debug!(
                "client {id}: refused {name} of {length} bytes at {offset}, flags {flags:#x}: {error}"
            );
            self.answer(Err(error));
        }
        self.replies.send();
    }

    /// Answers what needs no device.
    pub(super) fn succeed(mut self) {
        self.answer(Ok(None));
        self.replies.send();
    }

    fn answer(&mut self, result: Result<Option<Buffer>, ErrorValue>) {
        self.is_answered = true;
        self.replies.push(self.request.cookie, result);
    }

    /// The device's fault.
    fn fail(&mut self, error: ErrorValue, why: &dyn std::fmt::Display) {
        let RequestHeader { offset, length, .. } = self.request;
        let (id, name) = (self.replies.id(), self.request.name());
        // That a fast zero is not possible is an answer, not a failure.
        let level = if error == ErrorValue::NotSup { log::Level::Debug } else { log::Level::Error };
        log::log!(level, "client {id}: {name} of {length} bytes at {offset}: {error}: {why}");
        self.answer(Err(error));
    }
}

impl Completion for Job {
    fn buffer(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }

    fn complete(mut self: Box<Self>, result: block_device::Result<()>, batch: &mut Batch) {
        batch.at_end(&self.replies);
        match (result, self.command) {
            (Ok(()), Ok(command)) => {
                let payload = mem::take(&mut self.buffer);
                self.replies.count_bytes(command);
                self.answer(Ok(payload));
            }
            (Err(error), Ok(command)) => self.fail(error_value(error.errno(), command), &error),
            (_, Err(error)) => self.answer(Err(error)),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.is_answered {
            self.fail(ErrorValue::Io, &"bug: the device has dropped the request");
            self.replies.send();
        }
    }
}
