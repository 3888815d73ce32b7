// SPDX-License-Identifier: MIT OR Apache-2.0
//! A blocking client of the oVirt engine's REST API, as far as moving disks in and out needs it:
//! disks, image transfers, backups and their checkpoints, and what is needed to find those.
//!
//! It leads a transfer to where it is to be, and leaves none behind: [`Engine::begin_transfer`]
//! returns when data may flow, and [`Engine::end_transfer`] when the engine has said that the disk
//! is complete. Data itself goes to an imageio server, which this crate knows nothing of.
//!
//! ```no_run
//! use ovirt_engine_client::{Config, Direction, End, Engine, NewTransfer, Secret, Subject, Trust};
//!
//! # fn main() -> ovirt_engine_client::Result<()> {
//! let password = Secret::new("password");
//! let mut config = Config::new("https://engine.example.com", "admin@internal", password);
//! config.trust = Trust::file("engine-ca.pem".as_ref())?;
//! let engine = Engine::new(config)?;
//! let disk = engine.find_disk("my-disk")?;
//! let transfer = NewTransfer::new(Direction::Download, Subject::Disk(disk.id));
//! let transfer = engine.begin_transfer(&transfer)?;
//! if let Some(url) = &transfer.transfer_url {
//!     println!("read the disk from a URL of {} characters", url.reveal().len());
//! }
//! engine.end_transfer(&transfer.id, Direction::Download, End::Complete)?;
//! engine.log_out();
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//! Networks lose answers, and engines are started again. A question is asked again for as long as
//! what it waits for may take. Something that is made, such as a disk or a transfer, is made once:
//! where the answer is lost, it is looked up whether it was made. Answers to actions tell nothing
//! (the engine answers 200 for transfers that have ended or never were), so what became of one is
//! looked up.
//!
//! # Why this way
//! The engine's own SDKs are in Python, Java, Ruby and Go, and repeat nothing. This client blocks,
//! as its callers have nothing else to do meanwhile, and knows of the API what transfers and
//! backups need. Users log in by a password; Kerberos is not supported.
//!
//! # Threads and lifecycle
//! An [`Engine`] may be shared by threads, and starts none. It logs in when it is first asked
//! something, and again when its token has expired; [`Engine::log_out`] gives the token back. A
//! transfer or a backup that was begun has to be ended by whoever began it: dropping the engine
//! ends nothing.
//!
//! # Time
//! The engine tells nobody when something is ready. It is asked once a second, by a [`Clock`];
//! [`SystemClock::stop`] ends such a wait.
//!
//! # Secrets
//! The password, the token and the tickets in URLs are [`Secret`]: `Debug` doesn't show them, nor
//! does any error or log message.
//!
//! The API is that of oVirt 4.3 and later. Fields that an engine doesn't know are left out where it
//! says so, and those that it has in addition are passed over.

mod answer;
mod backups;
mod clock;
mod config;
mod disks;
mod engine;
mod error;
mod find;
mod phase;
mod secret;
mod transfers;
mod vms;
mod wait;
mod wire;
mod words;

pub use backups::{Backup, BackupDisk, Checkpoint, NewBackup};
pub use clock::{Clock, SystemClock};
pub use config::{Config, Trust, root};
pub use disks::{Disk, NewDisk, Reference, Storage, StorageDomain};
pub use engine::Engine;
pub use error::{Error, NoAnswer, Request, Result};
pub use find::Kind;
pub use secret::Secret;
pub use transfers::{Direction, End, ImageTransfer, NewTransfer, Subject, TimeoutPolicy};
pub use vms::{AttachedDisk, Host, Snapshot, SnapshotDisk, Vm};
pub use words::{BackupMode, BackupPhase, ContentType, DiskFormat, DiskStatus, HostStatus, TransferPhase};

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Engine>();
    is_send_and_sync::<Config>();
    is_send_and_sync::<SystemClock>();
    is_send_and_sync::<Secret>();
    is_send_and_sync::<Error>();
};
