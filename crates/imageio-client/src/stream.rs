// SPDX-License-Identifier: MIT OR Apache-2.0
//! A non-blocking byte stream to the server, plain or TLS, as hyper wants it.
//!
//! Nothing here wakes a task. Every poll that can't go on leaves in [`Readiness`] what it waits
//! for, and the driver sleeps in `poll(2)` until that comes.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::rt::ReadBufCursor;
use rustls::ClientConnection;
use socket2::Socket;

use crate::byte_counter::ByteCounter;

/// The bytes that one read of a plain socket takes for hyper: heads and short answers.
const READ_CHUNK: usize = 8 << 10;

/// The bytes of plaintext that rustls takes in before it wants to send: some full records, to send
/// many with one system call.
const TLS_WRITE_BUFFER: usize = 256 << 10;

/// The state of a connection's I/O, which tells what the stream waits for. The stream (inside
/// hyper) and the driver share it; only one thread uses both at a time, so the atomics are for
/// `Send`, not for ordering.
#[derive(Debug)]
pub(crate) struct Readiness {
    pub(crate) socket: Socket,
    /// There may be something to read: not so since a read found nothing, until `poll(2)` tells
    /// otherwise.
    pub(crate) may_read: AtomicBool,
    /// A read found nothing.
    pub(crate) want_read: AtomicBool,
    /// A write found no room.
    pub(crate) want_write: AtomicBool,
    /// Bytes moved since the driver last looked.
    pub(crate) progress: AtomicBool,
    /// All of those, for others to look at.
    moved: ByteCounter,
    /// Bytes that are read count as progress. They don't while an answer's head is awaited: a head
    /// has no business to drip.
    pub(crate) reading_body: AtomicBool,
    /// Bytes of HTTP that the socket has taken since the connection was opened.
    sent: AtomicU64,
    /// Bytes of HTTP that have left hyper since then: the socket has them, or may have a part of
    /// the records that they are in.
    handed: AtomicU64,
    /// The error that broke sending. The server may have answered before it closed, so the answer
    /// is still waited for.
    pub(crate) send_error: Mutex<Option<io::Error>>,
}

impl Readiness {
    fn new(socket: Socket, moved: ByteCounter) -> Self {
        Self {
            socket,
            may_read: AtomicBool::new(true),
            want_read: AtomicBool::new(false),
            want_write: AtomicBool::new(false),
            progress: AtomicBool::new(false),
            moved,
            reading_body: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            handed: AtomicU64::new(0),
            send_error: Mutex::new(None),
        }
    }

    /// One read of the socket, where there may be something.
    fn read(&self, read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        if !self.may_read.load(Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = retry(read).inspect_err(|_| self.may_read.store(false, Relaxed))?;
        self.received(n);
        Ok(n)
    }

    /// An answer's head is there. The time for its body begins anew.
    pub(crate) fn begin_body(&self) {
        self.reading_body.store(true, Relaxed);
        self.progress.store(true, Relaxed);
    }

    fn received(&self, n: usize) {
        if self.reading_body.load(Relaxed) {
            self.moved(n);
        }
    }

    fn moved(&self, n: usize) {
        if n > 0 {
            self.progress.store(true, Relaxed);
            self.moved.add(n);
        }
    }

    /// Bytes of HTTP that the socket has taken since the connection was opened.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Bytes of HTTP of which the socket may have taken something.
    pub(crate) fn handed(&self) -> u64 {
        self.handed.load(Relaxed)
    }

    fn note_handed(&self, n: usize) {
        self.handed.fetch_add(n as u64, Relaxed);
    }

    fn sent_more(&self, n: usize) {
        self.sent.fetch_add(n as u64, Relaxed);
    }

    fn sending_is_broken(&self) -> bool {
        self.send_error.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Sorts out a failed write: `Pending` to wait for room or, after a disconnect, for the
    /// server's answer.
    fn write_failed<T>(&self, error: io::Error) -> Poll<io::Result<T>> {
        match error.kind() {
            io::ErrorKind::WouldBlock => self.want_write.store(true, Relaxed),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                *self.send_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            _ => return Poll::Ready(Err(error)),
        }
        Poll::Pending
    }
}

enum Transport {
    Plain { chunk: Box<[u8]> },
    Tls(Box<Tls>),
}

struct Tls {
    session: ClientConnection,
    /// Plaintext that the session has taken, and whose records the socket has not.
    unsent: usize,
}

/// The stream. It owns nothing that outlives the connection.
pub(crate) struct Stream {
    readiness: Arc<Readiness>,
    transport: Transport,
}

impl Stream {
    /// A stream over a connected socket, which becomes non-blocking.
    pub(crate) fn plain(socket: Socket, moved: ByteCounter) -> io::Result<Self> {
        Self::new(socket, moved, Transport::Plain { chunk: Box::default() })
    }

    /// A stream over a connected socket on which the TLS handshake is done.
    pub(crate) fn tls(mut session: ClientConnection, socket: Socket, moved: ByteCounter) -> io::Result<Self> {
        session.set_buffer_limit(Some(TLS_WRITE_BUFFER));
        Self::new(socket, moved, Transport::Tls(Box::new(Tls { session, unsent: 0 })))
    }

    fn new(socket: Socket, moved: ByteCounter, transport: Transport) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { readiness: Arc::new(Readiness::new(socket, moved)), transport })
    }

    pub(crate) fn readiness(&self) -> Arc<Readiness> {
        Arc::clone(&self.readiness)
    }

    /// Reads past hyper, which would copy twice. 0 is the end.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let readiness = &self.readiness;
        let result = match &mut self.transport {
            Transport::Plain { .. } => readiness.read(|| (&readiness.socket).read(buf)),
            Transport::Tls(tls) => read_tls(readiness, &mut tls.session, |plaintext| {
                let n = plaintext.len().min(buf.len());
                buf[..n].copy_from_slice(&plaintext[..n]);
                n
            }),
        };
        let is_blocked = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        readiness.want_read.store(result.as_ref().is_err_and(is_blocked), Relaxed);
        result
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let result = match &mut this.transport {
            Transport::Plain { chunk } => read_plain(&this.readiness, chunk, &mut buf),
            Transport::Tls(tls) => read_tls(&this.readiness, &mut tls.session, |plaintext| {
                let n = plaintext.len().min(buf.remaining());
                buf.put_slice(&plaintext[..n]);
                n
            })
            .map(drop),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                this.readiness.want_read.store(true, Relaxed);
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }
}

fn read_plain(readiness: &Readiness, chunk: &mut Box<[u8]>, buf: &mut ReadBufCursor<'_>) -> io::Result<()> {
    if chunk.is_empty() {
        *chunk = vec![0; READ_CHUNK].into_boxed_slice();
    }
    let want = chunk.len().min(buf.remaining());
    let n = readiness.read(|| (&readiness.socket).read(&mut chunk[..want]))?;
    buf.put_slice(&chunk[..n]);
    Ok(())
}

/// Has plaintext taken by `take`, which tells how much it took. 0 is the end.
fn read_tls(
    readiness: &Readiness,
    tls: &mut ClientConnection,
    mut take: impl FnMut(&[u8]) -> usize,
) -> io::Result<usize> {
    loop {
        let mut reader = tls.reader();
        match reader.fill_buf() {
            Ok(plaintext) => {
                let n = take(plaintext);
                reader.consume(n);
                return Ok(n);
            }
            // Closed without close_notify: the lengths tell whether the answer was whole.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) => {}
        }
        readiness.read(|| tls.read_tls(&mut &readiness.socket))?;
        tls.process_new_packets().map_err(io::Error::other)?;
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.readiness.sending_is_broken() {
            return Poll::Pending;
        }
        let result = match &mut this.transport {
            Transport::Plain { .. } => {
                retry(|| (&this.readiness.socket).write_vectored(bufs)).inspect(|&n| {
                    this.readiness.note_handed(n);
                    this.readiness.moved(n);
                    this.readiness.sent_more(n);
                })
            }
            Transport::Tls(tls) => tls.write(&this.readiness, bufs),
        };
        match result {
            Ok(n) => Poll::Ready(Ok(n)),
            Err(error) => this.readiness.write_failed(error),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Transport::Tls(tls) = &mut this.transport else { return Poll::Ready(Ok(())) };
        if this.readiness.sending_is_broken() {
            return Poll::Pending;
        }
        match tls.send_records(&this.readiness) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => this.readiness.write_failed(error),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Transport::Tls(tls) = &mut this.transport {
            tls.session.send_close_notify();
            // A farewell: no one waits for it, and its failure says nothing of the request.
            let _ = tls.send_records(&this.readiness);
        }
        // The server may have closed before.
        let _ = this.readiness.socket.shutdown(std::net::Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

impl Tls {
    /// Takes plaintext as far as the record buffer has room, and sends what the socket takes.
    /// `WouldBlock` only where nothing was taken.
    fn write(&mut self, readiness: &Readiness, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = self.take(readiness, bufs)?;
        let sent = self.send_records(readiness);
        if taken == 0 && sent.is_ok() {
            taken = self.take(readiness, bufs)?;
        }
        match sent {
            Err(error) if taken == 0 || error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn take(&mut self, readiness: &Readiness, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let taken = self.session.writer().write_vectored(bufs)?;
        readiness.note_handed(taken);
        self.unsent += taken;
        Ok(taken)
    }

    fn send_records(&mut self, readiness: &Readiness) -> io::Result<()> {
        while self.session.wants_write() {
            let n = retry(|| self.session.write_tls(&mut &readiness.socket))?;
            readiness.moved(n);
        }
        readiness.sent_more(std::mem::take(&mut self.unsent));
        Ok(())
    }
}

/// Repeats a system call that a signal interrupted.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
