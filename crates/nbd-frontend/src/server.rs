// SPDX-License-Identifier: MIT OR Apache-2.0
//! The accept loop.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, Scope};
use std::time::Duration;

use block_device::QueuedDevice;
use nbd_wire::Export;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::Socket;

use crate::connection::Service;
use crate::registry::Registry;
use crate::stats::{Counters, count};
use crate::{Error, ExportInfo, Listener, Outcome};

/// How long no client is accepted after the system had no resources for one; a session that ends cuts it short.
const PAUSE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The limits of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Requests in flight per session; further ones wait in the client's socket. At least 1.
    pub requests: usize,
    /// Bytes per session for the payloads of requests in flight, counted in powers of two; further requests wait in
    /// the client's socket. A request that needs more than all of it is let in when no other is in flight: a READ, or a
    /// WRITE that goes to the device as a whole, of up to [`MAX_PAYLOAD`](crate::MAX_PAYLOAD) bytes. Other long WRITEs
    /// go to the device piece by piece, within these bytes. As much as a session once had in use stays allocated until
    /// it ends.
    pub memory: usize,
    /// Sessions at a time; further clients wait until they are accepted. At least 1.
    pub sessions: usize,
    /// How long a client may take to choose an export.
    pub negotiation_timeout: Duration,
    /// How long requests in flight may take to be answered once the server is shut down.
    pub grace: Duration,
}

impl Default for Config {
    /// 64 requests and 10 MiB per session, 64 sessions, a minute to negotiate, ten seconds of grace.
    fn default() -> Self {
        Self {
            requests: 64,
            memory: 10 << 20,
            sessions: 64,
            negotiation_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
        }
    }
}

/// An NBD server for one device.
#[derive(Debug)]
pub struct Server<D> {
    device: Arc<D>,
    exports: [Export; 1],
    config: Config,
    listeners: Vec<Listener>,
    connected: Vec<Socket>,
    registry: Arc<Registry>,
}

/// Stops a running server, from any thread.
#[derive(Debug, Clone)]
pub struct ShutdownHandle(Arc<Registry>);

impl ShutdownHandle {
    /// Tells the server to stop: see [`Server::run`]. Returns at once; calling it again changes nothing.
    pub fn shutdown(&self) {
        self.0.stop();
    }

    /// How many clients are connected.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.0.count()
    }
}

impl<D: QueuedDevice> Server<D> {
    /// A server that does not listen yet.
    ///
    /// # Errors
    /// [`Error::Export`] if the protocol has no room for `info` or the device's block size; [`Error::System`].
    pub fn new(device: Arc<D>, info: &ExportInfo, config: Config) -> Result<Self, Error> {
        let exports = [info.describe(&*device)?];
        let registry = Registry::new()?;
        Ok(Self { device, exports, config, listeners: Vec::new(), connected: Vec::new(), registry })
    }

    /// Accepts clients from `listener` too.
    pub fn listen(&mut self, listener: Listener) {
        self.listeners.push(listener);
    }

    /// Serves the client at the other end of `socket`, a connected stream socket, as soon as the server runs.
    pub fn adopt(&mut self, socket: impl Into<OwnedFd>) {
        self.connected.push(socket.into().into());
    }

    /// What stops the server while it runs.
    #[must_use]
    pub fn handle(&self) -> ShutdownHandle {
        ShutdownHandle(Arc::clone(&self.registry))
    }

    /// Serves clients until [`ShutdownHandle::shutdown`] or, if there is nothing to listen on, until the last
    /// [adopted](Self::adopt) client has gone.
    ///
    /// Then no client is accepted and no request is read any more. Requests in flight are finished and answered; after
    /// [`Config::grace`] the connections that are left are cut. It returns when all threads have ended, so a device
    /// that never returns from a call keeps it.
    ///
    /// # Errors
    /// [`Error::System`] if waiting for clients fails; sessions are ended as in a shutdown.
    pub fn run(mut self) -> Result<Outcome, Error> {
        let counters = Arc::new(Counters::default());
        let connected = std::mem::take(&mut self.connected);
        let listeners = std::mem::take(&mut self.listeners);
        let service = Service {
            device: &*self.device,
            exports: &self.exports,
            config: &self.config,
            counters: &counters,
        };
        let mut cut_off = 0;
        thread::scope(|scope| {
            let accept = Accept { scope, service: &service, registry: &self.registry };
            connected.into_iter().for_each(|client| accept.start(client));
            let accepted = accept.until_stopped(&listeners);
            drop(listeners);
            cut_off = self.registry.end_sessions(self.config.grace);
            accepted
        })?;
        Ok(counters.outcome(cut_off as u64))
    }
}

/// What the accept loop needs to start sessions.
struct Accept<'scope, 'env, D> {
    scope: &'scope Scope<'scope, 'env>,
    service: &'scope Service<'scope, D>,
    registry: &'scope Arc<Registry>,
}

impl<D: QueuedDevice> Accept<'_, '_, D> {
    fn until_stopped(&self, listeners: &[Listener]) -> io::Result<()> {
        listeners.iter().try_for_each(Listener::prepare)?;
        let mut paused = false;
        let mut told_full = false;
        while !self.registry.is_stopping() && (!listeners.is_empty() || self.registry.count() > 0) {
            let full = self.is_full();
            if full && !std::mem::replace(&mut told_full, true) {
                log::warn!("{} clients are connected, more have to wait", self.registry.count());
            }
            let open = if paused || full { &[] } else { listeners };
            let ready = self.wait(open, paused)?;
            // Each client may be the last that there is room for.
            paused = !ready.into_iter().all(|listener| self.is_full() || self.accept(listener));
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.registry.count() >= self.service.config.sessions.max(1)
    }

    /// Waits until something has happened; the listeners with clients.
    fn wait<'l>(&self, listeners: &'l [Listener], paused: bool) -> io::Result<Vec<&'l Listener>> {
        let woken = self.registry.woken();
        let sockets = listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN));
        let mut fds: Vec<_> = std::iter::once(PollFd::new(woken, PollFlags::IN)).chain(sockets).collect();
        match poll(&mut fds, paused.then_some(&PAUSE)) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            polled => polled?,
        };
        // Cleared before the caller looks around, so that whatever happens meanwhile wakes it again.
        woken.clear();
        let ready = listeners.iter().zip(&fds[1..]).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(listener, _)| listener).collect())
    }

    /// False if the system has run out of resources.
    fn accept(&self, listener: &Listener) -> bool {
        match listener.accept() {
            Ok(client) => client.into_iter().for_each(|client| self.start(client)),
            Err(e) => {
                log::error!("cannot accept a client: {e}");
                return false;
            }
        }
        true
    }

    fn start(&self, socket: Socket) {
        count(&self.service.counters.sessions, 1);
        let client = self.registry.register(socket);
        let id = client.control().id;
        let service = self.service;
        let session = move || service.serve(client.control());
        if let Err(e) = thread::Builder::new().name(format!("nbd-{id}")).spawn_scoped(self.scope, session) {
            log::error!("client {id}: cannot start a thread: {e}");
        }
    }
}
