// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory with the backups of one virtual machine: qcow2 images with a backing chain for each
//! disk, and a manifest in JSON. The document `docs/backup-directory.md` of the project describes
//! the format, which other programs can read without this crate.
//!
//! - [`BackupDirectory`] reads a directory, and checks the images of a disk before they are used.
//! - [`plan()`] decides which disks can be backed up incrementally, and from which checkpoint.
//! - [`Writer`] adds a backup ([`NewBackup`]).
//!
//! ```
//! use backup_directory::{BackupSupport, Decision, Disk, DiskFormat, Policy, Reason, plan};
//!
//! let disk = Disk {
//!     id: "7dcf6bd6-0b39-4b5f-9d4e-1ba4f6b1c02f".to_owned(),
//!     name: "system".to_owned(),
//!     provisioned_size: 10 << 30,
//!     format: DiskFormat::Cow,
//!     sparse: true,
//!     backup: BackupSupport::Incremental,
//!     storage_domain: None,
//! };
//! // There is no manifest yet, and the engine has no checkpoint.
//! let plan = plan(None, &[], &[disk], Policy::IncrementalWherePossible)?;
//! assert_eq!(plan.from_checkpoint_id, None);
//! assert_eq!(plan.disks[0].decision, Decision::Full(Reason::FirstBackup));
//! # Ok::<(), backup_directory::Error>(())
//! ```
//!
//! The words are the engine's where it has them: *provisioned size*, *checkpoint*, *backup mode*,
//! *storage domain*.
//!
//! # Why this way
//!
//! A backup is files that `qemu-img` can read, so no program of this project is needed to restore
//! it. There is no database and no deduplication. The types of the manifest have exactly the fields
//! of the format: a new field is a new [`VERSION`].
//!
//! # Threads and lifecycle
//!
//! One process at a time may write: a [`Writer`] holds a lock on the directory until it is dropped.
//! Readers need no lock, as no file is changed once the manifest names it, and the manifest is
//! replaced as a whole. If a backup is interrupted, the directory keeps its last good state, and
//! the next writer removes what was left over. Nothing here starts a thread.
//!
//! # Errors
//!
//! [`Error`] names the file or the field that is wrong. A manifest of another version is an error,
//! and so is one with a field that this crate doesn't know: to write it again would lose that
//! field.

mod directory;
mod error;
mod file_name;
mod lock;
mod manifest;
mod new_backup;
mod plan;
mod qcow2;
mod replace;
#[cfg(test)]
mod samples;
mod writer;

pub use directory::BackupDirectory;
pub use error::{Error, Result};
pub use manifest::{
    Backup, BackupMode, BackupSupport, Checksum, Disk, DiskBackup, DiskFormat, Manifest, StorageDomain,
    VERSION, Vm,
};
pub use new_backup::{BackupRecord, Image, NewBackup};
pub use plan::{Decision, DiskPlan, LONGEST_CHAIN, Plan, Policy, Reason, plan};
pub use writer::Writer;

/// The name of the manifest in its directory.
pub const MANIFEST: &str = "manifest.json";

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<BackupDirectory>();
    is_send_and_sync::<Manifest>();
    is_send_and_sync::<Plan>();
    is_send_and_sync::<Writer>();
    is_send_and_sync::<NewBackup<'_>>();
    is_send_and_sync::<Error>();
};
