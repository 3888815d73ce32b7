// SPDX-License-Identifier: MIT OR Apache-2.0
//! The storage of disks, and what can be done to them: files in a directory, of formats that the
//! imageio server can serve.

mod plain;
mod qemu;
mod qemu_nbd;

use std::fmt::Debug;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::state::{Disk, DiskFormat, Id, Layer};
pub(crate) use plain::PlainStorage;
pub(crate) use qemu::QemuStorage;

/// The way in which an image is to be opened.
#[derive(Debug)]
pub(crate) struct Access<'a> {
    /// Until this transfer is closed.
    pub(crate) transfer: &'a str,
    pub(crate) layer: &'a Layer,
    /// The data that is moved: what a virtual machine sees (raw), or what is stored.
    pub(crate) format: DiskFormat,
    /// The size of the disk for a virtual machine, in bytes.
    pub(crate) size: u64,
    pub(crate) writable: bool,
    /// The images below this one aren't seen.
    pub(crate) shallow: bool,
    /// Tells what is dirty.
    pub(crate) bitmap: Option<String>,
}

/// An image that clients can be let to.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The image's URL, as a ticket has it.
    pub(crate) url: String,
    /// The size of the image in bytes.
    pub(crate) size: u64,
    /// The dirty ranges in bytes, where the server can't find them out itself.
    pub(crate) dirty: Vec<Range<u64>>,
}

/// The bitmap that tells what a backup has to hold.
pub(crate) fn merged_bitmap(backup: &str) -> String {
    format!("backup-{backup}")
}

/// The operations on disks.
pub(crate) trait Storage: Debug + Send {
    /// The file of an image.
    fn file(&self, image: &str) -> PathBuf;

    /// Makes the image of a disk.
    fn create(&self, disk: &Disk) -> io::Result<()>;

    /// A new image on top of another, which is left as it is from now on.
    fn add_layer(&self, below: &Layer, image: &str) -> io::Result<()>;

    /// Lets clients to an image until it is closed.
    fn open(&mut self, access: &Access<'_>) -> io::Result<Opened>;

    /// Ends what serves a transfer's image.
    fn close(&mut self, transfer: &str) -> io::Result<()>;

    /// Looks whether an uploaded image is what it should be.
    fn verify(&self, disk: &Disk) -> io::Result<()>;

    /// From now on, a new bitmap takes note of what changes, and the one before it stays as it is.
    fn freeze_bitmap(&mut self, disk: &Disk, checkpoint: &str, before: Option<&str>) -> io::Result<()>;

    /// The bitmap before takes note of what changes again, and the new one is no more.
    fn thaw_bitmap(&mut self, disk: &Disk, checkpoint: &str, before: Option<&str>) -> io::Result<()>;

    /// One bitmap of what has changed since the first of these was made.
    fn merge_bitmaps(&mut self, disk: &Disk, backup: &str, since: &[Id]) -> io::Result<()>;

    /// Removes a bitmap.
    fn remove_bitmap(&mut self, disk: &Disk, bitmap: &str) -> io::Result<()>;

    /// Returns the space that a disk takes in the file system, in bytes.
    fn allocated(&self, disk: &Disk) -> u64 {
        let files = disk.layers.iter().filter_map(|layer| fs::metadata(self.file(&layer.image)).ok());
        files.map(|file| file.blocks() * 512).sum()
    }

    /// Removes a disk's images.
    fn remove(&self, disk: &Disk) {
        for layer in &disk.layers {
            let file = self.file(&layer.image);
            // A file that could not be made is not missed.
            if let Err(error) = fs::remove_file(&file)
                && error.kind() != io::ErrorKind::NotFound
            {
                log::warn!("cannot remove {}: {error}", file.display());
            }
        }
    }
}
