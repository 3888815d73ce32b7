// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server of transfers' data: an imageio server that is given tickets.

mod control_socket;
mod fake_imageio;

use std::io;
use std::ops::Range;
use std::path::PathBuf;

pub use control_socket::ControlSocket;
pub use fake_imageio::FakeImageio;

use crate::state::{DiskFormat, TicketId, TicketStatus};

/// The right of a transfer to an image.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Ticket {
    /// The identifier, which the client has to know.
    pub id: TicketId,
    /// The transfer that it is for.
    pub transfer: String,
    /// The number of bytes that can be reached.
    pub size: u64,
    /// The image: `nbd:unix:/path` or `file:///path`.
    pub url: String,
    /// The file that the image is in.
    pub file: PathBuf,
    /// The format of that file.
    pub format: DiskFormat,
    /// Without it, a ticket for reading only.
    pub writable: bool,
    /// A bitmap tells what is dirty.
    pub dirty: bool,
    /// The dirty ranges in bytes, where disks are plain files.
    pub dirty_ranges: Vec<Range<u64>>,
    /// Ranges that aren't allocated stay so.
    pub sparse: bool,
    /// For how many seconds a connection may be idle.
    pub inactivity_timeout: u64,
}

/// The outcome of removing a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Done,
    /// Requests are still being carried out; no new ones are.
    InUse,
}

/// An imageio server, as a host's agent sees it.
pub trait Host: Send + Sync + std::fmt::Debug {
    /// It can't read other formats, nor ask qemu: disks are kept as plain files for it.
    fn wants_plain_files(&self) -> bool {
        false
    }

    /// Adds a ticket, or replaces it.
    ///
    /// # Errors
    /// If the server can't be reached, or refuses it.
    fn add_ticket(&self, ticket: &Ticket) -> io::Result<()>;

    /// Returns how a ticket is used; `None` if the server doesn't know it.
    ///
    /// # Errors
    /// If the server can't be reached.
    fn ticket(&self, id: &TicketId) -> io::Result<Option<TicketStatus>>;

    /// Lets a ticket live on.
    ///
    /// # Errors
    /// If the server can't be reached, or doesn't know it.
    fn extend_ticket(&self, id: &TicketId) -> io::Result<()>;

    /// Removes a ticket; one that isn't there is no error.
    ///
    /// # Errors
    /// If the server can't be reached.
    fn remove_ticket(&self, id: &TicketId) -> io::Result<Removal>;

    /// Returns the URLs of a ticket: the one for clients that reach the host directly, and the one
    /// by way of a proxy.
    fn urls(&self, id: &TicketId) -> Option<(String, String)>;
}
