// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading requests.

use std::io::{self, BufRead, BufReader, Read};

use block_device::QueuedDevice;
use nbd_wire::{BadMagic, Command, REQUEST_LEN, Request};
use rustix::net::RecvFlags;
use socket2::Socket;

use super::{Job, Session};

/// A refused WRITE with a longer payload, in bytes, is taken for an attack rather than read to its end.
const MAX_DRAIN: u32 = 64 << 20;

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

impl<D: QueuedDevice> Session<'_, D> {
    /// Reads one request and its payload. Waits for room before the payload is read, and before a READ is handed out.
    pub(super) fn receive(&self, input: &mut BufReader<&Socket>) -> Result<Job, End> {
        self.replies.wait_for_room();
        if self.control.is_stopping() {
            return Err(End::Stopping);
        }
        let mut header = [0; REQUEST_LEN];
        input.read_exact(&mut header)?;
        let request = Request::decode(&header)?;
        let command = request.check(self.export);
        let mut buffer = None;
        match command {
            Ok(Command::Disconnect) => return Err(End::Disconnect),
            Ok(Command::Read { length, .. }) => buffer = Some(self.buffers.take(length as usize)),
            Ok(Command::Write { length, .. }) => {
                read_payload(input, buffer.insert(self.buffers.take(length as usize)))?;
            }
            Ok(_) => {}
            Err(_) => drain(input, request.payload_len())?,
        }
        Ok(Job::new(request, command, buffer, &self.replies))
    }
}

/// What has been read ahead, and the rest straight from the socket, with few system calls.
fn read_payload(input: &mut BufReader<&Socket>, payload: &mut [u8]) -> io::Result<()> {
    let ahead = input.buffer().len().min(payload.len());
    let (first, mut rest) = payload.split_at_mut(ahead);
    first.copy_from_slice(&input.buffer()[..ahead]);
    input.consume(ahead);
    while !rest.is_empty() {
        match rustix::net::recv(*input.get_ref(), &mut *rest, RecvFlags::WAITALL) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((n, _)) => rest = &mut rest[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Skips the payload of a refused request, so that the next header is found.
fn drain(input: &mut BufReader<&Socket>, length: u32) -> Result<(), End> {
    if length > MAX_DRAIN {
        return Err(End::TooLong(length));
    }
    let length = u64::from(length);
    match io::copy(&mut input.take(length), &mut io::sink())? {
        skipped if skipped == length => Ok(()),
        _ => Err(End::Lost(io::ErrorKind::UnexpectedEof.into())),
    }
}
