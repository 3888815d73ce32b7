// SPDX-License-Identifier: MIT OR Apache-2.0
//! The negotiation on a socket, against a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use block_device_traits::QueuedDevice;
use nbd_wire::{Close, Contexts, Features, Handshake, Negotiated, Progress};
use socket2::Socket;

use crate::Config;
use crate::exports::Exports;
use crate::transport::Transport;

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
    #[error("TLS failed during the negotiation: {0}")]
    Tls(io::Error),
    #[error("the connection broke during the negotiation: {0}")]
    Broken(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut => Self::TooSlow,
            ErrorKind::UnexpectedEof => Self::Left,
            // Sockets take all data for valid.
            ErrorKind::InvalidData => Self::Tls(error),
            _ => Self::Broken(error),
        }
    }
}

/// Negotiates until the client has chosen one of `exports` or the time for that is over. The
/// transport becomes TLS if the client starts that. Before the client is told that it has got the
/// export, and before the device is asked for something that takes time, `keep_place` tells whether
/// it may stay.
pub(crate) fn negotiate<'e>(
    socket: &Socket,
    transport: &mut Transport,
    exports: &'e Exports<impl QueuedDevice>,
    config: &Config,
    keep_place: impl Fn() -> bool,
) -> Result<Negotiated<'e>, Failed> {
    let mut stream = Timed { socket, deadline: Instant::now().checked_add(config.negotiation_timeout) };
    let mut handshake =
        Handshake::new(exports.as_slice()).with_features(features(config)).with_tls(config.tls.mode());
    let mut output = Handshake::greeting().to_vec();
    let mut chunk = [0; 4096];
    loop {
        send(transport, &mut stream, &mut output)?;
        // Never more than is wanted: the bytes behind it are requests, or belong to TLS.
        let wanted = handshake.wanted().min(chunk.len());
        let mut input = receive(transport, &mut stream, &mut chunk[..wanted])?;
        let mut progress = handshake.feed(&mut input, &mut output);
        if let Progress::LookUp { export, contexts } = progress {
            // Whoever comes this far means it, and can't be told to leave while the device is
            // asked.
            if !keep_place() {
                return Err(Failed::GaveWay);
            }
            let present = look_up(exports.device(export), contexts, &mut stream.deadline);
            progress = handshake.looked_up(present, &mut output);
        }
        if matches!(progress, Progress::Transmission(_)) && !keep_place() {
            return Err(Failed::GaveWay);
        }
        if progress != Progress::Continue {
            send(transport, &mut stream, &mut output)?;
        }
        match progress {
            // Contexts that had to be looked up have been by now.
            Progress::Continue | Progress::LookUp { .. } => {}
            Progress::StartTls => {
                *transport = config.tls.start(&mut stream)?;
                handshake.tls_started();
            }
            Progress::Close(reason) => return Err(reason.into()),
            Progress::Transmission(negotiated) => {
                socket.set_read_timeout(None)?;
                socket.set_write_timeout(None)?;
                return Ok(negotiated);
            }
        }
    }
}

fn features(config: &Config) -> Features {
    let mut features = Features::empty();
    features.set(Features::STRUCTURED_REPLY, config.structured_replies);
    features.set(Features::EXTENDED_HEADERS, config.structured_replies && config.extended_headers);
    features.set(Features::META_CONTEXT, config.structured_replies && config.meta_contexts);
    features
}

/// Finds out which of `contexts` the device has. The client is given the time that this takes.
fn look_up(device: &impl QueuedDevice, contexts: Contexts, deadline: &mut Option<Instant>) -> Contexts {
    let start = Instant::now();
    let present = contexts.filter(|context| device.has_context(context.index));
    *deadline = deadline.and_then(|deadline| deadline.checked_add(start.elapsed()));
    present
}

fn send(transport: &Transport, stream: &mut Timed<'_>, output: &mut Vec<u8>) -> Result<(), Failed> {
    if !output.is_empty() {
        transport.negotiation_write(stream, output)?;
        output.clear();
    }
    Ok(())
}

fn receive<'b>(
    transport: &Transport,
    stream: &mut Timed<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], Failed> {
    match transport.negotiation_read(stream, buffer)? {
        0 => Err(Failed::Left),
        length => Ok(&buffer[..length]),
    }
}

/// A socket on which all that is read and written is done before the deadline, or fails with
/// `TimedOut`; however little comes at a time.
pub(crate) struct Timed<'c> {
    pub(crate) socket: &'c Socket,
    pub(crate) deadline: Option<Instant>,
}

impl Timed<'_> {
    fn remaining(&self) -> io::Result<Option<Duration>> {
        let Some(deadline) = self.deadline else { return Ok(None) };
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            // Sockets count in microseconds, and 0 means that they wait without an end.
            remaining => Ok(Some(remaining.max(Duration::from_micros(1)))),
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.remaining()?)?;
        uninterrupted(|| self.socket.read(buffer))
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.remaining()?)?;
        uninterrupted(|| self.socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tries again after a signal. A socket's timeout looks like a socket that does not wait.
fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            result => return result,
        }
    }
}
