// SPDX-License-Identifier: MIT OR Apache-2.0
//! A door that speaks TLS, and its clients.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use fake_imageio::FakeServer;
use support::TestResult;
use support::door::Door;
use support::image::SIZE;
use support::pki::Pki;
use support::process::{Daemon, PATIENCE};
use support::tools::Tool;
use tempfile::TempDir;

/// How clients reach the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Tcp,
    Unix,
}

/// A door with an empty disk behind it.
pub(crate) struct Server {
    door: Door,
    place: Place,
    process: Daemon,
    fake: FakeServer,
    dir: TempDir,
}

enum Place {
    Port(u16),
    Socket(PathBuf),
}

impl Server {
    /// Serves with the certificates of `pki`.
    pub(crate) fn start(door: Door, via: Via, pki: &Pki, options: &[&str]) -> io::Result<Self> {
        let fake = FakeServer::builder().size(SIZE).start()?;
        let (dir, certificates) = (tempfile::tempdir()?, pki.server());
        let socket = dir.path().join("sock");
        let listen: [&OsStr; 2] = match via {
            Via::Tcp => ["-p".as_ref(), "0".as_ref()],
            Via::Unix => ["-U".as_ref(), socket.as_os_str()],
        };
        let all = ["-f".as_ref(), "-v".as_ref(), "--tls-certificates".as_ref(), certificates.as_os_str()];
        let options: Vec<_> = options.iter().map(AsRef::as_ref).collect();
        let options = [&all[..], &listen, &options].concat();
        let url = format!("url={}", fake.url());
        let mut process = Daemon::spawn(&mut door.command(dir.path(), &options, &[url])?)?;
        let ready = if door == Door::ImageioNbd { "listening: " } else { "bound to unix socket" };
        let line = process.wait_for_line(|line| line.contains(ready).then(|| line.to_owned()))?;
        let port = line.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        let place = port.map_or(Place::Socket(socket), Place::Port);
        Ok(Self { door, place, process, fake, dir })
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.door == Door::ImageioNbd
    }

    pub(crate) fn has_host(&self) -> bool {
        matches!(self.place, Place::Port(_))
    }

    /// For a client that has its certificates in `dir`.
    pub(crate) fn uri(&self, dir: &Path) -> String {
        let dir = dir.display();
        match &self.place {
            Place::Port(port) => format!("nbds://localhost:{port}/?tls-certificates={dir}"),
            Place::Socket(path) => {
                format!("nbds+unix:///?socket={}&tls-certificates={dir}", path.display())
            }
        }
    }

    /// For a client without TLS.
    pub(crate) fn plain_uri(&self) -> String {
        match &self.place {
            Place::Port(port) => format!("nbd://localhost:{port}/"),
            Place::Socket(path) => format!("nbd+unix:///?socket={}", path.display()),
        }
    }

    /// The same for qemu, which has this and an object.
    pub(crate) fn image_options(&self) -> String {
        match &self.place {
            Place::Port(port) => format!("driver=nbd,host=localhost,port={port},tls-creds=tls"),
            Place::Socket(path) => {
                format!("driver=nbd,path={},tls-creds=tls,tls-hostname=localhost", path.display())
            }
        }
    }

    /// The object: a client's certificates in `dir`.
    pub(crate) fn credentials(&self, dir: &Path) -> String {
        format!("tls-creds-x509,id=tls,endpoint=client,dir={}", dir.display())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs a client to its end, within a minute; a hang is a failure. Returns what it printed.
    pub(crate) fn client(&self, tool: Tool, arguments: &[&str]) -> TestResult<String> {
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
    pub(crate) fn finish(mut self) -> TestResult<(Vec<u8>, String)> {
        let status = self.process.terminate()?;
        let said = self.process.said().join("\n");
        let all_closed = self.fake.wait_for(PATIENCE, |log| log.open().count() == 0);
        if !status.success() || !all_closed || self.fake.log().lost_unflushed() > 0 {
            return Err(format!("{status}, having said:\n{said}").into());
        }
        Ok((self.fake.contents()?, said))
    }
}
