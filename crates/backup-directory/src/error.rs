// SPDX-License-Identifier: MIT OR Apache-2.0
//! The errors of this crate, in one line each, which says what to do. A cause isn't repeated in it:
//! it is the [source](std::error::Error::source).

use std::io;
use std::path::{Path, PathBuf};

use crate::MANIFEST;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a backup directory can't be used, or a backup can't be made as it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// A verb, such as "read".
        action: &'static str,
        /// The file or directory that the operation was about.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// There is no manifest.
    #[error("{} has no {MANIFEST}: it is no backup directory, or its first backup was never completed", .0.display())]
    NoManifest(PathBuf),
    /// A directory is to be used for backups, and has other things in it.
    #[error("{} has no {MANIFEST} and is not empty: choose a new or an empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// The manifest can't be understood.
    #[error("{} is damaged: {problem}: repair it by hand, or use a copy of the directory", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The problem, as the second part of the message.
        problem: String,
    },
    /// The manifest is of a version that this crate doesn't know.
    #[error("{} has version {version}, and only version 1 is known", path.display())]
    Version {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// A file that the manifest names is missing, or is not what the manifest says.
    #[error("{}: {problem}: take it from a copy of the directory", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The problem, as the second part of the message.
        problem: String,
    },
    /// The directory has the backups of another virtual machine.
    #[error("{} has the backups of the VM {name:?} ({id}): choose another directory for this VM", path.display())]
    OtherVm {
        /// The directory.
        path: PathBuf,
        /// The name of the VM whose backups it has.
        name: String,
        /// The id of that VM.
        id: String,
    },
    /// Another process writes to the directory.
    #[error("{} is in use by {holder}: wait until that backup has ended", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that uses it.
        holder: String,
    },
    /// A name of the engine can't be the name of a file.
    #[error("{0:?} cannot be the name of a file in a backup directory")]
    Name(String),
    /// The finished backup is not what was promised.
    #[error("the backup is not complete: {0}")]
    Incomplete(String),
    /// There is nothing to back up.
    #[error("the VM has no disk that can be backed up")]
    NoDisks,
    /// An incremental backup was asked for, and some disks can only be backed up as a whole.
    #[error("an incremental backup is not possible: {0}")]
    NotIncremental(String),
}

impl Error {
    /// Returns true if a file isn't there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }

    /// For `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { action, path, error }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_error_and_its_cause_are_told_once_each() {
        let error = Error::io("read", Path::new("manifest.json"))(io::ErrorKind::NotFound.into());
        assert_eq!(error.to_string(), "cannot read manifest.json");
        assert_eq!(error.source().unwrap().to_string(), "entity not found");
    }
}
