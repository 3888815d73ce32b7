// SPDX-License-Identifier: MIT OR Apache-2.0
//! One HTTP/1.1 connection driven by whoever uses it: hyper's state, a flag for a waker, and
//! `poll(2)`.
//!
//! A runtime would bring an event queue and timers for each connection. One request at a time on
//! one socket needs neither: poll the futures until none has been woken, then sleep until the
//! socket is ready or too long has passed without a byte.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::client::conn::http1::{self, Parts, SendRequest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::body::RequestBody;
use crate::scatter_buffer::ScatterBuffer;
use crate::stream::{Readiness, Stream};

type HyperConnection = http1::Connection<Stream, RequestBody>;

/// hyper's half that does the I/O, and the socket it waits on.
pub(crate) struct Driver {
    connection: Option<Box<HyperConnection>>,
    readiness: Arc<Readiness>,
    woken: Arc<Woken>,
}

/// The reason why a future was given up.
#[derive(Debug)]
pub(crate) enum Stalled {
    /// No byte moved for the time allowed.
    Timeout,
    /// The connection has ended, and the future waits for something else.
    Closed,
    /// `poll(2)` failed.
    Io(io::Error),
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl Driver {
    /// HTTP/1.1 over `stream`.
    pub(crate) fn handshake(stream: Stream) -> hyper::Result<(Self, SendRequest<RequestBody>)> {
        let readiness = stream.readiness();
        let (connection, sender) = shake_hands(stream)?;
        Ok((Self { connection: Some(connection), readiness, woken: Arc::default() }, sender))
    }

    /// Takes the stream out of hyper's hands, in the middle of an answer, with what hyper has read
    /// ahead.
    pub(crate) fn detach(&mut self) -> Option<(Stream, Bytes)> {
        let Parts { io, read_buf, .. } = self.connection.take()?.into_parts();
        Some((io, read_buf))
    }

    /// Gives the stream back to hyper, between an answer and the next request.
    pub(crate) fn attach(&mut self, stream: Stream) -> hyper::Result<SendRequest<RequestBody>> {
        let (connection, sender) = shake_hands(stream)?;
        self.connection = Some(connection);
        Ok(sender)
    }

    /// Fills `buffer` from a stream that is out of hyper's hands, as long as bytes come at least
    /// every `timeout`.
    pub(crate) fn fill(
        &self,
        stream: &mut Stream,
        buffer: &mut ScatterBuffer<'_, '_>,
        timeout: Duration,
    ) -> Result<(), Stalled> {
        let mut last_progress = Instant::now();
        while let Some(free) = buffer.free() {
            match stream.read(free) {
                Ok(0) => return Err(Stalled::Closed),
                Ok(n) => {
                    buffer.advance(n);
                    last_progress = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(last_progress + timeout)?;
                }
                Err(error) => return Err(Stalled::Io(error)),
            }
        }
        Ok(())
    }

    /// Runs `future` to its end, doing the connection's I/O, as long as bytes move at least every
    /// `timeout`, which is asked anew at each wait.
    pub(crate) fn block_on<T>(
        &mut self,
        future: impl Future<Output = T>,
        timeout: impl Fn() -> Duration,
    ) -> Result<T, Stalled> {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut cx = Context::from_waker(&waker);
        let mut last_progress = Instant::now();
        // The server may have closed meanwhile: better known before anything is sent.
        self.readiness.may_read.store(true, Relaxed);
        loop {
            self.woken.0.store(false, Relaxed);
            self.readiness.want_read.store(false, Relaxed);
            self.readiness.want_write.store(false, Relaxed);
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return Ok(value);
            }
            let Some(connection) = &mut self.connection else { return Err(Stalled::Closed) };
            // The end of the connection is reported by the futures that wait for it: look there
            // once more.
            if Pin::new(&mut **connection).poll(&mut cx).is_ready() {
                self.connection = None;
                continue;
            }
            if self.woken.0.load(Relaxed) {
                continue;
            }
            if self.readiness.progress.swap(false, Relaxed) {
                last_progress = Instant::now();
            }
            self.wait(last_progress + timeout())?;
        }
    }

    fn wait(&self, until: Instant) -> Result<(), Stalled> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, self.readiness.want_read.load(Relaxed));
        events.set(PollFlags::OUT, self.readiness.want_write.load(Relaxed));
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Stalled::Timeout);
            }
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&self.readiness.socket, events)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // A hang-up while nothing is waited for, as after sending broke: it would be
                // reported for ever.
                Ok(_) if events.is_empty() => return Err(Stalled::Closed),
                Ok(_) => {
                    // Errors and hang-ups are told by reading, too.
                    if fds[0].revents() != PollFlags::OUT {
                        self.readiness.may_read.store(true, Relaxed);
                    }
                    return Ok(());
                }
                Err(error) => return Err(Stalled::Io(error.into())),
            }
        }
    }

    /// Returns the state of the connection's I/O, which the stream shares.
    pub(crate) fn readiness(&self) -> Arc<Readiness> {
        Arc::clone(&self.readiness)
    }

    /// Returns the reason why sending broke, if it did.
    pub(crate) fn send_error(&self) -> Option<String> {
        let error = self.readiness.send_error.lock().unwrap_or_else(PoisonError::into_inner);
        error.as_ref().map(ToString::to_string)
    }
}

/// hyper's handshake, which does no I/O: its future is ready at once.
fn shake_hands(stream: Stream) -> hyper::Result<(Box<HyperConnection>, SendRequest<RequestBody>)> {
    let mut handshake = pin!(http1::handshake(stream));
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(result) = handshake.as_mut().poll(&mut cx) else {
        unreachable!("hyper's HTTP/1 client handshake sends nothing");
    };
    result.map(|(sender, connection)| (Box::new(connection), sender))
}

impl Drop for Driver {
    /// Ends the connection at once, also where hyper's other half lives on a little.
    fn drop(&mut self) {
        let _ = self.readiness.socket.shutdown(std::net::Shutdown::Both);
    }
}
