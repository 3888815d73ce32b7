// SPDX-License-Identifier: MIT OR Apache-2.0
//! The negotiation on a socket, against a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use block_device::QueuedDevice;
use nbd_wire::{Close, Contexts, Export, Features, Handshake, Negotiated, Progress};
use socket2::Socket;

use crate::Config;

/// Why a client did not come to the transmission phase.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    Close(#[from] Close),
    #[error("the client took too long to negotiate")]
    TooSlow,
    #[error("the client left during the negotiation")]
    Left,
    #[error("the client gave way to another during the negotiation")]
    GaveWay,
    #[error("the connection broke during the negotiation: {0}")]
    Broken(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The former is what a socket's timeout looks like.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::TooSlow,
            _ => Self::Broken(error),
        }
    }
}

/// Negotiates until the client has chosen one of `exports` or the time for that is over. Before the client is told that it has
/// got the export, and before the device is asked for something that takes time, `keep_place` tells whether it may stay.
pub(crate) fn negotiate<'e>(
    socket: &Socket,
    exports: &'e [Export],
    device: &impl QueuedDevice,
    config: &Config,
    keep_place: impl Fn() -> bool,
) -> Result<Negotiated<'e>, Failed> {
    let mut deadline = Instant::now().checked_add(config.negotiation_timeout);
    let mut features = Features::STRUCTURED_REPLY;
    features.set(Features::EXTENDED_HEADERS, config.extended_headers);
    let mut handshake = Handshake::new(exports).with_features(features);
    let mut output = Handshake::greeting().to_vec();
    let mut chunk = [0; 4096];
    loop {
        send(socket, deadline, &mut output)?;
        // Never more than is wanted: the bytes behind it are requests.
        let wanted = handshake.wanted().min(chunk.len());
        let mut input = receive(socket, deadline, &mut chunk[..wanted])?;
        let mut progress = handshake.feed(&mut input, &mut output);
        if let Progress::LookUp { contexts, .. } = progress {
            // Whoever comes this far means it, and can't be told to leave while the device is asked.
            if !keep_place() {
                return Err(Failed::GaveWay);
            }
            let present = look_up(device, contexts, &mut deadline);
            progress = handshake.looked_up(present, &mut output);
        }
        if matches!(progress, Progress::Transmission(_)) && !keep_place() {
            return Err(Failed::GaveWay);
        }
        if progress != Progress::Continue {
            send(socket, deadline, &mut output)?;
        }
        match progress {
            // TLS is not offered, so it never starts, and what was to be looked up was.
            Progress::Continue | Progress::StartTls | Progress::LookUp { .. } => {}
            Progress::Close(reason) => return Err(reason.into()),
            Progress::Transmission(negotiated) => {
                socket.set_read_timeout(None)?;
                socket.set_write_timeout(None)?;
                return Ok(negotiated);
            }
        }
    }
}

/// Those of `contexts` that the device has. The client is given the time that it takes to find out.
fn look_up(device: &impl QueuedDevice, contexts: Contexts, deadline: &mut Option<Instant>) -> Contexts {
    let start = Instant::now();
    let present = contexts.filter(|context| device.has_context(context.index));
    *deadline = deadline.and_then(|deadline| deadline.checked_add(start.elapsed()));
    present
}

fn send(mut socket: &Socket, deadline: Option<Instant>, output: &mut Vec<u8>) -> Result<(), Failed> {
    if !output.is_empty() {
        socket.set_write_timeout(remaining(deadline)?)?;
        socket.write_all(output)?;
        output.clear();
    }
    Ok(())
}

fn receive<'b>(
    mut socket: &Socket,
    deadline: Option<Instant>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], Failed> {
    loop {
        socket.set_read_timeout(remaining(deadline)?)?;
        match socket.read(buffer) {
            Ok(0) => return Err(Failed::Left),
            Ok(length) => return Ok(&buffer[..length]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn remaining(deadline: Option<Instant>) -> Result<Option<Duration>, Failed> {
    let Some(deadline) = deadline else { return Ok(None) };
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(Failed::TooSlow),
        remaining => Ok(Some(remaining)),
    }
}
