// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server, its limits, and the handle that stops it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use block_device_traits::QueuedDevice;
use socket2::Socket;

use crate::accept::Accept;
use crate::changes::Changes;
use crate::connection::Service;
use crate::exports::Exports;
use crate::registry::Registry;
use crate::stats::Counters;
use crate::{Error, ExportInfo, Listener, Outcome, Statistics, Tls};

/// The limits of a server, and what it offers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Requests in flight per session; further ones wait in the client's socket. At least 1.
    pub requests: usize,
    /// Bytes per session for the payloads of requests in flight, counted in powers of two; further
    /// requests wait in the client's socket. A request that needs more than all of it is let in
    /// when no other is in flight: a READ or WRITE that goes to the device as a whole, of up to
    /// [`MAX_PAYLOAD`](crate::MAX_PAYLOAD) bytes. Other long READs and WRITEs go to the device
    /// piece by piece, within these bytes. A session has more where the device has a use for more
    /// ([`QueuedDevice::in_flight`]): its part of that, as all clients have the same. As much as a
    /// session once had in use stays allocated until it ends. At most half of it is used to read
    /// ahead: see [`QueuedDevice::read_ahead`].
    pub memory: usize,
    /// Sessions at a time. A further client takes the place of one that still negotiates, or waits
    /// until one leaves. At least 1.
    pub sessions: usize,
    /// The number of sessions that one TCP address may have. A further client from there takes the
    /// place of one that still negotiates, or is refused: its connection is closed. Clients of unix
    /// sockets are bounded by `sessions` alone. At least 1.
    pub sessions_per_address: usize,
    /// True if structured replies are offered. Without them, there are neither extended headers nor
    /// metadata contexts.
    pub structured_replies: bool,
    /// True if the device's metadata contexts are offered.
    pub meta_contexts: bool,
    /// True if extended headers are offered. Their lengths have 64 bits, so that a single
    /// WRITE_ZEROES may be about the whole disk. If that takes long, the device has to see to it
    /// that such a request keeps no other waiting.
    pub extended_headers: bool,
    /// The TLS mode: clients may use TLS, must use it, or can't. It includes the server's
    /// certificates.
    pub tls: Tls,
    /// The time that a client may take to choose an export, with TLS's handshake.
    pub negotiation_timeout: Duration,
    /// The time that requests in flight may take to be answered once the server is shut down.
    pub grace: Duration,
    /// True if each request that fails is logged as an error, else at debug level: a program that
    /// tells [`Statistics::first_failure`] at its end may spare its user a line for each of many.
    pub logs_failures: bool,
}

impl Config {
    /// Changes it in one expression: `Config::default().with(|config| config.sessions = 8)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Default for Config {
    /// 64 requests and 10 MiB per session, 64 sessions, half of them for one address, all that
    /// replies may be, no TLS, a minute to negotiate, ten seconds of grace, all
    /// failures in the log.
    fn default() -> Self {
        Self {
            requests: 64,
            memory: 10 << 20,
            sessions: 64,
            sessions_per_address: 32,
            structured_replies: true,
            meta_contexts: true,
            extended_headers: true,
            tls: Tls::default(),
            negotiation_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            logs_failures: true,
        }
    }
}

/// An NBD server for a device, or for several of one type.
#[derive(Debug)]
pub struct Server<D> {
    exports: Exports<D>,
    config: Config,
    listeners: Vec<Listener>,
    connected: Vec<Socket>,
    registry: Arc<Registry>,
    counters: Arc<Counters>,
}

/// Stops a running server, from any thread.
#[derive(Debug, Clone)]
pub struct ShutdownHandle(Arc<Registry>);

impl ShutdownHandle {
    /// Tells the server to stop: see [`Server::run`]. Returns at once; calling it again changes
    /// nothing.
    pub fn shutdown(&self) {
        self.0.stop();
    }

    /// Returns the number of clients that are connected.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.0.count()
    }
}

impl<D: QueuedDevice> Server<D> {
    /// A server that does not listen yet, with an export for `device`. That is the default one:
    /// clients may ask for it by its name or by the empty name.
    ///
    /// # Errors
    /// [`Error::Export`] if the protocol has no room for `info` or the device's block size;
    /// [`Error::System`].
    pub fn new(device: Arc<D>, info: &ExportInfo, config: Config) -> Result<Self, Error> {
        let mut exports = Exports::new();
        exports.add(device, info)?;
        let registry = Registry::new()?;
        let (listeners, connected, counters) = (Vec::new(), Vec::new(), Arc::default());
        Ok(Self { exports, config, listeners, connected, registry, counters })
    }

    /// Adds an export for `device`. Clients see all exports of a server (LIST), and each session is
    /// about the one that its client has chosen by name. [`Config`] bounds the sessions of all
    /// exports together.
    ///
    /// If it has the empty name, it answers to that instead of the default export.
    ///
    /// # Errors
    /// [`Error::NameTaken`] if another export has the name; [`Error::ListTooLong`] if there are too
    /// many; [`Error::Export`] as in [`new`](Self::new). The server is as before then.
    pub fn add_export(&mut self, device: Arc<D>, info: &ExportInfo) -> Result<(), Error> {
        self.exports.add(device, info)
    }

    /// Accepts clients from `listener` too.
    pub fn listen(&mut self, listener: Listener) {
        self.listeners.push(listener);
    }

    /// Serves the client at the other end of `socket`, a connected stream socket, as soon as the
    /// server runs.
    pub fn adopt(&mut self, socket: impl Into<OwnedFd>) {
        let socket = Socket::from(socket.into());
        // Whoever made it may have had other plans. If this fails, so will its first use.
        let _ = socket.set_nonblocking(false);
        self.connected.push(socket);
    }

    /// Returns a handle that stops the server while it runs.
    #[must_use]
    pub fn handle(&self) -> ShutdownHandle {
        ShutdownHandle(Arc::clone(&self.registry))
    }

    /// Returns the statistics of the server and of the exports that it has by now.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics::new(&self.counters, self.exports.all_counters())
    }

    /// Serves clients until [`ShutdownHandle::shutdown`] or, if there is nothing to listen on,
    /// until the last [adopted](Self::adopt) client has gone.
    ///
    /// Then no client is accepted and no request is read any more. Requests in flight are finished
    /// and answered; after [`Config::grace`] the connections that are left are cut. It returns when
    /// all threads have ended, so a device that never returns from a call keeps it.
    ///
    /// # Errors
    /// [`Error::System`] if waiting for clients fails; sessions are ended as in a shutdown.
    pub fn run(mut self) -> Result<Outcome, Error> {
        let (statistics, changes) = (self.statistics(), Arc::new(Changes::default()));
        let connected = std::mem::take(&mut self.connected);
        let listeners = std::mem::take(&mut self.listeners);
        let Self { exports, config, counters, .. } = &self;
        let service = Service { exports, config, counters, changes: &changes };
        let mut cut_off = 0;
        thread::scope(|scope| {
            let mut accept = Accept::new(scope, &service, &self.registry);
            connected.into_iter().for_each(|client| accept.start(client));
            let accepted = accept.until_stopped(&listeners);
            drop(listeners);
            self.exports.stopping();
            cut_off = self.registry.end_sessions(self.config.grace);
            accepted
        })?;
        Ok(statistics.snapshot().outcome(cut_off as u64))
    }
}
