// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd verify`: whether the files of a directory hold what was backed up.

use std::sync::Arc;

use anyhow::{Result, ensure};
use backup_directory::{Backup, BackupDirectory, DiskBackup};

use super::copy::Task;
use super::{choose, copy, print};
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
    let wrong = explained(verify(&directory, backups, &stop, &progress), &stop, "not all was verified")?;
    drop(line);
    ensure!(
        wrong == 0,
        "{wrong} disks are not what was backed up: use a copy of the directory, or another backup"
    );
    Ok(0)
}

/// Returns the number of wrong disks.
fn verify(
    directory: &BackupDirectory,
    backups: &[Backup],
    stop: &Stop,
    progress: &Progress,
) -> Result<usize> {
    let mut wrong = 0;
    for (backup, disk) in
        backups.iter().flat_map(|backup| backup.disks.iter().map(move |disk| (backup, disk)))
    {
        let path = directory.path_of(&disk.file);
        let task = Task { label: &disk.disk.name, stop, progress };
        let is_right = match copy::is_as_backed_up(disk, &path, task) {
            Ok(is_right) => is_right,
            Err(error) => {
                stop.check()?;
                log::error!("{}: {}", path.display(), crate::one_line(&error));
                false
            }
        };
        wrong += usize::from(!is_right);
        tell(backup, disk, is_right)?;
    }
    Ok(wrong)
}

fn tell(backup: &Backup, disk: &DiskBackup, is_right: bool) -> Result<()> {
    let word = if is_right { "ok" } else { "WRONG" };
    print(&format!("{}  {}  {word}", backup.id, disk.disk.id))
}
