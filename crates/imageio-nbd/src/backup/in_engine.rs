// SPDX-License-Identifier: MIT OR Apache-2.0
//! A backup in the engine, which is ended whatever comes; and what the engine and a manifest have
//! in common.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use backup_directory::{BackupMode, BackupSupport, Disk, DiskFormat, NewBackup, StorageDomain};
use ovirt_engine_client::{
    AttachedDisk, BackupMode as EngineMode, BackupPhase, Direction, DiskFormat as EngineFormat, End, Engine,
    Error, NewBackup as Request,
};

use crate::copy::StopClock;

/// The description of a backup for the engine's users.
const DESCRIPTION: &str = "imageio-nbd";

/// A backup that the engine was asked for. If it is dropped, it is ended.
///
/// Its id is noted in the directory before the engine is asked, and until the engine says that it
/// has ended the backup or has none of this id. So whatever happens to this process or to the
/// engine, the next backup into the directory can end it.
pub(crate) struct EngineBackup<'e, 'w> {
    engine: &'e Engine,
    clock: &'e Arc<StopClock>,
    note: &'e NewBackup<'w>,
    vm: String,
    /// The engine's.
    pub(crate) id: String,
    pub(crate) to_checkpoint_id: Option<String>,
    /// The engine has said that it has it.
    is_begun: bool,
    /// Nobody tries to end it any more.
    is_left: bool,
}

impl<'e, 'w> EngineBackup<'e, 'w> {
    /// Begins a backup, and waits until its disks can be read.
    pub(crate) fn begin(
        engine: &'e Engine,
        clock: &'e Arc<StopClock>,
        note: &'e NewBackup<'w>,
        vm: &str,
        disks: Vec<String>,
        from_checkpoint_id: Option<String>,
    ) -> Result<Self> {
        let mut new = Request::full(vm, disks);
        new.from_checkpoint = from_checkpoint_id;
        DESCRIPTION.clone_into(&mut new.description);
        note.note_engine_backup(&new.id)?;
        let (vm, id) = (vm.to_owned(), new.id.clone());
        let mut backup =
            Self { engine, clock, note, vm, id, to_checkpoint_id: None, is_begun: false, is_left: false };
        let begun = engine.begin_backup(&new).map_err(explained)?;
        backup.is_begun = true;
        if begun.id != backup.id {
            // An old engine chooses the id itself.
            backup.id = begun.id;
            note.note_engine_backup(&backup.id)?;
        }
        let ready = engine.wait_for_backup(&backup.vm, &backup.id)?;
        backup.to_checkpoint_id = Some(ready.to_checkpoint_id).filter(|id| !id.is_empty());
        Ok(backup)
    }

    /// Asks how the engine has begun to back up each disk.
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
        let ended = self.leave();
        ended.with_context(|| format!("backup {} can't be relied on", self.id))
    }

    /// Ends it, whatever comes of it. The note stays unless the engine says that the backup is
    /// over.
    fn leave(&mut self) -> Result<(), Error> {
        self.is_left = true;
        let ended = self.clock.patiently(|| {
            let is_there = self.is_begun || self.engine.backup(&self.vm, &self.id)?.is_some();
            if is_there { self.engine.end_backup(&self.vm, &self.id) } else { Ok(()) }
        });
        if is_over(&ended)
            && let Err(error) = self.note.engine_backup_ended()
        {
            // The next process that opens the directory asks the engine for nothing.
            log::warn!("{}", imageio_config::one_line(&error));
        }
        ended
    }
}

impl Drop for EngineBackup<'_, '_> {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        if let Err(error) = self.leave()
            && !is_over(&Err::<(), _>(&error))
        {
            log::error!(
                "{}: backup {} may still be under way: see it in the engine; the next backup into this directory ends it",
                imageio_config::without_advice(&error),
                self.id
            );
        }
    }
}

/// Returns true if the engine has said that a backup, which was to be ended, is over: well or not,
/// or because there is none.
fn is_over<E: Borrow<Error>>(ended: &Result<(), E>) -> bool {
    ended.as_ref().err().is_none_or(|error| matches!(error.borrow(), Error::Backup { .. }))
}

/// Why a backup can't be begun: in the engine's words, or with what is likely if it has none.
fn explained(error: Error) -> anyhow::Error {
    match &error {
        Error::Refused { status: 409, detail, .. } if detail.trim().is_empty() => anyhow!(error).context(
            "the VM can't be backed up now: another backup of it may be under way in the engine, or one of its disks is locked",
        ),
        _ => error.into(),
    }
}

/// Returns true if the engine has refused what it was asked for, and might do something else.
pub(crate) fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref().and_then(Error::status), Some(400 | 409))
}

/// Ends a backup that a process has left behind which was killed, with its transfers. It is over
/// then, or there is none.
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
    let ended = engine.end_backup(vm, id);
    if is_over(&ended) { Ok(()) } else { ended }
}

/// The VM's disks that can be backed up, as a manifest has them. What else is attached is told.
pub(crate) fn disks(engine: &Engine, vm: &str) -> Result<Vec<Disk>> {
    let mut names = HashMap::new();
    let mut disks = Vec::new();
    for disk in engine.vm_disks(vm)? {
        match described(engine, &disk, &mut names) {
            Ok(described) => disks.push(described),
            Err(reason) => {
                let ovirt_engine_client::Disk { name, id, .. } = &disk.disk;
                log::warn!("{name:?} ({id}) is not backed up: {reason}");
            }
        }
    }
    Ok(disks)
}

/// Why a disk is left out, if it is. The engine would refuse the whole backup for one that is not
/// active; one that is shareable it leaves out by itself, and refuses its transfer
/// (`StartVmBackupCommand` of ovirt-engine).
fn reason_to_leave_out(disk: &AttachedDisk) -> Option<&'static str> {
    if !disk.is_active {
        Some("it is not active: activate it in the engine to have it backed up")
    } else if disk.is_shareable {
        Some("it is shareable, and the engine backs up no such disks")
    } else {
        None
    }
}

/// A disk as a manifest has it, or why it is left out.
fn described(
    engine: &Engine,
    attached: &AttachedDisk,
    names: &mut HashMap<String, Option<String>>,
) -> std::result::Result<Disk, &'static str> {
    const NO_IMAGE: &str = "it is no image of the engine";
    reason_to_leave_out(attached).map_or(Ok(()), Err)?;
    let disk = &attached.disk;
    let format = match &disk.format {
        Some(EngineFormat::Cow) => DiskFormat::Cow,
        Some(EngineFormat::Raw) => DiskFormat::Raw,
        _ => return Err(NO_IMAGE),
    };
    let domain = disk.storage_domains.first();
    let storage_domain = domain.map(|domain| {
        // It is for people, so it isn't worth a failure.
        let ask = || engine.storage_domain(&domain.id).ok().map(|domain| domain.name);
        let name = names.entry(domain.id.clone()).or_insert_with(ask).clone();
        StorageDomain { id: domain.id.clone(), name }
    });
    let backup = if disk.backup == "incremental" { BackupSupport::Incremental } else { BackupSupport::None };
    Ok(Disk {
        id: disk.id.clone(),
        name: disk.name.clone(),
        provisioned_size: disk.provisioned_size.ok_or(NO_IMAGE)?,
        format,
        sparse: disk.sparse.unwrap_or(format == DiskFormat::Cow),
        backup,
        storage_domain,
    })
}
