// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks for a server that knows plain files only: each is one, whatever its format is said to be.
//! A checkpoint is a copy, and what is dirty is what differs from it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Access, Opened, Storage, merged_bitmap};
use crate::state::{Disk, DiskFormat, Id, Layer};

/// The number of bytes that a bit of a bitmap would stand for: qemu's default.
const GRANULARITY: usize = 64 << 10;

/// The directory, and what is dirty.
#[derive(Debug)]
pub(crate) struct PlainStorage {
    dir: PathBuf,
    /// By image and bitmap.
    dirty: HashMap<(Id, String), Vec<Range<u64>>>,
}

impl PlainStorage {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, dirty: HashMap::new() }
    }

    /// Returns the path of the copy of an image that is made for a checkpoint.
    fn copy(&self, disk: &Disk, checkpoint: &str) -> PathBuf {
        self.dir.join(format!("{}-{checkpoint}", disk.top().image))
    }
}

impl Storage for PlainStorage {
    fn file(&self, image: &str) -> PathBuf {
        self.dir.join(image)
    }

    fn create(&self, disk: &Disk) -> io::Result<()> {
        File::create(self.file(&disk.top().image))?.set_len(disk.provisioned_size)
    }

    fn add_layer(&self, below: &Layer, image: &str) -> io::Result<()> {
        fs::copy(self.file(&below.image), self.file(image)).map(drop)
    }

    fn open(&mut self, access: &Access<'_>) -> io::Result<Opened> {
        if access.shallow || (access.format == DiskFormat::Cow && access.layer.format == DiskFormat::Cow) {
            return Err(io::Error::other(
                "disks are kept as plain files: they have no stored form, nor layers",
            ));
        }
        let file = self.file(&access.layer.image);
        let bitmap = access.bitmap.clone().map(|bitmap| (access.layer.image.clone(), bitmap));
        let dirty = bitmap.and_then(|bitmap| self.dirty.get(&bitmap)).cloned().unwrap_or_default();
        Ok(Opened { url: format!("file://{}", file.display()), size: access.size, dirty })
    }

    fn close(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn verify(&self, disk: &Disk) -> io::Result<()> {
        fs::metadata(self.file(&disk.top().image)).map(drop)
    }

    fn freeze_bitmap(&mut self, disk: &Disk, checkpoint: &str, _: Option<&str>) -> io::Result<()> {
        fs::copy(self.file(&disk.top().image), self.copy(disk, checkpoint)).map(drop)
    }

    fn thaw_bitmap(&mut self, disk: &Disk, checkpoint: &str, _: Option<&str>) -> io::Result<()> {
        self.remove_bitmap(disk, checkpoint)
    }

    fn merge_bitmaps(&mut self, disk: &Disk, backup: &str, since: &[Id]) -> io::Result<()> {
        let from = since.first().ok_or_else(|| io::Error::other("the disk has no such checkpoint"))?;
        let dirty = differences(&self.copy(disk, from), &self.file(&disk.top().image))?;
        self.dirty.insert((disk.top().image.clone(), merged_bitmap(backup)), dirty);
        Ok(())
    }

    fn remove_bitmap(&mut self, disk: &Disk, bitmap: &str) -> io::Result<()> {
        if self.dirty.remove(&(disk.top().image.clone(), bitmap.to_owned())).is_some() {
            return Ok(());
        }
        fs::remove_file(self.copy(disk, bitmap))
    }
}

/// Returns the ranges in which two files of the same length differ, in whole blocks.
fn differences(before: &Path, now: &Path) -> io::Result<Vec<Range<u64>>> {
    let (mut before, mut now) = (File::open(before)?, File::open(now)?);
    let len = now.metadata()?.len();
    let (mut old, mut new) = (vec![0; GRANULARITY], vec![0; GRANULARITY]);
    let mut dirty: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < len {
        // No more than a block, which fits into memory.
        let block = (len - at).min(GRANULARITY as u64) as usize;
        before.read_exact(&mut old[..block])?;
        now.read_exact(&mut new[..block])?;
        let end = at + block as u64;
        if old[..block] != new[..block] {
            match dirty.last_mut().filter(|last| last.end == at) {
                Some(last) => last.end = end,
                None => dirty.push(at..end),
            }
        }
        at = end;
    }
    Ok(dirty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_by_blocks() {
        const BLOCK: usize = GRANULARITY;
        let dir = tempfile::tempdir().unwrap();
        let (before, now) = (dir.path().join("before"), dir.path().join("now"));
        let mut data = vec![0; 5 * BLOCK + 10];
        fs::write(&before, &data).unwrap();
        for at in [BLOCK, 3 * BLOCK - 1, 5 * BLOCK + 9] {
            data[at] = 1;
        }
        fs::write(&now, &data).unwrap();
        let block = BLOCK as u64;
        assert_eq!(differences(&before, &now).unwrap(), [block..3 * block, 5 * block..5 * block + 10]);
        assert_eq!(differences(&now, &now).unwrap(), []);
    }
}
