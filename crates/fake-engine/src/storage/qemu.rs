// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks as oVirt has them: raw and qcow2 images, which `qemu-img` makes and looks at, and
//! `qemu-nbd` serves. Bitmaps are in the qcow2 images.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::qemu_nbd::QemuNbd;
use super::{Access, Opened, Storage, merged_bitmap};
use crate::state::{Disk, DiskFormat, Id, Layer};

/// The space that a qcow2 image may need beyond its data, in bytes (`StorageConstants` of
/// ovirt-engine).
const QCOW_HEADER_OVERHEAD: u64 = 1 << 20;

/// The directory, and who serves its files.
#[derive(Debug)]
pub(crate) struct QemuStorage {
    dir: PathBuf,
    /// By the transfer that they are for.
    served: HashMap<Id, QemuNbd>,
    /// The number of servers that have been started so far.
    started: u64,
}

/// The format's name for qemu.
pub(super) fn qemu_format(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Cow => "qcow2",
    }
}

impl QemuStorage {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, served: HashMap::new(), started: 0 }
    }

    /// Lets clients to the file itself.
    fn open_file(&self, access: &Access<'_>) -> io::Result<Opened> {
        let file = self.file(&access.layer.image);
        let size = match access.writable {
            true => access.size.saturating_add(access.size / 10).saturating_add(QCOW_HEADER_OVERHEAD),
            false => fs::metadata(&file)?.len(),
        };
        Ok(Opened { url: format!("file://{}", file.display()), size, dirty: Vec::new() })
    }

    fn bitmap(&self, disk: &Disk, what: &[&str], bitmap: &str) -> io::Result<()> {
        let file = self.file(&disk.top().image);
        let words = [&["bitmap", "-f", "qcow2"], what].concat().into_iter().map(Word::from);
        qemu_img(words.chain([file.into(), bitmap.into()])).map(drop)
    }
}

impl Storage for QemuStorage {
    fn file(&self, image: &str) -> PathBuf {
        self.dir.join(image)
    }

    fn create(&self, disk: &Disk) -> io::Result<()> {
        let file = self.file(&disk.top().image);
        if disk.format == DiskFormat::Raw {
            return File::create(file)?.set_len(disk.provisioned_size);
        }
        let size = disk.provisioned_size.to_string();
        let words = ["create", "-q", "-f", "qcow2"].map(Word::from).into_iter();
        qemu_img(words.chain([file.into(), size.into()])).map(drop)
    }

    fn add_layer(&self, below: &Layer, image: &str) -> io::Result<()> {
        let (below, format) = (self.file(&below.image), qemu_format(below.format));
        let words = ["create", "-q", "-f", "qcow2", "-F", format, "-b"].map(Word::from).into_iter();
        qemu_img(words.chain([below.into(), self.file(image).into()])).map(drop)
    }

    fn open(&mut self, access: &Access<'_>) -> io::Result<Opened> {
        if access.format == DiskFormat::Cow {
            return self.open_file(access);
        }
        if !self.served.contains_key(access.transfer) {
            self.started += 1;
            // Short, as the path of a socket has to be.
            let socket = self.dir.join(format!("nbd-{}", self.started));
            let served = QemuNbd::start(access, &self.file(&access.layer.image), socket)?;
            self.served.insert(access.transfer.to_owned(), served);
        }
        let socket = self.served.get(access.transfer).map(|served| served.socket().display());
        let socket = socket.ok_or_else(|| io::Error::other("the image isn't served"))?;
        Ok(Opened { url: format!("nbd:unix:{socket}"), size: access.size, dirty: Vec::new() })
    }

    fn close(&mut self, transfer: &str) -> io::Result<()> {
        self.served.remove(transfer).map_or(Ok(()), QemuNbd::stop)
    }

    /// Verifies an image as vdsm does: it has the right format and no backing file, and is not
    /// larger than the disk.
    fn verify(&self, disk: &Disk) -> io::Result<()> {
        let file = self.file(&disk.top().image);
        let words =
            ["info", "--output", "json", "-f", qemu_format(disk.top().format)].map(Word::from).into_iter();
        let info: Value = serde_json::from_slice(&qemu_img(words.chain([file.into()]))?)?;
        let has_backing = disk.layers.len() == 1 && info.get("backing-filename").is_some();
        if has_backing || info["virtual-size"].as_u64().is_none_or(|size| size > disk.provisioned_size) {
            return Err(io::Error::other("the image doesn't fit its disk"));
        }
        Ok(())
    }

    fn freeze_bitmap(&mut self, disk: &Disk, checkpoint: &str, before: Option<&str>) -> io::Result<()> {
        self.bitmap(disk, &["--add"], checkpoint)?;
        before.map_or(Ok(()), |before| self.bitmap(disk, &["--disable"], before))
    }

    fn thaw_bitmap(&mut self, disk: &Disk, checkpoint: &str, before: Option<&str>) -> io::Result<()> {
        before.map_or(Ok(()), |before| self.bitmap(disk, &["--enable"], before))?;
        self.remove_bitmap(disk, checkpoint)
    }

    fn merge_bitmaps(&mut self, disk: &Disk, backup: &str, since: &[Id]) -> io::Result<()> {
        let merged = merged_bitmap(backup);
        self.bitmap(disk, &["--add", "--disable"], &merged)?;
        since.iter().try_for_each(|bitmap| self.bitmap(disk, &["--merge", bitmap], &merged))
    }

    fn remove_bitmap(&mut self, disk: &Disk, bitmap: &str) -> io::Result<()> {
        self.bitmap(disk, &["--remove"], bitmap)
    }
}

type Word = std::ffi::OsString;

/// Runs `qemu-img`, and gives what it printed.
fn qemu_img(words: impl IntoIterator<Item = Word>) -> io::Result<Vec<u8>> {
    let output = Command::new("qemu-img").args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| io::Error::new(error.kind(), format!("qemu-img: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
