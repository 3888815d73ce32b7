// SPDX-License-Identifier: MIT OR Apache-2.0
//! A qcow2 image with bitmaps behind the real daemon, and the backups of it.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::TestResult;
use support::daemon::{RealDaemon, Ticket};
use support::door::{Door, Served};
use support::image::{SIZE, guest_disk, same};
use support::qemu::{QemuNbd, add_bitmap};
use support::tools::{QEMU_IMG, QEMU_IO, Tool};
use tempfile::TempDir;

use crate::clients::run;

/// An image in use, its bitmaps, and what has been saved of it.
pub(crate) struct Chain {
    daemon: RealDaemon,
    transfers: u32,
    /// Last: the others use it to their end.
    dir: TempDir,
}

/// The access for which the image is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A transfer of the image, served as an NBD device.
pub(crate) struct Transfer {
    pub(crate) served: Served,
    uuid: String,
    qemu: QemuNbd,
}

impl Chain {
    /// A guest's disk in an image without bitmaps.
    pub(crate) fn new() -> TestResult<Self> {
        let dir = tempfile::Builder::new().prefix("imageio-nbd-backup-").tempdir()?;
        let chain = Self { daemon: RealDaemon::start_that_logs_requests()?, transfers: 0, dir };
        fs::write(chain.path("guest.img"), guest_disk(11))?;
        chain.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "guest.img", "disk.qcow2"])?;
        Ok(chain)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn run(&self, tool: Tool, arguments: &[&str]) -> TestResult<String> {
        run(self.dir.path(), tool, arguments)
    }

    pub(crate) fn qemu_img(&self, arguments: &[&str]) -> TestResult<String> {
        self.run(QEMU_IMG, arguments)
    }

    /// From now on, a bitmap takes note of what is changed, in blocks of so many bytes.
    pub(crate) fn add_bitmap(&self, name: &str, granularity: &str) -> TestResult {
        Ok(add_bitmap(&self.path("disk.qcow2"), name, granularity)?)
    }

    /// The guest is at work while nobody serves its disk.
    pub(crate) fn guest_does(&self, commands: impl IntoIterator<Item = String>) -> TestResult {
        let mut qemu_io = Command::new(QEMU_IO.path());
        qemu_io.args(["-f", "qcow2", "-t", "unsafe"]).arg(self.path("disk.qcow2"));
        let mut qemu_io = qemu_io.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let script: String = commands.into_iter().map(|command| command + "\n").collect();
        qemu_io.stdin.take().ok_or("no standard input")?.write_all(script.as_bytes())?;
        if qemu_io.wait()?.success() { Ok(()) } else { Err("qemu-io has failed".into()) }
    }

    /// A transfer; with a bitmap's name, that of an incremental backup.
    pub(crate) fn open(&mut self, access: Access, bitmap: Option<&str>) -> TestResult<Transfer> {
        self.open_with(access, bitmap, &[])
    }

    /// Opens the disk with further parameters.
    pub(crate) fn open_with(
        &mut self,
        access: Access,
        bitmap: Option<&str>,
        more: &[&str],
    ) -> TestResult<Transfer> {
        self.transfers += 1;
        let (image, socket) = (self.path("disk.qcow2"), self.path(&format!("nbd-{}", self.transfers)));
        let mut options = bitmap.map_or(vec![], |bitmap| vec!["-B", bitmap]);
        if access == Access::Read {
            options.push("-r");
        }
        let qemu = QemuNbd::start_with(&image, "qcow2", socket, &options)?;
        let uuid = format!("00000000-2222-4333-8444-{:012}", self.transfers);
        self.daemon.add_ticket(&Ticket {
            uuid: uuid.clone(),
            size: SIZE,
            url: qemu.ticket_url(),
            writable: access == Access::Write,
            dirty: bitmap.is_some(),
            inactivity_timeout: None,
        })?;
        let mut parameters = vec![format!("url={}", self.daemon.url(&uuid))];
        parameters.extend(bitmap.map(|bitmap| format!("dirty-bitmap={bitmap}")));
        parameters.extend(more.iter().map(|&parameter| parameter.to_owned()));
        let dir = self.path(&format!("transfer-{}", self.transfers));
        fs::create_dir(&dir)?;
        let served = match access {
            Access::Read => Door::ImageioNbd.serve(&dir, &[&["-r".to_owned()], &parameters[..]].concat())?,
            Access::Write => Door::ImageioNbd.serve(&dir, &parameters)?,
        };
        Ok(Transfer { served, uuid, qemu })
    }

    /// The URL of the transfer, which still serves.
    pub(crate) fn url(&self, transfer: &Transfer) -> String {
        self.daemon.url(&transfer.uuid)
    }

    /// Ends a transfer. What the server was asked to read: first byte and length, but for the one
    /// that finds the size.
    pub(crate) fn close(&mut self, transfer: Transfer) -> TestResult<Vec<(u64, u64)>> {
        let Transfer { served, uuid, qemu } = transfer;
        let (status, said) = served.finish()?;
        if !status.success() {
            return Err(format!("{status}, having said:\n{said}").into());
        }
        let mut reads = self.daemon.reads(&uuid)?;
        reads.retain(|(_, size)| *size > 1);
        qemu.stop()?;
        Ok(reads)
    }

    /// Compares what was restored with the image, which nobody serves.
    pub(crate) fn assert_restored(&self, copy: &str) -> TestResult {
        self.qemu_img(&["convert", "-f", "qcow2", "-O", "raw", "disk.qcow2", "now.img"])?;
        same(copy, &fs::read(self.path(copy))?, &fs::read(self.path("now.img"))?)
    }
}
