// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handle of a running engine, and its accept loop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fake_imageio::Pki;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::auth::Auth;
use crate::builder::Builder;
use crate::engine::{Engine, Inner};
use crate::fault::{Fault, Script};
use crate::host::Host;
use crate::journal::{Journal, RequestRecord};
use crate::service::{self, Shared};
use crate::state::{Action, Backup, Checkpoint, Disk, HostStatus, Id, Job, Layer, Phase, Transfer, Vm};
use crate::storage::{PlainStorage, QemuStorage, Storage};

/// The time between two steps of the engine if nobody asks for anything.
const TICK: Duration = Duration::from_millis(100);

/// The time that a client may take to shake hands, or to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A running engine. Its drop closes all connections, removes its tickets, and ends its thread.
#[derive(Debug)]
pub struct FakeEngine {
    shared: Arc<Shared>,
    addr: SocketAddr,
    pki: Option<Pki>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    // Last: the others use it to their end.
    _dir: Option<TempDir>,
}

impl FakeEngine {
    /// The options of an engine to be, whose host has this imageio server.
    pub fn builder(imageio: impl Host + 'static) -> Builder {
        Builder::new(Arc::new(imageio))
    }

    pub(crate) fn start(builder: Builder) -> io::Result<Self> {
        let (dir, path) = match &builder.dir {
            Some(path) => (None, path.clone()),
            None => {
                let dir = tempfile::Builder::new().prefix("engine-").tempdir()?;
                let path = dir.path().to_owned();
                (Some(dir), path)
            }
        };
        let listener = TcpListener::bind((builder.address.as_str(), builder.port))?;
        let addr = listener.local_addr()?;
        let tls = builder.pki.as_ref().map(Pki::server_config).transpose()?.map(TlsAcceptor::from);
        let state = builder.state(Instant::now());
        let storage: Box<dyn Storage> = match builder.imageio.wants_plain_files() {
            true => Box::new(PlainStorage::new(path)),
            false => Box::new(QemuStorage::new(path)),
        };
        let shared = Arc::new(Shared {
            engine: Engine::new(state, storage, builder.imageio),
            auth: Auth::new(builder.users),
            script: Script::default(),
            journal: Journal::default(),
            ca_pem: builder.pki.as_ref().map(|pki| pki.ca_pem.clone()),
            is_silent: AtomicBool::new(false),
            restarts: watch::Sender::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let runtime =
            runtime::Builder::new_current_thread().thread_name("fake-engine-worker").enable_all().build()?;
        let listener = {
            let _guard = runtime.enter();
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)?
        };
        let acceptor = Acceptor { shared: Arc::clone(&shared), tls };
        let thread = std::thread::Builder::new().name("fake-engine".to_owned()).spawn(move || {
            runtime.block_on(acceptor.run(listener, stopped));
            // Dropping the runtime drops all connections.
        })?;
        Ok(Self { shared, addr, pki: builder.pki, stop: Some(stop), thread: Some(thread), _dir: dir })
    }

    /// `https://…/ovirt-engine/api`, or `http://…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/ovirt-engine/api", self.base())
    }

    /// Returns the beginning of the URL: scheme, address and port.
    #[must_use]
    pub fn base(&self) -> String {
        format!("{}://{}", if self.pki.is_some() { "https" } else { "http" }, self.addr)
    }

    /// Returns the address on which the engine listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its certificates, with TLS.
    #[must_use]
    pub fn pki(&self) -> Option<&Pki> {
        self.pki.as_ref()
    }

    /// Returns the requests that the engine has got so far.
    #[must_use]
    pub fn journal(&self) -> Vec<RequestRecord> {
        self.shared.journal.records()
    }

    /// Waits until something is so; false if it isn't within `timeout`. It is looked at whenever
    /// something happens.
    #[must_use]
    pub fn wait_for(&self, timeout: Duration, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            if condition(self) {
                return true;
            }
            if !self.shared.journal.wait(deadline) {
                return false;
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.engine.lock(Instant::now())
    }

    /// The disks that there are.
    #[must_use]
    pub fn disks(&self) -> Vec<Disk> {
        self.inner().state.disks.clone()
    }

    /// The transfers that can be looked up, also those that are over.
    #[must_use]
    pub fn transfers(&self) -> Vec<Transfer> {
        self.inner().state.transfers.clone()
    }

    /// The backups that there are, also those that are over.
    #[must_use]
    pub fn backups(&self) -> Vec<Backup> {
        self.inner().state.backups.clone()
    }

    /// The checkpoints that there are, the oldest first.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        self.inner().state.checkpoints.clone()
    }

    /// The virtual machines that there are.
    #[must_use]
    pub fn vms(&self) -> Vec<Vm> {
        self.inner().state.vms.clone()
    }

    /// The jobs that there were.
    #[must_use]
    pub fn jobs(&self) -> Vec<Job> {
        self.inner().state.jobs.clone()
    }

    /// Returns the number of sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.shared.auth.sessions()
    }

    /// The tokens of the sessions, which are secrets.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.shared.auth.tokens_in_use()
    }

    /// The file of the image of a disk that is written; that of a snapshot by
    /// [`layer_file`](Self::layer_file).
    #[must_use]
    pub fn image_file(&self, disk: &Disk) -> PathBuf {
        self.layer_file(disk.top())
    }

    /// The file of an image.
    #[must_use]
    pub fn layer_file(&self, layer: &Layer) -> PathBuf {
        self.inner().storage.file(&layer.image)
    }

    /// Attaches a disk to a virtual machine.
    ///
    /// # Errors
    /// If there is no such disk or virtual machine, or the disk is attached already.
    pub fn attach_disk(&self, vm: &str, disk: &str) -> io::Result<()> {
        self.inner().state.attach_disk(vm, disk).map_err(|refusal| io::Error::other(refusal.detail))
    }

    /// Lets a virtual machine see a disk that is attached to it, or not.
    ///
    /// # Errors
    /// If the disk is not attached to it.
    pub fn set_disk_active(&self, vm: &str, disk: &str, is_active: bool) -> io::Result<()> {
        let set = self.inner().state.set_disk_active(vm, disk, is_active);
        set.map_err(|refusal| io::Error::other(refusal.detail))
    }

    /// Begins to remove a disk: it is gone after the time that it takes to make one.
    ///
    /// # Errors
    /// If there is no such disk, or it is in use.
    pub fn remove_disk(&self, disk: &str) -> io::Result<()> {
        let removed = self.inner().state.remove_disk(disk, Instant::now());
        removed.map_err(|refusal| io::Error::other(refusal.detail))
    }

    /// Makes a disk one that several virtual machines may have.
    pub fn share_disk(&self, disk: &str) {
        if let Some(disk) = self.inner().state.disk_mut(disk) {
            disk.shareable = true;
        }
    }

    /// Takes a snapshot of a disk, and tells its image, which is that of a disk snapshot.
    ///
    /// # Errors
    /// If there is no such disk, it is locked, or `qemu-img` fails.
    pub fn snapshot_disk(&self, disk: &str) -> io::Result<Layer> {
        self.inner().add_snapshot(disk)
    }

    /// An administrator cancels a transfer.
    pub fn cancel_transfer(&self, id: &str) {
        // Cancelling is never refused.
        let _ = self.inner().state.act(id, Action::Cancel, Instant::now());
    }

    /// The engine pauses a transfer that isn't over, as it does when it can't reach the host.
    pub fn pause_transfer(&self, id: &str) {
        let mut inner = self.inner();
        if inner.state.transfer(id).is_ok_and(|transfer| !transfer.is_over()) {
            inner.state.enter(id, Phase::PausedSystem, Instant::now());
        }
    }

    /// The image of the next upload that is finalized is found to be bad.
    pub fn spoil_next_upload(&self) {
        self.inner().state.bad_images += 1;
    }

    /// The identifier of a host, by its name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<Id> {
        let inner = self.inner();
        let host = inner.state.hosts.iter().find(|host| host.name == name);
        host.map(|host| host.id.clone())
    }

    /// A host, by its name, goes up or down.
    pub fn set_host_status(&self, name: &str, status: HostStatus) {
        let hosts = &mut self.inner().state.hosts;
        hosts.iter_mut().filter(|host| host.name == name).for_each(|host| host.status = status);
    }

    /// All tokens are good no more.
    pub fn expire_tokens(&self) {
        self.shared.auth.expire();
    }

    /// The engine is started again: all connections are closed, all sessions end, and what it knows
    /// is kept.
    pub fn restart(&self) {
        self.shared.restart();
    }

    /// Adds a fault to the script.
    pub fn fault(&self, fault: Fault) {
        self.shared.script.add(fault);
    }

    /// Forgets all faults that have not happened yet.
    pub fn clear_faults(&self) {
        self.shared.script.clear();
    }

    /// Ends the engine: closes its socket and all connections, waits for its thread, and removes
    /// its tickets. What it knows can still be looked at.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return };
        if thread.join().is_err() {
            log::error!("the engine's thread panicked");
        }
        let mut inner = self.inner();
        let open = inner.state.transfers.iter().filter(|transfer| transfer.has_ticket);
        let open: Vec<(Id, _)> =
            open.map(|transfer| (transfer.id.clone(), transfer.ticket.clone())).collect();
        for (id, ticket) in open {
            let removed = inner.host.remove_ticket(&ticket).map(drop);
            if let Err(error) = removed.and_then(|()| inner.storage.close(&id)) {
                log::debug!("a transfer is left: {error}");
            }
        }
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Acceptor {
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
}

impl Acceptor {
    async fn run(self, listener: tokio::net::TcpListener, mut stopped: oneshot::Receiver<()>) {
        let ticks = tokio::spawn(pass_time(Arc::clone(&self.shared)));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = &mut stopped => break,
            };
            match accepted {
                Ok((socket, _)) => {
                    // An error only makes it slower.
                    let _ = socket.set_nodelay(true);
                    tokio::spawn(serve(Arc::clone(&self.shared), self.tls.clone(), socket));
                }
                Err(error) => {
                    log::warn!("cannot accept a connection: {error}");
                    tokio::task::yield_now().await;
                }
            }
        }
        ticks.abort();
    }
}

/// Does what is due, also if nobody asks.
async fn pass_time(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let shared = Arc::clone(&shared);
        let passed = tokio::task::spawn_blocking(move || {
            drop(shared.engine.lock(Instant::now()));
            shared.journal.notify();
        });
        if passed.await.is_err() {
            log::error!("what was due could not be done");
        }
    }
}

async fn serve(shared: Arc<Shared>, tls: Option<TlsAcceptor>, socket: TcpStream) {
    let mut restarts = shared.restarts.subscribe();
    let serving = async {
        match tls {
            None => converse(shared, socket).await,
            Some(tls) => match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(socket)).await {
                Ok(Ok(secured)) => converse(shared, secured).await,
                _ => log::debug!("a client didn't shake hands"),
            },
        }
    };
    tokio::select! {
        () = serving => {}
        _ = restarts.changed() => {}
    }
}

async fn converse(shared: Arc<Shared>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(move |request| service::handle(Arc::clone(&shared), request));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        log::debug!("a connection has ended: {error}");
    }
}
