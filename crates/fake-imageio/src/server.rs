// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handle of a running server, and its accept loops.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::runtime::{self, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;

use crate::backend::Disk;
use crate::bitmap::Bitmap;
use crate::config::{Builder, Config, socket_path};
use crate::connection::{self, Accepted, Registration, Registry};
use crate::fault::Fault;
use crate::journal::{Log, Recorder, Transport};
use crate::script::Script;
use crate::shared::Shared;
use crate::stream::Cut;
use crate::tls::Pki;
use crate::volatile_cache::VolatileCache;

/// A running server. Dropping it closes all connections, and ends its thread before it returns.
#[derive(Debug)]
pub struct FakeServer {
    shared: Arc<Shared>,
    addr: SocketAddr,
    pki: Option<(Pki, NamedTempFile)>,
    unix_path: Option<PathBuf>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    /// The options of a server to be.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start(config: Config) -> io::Result<Self> {
        let disk = Arc::new(Disk::open(&config.backend, config.size)?);
        if config.contents.len() as u64 > disk.size() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the contents are larger than the disk"));
        }
        let tcp = TcpListener::bind((config.host.as_str(), config.port))?;
        let addr = tcp.local_addr()?;
        let unix = config.unix_socket.as_deref().map(bind_unix).transpose()?;
        let unix_path = config.unix_socket.as_deref().and_then(socket_path);
        let made = config.tls.as_ref().map(Pki::generate).transpose()?;
        let pki = config.pki.clone().or(made).map(with_cafile).transpose()?;
        let tls = pki.as_ref().map(|(pki, _)| pki.server_config()).transpose()?.map(TlsAcceptor::from);
        let script = Script::new(config.faults.clone());
        let recorder = Arc::new(Recorder::new(config.log_requests));
        if config.block_size.is_some_and(|size| !size.is_power_of_two()) {
            let text = "the size of a block is a power of two";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let cache = config.volatile.then(|| VolatileCache::new(disk.size())).transpose()?;
        let canceled = AtomicBool::new(false);
        let registry = Registry::default();
        let recorded_size = config.records_dirty.then(|| disk.size());
        let bitmap = config.dirty.as_ref().map(|ranges| Bitmap::new(ranges, recorded_size));
        let shared = Shared { config, disk, cache, bitmap, script, recorder, canceled, registry };
        let shared = Arc::new(shared);
        shared.write_through(0, &shared.config.contents)?;
        let acceptor = Acceptor {
            shared: Arc::clone(&shared),
            slots: shared.config.one_at_a_time.then(|| Arc::new(Semaphore::new(1))),
        };
        let (stop, stopped) = oneshot::channel();
        let runtime = make_runtime(shared.config.threads)?;
        let (tcp, unix) = register(&runtime, tcp, unix)?;
        let thread = std::thread::Builder::new().name("fake-imageio".to_owned()).spawn(move || {
            runtime.block_on(acceptor.run(tcp, tls, unix, stopped));
            // Dropping the runtime drops all connections.
        })?;
        Ok(Self { shared, addr, pki, unix_path, stop: Some(stop), thread: Some(thread) })
    }

    /// `http://…/images/TICKET` or `https://…/images/TICKET`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_for_host(&match self.addr {
            SocketAddr::V4(addr) => addr.ip().to_string(),
            SocketAddr::V6(addr) => format!("[{}]", addr.ip()),
        })
    }

    /// The URL with another name for this host, such as `localhost`.
    #[must_use]
    pub fn url_for_host(&self, host: &str) -> String {
        let scheme = if self.pki.is_some() { "https" } else { "http" };
        format!("{scheme}://{host}:{}{}", self.addr.port(), self.path())
    }

    /// The path of the ticket: `/images/TICKET`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/images/{}", self.shared.config.ticket)
    }

    /// Returns the address on which the server listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Size of the disk in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.shared.disk.size()
    }

    /// Certificates and key, with TLS.
    #[must_use]
    pub fn pki(&self) -> Option<&Pki> {
        self.pki.as_ref().map(|(pki, _)| pki)
    }

    /// The CA to trust as PEM, with TLS.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        self.pki().map(|pki| pki.ca_pem.as_str())
    }

    /// A file with the CA to trust, with TLS; it lives as long as the server.
    #[must_use]
    pub fn cafile(&self) -> Option<&Path> {
        self.pki.as_ref().map(|(_, file)| file.path())
    }

    /// The unix socket it listens on; an abstract one starts with NUL.
    #[must_use]
    pub fn unix_socket(&self) -> Option<&str> {
        self.shared.config.unix_socket.as_deref()
    }

    /// A copy of the whole disk.
    ///
    /// # Errors
    /// If the backend's file cannot be read.
    pub fn contents(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.size()).map_err(io::Error::other)?;
        self.read(0, len)
    }

    /// Some bytes of the disk; those past its end are zeroes.
    ///
    /// # Errors
    /// If the backend's file cannot be read.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut buf = vec![0; len];
        self.shared.disk.read(offset, &mut buf)?;
        Ok(buf)
    }

    /// Changes the disk behind its clients' backs.
    ///
    /// # Errors
    /// If the range is not inside the disk, or the backend's file cannot be written.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > self.size()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "past the end of the disk"));
        }
        self.shared.write_through(offset, data)
    }

    /// A copy of what the server saw so far.
    #[must_use]
    pub fn log(&self) -> Log {
        self.shared.recorder.snapshot()
    }

    /// Waits until the log fulfils a condition; false if it does not within `timeout`. The
    /// condition is tried under the log's lock each time that something happens: it must not use
    /// the server.
    #[must_use]
    pub fn wait_for(&self, timeout: Duration, condition: impl FnMut(&Log) -> bool) -> bool {
        self.shared.recorder.wait_for(timeout, condition)
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.recorder.counts().0
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.recorder.counts().1
    }

    /// Adds a fault to the script.
    pub fn fault(&self, fault: Fault) {
        self.shared.script.add(fault);
    }

    /// Forgets all faults that have not happened yet.
    pub fn clear_faults(&self) {
        self.shared.script.clear();
    }

    /// From now on the ticket is a 403, as if the transfer had been cancelled.
    pub fn cancel_ticket(&self) {
        self.shared.canceled.store(true, Ordering::SeqCst);
    }

    /// Closes all connections on which no request is under way, without a word.
    pub fn close_idle(&self) {
        self.shared.each_connection(|conn| {
            if conn.is_idle() {
                conn.close_when_idle();
            }
        });
    }

    /// Closes a connection (FIN), whatever it is doing.
    pub fn close_connection(&self, id: u64) {
        self.shared.each_connection(|conn| {
            if conn.id == id {
                conn.cut(Cut::Close);
            }
        });
    }

    /// Resets a connection (RST), whatever it is doing. A unix socket is only closed.
    pub fn reset_connection(&self, id: u64) {
        self.shared.each_connection(|conn| {
            if conn.id == id {
                conn.cut(Cut::Reset);
            }
        });
    }

    /// Puts the disk back to what was flushed, and resets all connections: the server is started
    /// again after a power cut. Only for a [volatile](Builder::volatile) one.
    ///
    /// # Errors
    /// If it is not volatile, or the backend's file cannot be used.
    pub fn cut_power(&self) -> io::Result<()> {
        self.shared.cut_power()
    }

    /// The server is a proxy whose way to the host is lost, while the connections of its clients
    /// stay open. What is not flushed is gone, if it is [volatile](Builder::volatile). On each
    /// connection, the next request of any kind isn't carried out, and is answered by `status`; the
    /// one after it finds a new way. A request that is under way gets that answer too, whatever
    /// came of it.
    ///
    /// # Errors
    /// If the backend's file cannot be used.
    pub fn lose_way(&self, status: u16) -> io::Result<()> {
        self.shared.lose_way(status, |_| true)
    }

    /// [`lose_way`](Self::lose_way) for one connection only: what was written on others is not
    /// lost.
    ///
    /// # Errors
    /// If the backend's file cannot be used.
    pub fn lose_way_of(&self, connection: u64, status: u16) -> io::Result<()> {
        self.shared.lose_way(status, |conn| conn.id == connection)
    }

    /// Ends the server: closes its sockets and all connections, and waits for its thread. The log
    /// and the disk can still be read.
    pub fn shutdown(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            if thread.join().is_err() {
                log::error!("the server's thread panicked");
            }
            if let Some(path) = &self.unix_path {
                // It may be gone with its directory.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn with_cafile(pki: Pki) -> io::Result<(Pki, NamedTempFile)> {
    let mut file = tempfile::Builder::new().prefix("fake-imageio-ca-").suffix(".pem").tempfile()?;
    file.write_all(pki.ca_pem.as_bytes())?;
    Ok((pki, file))
}

fn bind_unix(socket: &str) -> io::Result<UnixListener> {
    match socket.strip_prefix('\0') {
        Some(name) => UnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?),
        None => {
            // The real server does the same: a socket that a former one left behind is in the way.
            if std::fs::symlink_metadata(socket).is_ok_and(|found| found.file_type().is_socket()) {
                std::fs::remove_file(socket)?;
            }
            UnixListener::bind(socket)
        }
    }
}

fn make_runtime(threads: usize) -> io::Result<Runtime> {
    let mut builder = match threads {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.thread_name("fake-imageio-worker").enable_io().enable_time().build()
}

type Listeners = (tokio::net::TcpListener, Option<tokio::net::UnixListener>);

fn register(runtime: &Runtime, tcp: TcpListener, unix: Option<UnixListener>) -> io::Result<Listeners> {
    let _guard = runtime.enter();
    tcp.set_nonblocking(true)?;
    let unix = unix.map(|unix| {
        unix.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(unix)
    });
    Ok((tokio::net::TcpListener::from_std(tcp)?, unix.transpose()?))
}

struct Acceptor {
    shared: Arc<Shared>,
    slots: Option<Arc<Semaphore>>,
}

impl Acceptor {
    async fn run(
        self,
        tcp: tokio::net::TcpListener,
        tls: Option<TlsAcceptor>,
        unix: Option<tokio::net::UnixListener>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        loop {
            // A closed semaphore cannot be: it is ours. Then None is as good as no limit.
            let slot = match &self.slots {
                Some(slots) => tokio::select! {
                    slot = Arc::clone(slots).acquire_owned() => slot.ok(),
                    _ = &mut stopped => return,
                },
                None => None,
            };
            let accepted = tokio::select! {
                accepted = tcp.accept() => accepted.map(|(tcp, _)| Accepted::Tcp(tcp)),
                accepted = accept_unix(unix.as_ref()) => accepted.map(Accepted::Unix),
                _ = &mut stopped => return,
            };
            let accepted = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Usually a client that is gone again; if it is a lack of descriptors, closing
                    // ones end it.
                    log::warn!("cannot accept a connection: {error}");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let transport = match accepted {
                Accepted::Tcp(_) => Transport::Tcp,
                Accepted::Unix(_) => Transport::Unix,
            };
            let registration = Registration::new(&self.shared, transport);
            let serving = connection::serve(registration, accepted, tls.clone());
            tokio::spawn(async move {
                serving.await;
                drop(slot);
            });
        }
    }
}

async fn accept_unix(listener: Option<&tokio::net::UnixListener>) -> io::Result<tokio::net::UnixStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}
