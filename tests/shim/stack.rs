// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is behind `imageio-nbd`: an imageio daemon, a `qemu-nbd`, and the server that was asked for if it is another.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use support::TestResult;
use support::daemon::{RealDaemon, Ticket};
use support::process::Daemon;
use support::qemu::QemuNbd;
use support::tools::{NBDKIT, Tool};
use tempfile::TempDir;

use crate::asked::Asked;

const TICKET: &str = "0b5c1f0e-7a0e-4c55-9d0c-6a1f6f7a3c11";

/// The servers, ended in turn.
pub(crate) struct Stack {
    daemon: RealDaemon,
    qemu: QemuNbd,
    nbdkit: Option<Daemon>,
    dir: TempDir,
}

impl Stack {
    /// Starts them.
    pub(crate) fn start(tool: Tool, asked: &Asked) -> TestResult<Self> {
        let dir = tempfile::Builder::new().prefix("shim-").tempdir()?;
        let nbdkit = (tool == NBDKIT).then(|| nbdkit(dir.path(), asked)).transpose()?;
        let behind = match &nbdkit {
            Some(_) => vec!["--format=raw".into(), "--discard=unmap".into(), uri(dir.path(), asked)],
            None => asked.server.clone(),
        };
        let qemu = QemuNbd::start_as(&behind, dir.path().join("qemu"))?;
        let daemon = RealDaemon::start(None)?;
        daemon.add_ticket(&Ticket {
            uuid: TICKET.into(),
            size: size(qemu.socket())?,
            url: qemu.ticket_url(),
            writable: !asked.read_only,
            dirty: asked.bitmap.is_some(),
            inactivity_timeout: None,
        })?;
        Ok(Self { daemon, qemu, nbdkit, dir })
    }

    /// The transfer URL.
    pub(crate) fn url(&self) -> String {
        self.daemon.url(TICKET)
    }

    /// A place for files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends them, and waits until the image is closed.
    pub(crate) fn stop(self) -> io::Result<()> {
        drop(self.daemon);
        self.qemu.stop()?;
        self.nbdkit.map_or(Ok(()), |mut nbdkit| nbdkit.terminate().map(drop))
    }
}

fn nbdkit(dir: &Path, asked: &Asked) -> io::Result<Daemon> {
    let socket = dir.join("nbdkit");
    let mut command = Command::new(NBDKIT.path());
    command.args(["-f", "-U"]).arg(&socket).args(["-e", &asked.export]).args(&asked.server);
    let input = if asked.reads_input { Stdio::inherit() } else { Stdio::null() };
    let mut nbdkit = Daemon::spawn_with_input(&mut command, input)?;
    nbdkit.retry(|| UnixStream::connect(&socket))?;
    Ok(nbdkit)
}

/// Where nbdkit is, for qemu.
fn uri(dir: &Path, asked: &Asked) -> String {
    format!("nbd+unix:///{}?socket={}", asked.export, dir.join("nbdkit").display())
}

fn size(socket: &Path) -> TestResult<u64> {
    Ok(nbd::client::handshake(UnixStream::connect(socket)?, b"")?.size)
}
