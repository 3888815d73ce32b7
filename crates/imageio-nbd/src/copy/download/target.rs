// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a download writes: a file, which appears when it is complete, or a device.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::OFlags;

/// The destination of the content.
pub(super) enum Target {
    /// A file, which is written under another name beside it, and renamed when it is complete.
    File { partial: tempfile::NamedTempFile, path: PathBuf },
    /// A block device, or whatever else is no file. It was opened before anything was written, so
    /// that it is told of all that couldn't be.
    Device { device: File, path: PathBuf },
}

impl Target {
    pub(super) fn new(path: &Path) -> Result<Self> {
        Self::find(path).with_context(|| cannot_write(path))
    }

    fn find(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)?;
        let found = path.metadata();
        if let Ok(found) = &found {
            if !found.is_file() && !found.is_dir() {
                // A pipe without a reader is refused then, and not waited for.
                let nonblock = OFlags::NONBLOCK.bits().cast_signed();
                let device = OpenOptions::new().write(true).custom_flags(nonblock).open(&path)?;
                return Ok(Self::Device { device, path });
            }
            // Whoever may not write the file may not replace it, either.
            OpenOptions::new().write(true).open(&path)?;
        }
        let path = behind_links(path)?;
        let is_directory = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        ensure!(!is_directory, "this is the name of a directory, and that of a file is expected");
        let partial = partial(&path, found.is_ok())?;
        Ok(Self::File { partial, path })
    }

    pub(super) fn is_device(&self) -> bool {
        matches!(self, Self::Device { .. })
    }

    /// The path of what `qemu-img` writes.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File { partial, .. } => partial.path(),
            Self::Device { path, .. } => path,
        }
    }

    /// All that was written is made safe, and the file gets its name.
    pub(super) fn complete(self) -> Result<()> {
        use ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
        let path = match &self {
            Self::Device { .. } => return self.keep().map(drop),
            Self::File { path, .. } => path.clone(),
        };
        let kept = self.keep()?;
        kept.rename(&path).with_context(|| cannot_write(&path)).with_context(|| kept.told())?;
        // The directory is synchronised, so that the name, too, is there after a power failure.
        let named = Kept { path, ..kept };
        let dir = named.path.parent().unwrap_or(Path::new("/"));
        match fs::File::open(dir).and_then(|dir| dir.sync_all()) {
            // It may not be read, or its file system has no such thing.
            Err(error) if matches!(error.kind(), PermissionDenied | InvalidInput | Unsupported) => {
                log::warn!(
                    "the file's name may not be there after a power failure: {}: {error}",
                    dir.display()
                );
                Ok(())
            }
            synced => synced.with_context(|| cannot_write(dir)).with_context(|| named.told()),
        }
    }

    /// All that was written is made safe, and stays under the name that it has.
    pub(super) fn keep(self) -> Result<Kept> {
        match self {
            Self::Device { device: file, path } => {
                sync_device(&file).with_context(|| cannot_write(&path))?;
                Ok(Kept { file, path })
            }
            Self::File { partial, path } => {
                // It was opened before anything was written, as a device is.
                partial.as_file().sync_all().with_context(|| cannot_write(&path))?;
                let (file, path) = partial.keep().with_context(|| cannot_write(&path))?;
                Ok(Kept { file, path })
            }
        }
    }
}

/// All of a disk's data.
pub(super) struct Kept {
    file: File,
    path: PathBuf,
}

impl Kept {
    /// Tells where it is, as a part of the message that something else has failed.
    pub(super) fn told(&self) -> String {
        format!("all data was read: it is in {}", self.path.display())
    }

    /// It takes the place of the file that is there, if there is one.
    fn rename(&self, path: &Path) -> io::Result<()> {
        if let Ok(replaced) = path.metadata() {
            resemble(&self.file, &replaced)?;
            self.file.sync_all()?;
        }
        fs::rename(&self.path, path)
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// Fails if something that was written isn't safe. `/dev/null` and pipes keep nothing that could
/// be.
fn sync_device(device: &File) -> io::Result<()> {
    match device.sync_all() {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// The file that symbolic links lead to. It need not be there.
fn behind_links(mut path: PathBuf) -> Result<PathBuf> {
    /// Linux follows as many (`path_resolution(7)`).
    const MOST: usize = 40;
    for _ in 0..MOST {
        let Ok(link) = path.read_link() else { return Ok(path) };
        path = path.parent().unwrap_or(Path::new("/")).join(link);
    }
    bail!("there are too many symbolic links")
}

/// A file beside another one. One that replaces nothing has the mode that the umask leaves.
fn partial(path: &Path, is_replacement: bool) -> io::Result<tempfile::NamedTempFile> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    // The replacement isn't anybody else's to read before it is complete.
    let mode = if is_replacement { 0o600 } else { 0o666 };
    let mut builder = tempfile::Builder::new();
    builder.prefix(&name).suffix(".partial").permissions(Permissions::from_mode(mode));
    builder.tempfile_in(path.parent().unwrap_or(Path::new("/")))
}

/// Gives a file the owner, as far as this user may do so, and the mode of the one that it replaces.
fn resemble(file: &File, replaced: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (replaced.uid(), replaced.gid())
        && let Err(error) = fchown(file, Some(replaced.uid()), Some(replaced.gid()))
    {
        log::warn!("the file that was there had another owner, which the new one can't get: {error}");
    }
    // The last, as another owner takes some bits of the mode away.
    file.set_permissions(replaced.permissions())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_nothing_need_not_be_safe() {
        Target::new(Path::new("/dev/null")).unwrap().complete().unwrap();
        let (_reader, writer) = io::pipe().unwrap();
        sync_device(&File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
    }
}
