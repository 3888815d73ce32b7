// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd verify`: whether the files of a directory hold what was backed up.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use backup_directory::{Backup, BackupDirectory, DiskBackup};

use super::copy::Task;
use super::{NO_BACKUP, choose, copy, has_configuration, print};
use crate::cli::VerifyOptions;
use crate::copy::{Progress, Stop, explained};

/// Everything, up to the exit status: 1 if a disk isn't what it was.
pub(crate) fn run(options: &VerifyOptions) -> Result<u8> {
    copy::check_tools()?;
    let directory = BackupDirectory::open(&options.directory)?;
    let backups = match &options.backup {
        Some(id) => std::slice::from_ref(choose(&directory, Some(id))?),
        None => &directory.manifest().backups,
    };
    let (stop, _signals) = Stop::by_signals()?;
    let progress = Arc::<Progress>::default();
    let line = progress.draw()?;
    ensure!(!backups.is_empty(), "there is nothing to verify: {NO_BACKUP}");
    if let Some(empty) = backups.iter().find(|backup| backup.disks.is_empty()) {
        bail!("there is nothing to verify: the backup {} has no disks", empty.id);
    }
    let wrong = explained(verify(&directory, backups, &stop, &progress), &stop, "not all was verified")?;
    drop(line);
    let disks = match (wrong.disks, wrong.configurations) {
        (0, 0) => return Ok(0),
        (0, _) => bail!("a configuration of the VM is missing: take it from a copy of the directory"),
        (1, _) => "1 disk is".to_owned(),
        (disks, _) => format!("{disks} disks are"),
    };
    bail!(
        "{disks} not what was backed up: take the files from a copy of the directory, or restore another backup"
    );
}

/// The numbers of parts of backups that are not what they were.
#[derive(Default)]
struct Wrong {
    disks: usize,
    configurations: usize,
}

/// The state of a disk in a backup.
enum Found {
    AsBackedUp,
    Wrong,
    /// Its file, or another one that it needs, isn't there.
    Missing,
}

/// Tells of each disk whether it is what was backed up, and returns how many are not.
fn verify(
    directory: &BackupDirectory,
    backups: &[Backup],
    stop: &Stop,
    progress: &Progress,
) -> Result<Wrong> {
    let mut wrong = Wrong::default();
    for backup in backups {
        for disk in &backup.disks {
            let task = Task { label: &disk.disk.name, stop, progress };
            let found = look_at(directory, disk, task)?;
            wrong.disks += usize::from(!matches!(found, Found::AsBackedUp));
            tell(backup, disk, &found)?;
        }
        wrong.configurations += usize::from(!has_configuration(directory, backup));
    }
    Ok(wrong)
}

/// Looks at a disk, and logs the reason why it can't be read.
fn look_at(directory: &BackupDirectory, disk: &DiskBackup, task: Task<'_>) -> Result<Found> {
    let image = match directory.image(disk) {
        Ok(image) => image,
        Err(error) => {
            log::error!("{}", imageio_config::one_line(&error));
            return Ok(if error.is_missing() { Found::Missing } else { Found::Wrong });
        }
    };
    match copy::is_as_backed_up(disk, &image, task) {
        Ok(true) => Ok(Found::AsBackedUp),
        Ok(false) => Ok(Found::Wrong),
        Err(error) => {
            task.stop.check()?;
            log::error!("{}: {}", image.display(), crate::one_line(&error));
            Ok(Found::Wrong)
        }
    }
}

fn tell(backup: &Backup, disk: &DiskBackup, found: &Found) -> Result<()> {
    let word = match found {
        Found::AsBackedUp => "ok",
        Found::Wrong => "WRONG",
        Found::Missing => "MISSING",
    };
    print(&format!("{}  {}  {word}", backup.id, disk.disk.id))
}
