// SPDX-License-Identifier: MIT OR Apache-2.0
//! A backup in the engine, which is ended whatever comes; and what the engine and a manifest have in common.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use backup_directory::{BackupMode, BackupSupport, Disk, DiskFormat, StorageDomain};
use ovirt_engine_client::{
    BackupMode as EngineMode, BackupPhase, Direction, DiskFormat as EngineFormat, End, Engine, Error,
    NewBackup,
};

use super::stop::StopClock;

/// What the engine's users are told of a backup.
const DESCRIPTION: &str = "imageio-nbd";

/// A backup that the engine has begun. If it is dropped, it is ended.
pub(crate) struct EngineBackup<'e> {
    engine: &'e Engine,
    clock: &'e Arc<StopClock>,
    vm: String,
    /// The engine's.
    pub(crate) id: String,
    pub(crate) to_checkpoint_id: Option<String>,
    is_ended: bool,
}

impl<'e> EngineBackup<'e> {
    /// Begins a backup, and waits until its disks can be read.
    pub(crate) fn begin(
        engine: &'e Engine,
        clock: &'e Arc<StopClock>,
        vm: &str,
        disks: Vec<String>,
        from_checkpoint_id: Option<String>,
    ) -> Result<Self> {
        let mut new = NewBackup::full(vm, disks);
        new.from_checkpoint = from_checkpoint_id;
        DESCRIPTION.clone_into(&mut new.description);
        let backup = engine.begin_backup(&new).map_err(|error| match error.status() {
            Some(409) => anyhow::Error::new(error).context(
                "the VM can't be backed up now: another backup of it may be under way in the engine, or one of its disks is locked",
            ),
            _ => error.into(),
        })?;
        let to_checkpoint_id = Some(backup.to_checkpoint_id).filter(|id| !id.is_empty());
        Ok(Self { engine, clock, vm: vm.to_owned(), id: backup.id, to_checkpoint_id, is_ended: false })
    }

    /// How the engine has begun to back up each disk.
    pub(crate) fn modes(&self) -> Result<HashMap<String, BackupMode>> {
        let mode = |mode: Option<EngineMode>| match mode {
            Some(EngineMode::Incremental) => BackupMode::Incremental,
            _ => BackupMode::Full,
        };
        let disks = self.engine.backup_disks(&self.vm, &self.id)?;
        Ok(disks.into_iter().map(|disk| (disk.id, mode(disk.backup_mode))).collect())
    }

    /// Ends it, when all its transfers have ended. The engine has to say that it was a good one.
    pub(crate) fn end(mut self) -> Result<()> {
        self.is_ended = true;
        self.clock.be_patient();
        self.engine.end_backup(&self.vm, &self.id).context("the backup can't be relied on")
    }
}

impl Drop for EngineBackup<'_> {
    fn drop(&mut self) {
        if !self.is_ended {
            self.clock.be_patient();
            if let Err(error) = self.engine.end_backup(&self.vm, &self.id) {
                log::error!("{error}: finalize backup {} in the engine", self.id);
            }
        }
    }
}

/// Ends a backup that a process has left behind which was killed, with its transfers.
pub(crate) fn end_abandoned(engine: &Engine, vm: &str, id: &str) -> Result<(), Error> {
    let Some(backup) = engine.backup(vm, id)? else { return Ok(()) };
    if matches!(backup.phase, BackupPhase::Succeeded | BackupPhase::Failed) {
        return Ok(());
    }
    let disks = engine.backup_disks(vm, id)?;
    // Nobody else can have one of a disk in this backup: the backup has it locked.
    for transfer in engine.transfers()? {
        let is_of_backup = disks.iter().any(|disk| disk.id == transfer.image.id);
        if is_of_backup && transfer.direction == Direction::Download.word() {
            engine.end_transfer(&transfer.id, Direction::Download, End::Incomplete)?;
        }
    }
    engine.end_backup(vm, id)
}

/// The VM's disks that can be backed up, as a manifest has them. What else is attached is told.
pub(crate) fn disks(engine: &Engine, vm: &str) -> Result<Vec<Disk>> {
    let mut names = HashMap::new();
    let mut disks = Vec::new();
    for disk in engine.vm_disks(vm)? {
        match described(engine, &disk, &mut names) {
            Some(disk) => disks.push(disk),
            None => {
                log::warn!("{:?} ({}) is no image of the engine, and is not backed up", disk.name, disk.id);
            }
        }
    }
    Ok(disks)
}

fn described(
    engine: &Engine,
    disk: &ovirt_engine_client::Disk,
    names: &mut HashMap<String, Option<String>>,
) -> Option<Disk> {
    let format = match disk.format.as_ref()? {
        EngineFormat::Cow => DiskFormat::Cow,
        EngineFormat::Raw => DiskFormat::Raw,
        _ => return None,
    };
    let domain = disk.storage_domains.first();
    let storage_domain = domain.map(|domain| {
        // It is for people, so it isn't worth a failure.
        let ask = || engine.storage_domain(&domain.id).ok().map(|domain| domain.name);
        let name = names.entry(domain.id.clone()).or_insert_with(ask).clone();
        StorageDomain { id: domain.id.clone(), name }
    });
    let backup = if disk.backup == "incremental" { BackupSupport::Incremental } else { BackupSupport::None };
    Some(Disk {
        id: disk.id.clone(),
        name: disk.name.clone(),
        provisioned_size: disk.provisioned_size?,
        format,
        sparse: disk.sparse.unwrap_or(format == DiskFormat::Cow),
        backup,
        storage_domain,
    })
}
