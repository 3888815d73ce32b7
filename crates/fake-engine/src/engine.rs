// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state, and all that is done outside of it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::host::{Host, Removal, Ticket};
use crate::state::{
    Backup, BackupMode, Closed, Direction, Disk, DiskFormat, HostStatus, Id, Layer, Phase, State, Task,
    Transfer, new_id,
};
use crate::storage::{Access, Opened, Storage, merged_bitmap};

/// The engine: whoever has it locked sees what is true now.
#[derive(Debug)]
pub(crate) struct Engine(Mutex<Inner>);

/// The state, the disks, and the host.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) state: State,
    pub(crate) storage: Box<dyn Storage>,
    pub(crate) host: Arc<dyn Host>,
}

impl Engine {
    pub(crate) fn new(state: State, storage: Box<dyn Storage>, host: Arc<dyn Host>) -> Self {
        Self(Mutex::new(Inner { state, storage, host }))
    }

    /// Lets time pass, then gives all that there is.
    pub(crate) fn lock(&self, now: Instant) -> MutexGuard<'_, Inner> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.advance(now);
        inner
    }
}

impl Inner {
    /// Does all that is due.
    fn advance(&mut self, now: Instant) {
        while let Some(task) = self.state.due(now) {
            self.carry_out(task, now);
        }
    }

    fn carry_out(&mut self, task: Task, now: Instant) {
        match task {
            Task::CreateDisk(id) => {
                let disk = self.state.disk(&id).ok().cloned();
                let made = disk.map_or(Ok(()), |disk| self.storage.create(&disk));
                self.state.disk_created(&id, succeeded("a disk can't be made", &made));
            }
            Task::RemoveDisk(disk) => self.storage.remove(&disk),
            Task::OpenTransfer(id) => {
                let opened = self.open_transfer(&id);
                let is_open = succeeded("an image can't be served", &opened);
                self.state.transfer_opened(&id, is_open, now);
            }
            Task::RenewTicket(id) => {
                succeeded("a ticket can't be renewed", &self.renew_ticket(&id));
                self.state.ticket_renewed(&id, now);
            }
            Task::WatchTransfer(id) => self.watch_transfer(&id, now),
            Task::CloseTransfer(id) => {
                let closed = self.close_transfer(&id);
                self.state.transfer_closed(&id, closed, now);
            }
            Task::StartBackup(id) => {
                let started = self.start_backup(&id);
                let is_started = succeeded("a backup can't be started", &started);
                self.state.backup_started(&id, is_started, now);
            }
            Task::EndBackup(id) => {
                self.end_backup(&id);
                self.state.backup_ended(&id, now);
            }
        }
    }

    fn open_transfer(&mut self, id: &str) -> io::Result<()> {
        let transfer = self.state.transfer(id).map_err(|refusal| io::Error::other(refusal.detail))?.clone();
        let disk =
            self.state.disk(&transfer.disk).map_err(|refusal| io::Error::other(refusal.detail))?.clone();
        if !self.is_host_up(&transfer) {
            return Err(io::Error::other("the host is down"));
        }
        let opened = self.open_image(&transfer, &disk)?;
        self.host.add_ticket(&Ticket {
            id: transfer.ticket.clone(),
            transfer: transfer.id.clone(),
            size: opened.size,
            url: opened.url,
            file: self.storage.file(&image_of(&transfer, &disk).image),
            format: image_of(&transfer, &disk).format,
            writable: transfer.direction == Direction::Upload,
            dirty: self.is_incremental(&transfer),
            dirty_ranges: opened.dirty,
            sparse: disk.sparse,
            inactivity_timeout: transfer.inactivity_timeout,
        })
    }

    /// A ticket that the host has lost isn't made anew.
    fn renew_ticket(&self, id: &str) -> io::Result<()> {
        let transfer = self.state.transfer(id).map_err(|refusal| io::Error::other(refusal.detail))?;
        match self.is_host_up(transfer) {
            true => self.host.extend_ticket(&transfer.ticket),
            false => Err(io::Error::other("the host is down")),
        }
    }

    fn open_image(&mut self, transfer: &Transfer, disk: &Disk) -> io::Result<Opened> {
        let is_incremental = self.is_incremental(transfer);
        self.storage.open(&Access {
            transfer: &transfer.id,
            layer: image_of(transfer, disk),
            format: transfer.format,
            size: disk.provisioned_size,
            writable: transfer.direction == Direction::Upload,
            shallow: transfer.shallow,
            bitmap: transfer.backup.as_deref().filter(|_| is_incremental).map(merged_bitmap),
        })
    }

    fn is_incremental(&self, transfer: &Transfer) -> bool {
        let backup = self.state.backups.iter().find(|backup| Some(&backup.id) == transfer.backup.as_ref());
        let mut parts = backup.into_iter().flat_map(|backup| &backup.disks);
        parts.any(|part| part.disk == transfer.disk && part.mode == BackupMode::Incremental)
    }

    fn is_host_up(&self, transfer: &Transfer) -> bool {
        let mut hosts = self.state.hosts.iter();
        hosts.any(|host| host.id == transfer.host && host.status == HostStatus::Up)
    }

    fn watch_transfer(&mut self, id: &str, now: Instant) {
        let Ok(transfer) = self.state.transfer(id) else { return };
        let status = match self.is_host_up(transfer) {
            true => self.host.ticket(&transfer.ticket),
            false => Ok(None),
        };
        if let Ok(Some(_)) = status
            && let Err(error) = self.host.extend_ticket(&transfer.ticket)
        {
            log::warn!("a ticket can't be extended: {error}");
        }
        let status = status.inspect_err(|error| log::warn!("a ticket can't be looked up: {error}"));
        self.state.transfer_watched(id, status.unwrap_or(None), now);
    }

    fn close_transfer(&mut self, id: &str) -> Closed {
        let Ok(transfer) = self.state.transfer(id).cloned() else { return Closed::Good };
        match self.host.remove_ticket(&transfer.ticket) {
            Ok(Removal::Done) => {}
            Ok(Removal::InUse) => return Closed::InUse,
            Err(error) => {
                log::warn!("a ticket can't be removed: {error}");
                return Closed::InUse;
            }
        }
        let closed = self.storage.close(id);
        let is_upload = transfer.direction == Direction::Upload && transfer.phase == Phase::FinalizingSuccess;
        let verified = closed.and_then(|()| match self.state.disk(&transfer.disk) {
            Ok(disk) if is_upload => self.storage.verify(disk),
            _ => Ok(()),
        });
        if succeeded("an uploaded image is bad", &verified) { Closed::Good } else { Closed::Bad }
    }

    fn start_backup(&mut self, id: &str) -> io::Result<()> {
        let Some(backup) = self.state.backups.iter().find(|backup| backup.id == id).cloned() else {
            return Ok(());
        };
        let started = self.freeze(&backup);
        if started.is_err() {
            self.thaw(&backup);
        }
        started
    }

    /// The disks of a backup that take part in incremental ones, and the checkpoint of each before
    /// it.
    fn with_checkpoint(&self, backup: &Backup) -> Vec<(Disk, Option<Id>)> {
        let parts = backup.disks.iter().filter(|part| part.has_checkpoint);
        let disks = parts.filter_map(|part| self.state.disk(&part.disk).ok());
        disks
            .map(|disk| {
                let mut of_disk =
                    self.state.checkpoints.iter().filter(|known| known.disks.contains(&disk.id));
                (disk.clone(), of_disk.next_back().map(|known| known.id.clone()))
            })
            .collect()
    }

    /// The disks of a backup of which it has the changes only.
    fn incremental_disks(&self, backup: &Backup) -> Vec<Disk> {
        let parts = backup.disks.iter().filter(|part| part.mode == BackupMode::Incremental);
        parts.filter_map(|part| self.state.disk(&part.disk).ok()).cloned().collect()
    }

    fn freeze(&mut self, backup: &Backup) -> io::Result<()> {
        if let Some(to) = &backup.to_checkpoint {
            for (disk, before) in self.with_checkpoint(backup) {
                self.storage.freeze_bitmap(&disk, to, before.as_deref())?;
            }
        }
        for disk in self.incremental_disks(backup) {
            let from = backup.from_checkpoint.as_deref().unwrap_or_default();
            let since = self.state.checkpoints_since(from, &disk.id);
            self.storage.merge_bitmaps(&disk, &backup.id, &since)?;
        }
        Ok(())
    }

    /// Takes back what can be taken back of it: changes must not go unnoticed.
    fn thaw(&mut self, backup: &Backup) {
        if let Some(to) = &backup.to_checkpoint {
            for (disk, before) in self.with_checkpoint(backup) {
                let thawed = self.storage.thaw_bitmap(&disk, to, before.as_deref());
                succeeded("a bitmap can't be enabled again", &thawed);
            }
        }
        self.end_backup(&backup.id);
    }

    fn end_backup(&mut self, id: &str) {
        let Some(backup) = self.state.backups.iter().find(|backup| backup.id == id) else { return };
        for disk in self.incremental_disks(backup) {
            let removed = self.storage.remove_bitmap(&disk, &merged_bitmap(id));
            succeeded("a bitmap can't be removed", &removed);
        }
    }

    /// Gives a disk a new image on top of its own, and so a snapshot of what it was: its disk
    /// snapshot.
    pub(crate) fn add_snapshot(&mut self, disk: &str) -> io::Result<Layer> {
        let refused = |refusal: crate::state::Refusal| io::Error::other(refusal.detail);
        let disk = self.state.disk(disk).map_err(refused)?;
        disk.check_free("create Snapshot").map_err(refused)?;
        let (id, below, image) = (disk.id.clone(), disk.top().clone(), new_id());
        self.storage.add_layer(&below, &image)?;
        let top = Layer { image, snapshot: new_id(), format: DiskFormat::Cow };
        if let Some(disk) = self.state.disks.iter_mut().find(|disk| disk.id == id) {
            disk.layers.push(top);
        }
        Ok(below)
    }
}

/// The image that a transfer moves.
fn image_of<'a>(transfer: &Transfer, disk: &'a Disk) -> &'a Layer {
    let of_snapshot = disk.layers.iter().find(|layer| Some(&layer.image) == transfer.snapshot.as_ref());
    of_snapshot.unwrap_or_else(|| disk.top())
}

fn succeeded<T>(failure: &str, outcome: &io::Result<T>) -> bool {
    if let Err(error) = outcome {
        log::warn!("{failure}: {error}");
    }
    outcome.is_ok()
}
