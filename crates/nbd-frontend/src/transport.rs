// SPDX-License-Identifier: MIT OR Apache-2.0
//! The transport of a client's bytes: as they are, or through TLS.

use std::io::{self, IoSlice, Read, Write};
#[cfg(feature = "rustls")]
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};
use socket2::Socket;

#[cfg(feature = "rustls")]
use crate::tls::{Decrypted, TlsConnection};

/// The layer between a client's socket and NBD.
#[derive(Clone)]
pub(crate) enum Transport {
    /// Nothing.
    Plain,
    /// TLS, since STARTTLS.
    #[cfg(feature = "rustls")]
    Tls(Arc<TlsConnection>),
}

/// The input from a client in the transmission phase.
pub(crate) enum Incoming<'c> {
    Plain(&'c Socket),
    #[cfg(feature = "rustls")]
    Tls(Decrypted<'c>),
}

impl Transport {
    /// A part of the negotiation, from a stream that knows how long it may wait. 0 bytes are the
    /// end.
    pub(crate) fn negotiation_read(&self, stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain => stream.read(buffer),
            #[cfg(feature = "rustls")]
            Self::Tls(tls) => tls.read(stream, buffer),
        }
    }

    /// All of this, to a stream that knows how long it may wait.
    pub(crate) fn negotiation_write(&self, stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain => stream.write_all(bytes),
            #[cfg(feature = "rustls")]
            Self::Tls(tls) => tls.write_all(stream, bytes),
        }
    }

    /// Returns the stream that comes after the negotiation.
    pub(crate) fn incoming<'c>(&'c self, socket: &'c Socket) -> Incoming<'c> {
        match self {
            Self::Plain => Incoming::Plain(socket),
            #[cfg(feature = "rustls")]
            Self::Tls(tls) => Incoming::Tls(tls.decrypted(socket)),
        }
    }

    /// Sends the beginning of `parts`, and tells how many bytes that was. Only one thread may send
    /// at a time. After `WouldBlock`, which `DONTWAIT` asks for, the next call has to come with the
    /// same bytes, and may have more behind them.
    pub(crate) fn send(&self, socket: &Socket, parts: &[IoSlice<'_>], flags: SendFlags) -> io::Result<usize> {
        match self {
            Self::Plain => {
                let flags = flags | SendFlags::NOSIGNAL;
                Ok(sendmsg(socket, parts, &mut SendAncillaryBuffer::default(), flags)?)
            }
            #[cfg(feature = "rustls")]
            Self::Tls(tls) => tls.send(socket, parts, flags),
        }
    }

    /// Tells the client that nothing more is sent, where the transport has a way to do so.
    #[cfg_attr(
        not(feature = "rustls"),
        expect(unused_variables, reason = "a plain socket is shut, and that is all")
    )]
    pub(crate) fn close(&self, socket: &Socket) {
        match self {
            Self::Plain => {}
            #[cfg(feature = "rustls")]
            Self::Tls(tls) => tls.close(socket),
        }
    }
}

impl Incoming<'_> {
    /// Fills the buffer, with few system calls.
    pub(crate) fn read_whole(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        let socket = match self {
            Self::Plain(socket) => *socket,
            #[cfg(feature = "rustls")]
            Self::Tls(decrypted) => return decrypted.read_exact(buffer),
        };
        while !buffer.is_empty() {
            match recv(socket, &mut *buffer, RecvFlags::WAITALL) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((n, _)) => buffer = &mut buffer[n..],
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Returns true if there is something to be read at once.
    pub(crate) fn has_more(&self) -> bool {
        match self {
            Self::Plain(socket) => is_readable(socket),
            #[cfg(feature = "rustls")]
            Self::Tls(decrypted) => decrypted.has_more(),
        }
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "rustls")]
            Self::Tls(decrypted) => decrypted.read(buffer),
        }
    }
}

/// Returns true if a read would not wait.
pub(crate) fn is_readable(socket: &Socket) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    retry_on_intr(|| poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))) != Ok(0)
}
