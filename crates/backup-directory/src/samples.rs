// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks, backups and images for tests.

use std::fs;
use std::path::Path;

use crate::file_name::from_below;
use crate::manifest::{
    Backup, BackupMode, BackupSupport, Checksum, Disk, DiskBackup, DiskFormat, Manifest, Vm,
};

/// Of the disks, in bytes.
pub(crate) const SIZE: u64 = 1 << 20;

pub(crate) fn vm() -> Vm {
    Vm { id: "vm-1".to_owned(), name: "web".to_owned() }
}

/// A disk that can be backed up incrementally.
pub(crate) fn disk(id: &str) -> Disk {
    Disk {
        id: id.to_owned(),
        name: format!("the disk {id}"),
        provisioned_size: SIZE,
        format: DiskFormat::Cow,
        sparse: true,
        backup: BackupSupport::Incremental,
        storage_domain: None,
    }
}

/// The entry of a disk, with a backing file if it is incremental.
pub(crate) fn disk_backup(disk: Disk, backup: &str, backing_file: Option<String>) -> DiskBackup {
    DiskBackup {
        backup_mode: if backing_file.is_some() { BackupMode::Incremental } else { BackupMode::Full },
        file: format!("{backup}/{}.qcow2", disk.id),
        backing_file,
        checksum: Checksum { algorithm: "sha1".to_owned(), block_size: 4096, value: "5eed".to_owned() },
        disk,
    }
}

/// A backup that has made the checkpoint `c-ID`.
pub(crate) fn backup(id: &str, disks: Vec<DiskBackup>) -> Backup {
    Backup {
        id: id.to_owned(),
        created: "2026-11-27T23:20:00Z".parse().unwrap(),
        engine_backup_id: format!("e-{id}"),
        from_checkpoint_id: None,
        to_checkpoint_id: Some(format!("c-{id}")),
        vm_configuration: None,
        disks,
    }
}

/// The full backup `one` of the disks `a` and `b`, and the increment `two` of `a` with a full `b`.
pub(crate) fn manifest() -> Manifest {
    let full = |id: &str, backup: &str| disk_backup(disk(id), backup, None);
    let increment = disk_backup(disk("a"), "two", Some("one/a.qcow2".to_owned()));
    let backups = vec![
        backup("one", vec![full("a", "one"), full("b", "one")]),
        backup("two", vec![increment, full("b", "two")]),
    ];
    Manifest { backups, ..Manifest::new(vm()) }
}

/// Writes the header of a qcow2 image, and nothing behind it.
pub(crate) fn write_image(path: &Path, size: u64, backing_file: Option<&str>) {
    let name = backing_file.map(from_below).unwrap_or_default();
    let mut header = b"QFI\xfb\0\0\0\x03".to_vec();
    header.extend(if name.is_empty() { 0_u64 } else { 112 }.to_be_bytes());
    header.extend((name.len() as u32).to_be_bytes());
    header.extend(16_u32.to_be_bytes());
    header.extend(size.to_be_bytes());
    header.resize(112, 0);
    header.extend(name.as_bytes());
    fs::write(path, header).unwrap();
}

/// Makes the files of a manifest, and the manifest.
pub(crate) fn write_directory(path: &Path, manifest: &Manifest) {
    for backup in &manifest.backups {
        fs::create_dir_all(path.join(&backup.id)).unwrap();
        for disk in &backup.disks {
            write_image(&path.join(&disk.file), disk.disk.provisioned_size, disk.backing_file.as_deref());
        }
        if let Some(file) = &backup.vm_configuration {
            fs::write(path.join(file), "<ovf/>").unwrap();
        }
    }
    fs::write(path.join(crate::MANIFEST), manifest.to_json()).unwrap();
}
