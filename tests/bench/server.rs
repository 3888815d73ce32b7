// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers to work against, each in processes of its own.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fault_proxy::{Link, Relay};
use support::daemon::{Daemons, Ticket};
use support::door::{Door, built};
use support::process::Daemon;
use support::qemu::QemuNbd;
use support::target::Via;
use tempfile::TempDir;

use crate::contender::Bench;
use crate::limit::Address;
use crate::rows::{RowKind, Server};
use crate::sparse::{SCATTERED, SparseDisk, convert, sparse_size};
use crate::work::Work;

/// A transfer on a server, with its disk in memory.
pub(crate) struct Target {
    via: Via,
    pub(crate) url: String,
    pub(crate) cafile: Option<PathBuf>,
    /// The server's socket for local clients.
    socket: PathBuf,
    /// All processes on the server's side.
    pub(crate) pids: Vec<u32>,
    /// The path of the server's bytes, if it keeps any.
    storage: Option<PathBuf>,
    size: u64,
    /// The contents of the disk, if they are sparse.
    pub(crate) sparse: Option<SparseDisk>,
    relay: Option<Relay>,
    _qemu: Option<QemuNbd>,
    _fake: Option<Daemon>,
    // Last: the others use it to their end.
    pub(crate) dir: TempDir,
}

impl Target {
    /// Starts what it takes. What is read has contents, else the disk is empty.
    pub(crate) fn start(daemons: &Daemons, row: RowKind, bench: &Bench<'_>) -> Result<Self> {
        let dir = work_dir()?;
        let size = bench.source.len() as u64;
        let mut target = Self {
            via: row.via,
            url: String::new(),
            cafile: None,
            socket: dir.path().join("imageio.sock"),
            pids: Vec::new(),
            storage: None,
            size,
            sparse: None,
            relay: None,
            _qemu: None,
            _fake: None,
            dir,
        };
        match row.server {
            Server::Real => {
                let (disk, format) = target.make_disk(row.work, bench)?;
                target.start_real(daemons, disk, format, row.link)?;
            }
            Server::FakeNull => target.start_fake()?,
        }
        Ok(target)
    }

    /// The image, and its format.
    fn make_disk(&mut self, work: Work, bench: &Bench<'_>) -> Result<(PathBuf, &'static str)> {
        let disk = self.dir.path().join("disk.img");
        match work {
            work if work.is_read() => drop(fs::copy(&bench.image, &disk)?),
            Work::SparseRead { format, .. } => {
                let sparse = SparseDisk::make(bench.dir, bench.source, SCATTERED)?;
                convert(sparse.path(), &disk, format)?;
                (self.sparse, self.size) = (Some(sparse), sparse_size(self.size));
                return Ok((disk, format));
            }
            _ => File::create(&disk)?.set_len(self.size)?,
        }
        Ok((disk, "raw"))
    }

    fn start_real(
        &mut self,
        daemons: &Daemons,
        disk: PathBuf,
        format: &str,
        link: Option<Link>,
    ) -> Result<()> {
        let qemu = QemuNbd::start(&disk, format, self.dir.path().join("nbd.sock"))?;
        self.pids.push(qemu.id());
        let uuid = daemons.new_uuid();
        let ticket = Ticket {
            uuid: uuid.clone(),
            size: self.size,
            url: qemu.ticket_url(),
            writable: true,
            dirty: false,
            inactivity_timeout: None,
        };
        (self._qemu, self.storage) = (Some(qemu), Some(disk));
        daemons.with_daemon(self.via == Via::Https, |daemon| {
            daemon.add_ticket(&ticket)?;
            self.pids.push(daemon.id());
            self.relay = link.map(|link| Relay::start(daemon.addr(), link)).transpose()?;
            let addr = self.relay.as_ref().map_or(daemon.addr(), Relay::addr);
            self.url = daemon.url_by(addr, &uuid);
            self.socket = daemon.local_socket().into();
            if let Some(pki) = daemon.pki() {
                let cafile = self.dir.path().join("ca.pem");
                fs::write(&cafile, &pki.ca_pem)?;
                self.cafile = Some(cafile);
            }
            Ok(())
        })?;
        Ok(())
    }

    fn start_fake(&mut self) -> Result<()> {
        let (url, cafile) = (self.dir.path().join("url"), self.dir.path().join("ca.pem"));
        let mut command = Command::new(built("fake-imageio"));
        command.args(["--backend", "null", "--size", &self.size.to_string(), "--url-file"]).arg(&url);
        match self.via {
            Via::Http => {}
            Via::Unix => drop(command.arg("--unix-socket").arg(&self.socket)),
            Via::Https => {
                command.arg("--tls").arg("--cafile-out").arg(&cafile);
                self.cafile = Some(cafile);
            }
        }
        let mut process = Daemon::spawn(&mut command)?;
        self.url = process.retry(|| match fs::read_to_string(&url)? {
            url if url.contains("/images/") => Ok(url),
            _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
        })?;
        self.pids.push(process.id());
        self._fake = Some(process);
        Ok(())
    }

    /// Returns the parameters that lead a door here in the row's way.
    pub(crate) fn parameters(&self, door: Door) -> Vec<String> {
        let mut parameters = vec![format!("url={}", self.url), format!("size={}", self.size)];
        parameters.extend(self.cafile.as_ref().map(|cafile| format!("cafile={}", cafile.display())));
        match (self.via, door) {
            (Via::Unix, _) => parameters.push("is_ovirt_host=true".into()),
            (_, Door::Reference) => {}
            _ => parameters.push("unix-socket=false".into()),
        }
        parameters
    }

    /// Returns the address to which plain sockets connect, if they can.
    pub(crate) fn address(&self) -> Result<Address> {
        if self.via == Via::Unix {
            return Ok(Address::Unix(self.socket.clone()));
        }
        let rest = self.url.strip_prefix("http://").context("not http")?;
        let host = rest.split('/').next().unwrap_or(rest);
        Ok(Address::Tcp(host.parse()?))
    }

    /// The path part of the URL.
    pub(crate) fn path(&self) -> &str {
        self.url.find("/images/").map_or("", |at| &self.url[at..])
    }

    /// Makes the disk empty, so that what is there afterwards was written since.
    pub(crate) fn clear(&self) -> Result<()> {
        if let Some(storage) = &self.storage {
            let file = OpenOptions::new().write(true).open(storage)?;
            file.set_len(0)?;
            file.set_len(self.size)?;
        }
        Ok(())
    }

    /// Compares what the server keeps with what was to be uploaded.
    pub(crate) fn verify(&self, source: &[u8]) -> Result<()> {
        self.storage.as_ref().map_or(Ok(()), |storage| same(storage, source))
    }
}

/// Compares a file with what it should be, piece by piece.
pub(crate) fn same(file: &Path, expected: &[u8]) -> Result<()> {
    let length = file.metadata()?.len();
    ensure!(length == expected.len() as u64, "{length} bytes instead of {}", expected.len());
    let mut file = File::open(file)?;
    let mut found = vec![0; 1 << 20];
    for (n, expected) in expected.chunks(1 << 20).enumerate() {
        let found = &mut found[..expected.len()];
        file.read_exact(found)?;
        ensure!(found == expected, "wrong data in MiB {n}");
    }
    Ok(())
}

/// In memory, where there is a place for that.
pub(crate) fn work_dir() -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("imageio-nbd-bench-");
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() { builder.tempdir_in(memory)? } else { builder.tempdir()? })
}
