// SPDX-License-Identifier: MIT OR Apache-2.0
//! The settings of a server.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::backend::Backend;
use crate::fault::Fault;
use crate::server::FakeServer;
use crate::tls::{Certificate, Pki};

/// The ticket id unless another is chosen.
pub const DEFAULT_TICKET: &str = "5a3c1f7e-9d24-4b68-8e0b-c17f62a9d043";

/// The answer to `OPTIONS`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionsMode {
    /// 200 with JSON.
    #[default]
    Normal,
    /// 405, as daemons before oVirt 4.2 did; `PATCH` is a 405, too.
    MethodNotAllowed,
    /// 204 without a body, as proxies before oVirt 4.2 did; `PATCH` is a 405.
    NoContent,
    /// 200 with something that is not JSON; `PATCH` is a 405.
    Malformed,
    /// 200 with an empty JSON object; `PATCH` is a 405.
    MissingKeys,
}

/// The unix socket that an `OPTIONS` answer names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Advertise {
    /// The one that the server listens on, if any.
    #[default]
    Own,
    Nothing,
    Other(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Features {
    pub(crate) zero: bool,
    pub(crate) flush: bool,
    pub(crate) extents: bool,
    pub(crate) checksum: bool,
}

/// When connections are closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closing {
    /// After so many answers.
    pub(crate) answers: u64,
    /// The last one says so.
    pub(crate) announced: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) ticket: String,
    pub(crate) transfer: String,
    pub(crate) size: Option<u64>,
    pub(crate) backend: Backend,
    pub(crate) contents: Vec<u8>,
    pub(crate) read_only: bool,
    pub(crate) features: Features,
    pub(crate) dirty: Option<Vec<Range<u64>>>,
    pub(crate) records_dirty: bool,
    pub(crate) max_readers: Option<u32>,
    pub(crate) max_writers: Option<u32>,
    pub(crate) unix_socket: Option<String>,
    pub(crate) advertise: Advertise,
    pub(crate) options: OptionsMode,
    pub(crate) one_at_a_time: bool,
    pub(crate) inactivity_timeout: Option<Duration>,
    pub(crate) tls: Option<Certificate>,
    pub(crate) pki: Option<Pki>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) volatile: bool,
    pub(crate) block_size: Option<u64>,
    pub(crate) closing: Option<Closing>,
    pub(crate) log_requests: bool,
    pub(crate) threads: usize,
}

impl Config {
    pub(crate) fn advertised_socket(&self) -> Option<&str> {
        match &self.advertise {
            Advertise::Own => self.unix_socket.as_deref(),
            Advertise::Nothing => None,
            Advertise::Other(socket) => Some(socket),
        }
    }
}

/// Options of a server; [`start`](Self::start) makes it. The defaults are those of a real server
/// with the NBD backend: an empty 1 MiB disk in memory, one writable ticket, 8 readers and 8
/// writers, 60 s until idle connections are closed; but plain HTTP on 127.0.0.1, and no unix
/// socket.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder(Config);

impl Default for Builder {
    fn default() -> Self {
        Self(Config {
            host: "127.0.0.1".to_owned(),
            port: 0,
            ticket: DEFAULT_TICKET.to_owned(),
            transfer: "1b7e4c52-fake-transfer".to_owned(),
            size: None,
            backend: Backend::Memory,
            contents: Vec::new(),
            read_only: false,
            features: Features { zero: true, flush: true, extents: true, checksum: true },
            dirty: None,
            records_dirty: false,
            max_readers: Some(8),
            max_writers: Some(8),
            unix_socket: None,
            advertise: Advertise::Own,
            options: OptionsMode::Normal,
            one_at_a_time: false,
            inactivity_timeout: Some(Duration::from_secs(60)),
            tls: None,
            pki: None,
            faults: Vec::new(),
            volatile: false,
            block_size: None,
            closing: None,
            log_requests: true,
            threads: 1,
        })
    }
}

impl Builder {
    /// Address to listen on; default `127.0.0.1`.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.0.host = host.into();
        self
    }

    /// TCP port; 0, the default, lets the kernel choose.
    pub fn port(mut self, port: u16) -> Self {
        self.0.port = port;
        self
    }

    /// Ticket id; default [`DEFAULT_TICKET`].
    pub fn ticket(mut self, ticket: impl Into<String>) -> Self {
        self.0.ticket = ticket.into();
        self
    }

    /// Size of the disk in bytes. Default: that of the [`contents`](Self::contents) or of the
    /// backend's file, else 1 MiB.
    pub fn size(mut self, size: u64) -> Self {
        self.0.size = Some(size);
        self
    }

    /// Sets the storage of the bytes; memory by default.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.0.backend = backend;
        self
    }

    /// Sets the content of the disk, from its first byte on, when the server starts.
    pub fn contents(mut self, contents: Vec<u8>) -> Self {
        self.0.contents = contents;
        self
    }

    /// A ticket for reading only: no flush, no zero, no `PUT` or `PATCH`; writes are a 403.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.0.read_only = read_only;
        self
    }

    /// Offer and understand `zero`; default on.
    pub fn zero(mut self, on: bool) -> Self {
        self.0.features.zero = on;
        self
    }

    /// Offer and understand `flush`; default on.
    pub fn flush(mut self, on: bool) -> Self {
        self.0.features.flush = on;
        self
    }

    /// Offer extents; default on. Without, `…/extents` is a 403, as in servers before 2.0.
    pub fn extents(mut self, on: bool) -> Self {
        self.0.features.extents = on;
        self
    }

    /// Offer checksums; default on. Without, `…/checksum` is a 404.
    pub fn checksum(mut self, on: bool) -> Self {
        self.0.features.checksum = on;
        self
    }

    /// A ticket of an incremental backup: `context=dirty` tells these byte ranges. Default: it is a
    /// 404.
    pub fn dirty(mut self, ranges: Vec<Range<u64>>) -> Self {
        self.0.dirty = Some(ranges);
        self
    }

    /// The ranges of [`dirty`](Self::dirty) are those of a bitmap that takes note of changes, in
    /// blocks of 64 KiB, as qemu's does where the image may be written. Default: it stands still,
    /// as in a backup of a running machine.
    pub fn record_dirty(mut self, on: bool) -> Self {
        self.0.records_dirty = on;
        self
    }

    /// `max_readers` in `OPTIONS`, or none at all; default 8. It is not enforced.
    pub fn max_readers(mut self, readers: Option<u32>) -> Self {
        self.0.max_readers = readers;
        self
    }

    /// `max_writers` in `OPTIONS`, or none at all; default 8. It is not enforced.
    pub fn max_writers(mut self, writers: Option<u32>) -> Self {
        self.0.max_writers = writers;
        self
    }

    /// Listen on a unix socket, too: a path, or an abstract name that starts with NUL. `OPTIONS`
    /// tells it.
    pub fn unix_socket(mut self, socket: impl Into<String>) -> Self {
        self.0.unix_socket = Some(socket.into());
        self
    }

    /// Let `OPTIONS` tell this unix socket, whether or not the server listens there, or none.
    pub fn advertise_unix_socket(mut self, socket: Option<String>) -> Self {
        self.0.advertise = socket.map_or(Advertise::Nothing, Advertise::Other);
        self
    }

    /// Sets the answer to `OPTIONS`; that of the real server by default.
    pub fn options(mut self, mode: OptionsMode) -> Self {
        self.0.options = mode;
        self
    }

    /// Accept a connection only when the former one is closed.
    pub fn one_at_a_time(mut self, on: bool) -> Self {
        self.0.one_at_a_time = on;
        self
    }

    /// Close connections on which nothing moves for this long, from accepting on and after each
    /// answer; time in which the server itself is at work does not count. `None` never closes them.
    /// Default 60 s.
    pub fn inactivity_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.0.inactivity_timeout = timeout;
        self
    }

    /// HTTPS on the TCP port, with this kind of certificate; default plain HTTP.
    pub fn tls(mut self, certificate: Certificate) -> Self {
        self.0.tls = Some(certificate);
        self
    }

    /// HTTPS on the TCP port, with these certificates, which others may have, too.
    pub fn pki(mut self, pki: Pki) -> Self {
        self.0.pki = Some(pki);
        self
    }

    /// Adds a fault to the script.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.0.faults.push(fault);
        self
    }

    /// Makes the server lose what is not flushed on the connection that wrote it: in a [power
    /// cut](FakeServer::cut_power), or when its [way to the host](FakeServer::lose_way) is lost;
    /// off by default. All that was ever written and not flushed is kept in memory.
    pub fn volatile(mut self, on: bool) -> Self {
        self.0.volatile = on;
        self
    }

    /// The disk is a block device with blocks of so many bytes, a power of two; default: a file,
    /// which is changed byte by byte. Where a change begins or ends inside of a block, that block
    /// is read, changed and written back, without a lock: other connections get turns meanwhile,
    /// and lose what they write to that block. So it is with the real server's `file://` on a block
    /// device, which takes 8 writers.
    pub fn block_device(mut self, block_size: u64) -> Self {
        self.0.block_size = Some(block_size);
        self
    }

    /// Close each connection after so many answers, of which the last says so by
    /// `connection: close`, or doesn't. Default: connections stay open.
    pub fn close_after(mut self, answers: u64, announced: bool) -> Self {
        self.0.closing = Some(Closing { answers, announced });
        self
    }

    /// Keep a record of each request; default on. Connections are always recorded.
    pub fn log_requests(mut self, on: bool) -> Self {
        self.0.log_requests = on;
        self
    }

    /// Threads that serve connections; default 1, more for benchmarks.
    pub fn threads(mut self, threads: usize) -> Self {
        self.0.threads = threads.max(1);
        self
    }

    /// Starts the server. It accepts connections when this returns.
    ///
    /// # Errors
    /// If it cannot listen, open the backend's file, make certificates, or start its thread.
    pub fn start(mut self) -> io::Result<FakeServer> {
        let config = &mut self.0;
        if config.size.is_none() {
            let is_file = matches!(config.backend, Backend::File(_));
            config.size = match config.contents.len() as u64 {
                0 if is_file => None,
                0 => Some(1 << 20),
                len => Some(len),
            };
        }
        FakeServer::start(self.0)
    }
}

/// A unix socket's path, or nothing if it is an abstract one.
pub(crate) fn socket_path(socket: &str) -> Option<PathBuf> {
    (!socket.starts_with('\0')).then(|| PathBuf::from(socket))
}
