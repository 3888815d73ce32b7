// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory with the backups of one virtual machine. `docs/backup-directory.md` describes the format.
//!
//! - [`BackupDirectory`] reads a directory, and checks that nothing of it is missing.
//! - [`plan()`] decides which disks can be backed up incrementally, and from which checkpoint.
//! - [`Writer`] adds a backup ([`NewBackup`]). One process at a time can do so, and whatever interrupts it, the directory
//!   keeps its last good state.
//!
//! The words are the engine's where it has them: *provisioned size*, *checkpoint*, *backup mode*, *storage domain*.

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
