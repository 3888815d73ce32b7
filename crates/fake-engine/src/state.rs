// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine's state, and how it changes: by requests, and as time passes. Nothing here reads a
//! clock, touches a file or talks to a host: what has to be done outside is a [`Task`], whose
//! outcome is told afterwards.

mod backup;
mod disk;
mod inventory;
mod phase;
#[cfg(test)]
mod tests;
mod transfer;

use std::time::{Duration, Instant};

pub use backup::{Backup, BackupDisk, BackupMode, BackupPhase, Checkpoint};
pub use disk::{ContentType, Disk, DiskFormat, DiskStatus, Layer};
pub use inventory::{HostStatus, Job, Vm};
pub use phase::{Direction, Phase, TimeoutPolicy};
pub use transfer::{TicketId, Transfer};

pub(crate) use backup::NewBackup;
pub(crate) use disk::{Lock, NewDisk};
pub(crate) use inventory::{Cluster, DataCenter, Event, Host, StorageDomain};
pub(crate) use phase::Action;
pub use transfer::TicketStatus;
pub(crate) use transfer::{Closed, NewTransfer};

/// Identifies something that the engine knows: a UUID, unless a client has chosen another.
pub type Id = String;

/// The time that anything under way takes, in each of its phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delays {
    /// Until a disk is made, or removed.
    pub disk: Duration,
    /// Each phase of a transfer that passes by itself.
    pub transfer: Duration,
    /// Each phase of a backup that passes by itself.
    pub backup: Duration,
    /// Until a job is finished.
    pub job: Duration,
}

impl Delays {
    /// Returns the same delay for everything.
    #[must_use]
    pub const fn all(delay: Duration) -> Self {
        Self { disk: delay, transfer: delay, backup: delay, job: delay }
    }

    /// Changes it in one expression: `Delays::default().with(|delays| delays.disk = delay)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Default for Delays {
    /// Long enough to be seen by a client that doesn't wait, too short to matter to one that waits
    /// a second.
    fn default() -> Self {
        Self::all(Duration::from_millis(50))
    }
}

/// In what older engines differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OldEngine {
    /// A transfer is gone as soon as it is finished (before 4.4.7).
    pub removes_finished_transfers: bool,
    /// A request with `timeout_policy` is refused (before 4.4).
    pub refuses_timeout_policy: bool,
    /// An incremental backup is refused if one of its disks can only be backed up as a whole (in
    /// clusters of old compatibility versions).
    pub refuses_mixed_backups: bool,
}

impl OldEngine {
    /// Changes it in one expression:
    /// `OldEngine::default().with(|engine| engine.refuses_mixed_backups = true)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// A task that has to be done outside of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Make the image of a disk.
    CreateDisk(Id),
    /// Remove the images of a disk.
    RemoveDisk(Disk),
    /// Let the host serve a transfer's image.
    OpenTransfer(Id),
    /// Let the host's ticket live on.
    RenewTicket(Id),
    /// Ask the host how a transfer is going.
    WatchTransfer(Id),
    /// Have the host stop, and look at what was uploaded.
    CloseTransfer(Id),
    /// Freeze the bitmaps of a backup.
    StartBackup(Id),
    /// Remove what a backup needed.
    EndBackup(Id),
}

/// Why a request isn't carried out: its status, and what a `fault` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
}

impl Refusal {
    /// A request that makes no sense.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self { status: 400, reason: "Operation Failed", detail: format!("[{}]", detail.into()) }
    }

    /// Nothing is known by this name.
    pub(crate) fn not_found(what: &str, id: &str) -> Self {
        Self { status: 404, reason: "Operation Failed", detail: format!("Entity not found: {what} {id}") }
    }

    /// A request that can't be carried out as things are.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self { status: 409, reason: "Operation Failed", detail: format!("[{}]", detail.into()) }
    }
}

/// The number of objects of a kind that there may be: clients that fail to stop are stopped.
const MAX_OBJECTS: usize = 10_000;

/// All that the engine knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) delays: Delays,
    pub(crate) old: OldEngine,
    pub(crate) data_centers: Vec<DataCenter>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) storage_domains: Vec<StorageDomain>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) vms: Vec<Vm>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) transfers: Vec<Transfer>,
    pub(crate) backups: Vec<Backup>,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) events: Vec<Event>,
    /// The next uploads whose image is found to be bad.
    pub(crate) bad_images: usize,
    /// One moment by both clocks.
    epoch: (Instant, jiff::Timestamp),
    removed: Vec<Disk>,
}

impl State {
    pub(crate) fn new(delays: Delays, old: OldEngine, now: Instant) -> Self {
        Self {
            delays,
            old,
            data_centers: Vec::new(),
            clusters: Vec::new(),
            storage_domains: Vec::new(),
            hosts: Vec::new(),
            vms: Vec::new(),
            disks: Vec::new(),
            transfers: Vec::new(),
            backups: Vec::new(),
            checkpoints: Vec::new(),
            jobs: Vec::new(),
            events: Vec::new(),
            bad_images: 0,
            epoch: (now, jiff::Timestamp::now()),
            removed: Vec::new(),
        }
    }

    /// Lets time pass. If something has to be done outside, it is told; its outcome has to be told
    /// before the next call.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Task> {
        self.finish_jobs(now);
        let removed = self.removed.pop().map(Task::RemoveDisk);
        removed
            .or_else(|| self.due_disk(now))
            .or_else(|| self.due_transfer(now))
            .or_else(|| self.due_backup(now))
    }

    /// The time of day at a moment.
    pub(crate) fn date(&self, at: Instant) -> String {
        // A fake that runs for longer than a timestamp can tell is none.
        let since = at.saturating_duration_since(self.epoch.0);
        let date = self.epoch.1.checked_add(since).unwrap_or(self.epoch.1);
        // The SDK for Python takes no more than microseconds.
        date.strftime("%Y-%m-%dT%H:%M:%S%.3f+00:00").to_string()
    }

    fn has_room<T>(of_a_kind: &[T]) -> Result<(), Refusal> {
        match of_a_kind.len() < MAX_OBJECTS {
            true => Ok(()),
            false => Err(Refusal::conflict("There are too many objects of this kind")),
        }
    }
}

/// A random UUID (RFC 9562, version 4).
pub(crate) fn new_id() -> Id {
    let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
