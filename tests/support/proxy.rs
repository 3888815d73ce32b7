// SPDX-License-Identifier: MIT OR Apache-2.0
//! A TCP proxy that does what networks do on their worse days.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What happens to the connection that carries a certain byte to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Both sides find it closed.
    Kill,
    /// Nothing passes any more, in either direction, and neither side is told.
    BlackHole,
    /// What comes next is late.
    Delay(Duration),
}

/// A proxy on 127.0.0.1, with a thread for each direction of each connection. Dropping it ends them all.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// More was carried, or all ends.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    /// Bytes to the server, on all connections.
    carried: u64,
    /// What happens, at which byte, and again after how many.
    trouble: Option<(Trouble, u64, Option<u64>)>,
    troubles: u64,
    /// Clones of all sockets, to shut them down.
    sockets: Vec<TcpStream>,
    is_over: bool,
}

/// One connection: towards the client, and towards the server.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    is_silent: Mutex<bool>,
}

impl Proxy {
    /// A proxy for this server.
    ///
    /// # Errors
    /// If it can't listen.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let state =
            State { upstream, carried: 0, trouble: None, troubles: 0, sockets: Vec::new(), is_over: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let for_thread = Arc::clone(&shared);
        let accepting = thread::Builder::new().name("proxy".into()).spawn(move || {
            for client in listener.incoming() {
                if for_thread.lock().is_over {
                    return;
                }
                // A client without a server sees its connection closed.
                let _ = client.and_then(|client| for_thread.connect(client));
            }
        })?;
        Ok(Self { addr, shared, accepting: Some(accepting) })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Leads new connections elsewhere.
    pub fn lead_to(&self, upstream: SocketAddr) {
        self.shared.lock().upstream = upstream;
    }

    /// Has something happen when so many more bytes have been carried to the server; and, if `again`, each time that as
    /// many have.
    pub fn after(&self, bytes: u64, trouble: Trouble, again: bool) {
        let mut state = self.shared.lock();
        state.trouble = Some((trouble, state.carried + bytes, again.then_some(bytes)));
    }

    /// How often something has happened.
    #[must_use]
    pub fn troubles(&self) -> u64 {
        self.shared.lock().troubles
    }

    /// How many bytes have been carried to the server.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.shared.lock().carried
    }

    /// Waits until so many bytes have been carried to the server in all, or too long.
    #[must_use]
    pub fn has_carried(&self, bytes: u64, patience: Duration) -> bool {
        let too_few = |state: &mut State| state.carried < bytes;
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(state, patience, too_few);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        for socket in state.sockets.drain(..) {
            // It may be gone already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        // So that the thread sees it.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let upstream = self.lock().upstream;
        let server = TcpStream::connect(upstream)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        self.lock().sockets.extend([client.try_clone()?, server.try_clone()?]);
        let pair = Arc::new(Pair { client, server, is_silent: Mutex::new(false) });
        for to_server in [true, false] {
            let (shared, pair) = (Arc::clone(self), Arc::clone(&pair));
            let name = if to_server { "to-server" } else { "to-client" };
            thread::Builder::new().name(name.into()).spawn(move || {
                // Whatever ends one direction ends the other.
                let _ = shared.carry(&pair, to_server);
                pair.close();
            })?;
        }
        Ok(())
    }

    fn carry(&self, pair: &Pair, to_server: bool) -> io::Result<()> {
        let (mut from, mut to) =
            if to_server { (&pair.client, &pair.server) } else { (&pair.server, &pair.client) };
        let mut chunk = vec![0; 64 << 10];
        loop {
            let n = from.read(&mut chunk)?;
            if n == 0 {
                return Ok(());
            }
            if to_server {
                match self.carried(n as u64) {
                    Some(Trouble::Kill) => return Ok(()),
                    Some(Trouble::BlackHole) => pair.silence(),
                    Some(Trouble::Delay(time)) => self.wait_for_end(Some(time)),
                    None => {}
                }
            }
            if pair.is_silent() {
                self.wait_for_end(None);
                return Ok(());
            }
            to.write_all(&chunk[..n])?;
        }
    }

    /// Counts what is carried. What happens now, if anything does.
    fn carried(&self, n: u64) -> Option<Trouble> {
        let mut state = self.lock();
        state.carried += n;
        self.changed.notify_all();
        let (trouble, _, again) = state.trouble.filter(|(_, at, _)| state.carried >= *at)?;
        state.trouble = again.map(|bytes| (trouble, state.carried + bytes, again));
        state.troubles += 1;
        Some(trouble)
    }

    fn wait_for_end(&self, at_most: Option<Duration>) {
        let at_most = at_most.unwrap_or(Duration::MAX);
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, |state| !state.is_over);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Pair {
    fn close(&self) {
        for socket in [&self.client, &self.server] {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn silence(&self) {
        *self.is_silent.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn is_silent(&self) -> bool {
        *self.is_silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
