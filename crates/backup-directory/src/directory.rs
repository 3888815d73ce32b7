// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a backup directory. No lock is needed: files that the manifest names are never changed,
//! and the manifest is replaced as a whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file_name::resolve;
use crate::manifest::{DiskBackup, Manifest, Unreadable};
use crate::qcow2::Header;
use crate::{MANIFEST, VERSION};

/// The length that a manifest may have, in bytes: that of 10,000 backups of ten disks each has
/// less.
const MOST_BYTES: u64 = 128 << 20;

/// A directory whose manifest was read and found to be sound.
#[derive(Debug)]
pub struct BackupDirectory {
    path: PathBuf,
    manifest: Manifest,
}

impl BackupDirectory {
    /// Reads the manifest, and checks that it agrees with itself. Its files are not looked at: one
    /// that is missing does no harm to other backups.
    ///
    /// # Errors
    /// [`Error::NoManifest`], [`Error::Version`], [`Error::Manifest`] or [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let manifest = read_manifest(path)?.ok_or_else(|| Error::NoManifest(path.to_owned()))?;
        Ok(Self { path: path.to_owned(), manifest })
    }

    /// Returns the manifest, which tells what the directory has.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the path of a disk's image, and checks the images that are read with it: it and its
    /// backing files. Each has to be there, and of each the header is read: its size and its
    /// backing file have to be those of the manifest. What images hold is not read.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Io`].
    pub fn image(&self, disk: &DiskBackup) -> Result<PathBuf> {
        image(&self.path, &self.manifest, disk)
    }

    /// Returns the path of a file that the manifest names. Nobody has looked at the file: whoever
    /// has qemu read an image asks for it by [`image`](Self::image), as the header of another one
    /// may lead to any file of this host.
    #[must_use]
    pub fn path_of(&self, file: &str) -> PathBuf {
        self.path.join(file)
    }
}

/// The manifest, if there is one.
pub(crate) fn read_manifest(directory: &Path) -> Result<Option<Manifest>> {
    let path = directory.join(MANIFEST);
    let mut text = Vec::new();
    match File::open(&path) {
        Ok(file) => file.take(MOST_BYTES + 1).read_to_end(&mut text).map_err(Error::io("read", &path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && directory.is_dir() => return Ok(None),
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    if text.len() as u64 > MOST_BYTES {
        let problem = format!("it is longer than {MOST_BYTES} bytes");
        return Err(Error::Manifest { path, problem });
    }
    Manifest::parse(&text).map(Some).map_err(|unreadable| match unreadable {
        Unreadable::Version(version) => {
            debug_assert_ne!(version, VERSION);
            Error::Version { path, version }
        }
        Unreadable::Problem(problem) => Error::Manifest { path, problem },
    })
}

/// The path of a disk's image, of which all that is read with it is as the manifest says.
pub(crate) fn image(directory: &Path, manifest: &Manifest, disk: &DiskBackup) -> Result<PathBuf> {
    manifest.chain(disk).into_iter().try_for_each(|disk| check_image(directory, &disk.file, disk))?;
    Ok(directory.join(&disk.file))
}

/// Checks that the image at `place`, which is `disk.file` or will be, is as the manifest says.
pub(crate) fn check_image(directory: &Path, place: &str, disk: &DiskBackup) -> Result<()> {
    let path = directory.join(place);
    let header = Header::read(&open(&path)?).map_err(Error::io("read", &path))?;
    let problem = match header {
        None => Some("it is no qcow2 image".to_owned()),
        Some(header) => difference(&disk.file, disk, &header),
    };
    problem.map_or(Ok(()), |problem| Err(Error::File { path, problem }))
}

/// Returns the first thing in the header of an image that is not as the manifest has it.
fn difference(file: &str, disk: &DiskBackup, header: &Header) -> Option<String> {
    let (size, provisioned_size) = (header.virtual_size, disk.disk.provisioned_size);
    if size != provisioned_size {
        return Some(format!("it is an image of {size} bytes, and the manifest says {provisioned_size}"));
    }
    if header.has_external_data {
        return Some("its data is in another file".to_owned());
    }
    let backing = header.backing_file.as_ref();
    let is_right = backing.map(|name| resolve(file, name)) == disk.backing_file.clone().map(Some);
    let name = |file: Option<String>| file.unwrap_or_else(|| "none".to_owned());
    (!is_right).then(|| {
        let (here, there) = (backing.map(|name| format!("{name:?}")), disk.backing_file.clone());
        format!("its backing file is {}, and the manifest says {}", name(here), name(there))
    })
}

fn open(path: &Path) -> Result<File> {
    // Whoever opens a FIFO waits for its other end.
    if !path.metadata().map_err(Error::io("open", path))?.is_file() {
        return Err(Error::File { path: path.to_owned(), problem: "it is no file".to_owned() });
    }
    File::open(path).map_err(Error::io("open", path))
}

#[cfg(test)]
mod tests;
