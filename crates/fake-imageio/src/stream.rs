// SPDX-License-Identifier: MIT OR Apache-2.0
//! One socket, as hyper sees it, and what the parts of the server tell each other about it.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

use crate::journal::ClosedBy;

/// The way in which a connection is cut off in the middle of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cut {
    Close = 1,
    Reset = 2,
    /// Nothing is sent any more, not even what was on its way.
    Power = 3,
}

/// The state of one connection.
#[derive(Debug, Default)]
pub(crate) struct Conn {
    pub(crate) id: u64,
    /// The number of its way to the disk: what is written on one way is flushed there, or lost with
    /// it.
    pub(crate) way: AtomicU64,
    /// The status that tells the client that the way was lost; 0 while it is there.
    pub(crate) lost_way: AtomicU16,
    /// Answers given.
    pub(crate) answers: AtomicU64,
    /// 0, or a [`Cut`].
    cut: AtomicU8,
    /// Close when the answer under way is out, or at once if there is none.
    pub(crate) close_when_idle: AtomicBool,
    /// The server said `connection: close`.
    pub(crate) said_close: AtomicBool,
    /// The handler is at work: the time is the server's, not the client's.
    pub(crate) busy: AtomicBool,
    /// Answers that are not yet handed over to the socket completely.
    pub(crate) in_flight: AtomicUsize,
    /// Grows whenever bytes move.
    pub(crate) activity: AtomicU64,
    /// Grows whenever everything written has been taken by the kernel.
    flushes: AtomicU64,
    flushed: Mutex<Option<Waker>>,
    /// Wakes the connection's task to look at the flags.
    pub(crate) changed: Notify,
}

impl Conn {
    pub(crate) fn new(id: u64, way: u64) -> Self {
        Self { id, way: way.into(), ..Self::default() }
    }

    /// Its way to the disk, as it is now.
    pub(crate) fn way(&self) -> u64 {
        self.way.load(Ordering::SeqCst)
    }

    /// Cuts the connection off.
    pub(crate) fn cut(&self, how: Cut) {
        self.cut.store(how as u8, Ordering::SeqCst);
        self.changed.notify_one();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst) != 0
    }

    pub(crate) fn has_power(&self) -> bool {
        self.cut.load(Ordering::SeqCst) != Cut::Power as u8
    }

    pub(crate) fn is_idle(&self) -> bool {
        !self.busy.load(Ordering::SeqCst) && self.in_flight.load(Ordering::SeqCst) == 0
    }

    /// Closes as soon as no request is under way.
    pub(crate) fn close_when_idle(&self) {
        self.close_when_idle.store(true, Ordering::SeqCst);
        self.changed.notify_one();
    }

    /// Tells which side ended the connection, if neither time nor the server's end did.
    pub(crate) fn closed_by(&self) -> ClosedBy {
        if self.is_cut() || self.close_when_idle.load(Ordering::SeqCst) {
            ClosedBy::Fault
        } else if self.said_close.load(Ordering::SeqCst) {
            ClosedBy::Server
        } else {
            ClosedBy::Client
        }
    }

    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::SeqCst)
    }

    /// Ready when everything written before `mark` was taken (a former value of [`Self::flushes`])
    /// has left.
    pub(crate) fn poll_flushed_since(&self, mark: u64, cx: &Context<'_>) -> Poll<()> {
        *self.flushed.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if self.flushes() > mark { Poll::Ready(()) } else { Poll::Pending }
    }

    fn note_flush(&self) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        if let Some(waker) = self.flushed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    fn note_activity(&self, bytes: usize) {
        if bytes > 0 {
            self.activity.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The three kinds of socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
    /// The TLS handshake has it.
    Taken,
}

impl Socket {
    fn sock_ref(&self) -> Option<SockRef<'_>> {
        match self {
            Self::Tcp(tcp) => Some(SockRef::from(tcp)),
            Self::Tls(tls) => Some(SockRef::from(tls.get_ref().0)),
            Self::Unix(unix) => Some(SockRef::from(unix)),
            Self::Taken => None,
        }
    }
}

/// A socket that counts what moves, and closes as the real server's do: the write half is shut down
/// without a TLS `close_notify`, then it is closed, which makes the kernel send a reset if the
/// client had sent more than was read.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: Socket,
    pub(crate) conn: Arc<Conn>,
}

impl Stream {
    /// Fails if nothing may be sent to the client any more.
    fn check_power(&self) -> io::Result<()> {
        if self.conn.has_power() { Ok(()) } else { Err(io::ErrorKind::ConnectionReset.into()) }
    }

    /// The bare TCP socket, to wrap TLS around it.
    pub(crate) fn into_tcp(mut self) -> (Option<TcpStream>, Arc<Conn>) {
        let tcp = match std::mem::replace(&mut self.socket, Socket::Taken) {
            Socket::Tcp(tcp) => Some(tcp),
            _ => None,
        };
        (tcp, Arc::clone(&self.conn))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Some(socket) = self.socket.sock_ref() else { return };
        // The peer may be gone already: then there is nobody left to tell.
        let is_reset = [Cut::Reset as u8, Cut::Power as u8].contains(&self.conn.cut.load(Ordering::SeqCst));
        let _ = if is_reset {
            socket.set_linger(Some(std::time::Duration::ZERO))
        } else {
            socket.shutdown(Shutdown::Write)
        };
    }
}

/// Calls the same method on whichever socket it is.
macro_rules! each {
    ($stream:expr, $socket:ident => $call:expr) => {
        match &mut $stream.socket {
            Socket::Tcp($socket) => $call,
            Socket::Tls($socket) => $call,
            Socket::Unix($socket) => $call,
            Socket::Taken => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = each!(self, socket => Pin::new(socket).poll_read(cx, buf));
        self.conn.note_activity(buf.filled().len() - before);
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_power()?;
        let result = each!(self, socket => Pin::new(socket).poll_write(cx, buf));
        if let Poll::Ready(Ok(written)) = result {
            self.conn.note_activity(written);
        }
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_power()?;
        let result = each!(self, socket => Pin::new(socket).poll_write_vectored(cx, bufs));
        if let Poll::Ready(Ok(written)) = result {
            self.conn.note_activity(written);
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Tcp(tcp) => tcp.is_write_vectored(),
            Socket::Tls(tls) => tls.is_write_vectored(),
            Socket::Unix(unix) => unix.is_write_vectored(),
            Socket::Taken => false,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = each!(self, socket => Pin::new(socket).poll_flush(cx));
        if let Poll::Ready(Ok(())) = result {
            self.conn.note_flush();
        }
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Everything is flushed by now; dropping the stream does the rest.
        Poll::Ready(Ok(()))
    }
}
