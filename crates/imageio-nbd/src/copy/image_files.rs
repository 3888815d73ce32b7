// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files that an image is made of, and whether they are as they were: an upload may go on only
//! with the image that it was begun with.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::image::{ask, cannot_read, format_option};

/// A file, and what changes when it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageFile {
    path: PathBuf,
    #[serde(flatten)]
    state: FileState,
}

/// The properties of a file that `stat(2)` tells. The time of its last change can't be set by
/// programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FileState {
    /// In bytes.
    size: u64,
    inode: u64,
    /// Seconds since 1970, and nanoseconds.
    modified: (i64, i64),
    /// Seconds since 1970, and nanoseconds.
    changed: (i64, i64),
}

impl From<&Metadata> for FileState {
    fn from(file: &Metadata) -> Self {
        Self {
            size: file.size(),
            inode: file.ino(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// A file isn't as it was.
#[derive(Debug, thiserror::Error)]
#[error("{} has changed since its upload was begun", .0.display())]
pub(super) struct Changed(PathBuf);

/// There is no telling whether this changes.
#[derive(Debug, thiserror::Error)]
#[error("{} is no file, so nobody can tell whether it changes: leave out --resume", .0.display())]
pub(super) struct NoFile(PathBuf);

/// All files of an image: its own, those that it points to, and those of its backing files. A part
/// that is no file, as a block device or a backing file behind a network protocol, is told beside.
pub(super) fn of_image(image: &Path, format: Option<&str>) -> Result<(Vec<ImageFile>, Option<NoFile>)> {
    let image = &*std::path::absolute(image).context("the name of an image is expected")?;
    // The usual mistake, in fewer words than qemu-img's.
    let kind = image.metadata().with_context(|| cannot_read(image))?.file_type();
    // qemu-img would wait for a pipe, and read others for ever.
    let is_image = kind.is_file() || kind.is_block_device();
    ensure!(is_image, "{}: an image is a file or a block device", image.display());
    let options = [OsStr::new("info"), OsStr::new("--backing-chain")];
    let asked = ask(&[&options[..], &format_option(format), &[image.as_ref()]].concat());
    let chain: Value = asked.with_context(|| image.display().to_string())?;
    let (mut files, mut other) = (Vec::<ImageFile>::new(), None);
    for name in names(&chain)? {
        let path = beside(image, &name);
        if files.iter().all(|file| file.path != path) {
            match ImageFile::look_at(path) {
                Ok(file) => files.push(file),
                Err(no_file) => other = Some(no_file),
            }
        }
    }
    Ok((files, other))
}

/// A file by the name that an image has for it, which is relative to the image.
pub(super) fn beside(image: &Path, name: impl AsRef<Path>) -> PathBuf {
    image.parent().unwrap_or(Path::new("/")).join(name)
}

/// The names of files in what `qemu-img info --backing-chain` tells.
fn names(chain: &Value) -> Result<Vec<PathBuf>> {
    let name = |value: &Value| {
        value.as_str().map(PathBuf::from).context("qemu-img doesn't tell a file of the image")
    };
    let images = chain.as_array().context("bug: a chain is a list")?;
    let mut names = Vec::new();
    for image in images {
        let details = &image["format-specific"]["data"];
        let extents = details["extents"].as_array().into_iter().flatten().map(|extent| &extent["filename"]);
        let others = extents.chain(details.get("data-file"));
        let image = name(&image["filename"])?;
        let others: Result<Vec<_>> = others.map(|other| Ok(beside(&image, name(other)?))).collect();
        names.push(image);
        names.extend(others?);
    }
    Ok(names)
}

/// Fails if one of the files isn't as it was.
pub(super) fn check(files: &[ImageFile]) -> Result<()> {
    files.iter().try_for_each(ImageFile::check)
}

impl ImageFile {
    fn look_at(path: PathBuf) -> Result<Self, NoFile> {
        match path.metadata() {
            Ok(file) if file.is_file() => Ok(Self { state: FileState::from(&file), path }),
            _ => Err(NoFile(path)),
        }
    }

    fn check(&self) -> Result<()> {
        let file = self.path.metadata().with_context(|| cannot_read(&self.path))?;
        let is_same = FileState::from(&file) == self.state;
        if is_same { Ok(()) } else { Err(Changed(self.path.clone()).into()) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn all_files_of_an_image_are_known() {
        let chain = json!([
            {"filename": "/x/disk.vmdk", "format": "vmdk", "format-specific": {"type": "vmdk", "data": {
                "extents": [{"filename": "/x/disk-s001.vmdk"}, {"filename": "/x/disk-s002.vmdk"}]}}},
            {"filename": "/y/base.qcow2", "format-specific": {"type": "qcow2", "data": {"data-file": "base.raw"}}},
            {"filename": "/x/raw", "format": "raw"},
        ]);
        let expected = [
            "/x/disk.vmdk",
            "/x/disk-s001.vmdk",
            "/x/disk-s002.vmdk",
            "/y/base.qcow2",
            "/y/base.raw",
            "/x/raw",
        ];
        assert_eq!(names(&chain).unwrap(), expected.map(PathBuf::from));
        assert!(names(&json!([{"format": "raw"}])).is_err());
    }

    #[test]
    fn a_change_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        fs::write(&path, "one").unwrap();
        let file = ImageFile::look_at(path.clone()).unwrap();
        file.check().unwrap();
        let text = serde_json::to_string(&file).unwrap();
        assert_eq!(serde_json::from_str::<ImageFile>(&text).unwrap(), file);

        fs::write(dir.path().join("other"), "two").unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        assert!(file.check().unwrap_err().to_string().contains("has changed since its upload"));
        fs::remove_file(&path).unwrap();
        assert!(file.check().is_err());
        assert!(ImageFile::look_at(dir.path().to_owned()).is_err(), "a directory");
    }
}
