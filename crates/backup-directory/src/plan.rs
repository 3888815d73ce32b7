// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which disks of a VM are backed up incrementally, from which checkpoint, and why the others are
//! not.
//!
//! A backup begins *from* a checkpoint of the engine, and what is dirty is what was written since.
//! So its files are increments to those of the backup that made this checkpoint, and of no other:
//! not even of a later one, as the VM may have gone back to a snapshot in between, which has taken
//! the later checkpoint with it.

use std::collections::HashMap;
use std::fmt;

use crate::error::{Error, Result};
use crate::manifest::{Backup, BackupMode, BackupSupport, Disk, Manifest};

/// A chain of so many files is not made longer: qemu has all of them open at once, and each read
/// may go through all of them.
pub const LONGEST_CHAIN: usize = 100;

/// The kind of backup that is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// Each disk incrementally where that is possible, and as a whole where it is not.
    #[default]
    IncrementalWherePossible,
    /// Each disk as a whole.
    Full,
    /// Each disk incrementally, or none at all.
    Incremental,
}

/// The plan for the backup of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The checkpoint that the engine has to begin the backup from. None if no disk is backed up
    /// incrementally.
    pub from_checkpoint_id: Option<String>,
    /// The newest backup in the directory, if increments can only be made to an older one, as the
    /// engine no longer has the newest one's checkpoint.
    pub passed_over: Option<String>,
    /// All disks.
    pub disks: Vec<DiskPlan>,
    policy: Policy,
}

/// The plan for the backup of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskPlan {
    /// The disk as the engine describes it now.
    pub disk: Disk,
    /// The decision how the disk is backed up.
    pub decision: Decision,
}

/// The decision how much of a disk is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// All of the disk is copied.
    Full(Reason),
    /// Only what is dirty is copied.
    Incremental {
        /// The file in the manifest that the new one is an increment to.
        backing_file: String,
    },
}

/// Why a disk is backed up as a whole. It is told as the second half of a sentence, after the
/// disk's name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The user has asked for a full backup.
    AskedFor,
    /// There is nothing to be an increment to.
    FirstBackup,
    /// No backup has made a checkpoint.
    NoCheckpoint,
    /// The engine has none of the checkpoints that the backups have made.
    CheckpointsGone,
    /// The backup that made the checkpoint doesn't have the disk.
    NewDisk,
    /// The engine doesn't keep track of its changes.
    NotEnabled,
    /// The engine keeps track of its changes, and didn't when the checkpoint was made.
    EnabledSince,
    /// The disk has another size now.
    SizeChanged {
        /// In the backup, in bytes.
        from: u64,
        /// Now, in bytes.
        to: u64,
    },
    /// The chain would be longer than [`LONGEST_CHAIN`] files.
    LongChain,
    /// The engine has decided so.
    Engine,
    /// The engine refuses a backup of which a part is incremental.
    Refused,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AskedFor => f.write_str("a full backup was asked for"),
            Self::FirstBackup => f.write_str("the directory has no backup yet"),
            Self::NoCheckpoint => f.write_str("no backup in the directory has made a checkpoint"),
            Self::CheckpointsGone => {
                f.write_str("the engine has no checkpoint of the directory's backups any more")
            }
            Self::NewDisk => f.write_str("it is not in the backup that made the checkpoint"),
            Self::NotEnabled => f.write_str("incremental backup is not enabled for it"),
            Self::EnabledSince => f.write_str("incremental backup was enabled for it only after that backup"),
            Self::SizeChanged { from, to } => write!(f, "its size was {from} bytes and is {to} bytes now"),
            Self::LongChain => write!(f, "it has {LONGEST_CHAIN} files in a chain already"),
            Self::Engine => f.write_str("the engine backs it up as a whole"),
            Self::Refused => f.write_str("the engine refuses an incremental backup of the VM"),
        }
    }
}

/// Decides how to back up a VM whose disks are `disks` now.
///
/// `manifest` has the backups there are, and `checkpoints` the ids of those that the engine has of
/// this VM.
///
/// # Errors
/// [`Error::NoDisks`]; with [`Policy::Incremental`], [`Error::NotIncremental`].
pub fn plan(
    manifest: Option<&Manifest>,
    checkpoints: &[String],
    disks: &[Disk],
    policy: Policy,
) -> Result<Plan> {
    if disks.is_empty() {
        return Err(Error::NoDisks);
    }
    let backups = manifest.map_or(&[][..], |manifest| &manifest.backups);
    let base = if policy == Policy::Full { Err(Reason::AskedFor) } else { base(backups, checkpoints) };
    let decide = |disk: &Disk| {
        let decision = match (&base, manifest) {
            (Ok(base), Some(manifest)) => decide(manifest, base, disk),
            (Err(reason), _) => Decision::Full(reason.clone()),
            (Ok(_), None) => Decision::Full(Reason::FirstBackup),
        };
        DiskPlan { disk: disk.clone(), decision }
    };
    let disks = disks.iter().map(decide).collect();
    let mut plan = Plan { from_checkpoint_id: None, passed_over: None, disks, policy };
    if let Ok(base) = base
        && plan.is_incremental()
    {
        plan.from_checkpoint_id.clone_from(&base.to_checkpoint_id);
        let newest = backups.last().filter(|newest| newest.id != base.id);
        plan.passed_over = newest.map(|newest| newest.id.clone());
    }
    plan.check()
}

/// The newest backup whose checkpoint the engine has.
fn base<'m>(backups: &'m [Backup], checkpoints: &[String]) -> std::result::Result<&'m Backup, Reason> {
    let checkpoint = |backup: &'m Backup| backup.to_checkpoint_id.as_ref();
    let is_there = |backup: &&'m Backup| checkpoint(backup).is_some_and(|id| checkpoints.contains(id));
    let has_none = || !backups.iter().any(|backup| checkpoint(backup).is_some());
    backups.iter().rev().find(is_there).ok_or_else(|| match backups {
        [] => Reason::FirstBackup,
        _ if has_none() => Reason::NoCheckpoint,
        _ => Reason::CheckpointsGone,
    })
}

fn decide(manifest: &Manifest, base: &Backup, disk: &Disk) -> Decision {
    let Some(last) = base.disk(&disk.id) else { return Decision::Full(Reason::NewDisk) };
    let (from, to) = (last.disk.provisioned_size, disk.provisioned_size);
    if disk.backup == BackupSupport::None {
        Decision::Full(Reason::NotEnabled)
    } else if last.disk.backup == BackupSupport::None {
        Decision::Full(Reason::EnabledSince)
    } else if from != to {
        Decision::Full(Reason::SizeChanged { from, to })
    } else if manifest.chain(last).len() >= LONGEST_CHAIN {
        Decision::Full(Reason::LongChain)
    } else {
        Decision::Incremental { backing_file: last.file.clone() }
    }
}

impl Plan {
    /// Takes in how the engine has begun to back up each disk, by the disk's id: of a disk that it
    /// backs up as a whole, nothing is known to be dirty. A disk that it backs up incrementally can
    /// still be read as a whole.
    ///
    /// # Errors
    /// With [`Policy::Incremental`], [`Error::NotIncremental`].
    pub fn settle(mut self, modes: &HashMap<String, BackupMode>) -> Result<Self> {
        for DiskPlan { disk, decision } in &mut self.disks {
            let is_incremental = modes.get(&disk.id) == Some(&BackupMode::Incremental);
            if !is_incremental && matches!(decision, Decision::Incremental { .. }) {
                *decision = Decision::Full(Reason::Engine);
            }
        }
        self.check()
    }

    /// Plans a full backup of the same disks, as the engine refuses to begin from the checkpoint.
    /// It may do so where only some of the disks can be backed up incrementally. `None` if no disk
    /// was to be backed up incrementally, or all have to be.
    #[must_use]
    pub fn without_increments(&self) -> Option<Self> {
        if !self.is_incremental() || self.policy == Policy::Incremental {
            return None;
        }
        let mut full = Self { from_checkpoint_id: None, passed_over: None, ..self.clone() };
        for DiskPlan { decision, .. } in &mut full.disks {
            if matches!(decision, Decision::Incremental { .. }) {
                *decision = Decision::Full(Reason::Refused);
            }
        }
        Some(full)
    }

    fn is_incremental(&self) -> bool {
        self.disks.iter().any(|plan| matches!(plan.decision, Decision::Incremental { .. }))
    }

    /// Returns an error if increments alone were asked for, and a disk is to be backed up as a
    /// whole.
    fn check(self) -> Result<Self> {
        let reason = |plan: &DiskPlan| match &plan.decision {
            Decision::Full(reason) => Some(format!("{:?}: {reason}", plan.disk.name)),
            Decision::Incremental { .. } => None,
        };
        let reasons: Vec<_> = self.disks.iter().filter_map(reason).collect();
        if self.policy == Policy::Incremental && !reasons.is_empty() {
            return Err(Error::NotIncremental(reasons.join("; ")));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
