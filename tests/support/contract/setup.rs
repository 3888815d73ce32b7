// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server with a fresh disk for each case.

use std::error::Error;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use fake_imageio::{Backend, Certificate, FakeServer};
use support::daemon::{Daemons, Ticket};
use support::http::{Answer, Client, Endpoint};
use support::qemu::{QemuNbd, add_bitmap, create_image};
use tempfile::TempDir;

/// Size of the disks, in bytes: more than the 8 MiB that the real daemon reads at once.
pub(crate) const SIZE: u64 = 12 << 20;

const BITMAP: &str = "bitmap";

/// A server, and what is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    FakeMemory,
    FakeFile,
    RealFile,
    /// Behind `qemu-nbd`, with an image of this format.
    RealNbd(&'static str),
}

impl Server {
    pub(crate) fn is_real(self) -> bool {
        matches!(self, Self::RealFile | Self::RealNbd(_))
    }

    /// Returns true if a ticket of an incremental backup has something to tell.
    pub(crate) fn knows_what_is_dirty(self) -> bool {
        matches!(self, Self::FakeMemory | Self::FakeFile | Self::RealNbd("qcow2"))
    }

    pub(crate) fn max_writers(self) -> u64 {
        if self == Self::RealFile { 1 } else { 8 }
    }
}

/// A way to reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Http,
    Https,
    Unix,
    AbstractUnix,
}

/// The demands of a case on its ticket.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Needs {
    pub(crate) read_only: bool,
    /// Idle connections are closed after a second.
    pub(crate) short_timeout: bool,
    /// It is that of an incremental backup. The bitmap, where the image can have one, takes note of
    /// changes.
    pub(crate) dirty: bool,
}

/// A server with one ticket and an empty disk.
pub(crate) struct Setup<'a> {
    pub(crate) server: Server,
    pub(crate) endpoint: Endpoint,
    /// `/images/TICKET`.
    pub(crate) path: String,
    /// The unix socket that `OPTIONS` should tell.
    pub(crate) unix_socket: String,
    pub(crate) fake: Option<FakeServer>,
    world: &'a Daemons,
    uuid: String,
    via: Via,
    // In the order of their end.
    _qemu: Option<QemuNbd>,
    _dir: TempDir,
}

pub(crate) type CaseResult = Result<(), Box<dyn Error>>;

impl<'a> Setup<'a> {
    pub(crate) fn new(world: &'a Daemons, server: Server, via: Via, needs: Needs) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("contract-").tempdir()?;
        if server.is_real() {
            Self::real(world, server, via, needs, dir)
        } else {
            Self::fake(world, server, via, needs, dir)
        }
    }

    fn fake(world: &'a Daemons, server: Server, via: Via, needs: Needs, dir: TempDir) -> io::Result<Self> {
        let uuid = world.new_uuid();
        let unix_socket = match via {
            Via::AbstractUnix => format!("\0contract/{}/{uuid}", std::process::id()),
            _ => dir.path().join("sock").display().to_string(),
        };
        let mut builder = FakeServer::builder()
            .size(SIZE)
            .ticket(&uuid)
            .read_only(needs.read_only)
            .unix_socket(&unix_socket)
            .record_dirty(true)
            .inactivity_timeout(Some(Duration::from_secs(if needs.short_timeout { 1 } else { 60 })));
        if needs.dirty {
            builder = builder.dirty(Vec::new());
        }
        if server == Server::FakeFile {
            builder = builder.backend(Backend::File(dir.path().join("disk.raw")));
        }
        if via == Via::Https {
            builder = builder.tls(Certificate::default());
        }
        let fake = builder.start()?;
        let endpoint = match (via, fake.ca_pem()) {
            (Via::Unix | Via::AbstractUnix, _) => Endpoint::Unix(unix_socket.clone()),
            (_, Some(ca)) => Endpoint::Https(fake.addr(), ca.to_owned()),
            (_, None) => Endpoint::Http(fake.addr()),
        };
        let path = fake.path();
        Ok(Self {
            server,
            endpoint,
            path,
            unix_socket,
            fake: Some(fake),
            world,
            uuid,
            via,
            _qemu: None,
            _dir: dir,
        })
    }

    fn real(world: &'a Daemons, server: Server, via: Via, needs: Needs, dir: TempDir) -> io::Result<Self> {
        let (url, qemu) = match server {
            Server::RealNbd(format) => {
                let image = dir.path().join("disk");
                create_image(&image, format, SIZE)?;
                let has_bitmap = needs.dirty && format == "qcow2";
                if has_bitmap {
                    add_bitmap(&image, BITMAP, "64K")?;
                }
                let options: &[&str] = if has_bitmap { &["-B", BITMAP] } else { &[] };
                let qemu = QemuNbd::start_with(&image, format, dir.path().join("nbd"), options)?;
                (qemu.ticket_url(), Some(qemu))
            }
            _ => (file_url(&dir.path().join("disk"))?, None),
        };
        let uuid = world.new_uuid();
        let ticket = Ticket {
            uuid: uuid.clone(),
            size: SIZE,
            url,
            writable: !needs.read_only,
            dirty: needs.dirty,
            inactivity_timeout: needs.short_timeout.then_some(1),
        };
        let (endpoint, unix_socket) = world.with_daemon(via == Via::Https, |daemon| {
            daemon.add_ticket(&ticket)?;
            let endpoint = match (via, daemon.pki()) {
                (Via::Unix | Via::AbstractUnix, _) => Endpoint::Unix(daemon.local_socket()),
                (_, Some(pki)) => Endpoint::Https(daemon.addr(), pki.ca_pem.clone()),
                (_, None) => Endpoint::Http(daemon.addr()),
            };
            Ok((endpoint, daemon.local_socket()))
        })?;
        let path = format!("/images/{uuid}");
        Ok(Self { server, endpoint, path, unix_socket, fake: None, world, uuid, via, _qemu: qemu, _dir: dir })
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> io::Result<Connection> {
        Ok(Connection { client: Client::connect(&self.endpoint)?, path: self.path.clone() })
    }

    /// Ends the ticket, as a cancelled transfer does.
    pub(crate) fn cancel(&self) -> io::Result<()> {
        let Some(fake) = &self.fake else {
            return self.world.with_daemon(self.via == Via::Https, |daemon| daemon.remove_ticket(&self.uuid));
        };
        fake.cancel_ticket();
        Ok(())
    }
}

fn file_url(path: &Path) -> io::Result<String> {
    File::create(path)?.set_len(SIZE)?;
    Ok(format!("file://{}", path.display()))
}

/// A connection that knows the ticket.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) path: String,
}

impl Connection {
    pub(crate) fn options(&mut self) -> io::Result<Answer> {
        self.client.request("OPTIONS", &self.path, &[], b"")
    }

    /// `query` includes its question mark, or a further part of the path.
    pub(crate) fn get(&mut self, query: &str, range: Option<&str>) -> io::Result<Answer> {
        let headers: Vec<_> = range.map(|range| ("range", range)).into_iter().collect();
        self.client.request("GET", &format!("{}{query}", self.path), &headers, b"")
    }

    pub(crate) fn read(&mut self, offset: u64, len: u64) -> io::Result<Answer> {
        self.get("", Some(&format!("bytes={offset}-{}", offset + len - 1)))
    }

    pub(crate) fn put(&mut self, query: &str, offset: u64, data: &[u8]) -> io::Result<Answer> {
        let last = (offset + data.len() as u64).saturating_sub(1).max(offset);
        let range = format!("bytes {offset}-{last}/*");
        self.client.request("PUT", &format!("{}{query}", self.path), &[("content-range", &range)], data)
    }

    pub(crate) fn patch(&mut self, body: &str) -> io::Result<Answer> {
        let headers = [("content-type", "application/json")];
        self.client.request("PATCH", &self.path, &headers, body.as_bytes())
    }
}
