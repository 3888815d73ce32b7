// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qemu-nbd` serving an image on a unix socket, as oVirt's hosts run it.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};

use super::Access;
use super::qemu::qemu_format;
use crate::state::DiskFormat;

/// The time that it may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The time between two attempts to connect.
const CONNECT_INTERVAL: Duration = Duration::from_millis(5);

/// When a signal is sent once more: it has a moment in which it misses one.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(500);

/// The process. Dropping it closes the image.
#[derive(Debug)]
pub(crate) struct QemuNbd {
    child: Child,
    /// Readable once the process has ended.
    ended: OwnedFd,
    socket: PathBuf,
}

impl QemuNbd {
    /// Starts it, and waits until it serves.
    pub(crate) fn start(access: &Access<'_>, file: &Path, socket: PathBuf) -> io::Result<Self> {
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--shared=8", "--export-name=", "--allocation-depth", "--socket"]);
        command.arg(&socket);
        if access.writable {
            command.args(["--discard=unmap", "--detect-zeroes=unmap"]);
        } else {
            command.arg("--read-only");
        }
        command.args(access.bitmap.iter().map(|bitmap| format!("--bitmap={bitmap}")));
        command.arg(image(access, file));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let mut this = Self { child, ended, socket };
        this.wait_for_greeting()?;
        Ok(this)
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits for the greeting, which shows that the server is at work: a socket that accepts only
    /// shows that it is listening.
    fn wait_for_greeting(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut greeting = loop {
            match UnixStream::connect(&self.socket) {
                Ok(socket) => break socket,
                Err(_) if self.has_ended_within(CONNECT_INTERVAL)? => {
                    return Err(io::Error::other("qemu-nbd doesn't serve the image"));
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => {}
            }
        };
        greeting.set_read_timeout(Some(PATIENCE))?;
        greeting.read_exact(&mut [0; 8])
    }

    fn has_ended_within(&self, time: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(time).map_err(io::Error::other)?;
        let mut ended = [PollFd::new(&self.ended, PollFlags::IN)];
        loop {
            match poll(&mut ended, Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends it, and waits until the image is closed.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                return Err(io::Error::new(io::ErrorKind::TimedOut, "qemu-nbd had to be killed"));
            }
            kill_process(Pid::from_child(&self.child), Signal::TERM)?;
            self.has_ended_within(SIGNAL_INTERVAL)?;
        }
        // It removes it itself, unless it was killed.
        let _ = std::fs::remove_file(&self.socket);
        Ok(())
    }
}

impl Drop for QemuNbd {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::warn!("{error}");
        }
    }
}

/// The image as a `json:` file name has it.
fn image(access: &Access<'_>, file: &Path) -> String {
    let file = json!({ "driver": "file", "filename": file });
    let mut image = json!({ "driver": qemu_format(access.layer.format), "file": file });
    if access.shallow && access.layer.format == DiskFormat::Cow {
        image["backing"] = Value::Null;
    }
    format!("json:{image}")
}
