// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection: towards the client, and towards the server.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::SockRef;

use crate::plan::{Drip, Fault, Way};

/// Both sockets of a connection. Its two threads share it; when the last one ends, the sockets are
/// closed.
#[derive(Debug)]
pub(crate) struct Pair {
    client: TcpStream,
    server: TcpStream,
    flow: Mutex<Flow>,
}

#[derive(Debug, Default)]
struct Flow {
    is_silent: bool,
    /// The proxy itself has answered: what still comes from either side is dropped.
    is_answered: bool,
    /// Closing resets. A socket that was shut down before would send a FIN first.
    is_reset: bool,
    /// Nothing more goes there.
    closed: Option<Way>,
    drip: Option<Drip>,
}

impl Flow {
    fn drops(&self, way: Way) -> bool {
        self.is_answered || self.closed == Some(way)
    }
}

/// The treatment of the next bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Carry,
    /// After a pause, and no more than so many of them.
    Drip(usize, Duration),
    Drop,
    /// They never arrive, and whoever sent them waits.
    Hold,
}

impl Pair {
    pub(crate) fn new(client: TcpStream, server: TcpStream) -> io::Result<Self> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        Ok(Self { client, server, flow: Mutex::default() })
    }

    /// Returns the socket that bytes of this direction come from, and the one that they go to.
    pub(crate) fn ends(&self, way: Way) -> (&TcpStream, &TcpStream) {
        match way {
            Way::ToServer => (&self.client, &self.server),
            Way::ToClient => (&self.server, &self.client),
        }
    }

    /// Has something happen. A delay is the caller's affair, and so is the end after
    /// [`Fault::Kill`] and [`Fault::Reset`].
    pub(crate) fn meet(&self, fault: Fault) {
        let mut flow = self.flow();
        match fault {
            Fault::Kill | Fault::Delay(_) => {}
            Fault::Reset => flow.is_reset = true,
            Fault::BlackHole => flow.is_silent = true,
            Fault::Answer(status) => {
                flow.is_answered = true;
                // Either may have gone before.
                let _ = self.server.shutdown(Shutdown::Write);
                let answer =
                    format!("HTTP/1.1 {status} Proxy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = (&self.client).write_all(answer.as_bytes());
                let _ = self.client.shutdown(Shutdown::Write);
            }
            Fault::Drip(drip) => flow.drip = Some(drip),
            Fault::HalfClose(way) => {
                flow.closed = Some(way);
                // The other side may have closed before.
                let _ = self.ends(way).1.shutdown(Shutdown::Write);
            }
        }
    }

    pub(crate) fn next(&self, way: Way) -> Next {
        let mut flow = self.flow();
        if flow.is_silent {
            return Next::Hold;
        }
        if flow.drops(way) {
            return Next::Drop;
        }
        match &mut flow.drip {
            Some(drip) if drip.pieces > 0 => {
                drip.pieces -= 1;
                Next::Drip(drip.piece.max(1), drip.pause)
            }
            _ => Next::Carry,
        }
    }

    /// Returns true if the bytes of this direction are for nobody.
    pub(crate) fn drops(&self, way: Way) -> bool {
        self.flow().drops(way)
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.flow().is_silent
    }

    /// Ends both directions, also where a thread waits for bytes.
    pub(crate) fn end(&self) {
        let is_reset = self.flow().is_reset;
        for socket in [&self.client, &self.server] {
            // Either may be gone already.
            let _ = if is_reset {
                SockRef::from(socket).set_linger(Some(Duration::ZERO)).and(socket.shutdown(Shutdown::Read))
            } else {
                socket.shutdown(Shutdown::Both)
            };
        }
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
