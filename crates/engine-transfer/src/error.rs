// SPDX-License-Identifier: MIT OR Apache-2.0
//! The errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

use imageio_device::OpenError;

use crate::credentials::Credential;

/// The reason why a disk can't be opened. A cause isn't repeated in the text: it is the
/// [source](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine refuses, or can't be asked.
    #[error(transparent)]
    Engine(#[from] ovirt_engine_client::Error),
    /// The transfer can't be opened at the imageio server.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A disk that is made now was to be read.
    #[error("there is nothing to read on a disk that is made now")]
    NothingToRead,
    /// An upload was asked for, and a disk that is only read.
    #[error("the disk is to be written, and it was asked for reading only")]
    ReadOnlyUpload,
    /// The engine tells no way to the server.
    #[error("the engine has given out no URL for the transfer")]
    NoUrl,
    /// A mistake of this crate or its caller.
    #[error("bug: {0}")]
    Bug(&'static str),
    /// The disk has another size than what is to be copied to it.
    #[error(
        "disk {disk} has {size} bytes, and the image {expected}: upload it into a new disk, or resize it with qemu-img resize"
    )]
    Size {
        /// The disk's id.
        disk: String,
        /// Its size, in bytes.
        size: u64,
        /// The size that was expected, in bytes.
        expected: u64,
    },
    /// A disk that an interrupted upload has made can't be used for it any more.
    #[error("disk {disk}, which an interrupted upload has made, can't be used: {reason}")]
    Left {
        /// The disk's id.
        disk: String,
        /// The reason why it can't be used.
        reason: String,
    },
    /// Something isn't given, by a field, by the configuration file or by the environment.
    #[error("{0} is missing")]
    Missing(Credential),
    /// A password can't be read.
    #[error("cannot read the password from {}", place(file.as_deref()))]
    Password {
        /// The file, or `None` for standard input.
        file: Option<PathBuf>,
        /// The reason why it can't be read.
        source: io::Error,
    },
    /// `ovirt-img`'s configuration file can't be used.
    #[error("the configuration file {} can't be used", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// The reason why it can't be used.
        source: io::Error,
    },
}

/// Names the place from which a password was to be read.
fn place(file: Option<&Path>) -> String {
    file.map_or_else(|| "standard input".to_owned(), |file| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use error_reporter::Report;
    use imageio_device::ClientError;

    use super::*;

    #[test]
    fn an_error_and_its_cause_are_told_once_each() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let of_client = ClientError::Connect { peer: "host:1".to_owned(), source: missing() };
        let told = [
            (Error::Open(of_client.into()), "cannot connect to host:1: entity not found"),
            (
                Error::Open(OpenError::UrlFile { file: None, source: missing() }),
                "cannot read the transfer URL from standard input: entity not found",
            ),
            (
                Error::Password { file: Some("secret".into()), source: missing() },
                "cannot read the password from secret: entity not found",
            ),
            (
                Error::ConfigFile { path: "conf".into(), source: missing() },
                "the configuration file conf can't be used: entity not found",
            ),
        ];
        for (error, expected) in told {
            let cause = error.source().unwrap().to_string();
            assert!(!error.to_string().contains(&cause), "{error}");
            assert_eq!(Report::new(error).to_string(), expected);
        }
    }
}
