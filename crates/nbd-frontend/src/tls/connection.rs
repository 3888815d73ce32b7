// SPDX-License-Identifier: MIT OR Apache-2.0
//! The TLS of one connection.
//!
//! rustls has one state for both directions, and does no I/O. It is behind a lock, which is never
//! held while somebody waits for the client:
//!
//! - **Reading.** Only the session's thread reads. It waits for the socket without the lock, in a
//!   buffer of its own ([`Decrypted`]); then it takes the lock, and has rustls decrypt what has
//!   come.
//! - **Writing.** Only one thread at a time sends
//!   ([`Transport::send`](crate::transport::Transport::send)), so records of several replies can't
//!   mix. With the lock, rustls encrypts up to 64 KiB, and the socket takes what it takes at once.
//!   Who may wait does so without the lock, and then tries again. So a client that does not read
//!   its replies keeps nobody from reading its requests.
//! - **What rustls has to say itself**, such as a new key or an alert, is put in front of what is
//!   sent next, and goes out at the end of the session at the latest. The reading thread never
//!   sends.
//!
//! Bytes count as sent when the socket has taken all records that they are in. Until then they stay
//! in the line of replies, so that what is known of a plain connection is true here as well: what
//! is in flight, what is held in memory, and when the session may end. rustls remembers what it has
//! encrypted of them, so that they are not encrypted again.
//!
//! A client can make nothing grow without bounds: rustls holds three records of what it has
//! received, or 64 KiB of a handshake; it allows no renegotiation, and 32 new keys for each
//! handshake or piece of data.
//!
//! A connection ends with close_notify in both directions, and one without it ends as an error:
//! somebody may have cut it. Nothing is lost by that, as requests and replies are as long as they
//! say.

use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};
use rustls::{ServerConfig, ServerConnection};
use socket2::Socket;

use crate::lock;
use crate::transport::is_readable;

/// The number of bytes that are read with one system call: four records.
const CIPHERTEXT: usize = 64 << 10;

/// The time that the client may take to read the end of the stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of TLS that both directions share.
pub(crate) struct TlsConnection {
    state: Mutex<State>,
}

struct State {
    connection: ServerConnection,
    /// The number of the bytes to be sent next that are in records already.
    encrypted: usize,
}

/// The decrypted input from a client in the transmission phase.
pub(crate) struct Decrypted<'c> {
    tls: &'c TlsConnection,
    socket: &'c Socket,
    ciphertext: Ciphertext,
}

/// Bytes that were read from the socket, and not given to rustls.
struct Ciphertext {
    buffer: Box<[u8]>,
    filled: Range<usize>,
    has_ended: bool,
}

impl TlsConnection {
    /// Makes the handshake on a stream that knows how long it may wait. `InvalidData` is an error
    /// of TLS itself.
    pub(crate) fn accept(config: &Arc<ServerConfig>, stream: &mut (impl Read + Write)) -> io::Result<Self> {
        let new = ServerConnection::new(Arc::clone(config));
        let mut connection = new.map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(stream)?;
        }
        Ok(Self { state: Mutex::new(State { connection, encrypted: 0 }) })
    }

    /// Reads from a stream that knows how long it may wait.
    pub(crate) fn read(&self, stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        lock(&self.state).decrypt(stream, buffer)
    }

    /// Writes to a stream that knows how long it may wait.
    pub(crate) fn write_all(&self, stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        while !bytes.is_empty() {
            let n = state.encrypt(&[IoSlice::new(bytes)])?;
            bytes = &bytes[n..];
            state.send_records(stream)?;
        }
        Ok(())
    }

    /// From here on, the session's thread reads.
    pub(crate) fn decrypted<'c>(&'c self, socket: &'c Socket) -> Decrypted<'c> {
        let ciphertext = Ciphertext { buffer: vec![0; CIPHERTEXT].into(), filled: 0..0, has_ended: false };
        Decrypted { tls: self, socket, ciphertext }
    }

    /// See [`Transport::send`](crate::transport::Transport::send).
    pub(crate) fn send(&self, socket: &Socket, parts: &[IoSlice<'_>], flags: SendFlags) -> io::Result<usize> {
        loop {
            match self.try_send(socket, parts) {
                Err(e) if e.kind() == ErrorKind::WouldBlock && !flags.contains(SendFlags::DONTWAIT) => {
                    // If the connection is cut off, this returns, and then sending fails.
                    retry_on_intr(|| poll(&mut [PollFd::new(socket, PollFlags::OUT)], None))?;
                }
                result => return result,
            }
        }
    }

    fn try_send(&self, socket: &Socket, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = lock(&self.state);
        state.send_records(&mut AtOnce(socket))?;
        if state.encrypted == 0 {
            state.encrypted = state.encrypt(parts)?;
            state.send_records(&mut AtOnce(socket))?;
        }
        Ok(std::mem::take(&mut state.encrypted))
    }

    /// Sends what rustls still has to say, and close_notify.
    pub(crate) fn close(&self, mut socket: &Socket) {
        let mut state = lock(&self.state);
        state.connection.send_close_notify();
        let closed =
            socket.set_write_timeout(Some(CLOSE_TIMEOUT)).and_then(|()| state.send_records(&mut socket));
        closed.unwrap_or_else(|e| log::debug!("cannot send close_notify: {e}"));
    }
}

impl State {
    /// Takes what it needs from `ciphertext`, whose errors it passes on, until there is plaintext,
    /// or the client has told that there won't be any more. The end of `ciphertext` before that is
    /// an error.
    fn decrypt(&mut self, ciphertext: &mut impl Read, plaintext: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(plaintext) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            self.connection.read_tls(ciphertext)?;
            let processed = self.connection.process_new_packets();
            processed.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
        }
    }

    /// Encrypts the beginning of `parts`, which are not empty.
    fn encrypt(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.connection.writer().write_vectored(parts)? {
            0 => Err(ErrorKind::WriteZero.into()),
            n => Ok(n),
        }
    }

    /// Sends all records that are there.
    fn send_records(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Decrypted<'_> {
    /// Returns true if there is something to be read at once.
    pub(crate) fn has_more(&self) -> bool {
        let is_decrypted = || matches!(lock(&self.tls.state).connection.reader().fill_buf(), Ok([_, ..]));
        !self.ciphertext.filled.is_empty() || is_decrypted() || is_readable(self.socket)
    }
}

impl Read for Decrypted<'_> {
    fn read(&mut self, plaintext: &mut [u8]) -> io::Result<usize> {
        loop {
            let decrypted = lock(&self.tls.state).decrypt(&mut self.ciphertext, plaintext);
            match decrypted {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.ciphertext.fill(self.socket)?,
                result => return result,
            }
        }
    }
}

impl Ciphertext {
    /// Waits for more. There must be nothing left.
    fn fill(&mut self, socket: &Socket) -> io::Result<()> {
        match recv(socket, &mut *self.buffer, RecvFlags::empty()) {
            Ok((0, _)) => self.has_ended = true,
            Ok((n, _)) => self.filled = 0..n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }
}

/// Never waits.
impl Read for Ciphertext {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.filled.is_empty() && !self.has_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        let n = (&self.buffer[self.filled.clone()]).read(buffer)?;
        self.filled.start += n;
        Ok(n)
    }
}

/// A socket that takes what it takes at once.
struct AtOnce<'c>(&'c Socket);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(sendmsg(self.0, parts, &mut SendAncillaryBuffer::default(), flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
