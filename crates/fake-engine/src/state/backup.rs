// SPDX-License-Identifier: MIT OR Apache-2.0
//! Backups of virtual machines, and the checkpoints that they leave behind.

use std::time::Instant;

use super::{DiskFormat, Id, Lock, Refusal, State, Task, new_id};

/// The phase of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupPhase {
    /// It was asked for.
    Initializing,
    /// The disks are being prepared.
    Starting,
    /// The disks can be downloaded.
    Ready,
    /// It is ending.
    Finalizing,
    /// It is over.
    Succeeded,
    /// Nothing came of it.
    Failed,
}

impl BackupPhase {
    /// Returns the word that the API has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Finalizing => "finalizing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// Returns true if the backup is over.
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// The extent to which a disk is in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupMode {
    /// All of it.
    Full,
    /// The changes since the checkpoint.
    Incremental,
}

impl BackupMode {
    /// Returns the word that the API has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        }
    }
}

/// A disk in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupDisk {
    /// Its identifier.
    pub disk: Id,
    /// The extent to which it is in the backup.
    pub mode: BackupMode,
    /// A bitmap takes note of what changes from now on.
    pub has_checkpoint: bool,
}

/// A backup of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// Its identifier.
    pub id: Id,
    /// The virtual machine.
    pub vm: Id,
    /// The description that its owner has given.
    pub description: Option<String>,
    /// The disks in the backup.
    pub disks: Vec<BackupDisk>,
    /// The checkpoint that the disks are compared with.
    pub from_checkpoint: Option<Id>,
    /// The checkpoint that the next backup can be compared with.
    pub to_checkpoint: Option<Id>,
    /// The phase of the backup.
    pub phase: BackupPhase,
    /// When it was asked for, as the API writes it.
    pub created: String,
    due: Option<Instant>,
}

/// A point in time that backups can be compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Its identifier, which is the name of its bitmaps.
    pub id: Id,
    /// The virtual machine.
    pub vm: Id,
    /// The one before it.
    pub parent: Option<Id>,
    /// The description that the owner of its backup has given.
    pub description: Option<String>,
    /// The disks that have its bitmap.
    pub disks: Vec<Id>,
    /// When it was made, as the API writes it.
    pub created: String,
}

/// The content of a request for a new backup.
#[derive(Debug, Clone)]
pub(crate) struct NewBackup {
    pub(crate) id: Option<Id>,
    pub(crate) vm: Id,
    pub(crate) description: Option<String>,
    pub(crate) disks: Vec<Id>,
    pub(crate) from_checkpoint: Option<Id>,
}

/// The code of the event that a backup has failed (`AuditLogType.VM_BACKUP_FAILED`).
const BACKUP_FAILED: u32 = 10_792;

impl State {
    pub(crate) fn backup(&self, vm: &str, id: &str) -> Result<&Backup, Refusal> {
        self.vm(vm)?;
        let found = self.backups.iter().find(|backup| backup.id == id && backup.vm == vm);
        found.ok_or_else(|| Refusal::not_found("backup", id))
    }

    fn backup_mut(&mut self, id: &str) -> Option<&mut Backup> {
        self.backups.iter_mut().find(|backup| backup.id == id)
    }

    pub(crate) fn checkpoint(&self, vm: &str, id: &str) -> Result<&Checkpoint, Refusal> {
        self.vm(vm)?;
        let found = self.checkpoints.iter().find(|checkpoint| checkpoint.id == id && checkpoint.vm == vm);
        found.ok_or_else(|| Refusal::not_found("checkpoint", id))
    }

    /// Begins a backup.
    pub(crate) fn add_backup(&mut self, new: NewBackup, now: Instant) -> Result<Id, Refusal> {
        Self::has_room(&self.backups)?;
        Self::has_room(&self.checkpoints)?;
        let refuse = |text: String| Err(Refusal::conflict(format!("Cannot backup VM: {text}")));
        let attached = self.vm(&new.vm)?.disks.clone();
        if self.backups.iter().any(|other| other.vm == new.vm && !other.phase.is_finished()) {
            return refuse("The VM is already during a backup.".to_owned());
        }
        if new.id.as_ref().is_some_and(|id| self.backups.iter().any(|other| other.id == *id)) {
            return refuse("A backup with this ID exists.".to_owned());
        }
        if new.disks.is_empty() {
            return Err(Refusal::bad_request("Backup [disks.id] required for add"));
        }
        for disk in &new.disks {
            if !attached.contains(disk) {
                return refuse(format!("Disk {disk} isn't attached to the VM."));
            }
            self.disk(disk)?.check_free("backup VM")?;
        }
        let inactive = &self.vm(&new.vm)?.inactive_disks;
        let inactive: Vec<_> = new.disks.iter().filter(|disk| inactive.contains(disk)).cloned().collect();
        if !inactive.is_empty() {
            return refuse(format!("The following disks are not active: {}.", inactive.join(", ")));
        }
        if let Some(from) = &new.from_checkpoint
            && self.checkpoint(&new.vm, from).is_err()
        {
            return refuse("The specified checkpoint does not exist.".to_owned());
        }
        let id = new.id.clone().unwrap_or_else(new_id);
        let disks = self.parts(&new)?;
        let has_checkpoint = disks.iter().any(|part| part.has_checkpoint);
        for part in &disks {
            if let Some(disk) = self.disk_mut(&part.disk) {
                disk.lock = Some(Lock::Backup(id.clone()));
            }
        }
        self.backups.push(Backup {
            id: id.clone(),
            vm: new.vm,
            description: new.description,
            disks,
            from_checkpoint: new.from_checkpoint,
            to_checkpoint: has_checkpoint.then(new_id),
            phase: BackupPhase::Initializing,
            created: self.date(now),
            due: Some(now + self.delays.backup),
        });
        Ok(id)
    }

    /// The disks that take part: shareable ones are left out without a word, as the engine does.
    fn parts(&self, new: &NewBackup) -> Result<Vec<BackupDisk>, Refusal> {
        let is_shareable = |disk: &&Id| self.disk(disk).is_ok_and(|disk| disk.shareable);
        let from = new.from_checkpoint.as_deref();
        let disks = new.disks.iter().filter(|disk| !is_shareable(disk));
        let parts: Vec<_> = disks.map(|disk| self.part(disk, from)).collect();
        let is_mixed = from.is_some() && parts.iter().any(|part| part.mode == BackupMode::Full);
        if is_mixed && self.old.refuses_mixed_backups {
            let detail = "Cannot backup VM: Mixing full and incremental backups is not supported.";
            return Err(Refusal::conflict(detail));
        }
        Ok(parts)
    }

    /// Returns the part that a disk has in a backup: raw ones have no bitmaps, and new ones have
    /// none that is old enough.
    fn part(&self, disk: &str, from_checkpoint: Option<&str>) -> BackupDisk {
        let known = self.disks.iter().find(|known| known.id == disk);
        let has_checkpoint =
            known.is_some_and(|disk| disk.format == DiskFormat::Cow && disk.incremental_backup);
        let from = from_checkpoint.and_then(|from| self.checkpoints.iter().find(|known| known.id == from));
        let is_incremental = from.is_some_and(|from| from.disks.iter().any(|known| known == disk));
        let mode = if is_incremental { BackupMode::Incremental } else { BackupMode::Full };
        BackupDisk { disk: disk.to_owned(), mode, has_checkpoint }
    }

    /// Ends a backup whose disks nobody downloads any more.
    pub(crate) fn finalize_backup(&mut self, vm: &str, id: &str, now: Instant) -> Result<(), Refusal> {
        let phase = self.backup(vm, id)?.phase;
        if matches!(phase, BackupPhase::Finalizing | BackupPhase::Succeeded) {
            return Ok(());
        }
        if phase != BackupPhase::Ready {
            return Err(Refusal::conflict("Cannot stop VM backup. The VM backup isn't ready"));
        }
        let mut transfers = self.transfers.iter().filter(|transfer| !transfer.is_over());
        if transfers.any(|transfer| transfer.backup.as_deref() == Some(id)) {
            return Err(Refusal::conflict("Cannot stop VM backup. Disks of it are being transferred"));
        }
        self.enter_backup(id, BackupPhase::Finalizing, now);
        Ok(())
    }

    fn enter_backup(&mut self, id: &str, phase: BackupPhase, now: Instant) {
        let due = now + self.delays.backup;
        if let Some(backup) = self.backup_mut(id) {
            backup.phase = phase;
            backup.due = (phase != BackupPhase::Ready && !phase.is_finished()).then_some(due);
        }
        if phase.is_finished() {
            let lock = Some(Lock::Backup(id.to_owned()));
            self.disks.iter_mut().filter(|disk| disk.lock == lock).for_each(|disk| disk.lock = None);
        }
        if phase == BackupPhase::Failed {
            self.tell(BACKUP_FAILED, format!("VM backup {id} has failed"));
        }
    }

    pub(super) fn due_backup(&mut self, now: Instant) -> Option<Task> {
        loop {
            let is_due = |backup: &&Backup| backup.due.is_some_and(|due| due <= now);
            let backup = self.backups.iter().find(is_due)?;
            let id = backup.id.clone();
            match backup.phase {
                BackupPhase::Initializing => self.enter_backup(&id, BackupPhase::Starting, now),
                BackupPhase::Starting => return Some(Task::StartBackup(id)),
                BackupPhase::Finalizing => return Some(Task::EndBackup(id)),
                BackupPhase::Ready | BackupPhase::Succeeded | BackupPhase::Failed => {
                    self.backup_mut(&id)?.due = None;
                }
            }
        }
    }

    /// The bitmaps of a backup were frozen, or could not be.
    pub(crate) fn backup_started(&mut self, id: &str, is_started: bool, now: Instant) {
        if !is_started {
            return self.enter_backup(id, BackupPhase::Failed, now);
        }
        let Some(backup) = self.backups.iter().find(|backup| backup.id == id).cloned() else { return };
        if let Some(checkpoint) = backup.to_checkpoint {
            let mut before = self.checkpoints.iter().filter(|checkpoint| checkpoint.vm == backup.vm);
            let parent = before.next_back().map(|checkpoint| checkpoint.id.clone());
            let with_bitmap = backup.disks.into_iter().filter(|part| part.has_checkpoint);
            let disks = with_bitmap.map(|part| part.disk).collect();
            let (vm, description) = (backup.vm, backup.description);
            self.checkpoints.push(Checkpoint {
                id: checkpoint,
                vm,
                parent,
                description,
                disks,
                created: self.date(now),
            });
        }
        self.enter_backup(id, BackupPhase::Ready, now);
    }

    /// Ends a backup when something that it needed is gone.
    pub(crate) fn backup_ended(&mut self, id: &str, now: Instant) {
        self.enter_backup(id, BackupPhase::Succeeded, now);
    }

    /// The checkpoints whose bitmaps together tell what has changed on a disk since one of them,
    /// that one first.
    pub(crate) fn checkpoints_since(&self, from: &str, disk: &str) -> Vec<Id> {
        let since = self.checkpoints.iter().skip_while(|checkpoint| checkpoint.id != from);
        let since = since.filter(|checkpoint| checkpoint.disks.iter().any(|known| known == disk));
        since.map(|checkpoint| checkpoint.id.clone()).collect()
    }

    /// Forgets a checkpoint, whose bitmaps then have to be removed: the oldest one, while no backup
    /// runs.
    pub(crate) fn remove_checkpoint(&mut self, vm: &str, id: &str) -> Result<Checkpoint, Refusal> {
        let refuse = |text: &str| Err(Refusal::conflict(format!("Cannot remove VM checkpoint. {text}")));
        self.checkpoint(vm, id)?;
        let oldest = self.checkpoints.iter().position(|checkpoint| checkpoint.vm == vm);
        let oldest = oldest.filter(|&at| self.checkpoints[at].id == id);
        let Some(at) = oldest else { return refuse("Only the oldest checkpoint can be removed.") };
        if self.backups.iter().any(|backup| backup.vm == vm && !backup.phase.is_finished()) {
            return refuse("The VM is during a backup.");
        }
        let removed = self.checkpoints.remove(at);
        if let Some(next) = self.checkpoints.iter_mut().find(|checkpoint| checkpoint.vm == vm) {
            next.parent = None;
        }
        Ok(removed)
    }
}
