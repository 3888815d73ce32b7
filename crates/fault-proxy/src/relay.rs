// SPDX-License-Identifier: MIT OR Apache-2.0
//! A link, made of threads.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Scope};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::SockRef;

use crate::flight::Flight;
use crate::link::{Link, Wire};
use crate::plan::Way;

/// The buffer in which a socket receives what a link with a rate can't carry yet: so that it waits
/// at its sender.
const NARROW: usize = 256 << 10;

/// A TCP proxy on 127.0.0.1 that is like a [`Link`] to its server: each byte arrives the link's
/// delay after it came, and any number of them is on the way, up to 128 MiB for each direction of
/// each connection. Dropping it ends all connections.
///
/// The first bytes of a connection wait for the round trip that the handshake takes. What it is not
/// like: a connection is accepted, and refused, at once; a reset arrives as an end. Nothing is
/// lost, and TCP's windows are those of the two local connections: there is no slow start, and one
/// connection gets as much as the link has. Packets have no heads, which count in a real rate.
///
/// A byte is late by the delay, and by what the system takes to wake a thread: some 0.1 ms.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    /// All threads end when it is dropped.
    stop: Option<PipeWriter>,
    accepting: Option<JoinHandle<()>>,
}

impl Relay {
    /// A link to this server.
    ///
    /// # Errors
    /// If it can't listen.
    pub fn start(upstream: SocketAddr, link: Link) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let (stopped, stop) = io::pipe()?;
        let wires = [(); 2].map(|()| Mutex::new(Wire::new(link)));
        let shared = Shared { upstream, link, stopped, wires };
        let accepting = thread::Builder::new().name("relay".into());
        let accepting = accepting.spawn(move || shared.accept(&listener))?;
        Ok(Self { addr, stop: Some(stop), accepting: Some(accepting) })
    }

    /// Returns the address on which the relay listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A panic was reported when it happened.
        self.accepting.take().map(JoinHandle::join);
    }
}

/// The state that all connections share.
struct Shared {
    upstream: SocketAddr,
    link: Link,
    /// Readable once all shall end.
    stopped: PipeReader,
    /// Of each [`Way`].
    wires: [Mutex<Wire>; 2],
}

/// Both sockets of a connection. Its two threads share it; when the last one ends, the sockets are
/// closed.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Shared {
    fn accept(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            while let Ok(Woken { stopped: false, .. }) = wait(&self.stopped, Some(listener), None, None) {
                // A client without a server finds its connection closed.
                let _ = listener.accept().and_then(|(client, _)| self.connect(scope, client));
            }
        });
    }

    fn connect<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, client: TcpStream) -> io::Result<()> {
        let now = Instant::now();
        let server = TcpStream::connect(self.upstream)?;
        for socket in [&client, &server] {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            if self.link.rate.is_some() {
                SockRef::from(socket).set_recv_buffer_size(NARROW)?;
            }
        }
        let pair = Arc::new(Pair { client, server });
        for (name, way) in [("to-server", Way::ToServer), ("to-client", Way::ToClient)] {
            let (pair, flight) = (Arc::clone(&pair), Flight::new(self.link, now));
            thread::Builder::new().name(name.into()).spawn_scoped(scope, move || {
                if self.carry(&pair, way, flight).is_err() {
                    // The receiver is gone, so nothing more comes from it: the other direction ends
                    // with what is on its way.
                    let (from, to, _) = self.ends(&pair, way);
                    // Either may be closed already.
                    let _ = to.shutdown(Shutdown::Both);
                    let _ = from.shutdown(Shutdown::Read);
                }
            })?;
        }
        Ok(())
    }

    /// Returns the socket that bytes of this direction come from, the one that they go to, and the
    /// wire that all connections share.
    fn ends<'a>(&'a self, pair: &'a Pair, way: Way) -> (&'a TcpStream, &'a TcpStream, &'a Mutex<Wire>) {
        match way {
            Way::ToServer => (&pair.client, &pair.server, &self.wires[0]),
            Way::ToClient => (&pair.server, &pair.client, &self.wires[1]),
        }
    }

    /// Returns when the end of this direction has arrived, or all ends; an error is the receiver's.
    fn carry(&self, pair: &Pair, way: Way, mut flight: Flight) -> io::Result<()> {
        let (from, to, wire) = self.ends(pair, way);
        let pass = |bytes| {
            let mut wire = wire.lock().unwrap_or_else(PoisonError::into_inner);
            wire.pass(Instant::now(), bytes)
        };
        loop {
            // One time for the whole turn: what arrives after it is waited for, and what arrives
            // before is delivered.
            let now = Instant::now();
            let sent = deliver(to, &mut flight, now)?;
            if sent == Sent::End {
                return Ok(());
            }
            let source = flight.has_room(now).then_some(from);
            let sink = (sent == Sent::Blocked).then_some(to);
            let woken = wait(&self.stopped, source, sink, flight.next(now))?;
            if woken.stopped {
                return Ok(());
            }
            if woken.readable {
                // If there was nothing after all, it is another turn.
                let _ = flight.take(|memory| receive(from, memory), pass);
            }
        }
    }
}

/// The result of delivering the bytes that have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// The receiver takes no more for now.
    Blocked,
    /// And there is no more.
    End,
}

fn deliver(mut to: &TcpStream, flight: &mut Flight, now: Instant) -> io::Result<Sent> {
    while let Some(bytes) = flight.arrived(now) {
        if bytes.is_empty() {
            to.shutdown(Shutdown::Write)?;
            return Ok(Sent::End);
        }
        match to.write(bytes) {
            Ok(length) => flight.delivered(length),
            Err(error) if is_for_later(&error) => return Ok(Sent::Blocked),
            Err(error) => return Err(error),
        }
    }
    Ok(Sent::All)
}

/// Receives, or fails if there is nothing yet. A reset is an end like any other, which comes behind
/// what was sent before.
fn receive(mut from: &TcpStream, memory: &mut [u8]) -> io::Result<usize> {
    match from.read(memory) {
        Err(error) if !is_for_later(&error) => Ok(0),
        received => received,
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The reasons that ended a wait, besides its time.
struct Woken {
    stopped: bool,
    readable: bool,
}

/// Waits until one can be read, or the other written, or it is time, or all ends.
fn wait(
    stopped: &PipeReader,
    readable: Option<&impl AsFd>,
    writable: Option<&TcpStream>,
    until: Option<Instant>,
) -> io::Result<Woken> {
    // Only what is waited for is polled: the end of anything else would wake the thread again and
    // again.
    let mut fds = vec![PollFd::new(stopped, PollFlags::IN)];
    fds.extend(readable.map(|fd| PollFd::new(fd, PollFlags::IN)));
    fds.extend(writable.map(|fd| PollFd::new(fd, PollFlags::OUT)));
    let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    Ok(Woken { stopped: is_ready(&fds[0]), readable: readable.is_some() && is_ready(&fds[1]) })
}
