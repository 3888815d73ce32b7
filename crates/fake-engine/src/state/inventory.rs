// SPDX-License-Identifier: MIT OR Apache-2.0
//! The objects of an installation, beside its disks.

use std::time::Instant;

use super::{Id, Refusal, State, new_id};

/// A data center.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataCenter {
    /// Its identifier.
    pub(crate) id: Id,
    /// Its name.
    pub(crate) name: String,
}

/// A cluster of a data center.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Its identifier.
    pub(crate) id: Id,
    /// Its name.
    pub(crate) name: String,
    /// The data center that it belongs to.
    pub(crate) data_center: Id,
}

/// A storage domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StorageDomain {
    /// Its identifier.
    pub(crate) id: Id,
    /// Its name.
    pub(crate) name: String,
    /// The data center that it is attached to, if any.
    pub(crate) data_center: Option<Id>,
}

/// The status of a host: it tells if the host can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostStatus {
    /// It can.
    Up,
    /// It can't.
    Down,
}

impl HostStatus {
    /// Returns the word that the API has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Its identifier.
    pub(crate) id: Id,
    /// Its name.
    pub(crate) name: String,
    /// Its address: a name or an IP address.
    pub(crate) address: String,
    /// The identifier that it has in `/etc/vdsm/vdsm.id`.
    pub(crate) hardware_id: String,
    /// Its status, which tells if it can be used.
    pub(crate) status: HostStatus,
    /// The cluster that it belongs to.
    pub(crate) cluster: Id,
}

/// A virtual machine. It doesn't run: its disks are changed by tests.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Vm {
    /// Its identifier.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// The cluster that it belongs to.
    pub cluster: Id,
    /// The disks that are attached to it.
    pub disks: Vec<Id>,
    /// The attached disks that are inactive, so that the machine doesn't see them.
    pub inactive_disks: Vec<Id>,
    /// Its configuration, as OVF.
    pub configuration: String,
}

/// A job, such as the import of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job {
    /// Its identifier.
    pub id: Id,
    /// The description of its work.
    pub description: String,
    /// The identifier that the client has given it, when it caused the job.
    pub correlation_id: String,
    /// The job is over.
    pub is_finished: bool,
    pub(super) due: Instant,
}

/// An entry of the engine's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its number.
    pub(crate) id: usize,
    /// The kind of the event.
    pub(crate) code: u32,
    /// The text that tells what has happened.
    pub(crate) description: String,
}

/// The number of entries that the log keeps.
const MAX_EVENTS: usize = 1000;

impl State {
    pub(crate) fn vm(&self, id: &str) -> Result<&Vm, Refusal> {
        self.vms.iter().find(|vm| vm.id == id).ok_or_else(|| Refusal::not_found("VM", id))
    }

    pub(crate) fn storage_domain(&self, id: &str) -> Result<&StorageDomain, Refusal> {
        let found = self.storage_domains.iter().find(|domain| domain.id == id);
        found.ok_or_else(|| Refusal::not_found("storage domain", id))
    }

    /// Takes a virtual machine in, by a job that takes its time.
    pub(crate) fn import_vm(&mut self, vm: Vm, correlation_id: &str, now: Instant) -> Result<(), Refusal> {
        Self::has_room(&self.vms)?;
        Self::has_room(&self.jobs)?;
        if !self.clusters.iter().any(|cluster| cluster.id == vm.cluster) {
            return Err(Refusal::bad_request(format!("Cluster {} doesn't exist", vm.cluster)));
        }
        if self.vms.iter().any(|other| other.name == vm.name || other.id == vm.id) {
            return Err(Refusal::conflict("Cannot add VM. The VM name is already in use"));
        }
        self.jobs.push(Job {
            id: new_id(),
            description: format!("Importing VM {}", vm.name),
            correlation_id: correlation_id.to_owned(),
            is_finished: false,
            due: now + self.delays.job,
        });
        self.vms.push(vm);
        Ok(())
    }

    /// Attaches a disk to a virtual machine.
    pub(crate) fn attach_disk(&mut self, vm: &str, disk: &str) -> Result<(), Refusal> {
        self.vm(vm)?;
        self.disk(disk)?;
        if self.vms.iter().any(|vm| vm.disks.iter().any(|attached| attached == disk)) {
            return Err(Refusal::conflict(
                "Cannot attach Virtual Disk. The disk is already attached to a VM",
            ));
        }
        if let Some(vm) = self.vms.iter_mut().find(|found| found.id == vm) {
            vm.disks.push(disk.to_owned());
        }
        Ok(())
    }

    /// Lets a virtual machine see a disk that is attached to it, or not.
    pub(crate) fn set_disk_active(&mut self, vm: &str, disk: &str, is_active: bool) -> Result<(), Refusal> {
        let found = self.vms.iter_mut().find(|found| found.id == vm);
        let found = found.ok_or_else(|| Refusal::not_found("VM", vm))?;
        if !found.disks.iter().any(|attached| attached == disk) {
            return Err(Refusal::not_found("disk attachment", disk));
        }
        found.inactive_disks.retain(|inactive| inactive != disk);
        if !is_active {
            found.inactive_disks.push(disk.to_owned());
        }
        Ok(())
    }

    pub(super) fn finish_jobs(&mut self, now: Instant) {
        for job in self.jobs.iter_mut().filter(|job| job.due <= now) {
            job.is_finished = true;
        }
    }

    /// Writes something into the log.
    pub(super) fn tell(&mut self, code: u32, description: String) {
        let id = self.events.last().map_or(1, |event| event.id + 1);
        if self.events.len() == MAX_EVENTS {
            self.events.remove(0);
        }
        self.events.push(Event { id, code, description });
    }
}
