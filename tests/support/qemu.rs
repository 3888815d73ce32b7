// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images, and `qemu-nbd` serving them.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Daemon, PATIENCE};
use crate::tools::{QEMU_IMG, QEMU_NBD};

/// Makes an empty image of `size` bytes.
///
/// # Errors
/// If `qemu-img` fails.
pub fn create_image(path: &Path, format: &str, size: u64) -> io::Result<()> {
    let mut create = Command::new(QEMU_IMG.path());
    run(create.args(["create", "-q", "-f", format]).arg(path).arg(size.to_string()))
}

/// Lets a bitmap of a qcow2 image take note of what is changed from now on, in blocks of so many
/// bytes.
///
/// # Errors
/// If `qemu-img` fails.
pub fn add_bitmap(path: &Path, name: &str, granularity: &str) -> io::Result<()> {
    let mut add = Command::new(QEMU_IMG.path());
    run(add.args(["bitmap", "--add", "-g", granularity]).arg(path).arg(name))
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// `qemu-nbd` serving an image on a unix socket, as oVirt runs it. Dropping it closes the image.
#[derive(Debug)]
pub struct QemuNbd {
    socket: PathBuf,
    daemon: Daemon,
}

impl QemuNbd {
    /// Serves an existing image; `socket` is made.
    ///
    /// # Errors
    /// If it cannot be started, or ends before it accepts connections.
    pub fn start(image: &Path, format: &str, socket: PathBuf) -> io::Result<Self> {
        Self::start_with(image, format, socket, &[])
    }

    /// Starts qemu-nbd with further options.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(image: &Path, format: &str, socket: PathBuf, options: &[&str]) -> io::Result<Self> {
        let options = options.iter().map(OsStr::new).chain([image.as_os_str()]);
        Self::start_as(["-f", format].into_iter().map(OsStr::new).chain(options), socket)
    }

    /// Starts qemu-nbd with all that tells of the image.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_as<S: AsRef<OsStr>>(
        image: impl IntoIterator<Item = S>,
        socket: PathBuf,
    ) -> io::Result<Self> {
        let mut command = Command::new(QEMU_NBD.path());
        command.args(["-t", "-e", "16", "-x", "", "-k"]).arg(&socket).args(image);
        let mut daemon = Daemon::spawn(&mut command)?;
        // Its greeting shows that it is at work; that the socket accepts, only that it is
        // listening.
        let mut greeting = daemon.retry(|| UnixStream::connect(&socket))?;
        greeting.set_read_timeout(Some(PATIENCE))?;
        greeting.read_exact(&mut [0; 8])?;
        Ok(Self { socket, daemon })
    }

    /// Returns the socket at which it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// The URL of a ticket for it.
    #[must_use]
    pub fn ticket_url(&self) -> String {
        format!("nbd:unix:{}", self.socket.display())
    }

    /// Ends it, and waits until the image is closed.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn stop(mut self) -> io::Result<()> {
        self.daemon.terminate_insistently().map(drop)
    }
}
