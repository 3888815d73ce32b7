// SPDX-License-Identifier: MIT OR Apache-2.0
//! A door that listens on TCP or a unix socket, with TLS or without, and its clients.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TestResult;
use crate::door::Door;
use crate::image::SIZE;
use crate::pki::Pki;
use crate::process::{Daemon, PATIENCE};
use crate::tools::Tool;
use fake_imageio::FakeServer;
use tempfile::TempDir;

/// The way in which clients reach the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A free port.
    Tcp,
    /// A unix socket.
    Unix,
}

/// A door with the fake behind it.
#[derive(Debug)]
pub struct Server {
    door: Door,
    place: Place,
    process: Daemon,
    fake: FakeServer,
    dir: TempDir,
}

#[derive(Debug)]
enum Place {
    Port(u16),
    Socket(PathBuf),
}

impl Server {
    /// Serves an empty disk with the certificates of `pki`.
    ///
    /// # Errors
    /// If it ends before clients can connect; with what it said.
    pub fn start(door: Door, via: Via, pki: &Pki, options: &[&str]) -> io::Result<Self> {
        let certificates = pki.server();
        let options = options.iter().map(OsStr::new);
        let options = ["--tls-certificates".as_ref(), certificates.as_os_str()].into_iter().chain(options);
        Self::start_with(door, via, &options.collect::<Vec<_>>(), FakeServer::builder().size(SIZE).start()?)
    }

    /// Serves the disk of `fake`.
    ///
    /// # Errors
    /// If it ends before clients can connect; with what it said.
    pub fn start_with(door: Door, via: Via, options: &[&OsStr], fake: FakeServer) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("sock");
        let listen: [&OsStr; 2] = match via {
            Via::Tcp => ["-p".as_ref(), "0".as_ref()],
            Via::Unix => ["-U".as_ref(), socket.as_os_str()],
        };
        let options = [&["-f".as_ref(), "-v".as_ref()], &listen[..], options].concat();
        let url = format!("url={}", fake.url());
        let mut process = Daemon::spawn(&mut door.command(dir.path(), &options, &[url])?)?;
        let ready = if door == Door::ImageioNbd { "listening: " } else { "bound to unix socket" };
        let line = process.wait_for_line(|line| line.contains(ready).then(|| line.to_owned()))?;
        let port = line.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        let place = port.map_or(Place::Socket(socket), Place::Port);
        Ok(Self { door, place, process, fake, dir })
    }

    /// Returns true if it is `imageio-nbd`.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.door == Door::ImageioNbd
    }

    /// The fake.
    #[must_use]
    pub fn fake(&self) -> &FakeServer {
        &self.fake
    }

    /// Returns true if clients know the name of its host.
    #[must_use]
    pub fn has_host(&self) -> bool {
        matches!(self.place, Place::Port(_))
    }

    /// For a client that has its certificates in `dir`.
    #[must_use]
    pub fn uri(&self, dir: &Path) -> String {
        let dir = dir.display();
        match &self.place {
            Place::Port(port) => format!("nbds://localhost:{port}/?tls-certificates={dir}"),
            Place::Socket(path) => {
                format!("nbds+unix:///?socket={}&tls-certificates={dir}", path.display())
            }
        }
    }

    /// For a client without TLS.
    #[must_use]
    pub fn plain_uri(&self) -> String {
        match &self.place {
            Place::Port(port) => format!("nbd://localhost:{port}/"),
            Place::Socket(path) => format!("nbd+unix:///?socket={}", path.display()),
        }
    }

    /// Returns the options by which qemu reaches the server with TLS: this and an object.
    #[must_use]
    pub fn image_options(&self) -> String {
        let tls = match &self.place {
            Place::Port(_) => "tls-creds=tls",
            Place::Socket(_) => "tls-creds=tls,tls-hostname=localhost",
        };
        format!("{},{tls}", self.plain_image_options())
    }

    /// For qemu, without TLS.
    #[must_use]
    pub fn plain_image_options(&self) -> String {
        match &self.place {
            Place::Port(port) => {
                format!("driver=nbd,server.type=inet,server.host=localhost,server.port={port}")
            }
            Place::Socket(path) => {
                format!("driver=nbd,server.type=unix,server.path={}", path.display())
            }
        }
    }

    /// The object: a client's certificates in `dir`.
    #[must_use]
    pub fn credentials(&self, dir: &Path) -> String {
        format!("tls-creds-x509,id=tls,endpoint=client,dir={}", dir.display())
    }

    /// A place for a file.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs a client to its end, within a minute; a hang is a failure. Returns what it printed.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn client(&self, tool: Tool, arguments: &[&str]) -> TestResult<String> {
        let mut command = Command::new("timeout");
        // Debian's nbdsh needs Debian's Python.
        command.env("PATH", "/usr/bin:/bin").arg("60").arg(tool.path()).args(arguments);
        let output = command.current_dir(self.dir.path()).output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} {arguments:?}: {}: {printed}{said}", tool.name, output.status).into())
    }

    /// Ends it in good order; the disk, and what it has said.
    ///
    /// # Errors
    /// If it fails, or leaves connections or what is unflushed.
    pub fn finish(mut self) -> TestResult<(Vec<u8>, String)> {
        let status = self.process.terminate()?;
        let said = self.process.said().join("\n");
        let all_closed = self.fake.wait_for(PATIENCE, |log| log.open().count() == 0);
        if !status.success() || !all_closed || self.fake.log().lost_unflushed() > 0 {
            return Err(format!("{status}, having said:\n{said}").into());
        }
        Ok((self.fake.contents()?, said))
    }
}
