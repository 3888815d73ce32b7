// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk of an oVirt engine as a block device: the image transfer is begun before, and finalized
//! after.
//!
//! A [`Source`] says where a disk is: at a transfer's URL that somebody else got from the engine
//! and will end, or in an engine that is asked for a transfer. [`Source::open`] begins the transfer
//! if need be. It gives an [`imageio_device::Transfer`], as if its URL had been known, and an
//! [`Ending`]. When the device is closed, [`Ending::end`] tells the engine what to do with the
//! disk.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use engine_transfer::{
//!     Content, Credentials, EngineSettings, PasswordSource, Source, SystemClock, Target,
//! };
//! use imageio_device::{Settings, UrlSource};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut credentials = Credentials::default();
//! credentials.url = Some("https://engine.example.com".to_owned());
//! credentials.user = Some("admin@internal".to_owned());
//! credentials.password = Some(PasswordSource::File("password".into()));
//! credentials.cafile = Some("engine-ca.pem".into());
//!
//! let engine = EngineSettings::new(credentials, Target::Disk("my-disk".to_owned()));
//! // The engine tells the URL.
//! let mut settings = Settings::new(UrlSource::Inline(String::new()));
//! settings.read_only = true;
//! let opened = Source::engine(settings, engine).open(Arc::new(SystemClock::default()))?;
//! let device = opened.transfer.start()?;
//! // … the device is read …
//! device.close()?;
//! opened.ending.end(Content::Complete)?;
//! # Ok(())
//! # }
//! ```
//!
//! # The way to the server
//!
//! If this host is a host of oVirt that reaches the disk, the engine is asked for a transfer on
//! this host, and the server's unix socket is used. Otherwise the transfer's URL is used; and where
//! the server can't be reached by that, the URL of the engine's proxy.
//!
//! # Threads and lifecycle
//!
//! [`Source::open`] leaves no thread and no connection behind, so a process may fork after it. An
//! [`Ending`] that is dropped gives up the transfer, so that no error and no panic leaves one
//! behind in the engine. The device is to be closed before: the engine takes the ticket away from
//! the server once no connection uses it.
//!
//! # Errors
//!
//! An [`Error`] is the engine's, the device's, or about the credentials. It is one line that says
//! what became of the disk where that is known. It never shows a password or a ticket.

mod credentials;
mod ending;
mod error;
mod host;
mod left;
mod open;
mod settings;

pub use credentials::{Credential, Credentials, PasswordSource};
pub use ending::{Content, Ending, Resumable};
pub use error::Error;
pub use open::Opened;
pub use ovirt_engine_client::{Clock, ContentType, Direction, DiskFormat, Secret, SystemClock};
pub use settings::{EngineSettings, Interrupted, NewDiskSettings, Source, Target};

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Source>();
    is_send_and_sync::<EngineSettings>();
    is_send_and_sync::<Credentials>();
    is_send_and_sync::<Opened>();
    is_send_and_sync::<Ending>();
    is_send_and_sync::<Error>();
};
