// SPDX-License-Identifier: MIT OR Apache-2.0
//! The servers behind `imageio-nbd`: an imageio daemon, and the server that was asked for.

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
    server: Server,
    dir: TempDir,
    /// In bytes.
    pub(crate) size: u64,
    /// Nobody may write, as the real server says.
    pub(crate) is_read_only: bool,
}

enum Server {
    QemuNbd(QemuNbd),
    Nbdkit(Daemon),
}

impl Stack {
    /// Starts them.
    pub(crate) fn start(tool: Tool, asked: &Asked) -> TestResult<Self> {
        let dir = tempfile::Builder::new().prefix("shim-").tempdir()?;
        let socket = dir.path().join("server");
        let (server, name) = if tool == NBDKIT {
            (Server::Nbdkit(nbdkit(&socket, asked)?), asked.export.as_str())
        } else {
            (Server::QemuNbd(QemuNbd::start_as(&asked.server, socket.clone())?), "")
        };
        let export = nbd::client::handshake(UnixStream::connect(&socket)?, name.as_bytes())?;
        let daemon = RealDaemon::start(None)?;
        daemon.add_ticket(&Ticket {
            uuid: TICKET.into(),
            size: export.size,
            url: ticket_url(&socket, name),
            writable: !export.readonly,
            dirty: asked.bitmap.is_some(),
            inactivity_timeout: None,
        })?;
        Ok(Self { daemon, server, dir, size: export.size, is_read_only: export.readonly })
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
        match self.server {
            Server::QemuNbd(qemu) => qemu.stop(),
            Server::Nbdkit(mut nbdkit) => nbdkit.terminate().map(drop),
        }
    }
}

fn ticket_url(socket: &Path, name: &str) -> String {
    let url = format!("nbd:unix:{}", socket.display());
    if name.is_empty() { url } else { format!("{url}:exportname={name}") }
}

fn nbdkit(socket: &Path, asked: &Asked) -> io::Result<Daemon> {
    let mut command = Command::new(NBDKIT.path());
    command.args(["-f", "-U"]).arg(socket).args(["-e", &asked.export]).args(&asked.server);
    let input = if asked.reads_input { Stdio::inherit() } else { Stdio::null() };
    let mut nbdkit = Daemon::spawn_with_input(&mut command, input)?;
    nbdkit.retry(|| UnixStream::connect(socket))?;
    Ok(nbdkit)
}
