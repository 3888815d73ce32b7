// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a server cannot start or go on.

use std::io;
use std::path::PathBuf;

use nbd_wire::InvalidExport;

/// Why a server cannot start or go on. A cause isn't repeated in the text: it is the
/// [source](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is something at the path of the unix socket.
    #[error("{} exists: stop the server that listens there, or remove what it left behind", .0.display())]
    PathTaken(PathBuf),
    /// The operating system refused to listen.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address that was asked for.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The name, the description or the block size may not be offered to clients.
    #[error(transparent)]
    Export(#[from] InvalidExport),
    /// Another export of the server has this name.
    #[error("the name {0:?} is that of another export: give each its own")]
    NameTaken(String),
    /// There are more exports than a client may be told of.
    #[error(
        "the names and descriptions of all exports are too long for one answer (1 MiB): serve fewer, or call them shorter"
    )]
    ListTooLong,
    /// Sockets or threads failed underneath.
    #[error("the NBD server failed")]
    System(#[from] io::Error),
}
