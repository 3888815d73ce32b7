// SPDX-License-Identifier: MIT OR Apache-2.0
//! Backups of virtual machines, and the checkpoints that incremental ones begin from.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::words::{BackupMode, BackupPhase};
use crate::{Engine, Error, Result, wire};

/// The time that a backup may take to become ready or to end: checkpoints of all disks are made.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(600);

/// A backup (`Backup` of the API's model).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Backup {
    /// Its id.
    pub id: String,
    /// The phase that it is in.
    pub phase: BackupPhase,
    /// The checkpoint that the next incremental backup can begin from. There is none if no disk
    /// tracks its changes.
    #[serde(default, deserialize_with = "wire::text")]
    pub to_checkpoint_id: String,
    /// The checkpoint that this one begins from, if it is incremental.
    #[serde(default, deserialize_with = "wire::text")]
    pub from_checkpoint_id: String,
}

/// A disk's part in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct BackupDisk {
    /// The disk's id.
    pub id: String,
    /// The part of the disk that is to be transferred.
    #[serde(default)]
    pub backup_mode: Option<BackupMode>,
}

/// A checkpoint (`Checkpoint` of the API's model).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Its id.
    pub id: String,
    /// The one before it, if there is one.
    #[serde(default, deserialize_with = "wire::text")]
    pub parent_id: String,
}

/// A backup that is to be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewBackup {
    /// The id that it is to have, a UUID: whoever keeps it finds the backup again, even if the
    /// engine's answer is lost.
    pub id: String,
    /// The virtual machine's id.
    pub vm: String,
    /// The ids of its disks that are to be backed up.
    pub disks: Vec<String>,
    /// The checkpoint that an incremental backup begins from.
    pub from_checkpoint: Option<String>,
    /// A description, for those who look at it later.
    pub description: String,
}

impl NewBackup {
    /// A full backup, with an id of its own.
    #[must_use]
    pub fn full(vm: impl Into<String>, disks: Vec<String>) -> Self {
        let id = Uuid::new_v4().to_string();
        Self { id, vm: vm.into(), disks, from_checkpoint: None, description: String::new() }
    }
}

impl Engine {
    /// Asks for a backup, whose disks can be transferred when it [is ready](Self::wait_for_backup).
    /// The one who asks has to [end](Self::end_backup) it, and has to find out by its id whether
    /// there is one if this fails.
    ///
    /// # Errors
    /// The engine refuses it (another one of this virtual machine is under way), or can't be asked;
    /// [`Error::Stopped`].
    pub fn begin_backup(&self, new: &NewBackup) -> Result<Backup> {
        let id = &new.id;
        let disks: Vec<_> = new.disks.iter().map(|disk| json!({"id": disk})).collect();
        let mut body = json!({"id": id, "description": new.description, "disks": {"disk": disks}});
        if let Some(checkpoint) = &new.from_checkpoint {
            body["from_checkpoint_id"] = json!(checkpoint);
        }
        let path = format!("/vms/{}/backups", new.vm);
        let backup: Backup = self.recover(
            &format!("begun backup {id}"),
            || self.post(&path, &body),
            || self.backup(&new.vm, id),
        )?;
        log::info!("backup {} has been asked for", backup.id);
        Ok(backup)
    }

    /// The backup as it is now; nothing if it is gone.
    ///
    /// # Errors
    /// The engine can't be asked.
    pub fn backup(&self, vm: &str, id: &str) -> Result<Option<Backup>> {
        match self.get(&format!("/vms/{vm}/backups/{id}")) {
            Err(error) if error.is_missing() => Ok(None),
            backup => backup.map(Some),
        }
    }

    /// The disks of a backup.
    ///
    /// # Errors
    /// The engine can't be asked.
    pub fn backup_disks(&self, vm: &str, id: &str) -> Result<Vec<BackupDisk>> {
        self.list(&format!("/vms/{vm}/backups/{id}/disks"))
    }

    /// Waits until the disks of a backup can be transferred.
    ///
    /// # Errors
    /// [`Error::Backup`] if it has come to an end; [`Error::TimedOut`], [`Error::Stopped`].
    pub fn wait_for_backup(&self, vm: &str, id: &str) -> Result<Backup> {
        self.poll(&format!("made backup {id} ready"), BACKUP_TIMEOUT, || {
            let Some(backup) = self.backup(vm, id)? else { return Err(ended(id, "it is gone")) };
            match backup.phase {
                BackupPhase::Ready => Ok(Some(backup)),
                BackupPhase::Finalizing | BackupPhase::Succeeded | BackupPhase::Failed => {
                    Err(ended(id, backup.phase.word()))
                }
                BackupPhase::Initializing | BackupPhase::Starting | BackupPhase::Other(_) => Ok(None),
            }
        })
    }

    /// Ends a backup, and waits until the engine has. All its transfers have to be ended before.
    ///
    /// # Errors
    /// [`Error::Backup`] if it has failed; [`Error::TimedOut`], [`Error::Stopped`].
    pub fn end_backup(&self, vm: &str, id: &str) -> Result<()> {
        self.poll(&format!("ended backup {id}"), BACKUP_TIMEOUT, || {
            let Some(backup) = self.backup(vm, id)? else { return Err(ended(id, "it is gone")) };
            match backup.phase {
                BackupPhase::Succeeded => Ok(Some(())),
                BackupPhase::Failed => Err(ended(id, backup.phase.word())),
                BackupPhase::Ready => self.finalize_backup(vm, id).map(|()| None),
                _ => Ok(None),
            }
        })
    }

    fn finalize_backup(&self, vm: &str, id: &str) -> Result<()> {
        match self.act(&format!("/vms/{vm}/backups/{id}/finalize")) {
            // It has changed its phase meanwhile, or one of its transfers has not ended yet: both
            // are looked up again.
            Err(Error::Refused { status: 404 | 409, .. }) => Ok(()),
            done => done,
        }
    }

    /// The checkpoints of a virtual machine.
    ///
    /// # Errors
    /// The engine can't be asked.
    pub fn checkpoints(&self, vm: &str) -> Result<Vec<Checkpoint>> {
        self.list(&format!("/vms/{vm}/checkpoints"))
    }

    /// Removes a checkpoint. The oldest has to go first. One that is gone is no error.
    ///
    /// # Errors
    /// The engine refuses it, or can't be asked.
    pub fn delete_checkpoint(&self, vm: &str, id: &str) -> Result<()> {
        match self.delete(&format!("/vms/{vm}/checkpoints/{id}")) {
            Err(error) if error.is_missing() => Ok(()),
            deleted => deleted,
        }
    }
}

fn ended(id: &str, phase: &str) -> Error {
    Error::Backup { id: id.to_owned(), phase: phase.to_owned() }
}
