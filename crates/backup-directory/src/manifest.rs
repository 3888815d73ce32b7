// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manifest: what the files of a directory are. `docs/backup-directory.md` explains each field
//! to those who read it without this crate.

mod check;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of the format that this crate reads and writes. It increases with every change, also
/// with a new field: a program that doesn't know a field would lose it when it writes the manifest
/// again.
pub const VERSION: u64 = 1;

/// The backups of one VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Of the format: [`VERSION`].
    pub version: u64,
    /// The virtual machine that the backups are of.
    pub vm: Vm,
    /// In the order in which they were made.
    pub backups: Vec<Backup>,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// The engine's.
    pub id: String,
    /// The name that the machine had at the last backup.
    pub name: String,
}

/// The state of a VM's disks at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// It is also the name of the directory with the backup's files.
    pub id: String,
    /// The time at which the backup was begun.
    pub created: Timestamp,
    /// The engine's id of the backup.
    pub engine_backup_id: String,
    /// The checkpoint that the backup began from, if there was one.
    pub from_checkpoint_id: Option<String>,
    /// The checkpoint that the engine made with the backup, from which a later one may begin. None
    /// if all disks are raw.
    pub to_checkpoint_id: Option<String>,
    /// The file with the VM's configuration, as the engine gave it.
    pub vm_configuration: Option<String>,
    /// The disks that this backup has.
    pub disks: Vec<DiskBackup>,
}

/// A disk as the engine describes it: what is needed to make it anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The engine's.
    pub id: String,
    /// The engine's name, which need not be unique.
    pub name: String,
    /// The size that the VM sees, in bytes.
    pub provisioned_size: u64,
    /// The format in which the engine stores the disk.
    pub format: DiskFormat,
    /// True if its storage is allocated as it is needed.
    pub sparse: bool,
    /// The disk's support for incremental backups.
    pub backup: BackupSupport,
    /// The storage domain on which the engine stores the disk.
    pub storage_domain: Option<StorageDomain>,
}

/// The format in which the engine stores a disk (`DiskFormat` of its API).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// qcow2.
    Cow,
    /// The disk's bytes.
    Raw,
}

/// A disk's support for incremental backups (`DiskBackup` of the engine's API).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupSupport {
    /// It is always backed up as a whole.
    None,
    /// The engine keeps track of what is changed.
    Incremental,
}

/// A storage domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageDomain {
    /// The engine's.
    pub id: String,
    /// The engine's.
    pub name: Option<String>,
}

/// A disk in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskBackup {
    /// The disk's description at the time of the backup.
    pub disk: Disk,
    /// The mode of the backup: the file has all of the disk, or the parts that may have changed.
    pub backup_mode: BackupMode,
    /// A qcow2 image, as a path inside of the directory.
    pub file: String,
    /// The file that the image is an increment to: that of the same disk in an earlier backup.
    pub backing_file: Option<String>,
    /// Of what the disk holds in this backup, whichever of the files has it.
    pub checksum: Checksum,
}

/// The part of a disk that a file has (`DiskBackupMode` of the engine's API).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupMode {
    /// All of the disk.
    Full,
    /// The parts that may have changed since the backup that has its backing file.
    Incremental,
}

/// imageio's checksum of a disk: a hash over the hashes of its blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checksum {
    /// imageio's name of the hash, such as `blake2b`.
    pub algorithm: String,
    /// The length of a block in bytes.
    pub block_size: u64,
    /// In hexadecimal digits.
    pub value: String,
}

/// The field that has to be understood before the others.
#[derive(Deserialize)]
struct Version {
    version: u64,
}

/// Why a text is no manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Version(u64),
    Problem(String),
}

impl Manifest {
    /// Of a VM without backups.
    #[must_use]
    pub fn new(vm: Vm) -> Self {
        Self { version: VERSION, vm, backups: Vec::new() }
    }

    /// The backup with this id.
    #[must_use]
    pub fn backup(&self, id: &str) -> Option<&Backup> {
        self.backups.iter().find(|backup| backup.id == id)
    }

    /// The disk's entry that has this file.
    #[must_use]
    pub fn disk_of_file(&self, file: &str) -> Option<&DiskBackup> {
        self.backups.iter().flat_map(|backup| &backup.disks).find(|disk| disk.file == file)
    }

    /// All that has to be read to restore a disk: its own entry, and those of its backing files,
    /// each before its own backing file.
    #[must_use]
    pub fn chain<'m>(&'m self, disk: &'m DiskBackup) -> Vec<&'m DiskBackup> {
        let next = |disk: &&'m DiskBackup| self.disk_of_file(disk.backing_file.as_deref()?);
        // Each file at most once: a manifest that wasn't read from a directory may have circles.
        let most = self.backups.iter().map(|backup| backup.disks.len()).sum::<usize>().max(1);
        std::iter::successors(Some(disk), next).take(most).collect()
    }

    /// From JSON. It is checked in itself; files are not looked for.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        let problem = |error: serde_json::Error| Unreadable::Problem(error.to_string());
        let Version { version } = serde_json::from_slice(text).map_err(problem)?;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let manifest: Self = serde_json::from_slice(text).map_err(problem)?;
        manifest.check().map_err(Unreadable::Problem)?;
        Ok(manifest)
    }

    /// Writes the manifest as JSON, with a line for each field.
    pub(crate) fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest has nothing that JSON lacks");
        text.push('\n');
        text
    }
}

impl Backup {
    /// The disk with this id.
    #[must_use]
    pub fn disk(&self, id: &str) -> Option<&DiskBackup> {
        self.disks.iter().find(|disk| disk.disk.id == id)
    }

    /// Incremental if one of its disks is.
    #[must_use]
    pub fn mode(&self) -> BackupMode {
        let is_incremental = |disk: &DiskBackup| disk.backup_mode == BackupMode::Incremental;
        if self.disks.iter().any(is_incremental) { BackupMode::Incremental } else { BackupMode::Full }
    }
}

#[cfg(test)]
mod tests;
