// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calling the device, with no lock held.

use std::panic::{AssertUnwindSafe, catch_unwind};

use block_device::{BlockDevice, ZeroFlags};
use bytes::Bytes;
use nbd_wire::{Command, CommandFlags, Errno, Request};

use super::{Job, Session};
use crate::export::wire_errno;
use crate::panic_message;
use crate::pool::Buffer;
use crate::stats::count;

impl<D: BlockDevice> Session<'_, D> {
    /// The payload of the reply, or the error to answer.
    pub(super) fn execute(&self, job: Job) -> Result<Option<Buffer>, Errno> {
        let request = job.request;
        let command = job.command.inspect_err(|errno| self.refused(&request, *errno))?;
        // The device may be left in any state by a panic, but it is the device's state, and the next request finds out.
        match catch_unwind(AssertUnwindSafe(|| self.call(command, job.buffer))) {
            Ok(Ok(payload)) => Ok(payload),
            Ok(Err(e)) => {
                let errno = wire_errno(e.errno(), command);
                self.failed(&request, errno, &e);
                Err(errno)
            }
            Err(panic) => {
                self.failed(&request, Errno::Io, &format_args!("panic: {}", panic_message(&*panic)));
                Err(Errno::Io)
            }
        }
    }

    fn call(&self, command: Command, mut buffer: Buffer) -> block_device::Result<Option<Buffer>> {
        match command {
            Command::Read { offset, .. } => {
                self.service.device.read(offset, &mut buffer)?;
                count(&self.service.counters.bytes_read, buffer.len());
                return Ok(Some(buffer));
            }
            Command::Write { offset, length, fua } => {
                self.service.device.write(offset, Bytes::from_owner(buffer), fua)?;
                count(&self.service.counters.bytes_written, length as usize);
            }
            Command::Zero { offset, length, flags } => {
                self.service.device.zero(offset, length.into(), zero_flags(flags))?;
            }
            Command::Flush => self.service.device.flush()?,
            Command::Nothing | Command::Disconnect => {}
        }
        Ok(None)
    }

    /// The client's fault.
    fn refused(&self, request: &Request, errno: Errno) {
        let Request { offset, length, flags, .. } = request;
        let (id, name) = (self.control.id, request.name());
        log::debug!(
            "client {id}: refused {name} of {length} bytes at {offset}, flags {:#x}: {errno}",
            flags.bits()
        );
    }

    /// The device's fault.
    fn failed(&self, request: &Request, errno: Errno, why: &dyn std::fmt::Display) {
        let Request { offset, length, .. } = request;
        let (id, name) = (self.control.id, request.name());
        // That a fast zero is not possible is an answer, not a failure.
        let level = if errno == Errno::NotSup { log::Level::Debug } else { log::Level::Error };
        log::log!(level, "client {id}: {name} of {length} bytes at {offset}: {errno}: {why}");
    }
}

fn zero_flags(flags: CommandFlags) -> ZeroFlags {
    ZeroFlags {
        fua: flags.contains(CommandFlags::FUA),
        no_hole: flags.contains(CommandFlags::NO_HOLE),
        fast: flags.contains(CommandFlags::FAST_ZERO),
    }
}
