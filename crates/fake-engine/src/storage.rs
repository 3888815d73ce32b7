// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where disks are: files in a directory, which `qemu-img` makes and looks at, and `qemu-nbd` serves.

mod qemu_nbd;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::state::{Disk, DiskFormat, Id, Layer};
pub(crate) use qemu_nbd::{Access, QemuNbd};

/// The directory, and who serves its files.
#[derive(Debug)]
pub(crate) struct Storage {
    dir: PathBuf,
    /// By the transfer that they are for.
    served: HashMap<Id, QemuNbd>,
    /// How many have been started so far.
    started: u64,
}

/// An image that clients can be let to.
#[derive(Debug)]
pub(crate) struct Opened {
    /// As a ticket has it.
    pub(crate) url: String,
    /// How many bytes it has.
    pub(crate) size: u64,
}

/// The bitmap that tells what a backup has to hold.
pub(crate) fn merged_bitmap(backup: &str) -> String {
    format!("backup-{backup}")
}

fn qemu_format(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Cow => "qcow2",
    }
}

impl Storage {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, served: HashMap::new(), started: 0 }
    }

    /// The file of an image.
    pub(crate) fn file(&self, image: &str) -> PathBuf {
        self.dir.join(image)
    }

    /// How much of the file system a disk takes, in bytes.
    pub(crate) fn allocated(&self, disk: &Disk) -> u64 {
        let files = disk.layers.iter().filter_map(|layer| fs::metadata(self.file(&layer.image)).ok());
        files.map(|file| file.blocks() * 512).sum()
    }

    pub(crate) fn create(&self, disk: &Disk) -> io::Result<()> {
        let file = self.file(&disk.top().image);
        match disk.format {
            DiskFormat::Raw => File::create(file)?.set_len(disk.provisioned_size),
            DiskFormat::Cow => {
                let size = disk.provisioned_size.to_string();
                qemu_img([
                    Word::from("create"),
                    "-q".into(),
                    "-f".into(),
                    "qcow2".into(),
                    file.into(),
                    size.into(),
                ])
                .map(drop)
            }
        }
    }

    /// A new image on top of a disk's, which is left as it is from now on.
    pub(crate) fn add_layer(&self, below: &Layer, image: &str) -> io::Result<()> {
        let (below, format) = (self.file(&below.image), qemu_format(below.format));
        let words = ["create", "-q", "-f", "qcow2", "-F", format, "-b"].map(Word::from).into_iter();
        qemu_img(words.chain([below.into(), self.file(image).into()])).map(drop)
    }

    /// Removes a disk's images. One that is not there is not missed.
    pub(crate) fn remove(&self, disk: &Disk) {
        for layer in &disk.layers {
            let file = self.file(&layer.image);
            if let Err(error) = fs::remove_file(&file)
                && error.kind() != io::ErrorKind::NotFound
            {
                log::warn!("cannot remove {}: {error}", file.display());
            }
        }
    }

    /// Serves an image over NBD for a transfer, until it is closed.
    pub(crate) fn open_nbd(&mut self, transfer: &str, access: &Access<'_>, size: u64) -> io::Result<Opened> {
        if !self.served.contains_key(transfer) {
            self.started += 1;
            // Short, as the path of a socket has to be.
            let socket = self.dir.join(format!("nbd-{}", self.started));
            let served = QemuNbd::start(access, socket)?;
            self.served.insert(transfer.to_owned(), served);
        }
        let socket = self.served.get(transfer).map(|served| served.socket().display());
        let socket = socket.ok_or_else(|| io::Error::other("the image isn't served"))?;
        Ok(Opened { url: format!("nbd:unix:{socket}"), size })
    }

    /// Lets clients to the file itself.
    pub(crate) fn open_file(&self, file: &Path, size: Option<u64>) -> io::Result<Opened> {
        let size = size.map_or_else(|| fs::metadata(file).map(|file| file.len()), Ok)?;
        Ok(Opened { url: format!("file://{}", file.display()), size })
    }

    /// Ends what serves a transfer's image.
    pub(crate) fn close(&mut self, transfer: &str) -> io::Result<()> {
        self.served.remove(transfer).map_or(Ok(()), QemuNbd::stop)
    }

    /// Looks whether an uploaded image is what it should be, as vdsm does: of the right format, with nothing below it,
    /// and not larger than the disk.
    pub(crate) fn verify(&self, disk: &Disk) -> io::Result<()> {
        let file = self.file(&disk.top().image);
        let words = ["info", "--output", "json", "-f", qemu_format(disk.format)].map(Word::from).into_iter();
        let info: Value = serde_json::from_slice(&qemu_img(words.chain([file.into()]))?)?;
        let has_backing = disk.layers.len() == 1 && info.get("backing-filename").is_some();
        if has_backing || info["virtual-size"].as_u64().is_none_or(|size| size > disk.provisioned_size) {
            return Err(io::Error::other("the image doesn't fit its disk"));
        }
        Ok(())
    }

    /// From now on, a new bitmap takes note of what changes, and the one before it stays as it is.
    pub(crate) fn freeze_bitmap(
        &self,
        disk: &Disk,
        checkpoint: &str,
        before: Option<&str>,
    ) -> io::Result<()> {
        self.bitmap(disk, &["--add"], checkpoint)?;
        before.map_or(Ok(()), |before| self.bitmap(disk, &["--disable"], before))
    }

    /// The bitmap before takes note of what changes again, and the new one is no more.
    pub(crate) fn thaw_bitmap(&self, disk: &Disk, checkpoint: &str, before: Option<&str>) -> io::Result<()> {
        before.map_or(Ok(()), |before| self.bitmap(disk, &["--enable"], before))?;
        self.remove_bitmap(disk, checkpoint)
    }

    /// One bitmap of what has changed since the first of these was made.
    pub(crate) fn merge_bitmaps(&self, disk: &Disk, backup: &str, since: &[Id]) -> io::Result<()> {
        let merged = merged_bitmap(backup);
        self.bitmap(disk, &["--add", "--disable"], &merged)?;
        since.iter().try_for_each(|bitmap| self.bitmap(disk, &["--merge", bitmap], &merged))
    }

    pub(crate) fn remove_bitmap(&self, disk: &Disk, bitmap: &str) -> io::Result<()> {
        self.bitmap(disk, &["--remove"], bitmap)
    }

    fn bitmap(&self, disk: &Disk, what: &[&str], bitmap: &str) -> io::Result<()> {
        let file = self.file(&disk.top().image);
        let words = [&["bitmap", "-f", "qcow2"], what].concat().into_iter().map(Word::from);
        let words = words.chain([file.into(), bitmap.into()]);
        qemu_img(words).map(drop)
    }
}

type Word = std::ffi::OsString;

/// Runs `qemu-img`, and gives what it printed.
fn qemu_img(words: impl IntoIterator<Item = Word>) -> io::Result<Vec<u8>> {
    let output = Command::new("qemu-img").args(words).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
