// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd backups`: what a directory has.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result};
use backup_directory::{Backup, BackupDirectory, BackupMode, DiskBackup};
use bytesize::ByteSize;
use serde::Serialize;

use crate::cli::BackupsOptions;

/// The document of `--json`. Programs rely on its names: they are added to, and not changed.
#[derive(Serialize)]
struct Document<'d> {
    vm: &'d backup_directory::Vm,
    backups: Vec<Listed<'d>>,
}

#[derive(Serialize)]
struct Listed<'d> {
    id: &'d str,
    created: jiff::Timestamp,
    backup_mode: BackupMode,
    /// The size of its own files, in bytes.
    size: u64,
    vm_configuration: Option<String>,
    disks: Vec<ListedDisk<'d>>,
}

#[derive(Serialize)]
struct ListedDisk<'d> {
    id: &'d str,
    name: &'d str,
    provisioned_size: u64,
    backup_mode: BackupMode,
    file: String,
    size: u64,
}

/// Prints it.
pub(crate) fn run(options: &BackupsOptions) -> Result<u8> {
    let directory = BackupDirectory::open(&options.directory)?;
    let backups = directory.manifest().backups.iter();
    let backups = backups.map(|backup| listed(&directory, backup)).collect::<Result<_>>()?;
    let document = Document { vm: &directory.manifest().vm, backups };
    let text = if options.json { serde_json::to_string_pretty(&document)? + "\n" } else { text(&document) };
    std::io::stdout().write_all(text.as_bytes()).context("standard output")?;
    Ok(0)
}

fn listed<'d>(directory: &BackupDirectory, backup: &'d Backup) -> Result<Listed<'d>> {
    let disk = |disk: &'d DiskBackup| {
        let path = directory.path_of(&disk.file);
        let size = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len();
        let file = path.display().to_string();
        let (backup_mode, disk) = (disk.backup_mode, &disk.disk);
        let (id, name, provisioned_size) = (&*disk.id, &*disk.name, disk.provisioned_size);
        Ok(ListedDisk { id, name, provisioned_size, backup_mode, file, size })
    };
    let disks = backup.disks.iter().map(disk).collect::<Result<Vec<_>>>()?;
    let configuration = backup.vm_configuration.as_ref();
    Ok(Listed {
        id: &backup.id,
        created: backup.created,
        backup_mode: backup.mode(),
        size: disks.iter().map(|disk| disk.size).sum(),
        vm_configuration: configuration.map(|file| directory.path_of(file).display().to_string()),
        disks,
    })
}

fn text(document: &Document<'_>) -> String {
    let mut text = format!("{:?} ({})\n", document.vm.name, document.vm.id);
    for backup in &document.backups {
        let size = ByteSize(backup.size).display().iec();
        text += &format!("{}  {}  {size}\n", backup.id, mode(backup.backup_mode));
        for disk in &backup.disks {
            let (size, of) =
                (ByteSize(disk.size).display().iec(), ByteSize(disk.provisioned_size).display().iec());
            text += &format!("  {}  {}  {size} of {of}  {:?}\n", disk.id, mode(disk.backup_mode), disk.name);
        }
    }
    text
}

fn mode(mode: BackupMode) -> &'static str {
    match mode {
        BackupMode::Full => "full",
        BackupMode::Incremental => "incremental",
    }
}
