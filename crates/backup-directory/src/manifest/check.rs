// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks whether a manifest agrees with itself. A problem is told as the second half of a
//! sentence.

use std::collections::{HashMap, HashSet};

use super::{Backup, BackupMode, Checksum, DiskBackup, Manifest};
use crate::file_name::{is_name, is_path};

/// The entries of the backups before.
type Earlier<'m> = HashMap<&'m str, &'m DiskBackup>;

impl Manifest {
    /// Checks all that can be known without looking at other files.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut ids, mut files, mut earlier) = (HashSet::new(), HashSet::new(), Earlier::new());
        for backup in &self.backups {
            let id = &backup.id;
            ensure(is_name(id), || format!("the id {id:?} of a backup is no plain name"))?;
            ensure(ids.insert(id), || format!("two backups have the id {id}"))?;
            for file in backup.files() {
                ensure(is_path(file), || {
                    format!(
                        "the backup {id} has the file {file:?}, which is no plain path inside of the directory"
                    )
                })?;
                ensure(files.insert(file), || format!("two entries have the file {file}"))?;
            }
            check_disks(backup, &earlier)?;
            earlier.extend(backup.disks.iter().map(|disk| (&*disk.file, disk)));
        }
        Ok(())
    }
}

impl Backup {
    /// All files that are this backup's own.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.disks.iter().map(|disk| &*disk.file).chain(self.vm_configuration.as_deref())
    }
}

fn check_disks(backup: &Backup, earlier: &Earlier<'_>) -> Result<(), String> {
    let mut ids = HashSet::new();
    for disk in &backup.disks {
        let id = &disk.disk.id;
        ensure(ids.insert(id), || format!("the backup {} has the disk {id} twice", backup.id))?;
        check_backing(disk, earlier)?;
        check_checksum(&disk.file, &disk.checksum)?;
    }
    Ok(())
}

fn check_backing(disk: &DiskBackup, earlier: &Earlier<'_>) -> Result<(), String> {
    let file = &disk.file;
    let backing = match (disk.backup_mode, &disk.backing_file) {
        (BackupMode::Full, None) => return Ok(()),
        (BackupMode::Full, Some(_)) => return Err(format!("{file} has all of its disk, and a backing file")),
        (BackupMode::Incremental, None) => {
            return Err(format!("{file} is incremental, and has no backing file"));
        }
        (BackupMode::Incremental, Some(backing)) => backing,
    };
    let Some(below) = earlier.get(&**backing) else {
        return Err(format!("the backing file of {file} is {backing:?}, which no earlier backup has"));
    };
    ensure(below.disk.id == disk.disk.id, || {
        format!("the backing file {backing} of {file} is of another disk")
    })?;
    ensure(below.disk.provisioned_size == disk.disk.provisioned_size, || {
        format!("the backing file {backing} of {file} has another provisioned size")
    })
}

fn check_checksum(file: &str, checksum: &Checksum) -> Result<(), String> {
    let Checksum { algorithm, block_size, value } = checksum;
    let is_hexadecimal = !value.is_empty() && value.chars().all(|c| c.is_ascii_hexdigit());
    let is_named =
        !algorithm.is_empty() && algorithm.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    ensure(is_hexadecimal && is_named && *block_size > 0, || format!("the checksum of {file} makes no sense"))
}

fn ensure(is_right: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if is_right { Ok(()) } else { Err(problem()) }
}
