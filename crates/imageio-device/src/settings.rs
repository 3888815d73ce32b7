// SPDX-License-Identifier: MIT OR Apache-2.0
//! The choices that a user has.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use imageio_client::Timeouts;

/// The source of the transfer URL. It holds the ticket, so `Debug` doesn't show it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlSource {
    /// The URL itself.
    Inline(String),
    /// A file with the URL in its first line, which `ps` doesn't show.
    File(PathBuf),
    /// The first line of standard input.
    Stdin,
}

impl fmt::Debug for UrlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Stdin => f.write_str("Stdin"),
        }
    }
}

/// The treatment of a range that is to be zeroed and to stay allocated (NBD's `NO_HOLE`). imageio
/// has no means to ask for it: whether zeroed ranges stay allocated is a property of the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoHole {
    /// It is zeroed like any other, in one small request. It may become a hole, so that a later
    /// write there finds the storage full.
    Ignore,
    /// Zeroes are written there as data, which takes as long as any other data.
    Write,
}

/// The settings for a transfer and its device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The transfer.
    pub url: UrlSource,
    /// The size to offer in bytes, of which the server isn't asked then; the transfer's own if
    /// `None`.
    pub size: Option<u64>,
    /// The CA to trust, in PEM.
    pub cafile: Option<PathBuf>,
    /// Trust any server.
    pub insecure: bool,
    /// This host is an oVirt host: the server's unix socket reaches the same disk.
    pub is_ovirt_host: bool,
    /// Use the server's unix socket on an oVirt host.
    pub unix_socket: bool,
    /// The number of the user whose unix socket is trusted with the ticket, besides root's and that
    /// of this process's user.
    pub unix_socket_user: Option<u32>,
    /// The name of the bitmap of an incremental backup. Clients who ask for the dirty extents of
    /// this bitmap get those of the transfer; imageio doesn't tell the name. Not empty, without
    /// NUL, and not ending in a colon.
    pub dirty_bitmap: String,
    /// Clients are told that what is not dirty is a hole whose content isn't known, so that those
    /// who copy a disk over the last backup of it leave that alone. If the server doesn't tell what
    /// is dirty, all of it is.
    pub clean_as_holes: bool,
    /// Refuse writes.
    pub read_only: bool,
    /// At most so many connections; the server may allow fewer. `None`: 4, and up to 8 where the
    /// link to the server has a long latency.
    pub connections: Option<u32>,
    /// Requests that wait for a connection are merged into one of at most so many bytes, and longer
    /// reads and writes are sent in pieces of so many. 0: neither. `None`: 2 MiB, and up to 4 MiB
    /// where the link has a long latency.
    pub max_request: Option<u64>,
    /// At most so many bytes are read ahead of a client that reads in order, one request at a time.
    /// 0: none.
    pub read_ahead: u64,
    /// The treatment of zeroes that are to stay allocated.
    pub no_hole: NoHole,
    /// The most bytes that the server may still lose and that are kept, to be written again should
    /// a connection be lost. 0: none; then a connection that is lost with unflushed writes ends
    /// everything. `None`: 32 MiB, and up to 64 MiB where the link has a long latency.
    pub replay_buffer: Option<u64>,
    /// The time for which a connection that was lost is tried to be opened again.
    pub reconnect_timeout: Duration,
    /// The time for which a place is left alone where a write was cut off, before it is written
    /// there again: the server may still be busy with the part that it has received, and bring back
    /// what was there before in the last block of that.
    pub settle_time: Duration,
    /// The size of request that clients are told to prefer, in bytes: a power of two.
    pub preferred_block_size: u32,
    /// A connection idle for so long is used, so that the server doesn't close it. `None`: never.
    pub keep_alive: Option<Duration>,
    /// The limits of the time that the server is waited for.
    pub timeouts: Timeouts,
}

impl Settings {
    /// The defaults for a transfer.
    #[must_use]
    pub fn new(url: UrlSource) -> Self {
        Self {
            url,
            size: None,
            cafile: None,
            insecure: false,
            is_ovirt_host: false,
            unix_socket: true,
            unix_socket_user: None,
            dirty_bitmap: "dirty".to_owned(),
            clean_as_holes: false,
            read_only: false,
            connections: None,
            max_request: None,
            read_ahead: 2 << 20,
            no_hole: NoHole::Ignore,
            replay_buffer: None,
            reconnect_timeout: Duration::from_secs(60),
            settle_time: Duration::from_secs(1),
            preferred_block_size: 2 << 20,
            keep_alive: Some(Duration::from_secs(20)),
            timeouts: Timeouts::default(),
        }
    }

    /// Changes it in one expression:
    /// `Settings::new(url).with(|settings| settings.read_only = true)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}
