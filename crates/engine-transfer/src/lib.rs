// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk of an oVirt engine as a block device: the image transfer is begun before, and finalized after.
//!
//! A [`Source`] says where a disk is: a transfer's URL that somebody else got of the engine and will end, or an engine and a disk.
//! [`Source::open`] begins the transfer if need be, and gives an [`imageio_device::Transfer`], as if its URL had been known, and an
//! [`Ending`]. When the device is closed, [`Ending::end`] says to the engine what to do with the disk. An ending that is dropped gives up
//! the transfer, so that no error leaves one behind.
//!
//! # The way to the server
//! If this host is a host of oVirt that reaches the disk, the transfer is asked of it, and the server's unix socket is used. Else the
//! transfer's URL; and where the server can't be reached by that, the URL of the engine's proxy.

mod credentials;
mod ending;
mod host;
mod left;
mod open;
mod settings;

pub use credentials::{Credentials, PasswordSource};
pub use ending::{Content, Ending, Resumable};
pub use open::{Error, Opened};
pub use ovirt_engine_client::{Clock, ContentType, Direction, DiskFormat, Secret, SystemClock};
pub use settings::{EngineSettings, Interrupted, NewDiskSettings, Source, Target};
