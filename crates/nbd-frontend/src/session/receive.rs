// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading requests, with the read side held.

use std::io::{self, Read};

use block_device::BlockDevice;
use nbd_wire::{BadMagic, Command, Errno, REQUEST_LEN, Request};

use super::Session;
use crate::pool::Buffer;

/// A refused WRITE with a longer payload, in bytes, is taken for an attack rather than read to its end.
const MAX_DRAIN: u32 = 64 << 20;

/// A request that has been read, with its payload.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) command: Result<Command, Errno>,
    /// What is to be written, or room for what is to be read.
    pub(super) buffer: Buffer,
}

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
    #[error("the client sent a WRITE of {0} bytes")]
    TooLong(u32),
}

impl<D: BlockDevice> Session<'_, D> {
    /// Reads one request and its payload. Waits for room before the payload is read, and before a READ is handed out.
    pub(super) fn receive(&self) -> Result<Job, End> {
        if self.control.is_stopping() {
            return Err(End::Stopping);
        }
        let mut socket = &self.control.socket;
        let mut header = [0; REQUEST_LEN];
        socket.read_exact(&mut header)?;
        let request = Request::decode(&header)?;
        let command = request.check(self.export);
        let room = match command {
            Ok(Command::Disconnect) => return Err(End::Disconnect),
            Ok(Command::Read { length, .. } | Command::Write { length, .. }) => length as usize,
            _ => 0,
        };
        let mut buffer = self.pool.take(room);
        match command {
            Ok(Command::Write { .. }) => socket.read_exact(&mut buffer)?,
            Ok(_) => {}
            Err(_) => self.drain(request.payload_len())?,
        }
        Ok(Job { request, command, buffer })
    }

    /// Skips the payload of a refused request, so that the next header is found.
    fn drain(&self, length: u32) -> Result<(), End> {
        if length > MAX_DRAIN {
            return Err(End::TooLong(length));
        }
        let length = u64::from(length);
        match io::copy(&mut (&self.control.socket).take(length), &mut io::sink())? {
            skipped if skipped == length => Ok(()),
            _ => Err(End::Lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}
