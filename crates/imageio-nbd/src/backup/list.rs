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
    /// The size of its own files that are there, in bytes.
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
    /// None if the file isn't there.
    size: Option<u64>,
}

/// Prints it.
pub(crate) fn run(options: &BackupsOptions) -> Result<u8> {
    let directory = BackupDirectory::open(&options.directory)?;
    let backups = directory.manifest().backups.iter();
    let backups = backups.map(|backup| listed(&directory, backup)).collect();
    let document = Document { vm: &directory.manifest().vm, backups };
    let text = if options.json { serde_json::to_string_pretty(&document)? + "\n" } else { text(&document) };
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(0)
}

fn listed<'d>(directory: &BackupDirectory, backup: &'d Backup) -> Listed<'d> {
    let disk = |disk: &'d DiskBackup| {
        let path = directory.path_of(&disk.file);
        let size = fs::metadata(&path).ok().map(|file| file.len());
        let file = path.display().to_string();
        let (backup_mode, disk) = (disk.backup_mode, &disk.disk);
        let (id, name, provisioned_size) = (&*disk.id, &*disk.name, disk.provisioned_size);
        ListedDisk { id, name, provisioned_size, backup_mode, file, size }
    };
    let disks: Vec<_> = backup.disks.iter().map(disk).collect();
    let configuration = backup.vm_configuration.as_ref();
    Listed {
        id: &backup.id,
        created: backup.created,
        backup_mode: backup.mode(),
        size: disks.iter().filter_map(|disk| disk.size).sum(),
        vm_configuration: configuration.map(|file| directory.path_of(file).display().to_string()),
        disks,
    }
}

fn text(document: &Document<'_>) -> String {
    let mut text = format!("{:?} ({})\n", document.vm.name, document.vm.id);
    for backup in &document.backups {
        let size = ByteSize(backup.size).display().iec();
        text += &format!("{}  {}  {size}\n", backup.id, mode(backup.backup_mode));
        for disk in &backup.disks {
            let of = ByteSize(disk.provisioned_size).display().iec();
            let size =
                disk.size.map_or("MISSING".to_owned(), |size| ByteSize(size).display().iec().to_string());
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
