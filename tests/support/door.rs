// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs that give an oVirt disk to NBD clients.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::process::Daemon;
use crate::tools::{NBDKIT, Tool};

/// A program that gives an oVirt disk to NBD clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `imageio-nbd`.
    ImageioNbd,
    /// The plugin in nbdkit.
    Nbdkit,
}

impl Door {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::ImageioNbd, Self::Nbdkit];

    /// For the names of tests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ImageioNbd => "imageio-nbd",
            Self::Nbdkit => "nbdkit",
        }
    }

    /// What it takes.
    #[must_use]
    pub fn tools(self) -> &'static [Tool] {
        match self {
            Self::ImageioNbd => &[],
            Self::Nbdkit => &[NBDKIT],
        }
    }

    /// Serves on a unix socket in `dir`, as virt-v2v would have it served.
    ///
    /// # Errors
    /// If it ends before clients can connect; with what it said.
    pub fn serve(self, dir: &Path, parameters: &[String]) -> io::Result<Served> {
        let socket = dir.join("nbd.sock");
        let (program, plugin, ready) = match self {
            Self::ImageioNbd => (built("imageio-nbd"), None, "listening: "),
            Self::Nbdkit => {
                (NBDKIT.path(), Some(built("libnbdkit_imageio_plugin.so")), "bound to unix socket")
            }
        };
        let mut command = Command::new(program);
        command.args(["-f", "-v", "-U"]).arg(&socket).args(plugin).args(parameters);
        let mut process = Daemon::spawn(&mut command)?;
        process.wait_for_line(|line| line.contains(ready).then_some(()))?;
        Ok(Served { socket, process })
    }
}

/// A program that serves.
#[derive(Debug)]
pub struct Served {
    socket: PathBuf,
    process: Daemon,
}

impl Served {
    /// Where NBD clients connect.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The same as an NBD URI.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it ends by itself, and returns how it ended and all that it said.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn wait(mut self) -> io::Result<(ExitStatus, String)> {
        let status = self.process.wait()?;
        Ok((status, self.process.said().join("\n")))
    }

    /// Sends SIGTERM as virt-v2v does, and returns how it ended and all that it said.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn finish(mut self) -> io::Result<(ExitStatus, String)> {
        let status = self.process.terminate()?;
        Ok((status, self.process.said().join("\n")))
    }
}

/// A program of this workspace, beside the test's own.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let program = test.ancestors().nth(2).map(|dir| dir.join(name)).unwrap_or_default();
    assert!(program.exists(), "{} is missing: run `cargo xtask test`, or build it first", program.display());
    program
}
