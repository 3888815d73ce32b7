// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transfers to upload to: each kind of server, reached in each way, with a fresh disk.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::Command;

use fake_imageio::{Backend, Certificate, FakeServer};
use tempfile::TempDir;

use crate::TestResult;
use crate::daemon::{Daemons, Ticket};
use crate::image::SIZE;
use crate::qemu::{QemuNbd, create_image};
use crate::tools::{IMAGEIO, QEMU_IMG, QEMU_NBD, Tool};

/// A server, and what keeps its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The fake, with a sparse file.
    Fake,
    /// The real daemon, with a file.
    RealFile,
    /// The real daemon, with `qemu-nbd` and an image of this format.
    RealNbd(&'static str),
}

/// The way in which the server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// TCP without TLS.
    Http,
    /// TCP with TLS and a cafile.
    Https,
    /// The unix socket that `OPTIONS` tells.
    Unix,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fake, Self::RealFile, Self::RealNbd("raw"), Self::RealNbd("qcow2")];

    /// For the names of tests.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Fake => "fake".into(),
            Self::RealFile => "real-file".into(),
            Self::RealNbd(format) => format!("real-nbd-{format}"),
        }
    }

    /// Returns the tools that it needs.
    #[must_use]
    pub fn tools(self) -> &'static [Tool] {
        match self {
            Self::Fake => &[],
            Self::RealFile => &[IMAGEIO],
            Self::RealNbd(_) => &[IMAGEIO, QEMU_NBD, QEMU_IMG],
        }
    }
}

impl Via {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Unix];

    /// For the names of tests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
        }
    }
}

/// A transfer with an empty disk of [`SIZE`] bytes.
#[derive(Debug)]
pub struct Target {
    kind: Kind,
    via: Via,
    url: String,
    cafile: Option<PathBuf>,
    /// The fake server, where it is one.
    pub fake: Option<FakeServer>,
    qemu: Option<QemuNbd>,
    disk: PathBuf,
    // Last: the others use it to their end.
    dir: TempDir,
}

impl Target {
    /// Starts what it takes.
    ///
    /// # Errors
    /// If some part can't be started.
    pub fn new(daemons: &Daemons, kind: Kind, via: Via) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("imageio-nbd-test-").tempdir()?;
        let disk = dir.path().join("disk");
        let mut target =
            Self { kind, via, url: String::new(), cafile: None, fake: None, qemu: None, disk, dir };
        match kind {
            Kind::Fake => target.start_fake()?,
            Kind::RealFile => {
                File::create(&target.disk)?.set_len(SIZE)?;
                let url = format!("file://{}", target.disk.display());
                target.add_ticket(daemons, url)?;
            }
            Kind::RealNbd(format) => {
                create_image(&target.disk, format, SIZE)?;
                let qemu = QemuNbd::start(&target.disk, format, target.dir.path().join("nbd"))?;
                target.add_ticket(daemons, qemu.ticket_url())?;
                target.qemu = Some(qemu);
            }
        }
        Ok(target)
    }

    fn start_fake(&mut self) -> io::Result<()> {
        let mut builder = FakeServer::builder().size(SIZE).backend(Backend::File(self.disk.clone()));
        match self.via {
            Via::Http => {}
            Via::Https => builder = builder.tls(Certificate::default()),
            Via::Unix => builder = builder.unix_socket(self.dir.path().join("imageio").display().to_string()),
        }
        let fake = builder.start()?;
        self.url = fake.url();
        self.cafile = fake.cafile().map(ToOwned::to_owned);
        self.fake = Some(fake);
        Ok(())
    }

    fn add_ticket(&mut self, daemons: &Daemons, url: String) -> io::Result<()> {
        let uuid = daemons.new_uuid();
        let ticket = Ticket {
            uuid: uuid.clone(),
            size: SIZE,
            url,
            writable: true,
            dirty: false,
            inactivity_timeout: None,
        };
        let cafile = self.dir.path().join("ca.pem");
        daemons.with_daemon(self.via == Via::Https, |daemon| {
            daemon.add_ticket(&ticket)?;
            self.url = daemon.url(&uuid);
            if let Some(pki) = daemon.pki() {
                fs::write(&cafile, &pki.ca_pem)?;
                self.cafile = Some(cafile);
            }
            Ok(())
        })
    }

    /// The parameters that lead there.
    #[must_use]
    pub fn parameters(&self) -> Vec<String> {
        let mut parameters = vec![format!("url={}", self.url), format!("size={SIZE}")];
        parameters.extend(self.cafile.as_ref().map(|cafile| format!("cafile={}", cafile.display())));
        parameters.push(match self.via {
            Via::Unix => "is_ovirt_host=true".into(),
            Via::Http | Via::Https => "unix-socket=false".into(),
        });
        parameters
    }

    /// A place for files.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Returns the content of the disk, read from the server's own storage and not through it.
    ///
    /// # Errors
    /// If that can't be read.
    pub fn contents(&mut self) -> TestResult<Vec<u8>> {
        if let Some(qemu) = self.qemu.take() {
            qemu.stop()?;
        }
        if self.kind != Kind::RealNbd("qcow2") {
            return Ok(fs::read(&self.disk)?);
        }
        let raw = self.dir.path().join("raw");
        let mut convert = Command::new(QEMU_IMG.path());
        convert.args(["convert", "-f", "qcow2", "-O", "raw"]).arg(&self.disk).arg(&raw);
        let output = convert.output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(fs::read(raw)?)
    }
}
