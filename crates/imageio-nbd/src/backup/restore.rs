// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd restore`: from the directory to new disks of an engine.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use backup_directory::{Backup, BackupDirectory, BackupSupport, DiskBackup, DiskFormat};
use blkhash::Algorithm;
use engine_transfer::{DiskFormat as EngineFormat, NewDiskSettings, Target};
use imageio_device::Device;

use super::copy::Task;
use super::{Site, choose, copy, has_configuration};
use crate::cli::RestoreOptions;
use crate::copy::{Made, Stop, close_after, explained, measure};

/// Everything, up to the exit status.
pub(crate) fn run(options: &RestoreOptions) -> Result<u8> {
    copy::check_tools()?;
    let directory = BackupDirectory::open(&options.directory)?;
    let backup = choose(&directory, options.backup.as_deref())?;
    let disks = chosen(backup, &options.disks)?;
    ensure!(!disks.is_empty(), "there is nothing to restore: the backup {} has no disks", backup.id);
    // All that is needed has to be there before anything is made.
    let images =
        disks.into_iter().map(|disk| Ok((disk, directory.image(disk).with_context(|| label(disk))?)));
    let images = images.collect::<Result<Vec<_>>>()?;
    let (stop, _signals) = Stop::by_signals()?;
    let mut site = Site::new(&options.engine, Arc::clone(&stop), "restoring")?;
    site.is_about(images.iter().map(|(disk, _)| &disk.disk));
    let (following, mut status) = (site.follow()?, 0);
    for (disk, image) in images {
        let restored = restore(&site, options, &image, backup, disk).with_context(|| label(disk));
        let id = explained(restored, &stop, "the disks that were told are complete, and others are removed")?;
        let words = format!("{id}  {:?}, which was {}", disk.disk.name, disk.disk.id);
        // Those that are left are wanted all the same.
        status = site.tell_made("disk restored", Made::Disk(&id), &words).max(status);
    }
    drop(following);
    if let Some(file) = backup.vm_configuration.as_ref().filter(|_| has_configuration(&directory, backup)) {
        log::info!("the VM's configuration is in {}", directory.path_of(file).display());
    }
    Ok(status)
}

fn label(disk: &DiskBackup) -> String {
    format!("disk {:?}", disk.disk.name)
}

/// The disks of these names or ids, or all.
fn chosen<'b>(backup: &'b Backup, wanted: &[String]) -> Result<Vec<&'b DiskBackup>> {
    if wanted.is_empty() {
        return Ok(backup.disks.iter().collect());
    }
    let find = |wanted: &String| {
        let is_it = |disk: &&DiskBackup| disk.disk.id == *wanted || disk.disk.name == *wanted;
        let found: Vec<_> = backup.disks.iter().filter(is_it).collect();
        match found[..] {
            [disk] => Ok(disk),
            [] => bail!(
                "--disk: the backup {} has no disk {wanted:?}: `imageio-nbd backups` tells which there are",
                backup.id
            ),
            _ => bail!("--disk: the backup {} has several disks {wanted:?}: give an id", backup.id),
        }
    };
    wanted.iter().map(find).collect()
}

/// Makes a disk anew. Its id.
fn restore(
    site: &Site,
    options: &RestoreOptions,
    image: &Path,
    backup: &Backup,
    disk: &DiskBackup,
) -> Result<String> {
    let mut new = new_disk(disk, &options.storage_domain, backup);
    if disk.disk.format == DiskFormat::Cow {
        new.initial_size = Some(measure(image, "qcow2")?);
    }
    let target = Target::NewDisk(new);
    let settings = site.settings.clone().with(|settings| settings.read_only = false);
    site.with_disk(settings, target, |transfer, id| {
        let id = id.context("bug: a new disk has an id")?.to_owned();
        let can_verify = transfer.capabilities().checksum;
        let device = Arc::new(transfer.start()?);
        // Of a raw disk that isn't known: block storage has no sparse ones.
        let is_zero = disk.disk.format == DiskFormat::Cow;
        let written = copy::write(&device, image, is_zero, site.task(&disk.disk.name));
        // All that was written is flushed by that, and so in the server's checksum.
        close_after(written, &device)?;
        verify(&device, can_verify, disk, image, site.task(&disk.disk.name))?;
        Ok(id)
    })
}

fn new_disk(disk: &DiskBackup, storage_domain: &str, backup: &Backup) -> NewDiskSettings {
    let attributes = &disk.disk;
    let mut new = NewDiskSettings::new(&attributes.name, storage_domain, attributes.provisioned_size);
    new.format = match attributes.format {
        DiskFormat::Cow => EngineFormat::Cow,
        DiskFormat::Raw => EngineFormat::Raw,
    };
    // Else as is usual for the new storage.
    new.sparse = (attributes.format == DiskFormat::Raw && !attributes.sparse).then_some(false);
    new.tracks_changes =
        attributes.backup == BackupSupport::Incremental && attributes.format == DiskFormat::Cow;
    new.description = format!("restored from the backup {}", backup.id);
    new
}

/// Checks that the server has what was backed up, by its checksum of the disk; or else that the
/// image has.
fn verify(device: &Device, can_verify: bool, disk: &DiskBackup, image: &Path, task: Task<'_>) -> Result<()> {
    let checksum = &disk.checksum;
    let known = Algorithm::named(&checksum.algorithm).filter(|_| copy::is_usual(checksum.block_size));
    let Some(algorithm) = known.filter(|_| can_verify) else {
        let is_sound = copy::is_as_backed_up(disk, image, task)?;
        ensure!(
            is_sound,
            "the image differs from what was backed up: `imageio-nbd verify` tells which images do"
        );
        return Ok(());
    };
    task.stop.check()?;
    let sum = device.checksum(algorithm.name(), checksum.block_size)?;
    ensure!(
        sum == checksum.value,
        "the server's disk differs from the backup: `imageio-nbd verify` tells whether the backup is sound"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Backup {
        let disk = |id: &str, name: &str, format: &str, sparse: bool| {
            serde_json::json!({
                "disk": {"id": id, "name": name, "provisioned_size": 4096, "format": format, "sparse": sparse,
                         "backup": if format == "cow" { "incremental" } else { "none" }, "storage_domain": null},
                "backup_mode": "full", "file": format!("b/{id}"), "backing_file": null,
                "checksum": {"algorithm": "sha1", "block_size": 4096, "value": "0"},
            })
        };
        let disks = [disk("1", "x", "cow", true), disk("2", "y", "raw", false), disk("3", "y", "raw", true)];
        serde_json::from_value(serde_json::json!({
            "id": "b", "created": "2026-11-27T02:00:00Z", "engine_backup_id": "e", "from_checkpoint_id": null,
            "to_checkpoint_id": null, "vm_configuration": null, "disks": disks,
        }))
        .unwrap()
    }

    #[test]
    fn disks_are_chosen_by_name_or_id() {
        let backup = backup();
        let ids = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|&wanted| wanted.to_owned()).collect();
            chosen(&backup, &wanted)
                .map(|disks| disks.iter().map(|disk| disk.disk.id.clone()).collect::<Vec<_>>())
                .map_err(|error| error.to_string())
        };
        assert_eq!(ids(&[]).unwrap(), ["1", "2", "3"]);
        assert_eq!(ids(&["3", "x"]).unwrap(), ["3", "1"]);
        assert!(ids(&["y"]).unwrap_err().contains("several disks \"y\""));
        assert!(ids(&["z"]).unwrap_err().contains("no disk \"z\""));
    }

    #[test]
    fn a_disk_is_made_as_it_was() {
        let backup = backup();
        let new: Vec<_> = backup.disks.iter().map(|disk| new_disk(disk, "data", &backup)).collect();
        assert_eq!((&new[0].format, new[0].tracks_changes, new[0].sparse), (&EngineFormat::Cow, true, None));
        assert_eq!(
            (&new[1].format, new[1].tracks_changes, new[1].sparse),
            (&EngineFormat::Raw, false, Some(false))
        );
        assert_eq!(new[2].sparse, None);
        assert_eq!((&*new[0].name, new[0].size, &*new[0].storage_domain), ("x", 4096, "data"));
    }
}
