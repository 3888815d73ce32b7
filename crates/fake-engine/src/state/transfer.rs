// SPDX-License-Identifier: MIT OR Apache-2.0
//! Image transfers, and what they do to their disks.

use std::fmt;
use std::time::{Duration, Instant};

use super::phase::{Action, Step};
use super::{
    BackupPhase, Direction, DiskFormat, DiskStatus, HostStatus, Id, Lock, Phase, Refusal, State, Task,
    TimeoutPolicy, new_id,
};

/// The time between two questions to a host about a transfer.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// When a host that still had something to do with a ticket is told again to remove it.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// The time for which a finished transfer can still be looked up.
const KEEP_FINISHED: Duration = Duration::from_secs(15 * 60);

/// For how long a transfer may be idle if the client says nothing of it, in seconds
/// (`TransferImageClientInactivityTimeoutInSeconds` of ovirt-engine).
const DEFAULT_INACTIVITY_TIMEOUT: u64 = 60;

/// The identifier of a ticket. Whoever knows it may use the transfer, so it isn't shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketId(String);

impl TicketId {
    /// Returns the ticket's text, which the host has to know.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketId(…)")
    }
}

/// An image transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transfer {
    /// Its identifier.
    pub id: Id,
    /// The disk that it is about.
    pub disk: Id,
    /// The image of a snapshot, where it is about that.
    pub snapshot: Option<Id>,
    /// The backup that it belongs to.
    pub backup: Option<Id>,
    /// The host that serves the data.
    pub host: Id,
    /// The direction in which the data goes.
    pub direction: Direction,
    /// The data that is moved: what a virtual machine sees (raw), or what is stored.
    pub format: DiskFormat,
    /// One image is moved, without what is below it.
    pub shallow: bool,
    /// For how long it may be idle, in seconds; 0 is forever.
    pub inactivity_timeout: u64,
    /// The treatment of the transfer when it was idle for too long.
    pub timeout_policy: TimeoutPolicy,
    /// The phase of the transfer.
    pub phase: Phase,
    /// The number of bytes that have been moved, as far as the host can tell.
    pub transferred: u64,
    /// Something is moved in this moment.
    pub is_active: bool,
    /// The host has its ticket, as far as the engine knows.
    pub has_ticket: bool,
    /// The ticket by which the host knows it.
    pub ticket: TicketId,
    is_closed: bool,
    due: Option<Instant>,
    touched: Instant,
    finished: Option<Instant>,
}

impl Transfer {
    /// Returns true if the transfer is over, whatever its phase is said to be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.finished.is_some()
    }

    /// Returns the phase that follows when its host doesn't do its part
    /// (`updateEntityPhaseToStoppedBySystem` of ovirt-engine's `TransferDiskImageCommand`).
    fn stopped_by_system(&self) -> Phase {
        TimeoutPolicy::Legacy.idle(self.direction)
    }
}

/// The content of a request for a new transfer.
#[derive(Debug, Clone)]
pub(crate) struct NewTransfer {
    pub(crate) disk: Option<Id>,
    pub(crate) snapshot: Option<Id>,
    pub(crate) backup: Option<Id>,
    /// Without one, any host that is up.
    pub(crate) host: Option<Id>,
    pub(crate) direction: Direction,
    /// Without one, as the disk is stored.
    pub(crate) format: Option<DiskFormat>,
    pub(crate) shallow: bool,
    pub(crate) inactivity_timeout: Option<u64>,
    pub(crate) timeout_policy: Option<TimeoutPolicy>,
}

/// The status of a ticket, as a host tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TicketStatus {
    /// Requests are being carried out.
    pub active: bool,
    /// For how long there were none.
    pub idle: Duration,
    /// The number of bytes that have been moved, if the host knows.
    pub transferred: Option<u64>,
}

/// The outcome of closing an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It is still in use, and has to be tried again.
    InUse,
    /// The image is what it should be.
    Good,
    /// It isn't.
    Bad,
}

impl State {
    pub(crate) fn transfer(&self, id: &str) -> Result<&Transfer, Refusal> {
        let found = self.transfers.iter().find(|transfer| transfer.id == id);
        found.ok_or_else(|| Refusal::not_found("image transfer", id))
    }

    fn transfer_mut(&mut self, id: &str) -> Option<&mut Transfer> {
        self.transfers.iter_mut().find(|transfer| transfer.id == id)
    }

    /// Begins a transfer, and locks its disk.
    pub(crate) fn add_transfer(&mut self, new: NewTransfer, now: Instant) -> Result<Id, Refusal> {
        Self::has_room(&self.transfers)?;
        if new.timeout_policy.is_some() && self.old.refuses_timeout_policy {
            return Err(Refusal::bad_request("Request syntactically incorrect: timeout_policy"));
        }
        let disk = self.disk_to_transfer(&new)?;
        let format = new.format.unwrap_or(self.disk(&disk)?.format);
        match &new.backup {
            Some(backup) => self.check_backup(backup, &disk, &new, format)?,
            None => self.disk(&disk)?.check_free("transfer Virtual Disk")?,
        }
        let host = self.host_for_transfer(new.host.as_deref())?;
        let id = new_id();
        if new.backup.is_none()
            && let Some(disk) = self.disk_mut(&disk)
        {
            disk.status = DiskStatus::Locked;
            disk.lock = Some(Lock::Transfer(id.clone()));
        }
        self.transfers.push(Transfer {
            id: id.clone(),
            disk,
            snapshot: new.snapshot,
            backup: new.backup,
            host,
            direction: new.direction,
            format,
            shallow: new.shallow,
            inactivity_timeout: new.inactivity_timeout.unwrap_or(DEFAULT_INACTIVITY_TIMEOUT),
            timeout_policy: new.timeout_policy.unwrap_or(TimeoutPolicy::Legacy),
            phase: Phase::Initializing,
            transferred: 0,
            is_active: false,
            has_ticket: false,
            ticket: TicketId(new_id()),
            is_closed: false,
            due: Some(now + self.delays.transfer),
            touched: now,
            finished: None,
        });
        Ok(id)
    }

    fn disk_to_transfer(&self, new: &NewTransfer) -> Result<Id, Refusal> {
        let of_snapshot = |image: &String| {
            let mut disks = self.disks.iter();
            disks.find(|disk| disk.layers.iter().any(|layer| layer.image == *image))
        };
        let disk = match (&new.disk, &new.snapshot) {
            (Some(disk), None) => self.disks.iter().find(|known| known.id == *disk),
            (None, Some(_)) if new.direction == Direction::Upload => {
                return Err(Refusal::bad_request(
                    "Cannot transfer Virtual Disk. Snapshots can only be downloaded",
                ));
            }
            (None, Some(image)) => of_snapshot(image),
            _ => return Err(Refusal::bad_request("ImageTransfer [disk.id|snapshot.id] required for add")),
        };
        let missing =
            || Refusal::conflict("Cannot transfer Virtual Disk: The specified disk does not exist.");
        Ok(disk.ok_or_else(missing)?.id.clone())
    }

    fn check_backup(
        &self,
        id: &str,
        disk: &str,
        new: &NewTransfer,
        format: DiskFormat,
    ) -> Result<(), Refusal> {
        let refuse = |text: &str| Err(Refusal::conflict(format!("Cannot transfer Virtual Disk: {text}")));
        let Some(backup) = self.backups.iter().find(|backup| backup.id == id) else {
            return refuse("The specified backup does not exist.");
        };
        if backup.phase != BackupPhase::Ready {
            return refuse("The backup isn't ready.");
        }
        if !backup.disks.iter().any(|part| part.disk == disk) {
            return refuse("The disk isn't part of the backup.");
        }
        if new.direction != Direction::Download || format != DiskFormat::Raw {
            return refuse("Disks of a backup can only be downloaded in raw format.");
        }
        let mut others = self.transfers.iter().filter(|other| !other.is_over());
        if others.any(|other| other.disk == disk && other.backup.as_deref() == Some(id)) {
            return refuse("The disk is already being transferred.");
        }
        Ok(())
    }

    fn host_for_transfer(&self, wanted: Option<&str>) -> Result<Id, Refusal> {
        let mut hosts = self.hosts.iter().filter(|host| host.status == HostStatus::Up);
        let host = hosts.find(|host| wanted.is_none_or(|wanted| host.id == wanted));
        let none =
            || Refusal::conflict("Cannot transfer Virtual Disk. There is no host in status Up for it.");
        Ok(host.ok_or_else(none)?.id.clone())
    }

    /// Does what a user asks. A transfer that was never there is no error, nor is one that is over;
    /// but of that, another phase is told from then on, in which it stays, as nobody looks at it
    /// any more (`ImageTransferUpdater` of ovirt-engine).
    pub(crate) fn act(&mut self, id: &str, action: Action, now: Instant) -> Result<(), Refusal> {
        let Some(transfer) = self.transfer_mut(id) else { return Ok(()) };
        transfer.touched = now;
        let next = transfer.phase.asked(action, transfer.direction)?;
        if transfer.is_over() {
            transfer.phase = next;
        } else if next != transfer.phase {
            self.enter(id, next, now);
        }
        Ok(())
    }

    /// Puts a transfer into another phase.
    pub(crate) fn enter(&mut self, id: &str, phase: Phase, now: Instant) {
        let delay = self.delays.transfer;
        let Some(transfer) = self.transfer_mut(id) else { return };
        transfer.phase = phase;
        transfer.is_closed = false;
        transfer.due = match phase.step() {
            Step::Stay => None,
            Step::Watch => Some(now + WATCH_INTERVAL),
            Step::Go(_) | Step::Open | Step::Renew | Step::Close => Some(now + delay),
        };
        if phase.is_finished() {
            transfer.finished = Some(now);
            let transfer = transfer.clone();
            self.finish(&transfer);
        }
    }

    /// Lets go of the disk. One that was to be written and wasn't is removed.
    fn finish(&mut self, transfer: &Transfer) {
        let is_owner = |lock: &Lock| *lock == Lock::Transfer(transfer.id.clone());
        if let Some(disk) = self.disk_mut(&transfer.disk)
            && disk.lock.as_ref().is_some_and(is_owner)
        {
            disk.lock = None;
            if transfer.phase == Phase::FinishedFailure && transfer.direction == Direction::Upload {
                self.drop_disk(&transfer.disk);
            }
        }
        if self.old.removes_finished_transfers {
            self.transfers.retain(|other| other.id != transfer.id);
        }
    }

    pub(super) fn due_transfer(&mut self, now: Instant) -> Option<Task> {
        self.transfers.retain(|transfer| transfer.finished.is_none_or(|at| now < at + KEEP_FINISHED));
        loop {
            let is_due = |transfer: &&Transfer| transfer.due.is_some_and(|due| due <= now);
            let transfer = self.transfers.iter().find(is_due)?;
            let id = transfer.id.clone();
            match transfer.phase.step() {
                Step::Go(next) => self.enter(&id, next, now),
                Step::Close if transfer.is_closed => {
                    let next = transfer.phase.closed();
                    self.enter(&id, next, now);
                }
                Step::Open => return Some(Task::OpenTransfer(id)),
                Step::Renew => return Some(Task::RenewTicket(id)),
                Step::Watch => return Some(Task::WatchTransfer(id)),
                Step::Close => return Some(Task::CloseTransfer(id)),
                // Nothing is due in these.
                Step::Stay => self.transfer_mut(&id)?.due = None,
            }
        }
    }

    /// The host serves the image, or can't.
    pub(crate) fn transfer_opened(&mut self, id: &str, is_open: bool, now: Instant) {
        let Some(transfer) = self.transfer_mut(id) else { return };
        let next = if is_open { Phase::Transferring } else { transfer.stopped_by_system() };
        transfer.has_ticket |= is_open;
        transfer.touched = now;
        self.enter(id, next, now);
    }

    /// The host has renewed the ticket, or couldn't: a resumed transfer goes on in either case,
    /// until the host is asked next (`handleResuming` and `pollTransferStatus` of ovirt-engine's
    /// `TransferDiskImageCommand`).
    pub(crate) fn ticket_renewed(&mut self, id: &str, now: Instant) {
        let Some(transfer) = self.transfer_mut(id) else { return };
        transfer.touched = now;
        self.enter(id, Phase::Transferring, now);
    }

    /// The host has told how a transfer is going, or doesn't know its ticket.
    pub(crate) fn transfer_watched(&mut self, id: &str, status: Option<TicketStatus>, now: Instant) {
        let Some(transfer) = self.transfer_mut(id) else { return };
        let Some(status) = status else {
            // Its ticket is only forgotten when it has ended: the host may be back, and have it
            // still.
            let next = transfer.stopped_by_system();
            return self.enter(id, next, now);
        };
        transfer.is_active = status.active;
        transfer.transferred = status.transferred.unwrap_or(transfer.transferred);
        transfer.due = Some(now + WATCH_INTERVAL);
        let idle = status.idle.min(now.saturating_duration_since(transfer.touched));
        let timeout = Duration::from_secs(transfer.inactivity_timeout);
        if !status.active && !timeout.is_zero() && idle > timeout {
            let next = transfer.timeout_policy.idle(transfer.direction);
            self.enter(id, next, now);
        }
    }

    /// The host has stopped to serve the image, or couldn't yet.
    pub(crate) fn transfer_closed(&mut self, id: &str, closed: Closed, now: Instant) {
        let delay = self.delays.transfer;
        let Some(transfer) = self.transfers.iter_mut().find(|transfer| transfer.id == id) else { return };
        if closed == Closed::InUse {
            transfer.due = Some(now + RETRY_INTERVAL);
            return;
        }
        transfer.has_ticket = false;
        transfer.is_active = false;
        let is_upload = transfer.direction == Direction::Upload;
        let mut is_bad = closed == Closed::Bad;
        if transfer.phase == Phase::FinalizingSuccess && is_upload && self.bad_images > 0 {
            self.bad_images -= 1;
            is_bad = true;
        }
        if transfer.phase == Phase::FinalizingSuccess && is_bad {
            return self.enter(id, Phase::FinalizingFailure, now);
        }
        transfer.is_closed = true;
        transfer.due = Some(now + delay);
        let is_good = transfer.phase == Phase::FinalizingSuccess || !is_upload;
        let (disk, is_of_backup) = (transfer.disk.clone(), transfer.backup.is_some());
        if let Some(disk) = self.disk_mut(&disk)
            && !is_of_backup
        {
            // The lock stays until the transfer is over.
            disk.status = if is_good { DiskStatus::Ok } else { DiskStatus::Illegal };
        }
    }
}
