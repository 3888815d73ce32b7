// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks: made and removed in the background, and locked while something is done to them.

use std::time::Instant;

use super::{Id, Refusal, State, Task, new_id};

/// The format in which a disk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// The image's bytes are the disk's.
    Raw,
    /// qcow2.
    Cow,
}

impl DiskFormat {
    /// Returns the word that the API has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Cow => "cow",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        match text.to_ascii_lowercase().as_str() {
            "raw" => Ok(Self::Raw),
            "cow" => Ok(Self::Cow),
            _ => Err(Refusal::bad_request(format!("format {text}: raw or cow is expected"))),
        }
    }
}

/// The purpose of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// The data of a virtual machine.
    Data,
    /// A compact disc.
    Iso,
}

impl ContentType {
    /// Returns the word that the API has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Iso => "iso",
        }
    }
}

/// The status of a disk: it tells if the disk can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskStatus {
    /// It can.
    Ok,
    /// Something is done to it.
    Locked,
    /// Its content is not what it should be.
    Illegal,
}

impl DiskStatus {
    /// Returns the word that the API has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Locked => "locked",
            Self::Illegal => "illegal",
        }
    }
}

/// An image of a disk: the one that is written, or that of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// Its identifier, which is that of a disk snapshot.
    pub image: Id,
    /// The snapshot of the virtual machine that it belongs to.
    pub snapshot: Id,
    /// The format in which it is stored.
    pub format: DiskFormat,
}

/// The reason for which a disk is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lock {
    /// It is made until then.
    Creation(Instant),
    /// It is removed then.
    Removal(Instant),
    /// This transfer.
    Transfer(Id),
    /// This backup.
    Backup(Id),
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disk {
    /// Its identifier.
    pub id: Id,
    /// Its name, which others may have, too.
    pub name: String,
    /// The description that its owner has given.
    pub description: Option<String>,
    /// The format in which it is stored.
    pub format: DiskFormat,
    /// The purpose of the disk.
    pub content_type: ContentType,
    /// Its size for a virtual machine, in bytes.
    pub provisioned_size: u64,
    /// The size that its storage was to have at first, in bytes.
    pub initial_size: Option<u64>,
    /// Its storage grows as needed.
    pub sparse: bool,
    /// It takes part in incremental backups.
    pub incremental_backup: bool,
    /// Several virtual machines may have it.
    pub shareable: bool,
    /// The storage domain that it is in.
    pub storage_domain: Id,
    /// Its status, which tells if it can be used.
    pub status: DiskStatus,
    /// Its images, the base first, and the one that is written last.
    pub layers: Vec<Layer>,
    pub(crate) lock: Option<Lock>,
}

/// The content of a request for a new disk.
#[derive(Debug, Clone)]
pub(crate) struct NewDisk {
    pub(crate) id: Option<Id>,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) format: DiskFormat,
    pub(crate) content_type: ContentType,
    pub(crate) provisioned_size: u64,
    pub(crate) initial_size: Option<u64>,
    pub(crate) sparse: bool,
    pub(crate) incremental_backup: bool,
    pub(crate) shareable: bool,
    /// By identifier or name.
    pub(crate) storage_domain: String,
}

/// The longest disk that is made, in bytes.
const MAX_DISK_SIZE: u64 = 1 << 50;

impl Disk {
    /// The image that is written.
    ///
    /// # Panics
    /// Never: a disk has at least one.
    #[must_use]
    pub fn top(&self) -> &Layer {
        self.layers.last().expect("a disk has an image")
    }

    /// It can be given to whoever wants it.
    pub(crate) fn check_free(&self, action: &str) -> Result<(), Refusal> {
        if self.lock.is_some() || self.status == DiskStatus::Locked {
            let name = &self.name;
            let detail = format!("Cannot {action}: Disk {name} is locked. Please try again later.");
            return Err(Refusal::conflict(detail));
        }
        Ok(())
    }
}

impl State {
    pub(crate) fn disk(&self, id: &str) -> Result<&Disk, Refusal> {
        self.disks.iter().find(|disk| disk.id == id).ok_or_else(|| Refusal::not_found("disk", id))
    }

    pub(crate) fn disk_mut(&mut self, id: &str) -> Option<&mut Disk> {
        self.disks.iter_mut().find(|disk| disk.id == id)
    }

    /// Begins to make a disk.
    pub(crate) fn add_disk(&mut self, new: NewDisk, now: Instant) -> Result<Id, Refusal> {
        Self::has_room(&self.disks)?;
        let domain = self.storage_domains.iter();
        let mut domain =
            domain.filter(|domain| domain.id == new.storage_domain || domain.name == new.storage_domain);
        let Some(domain) = domain.next() else {
            return Err(Refusal::not_found("storage domain", &new.storage_domain));
        };
        if domain.data_center.is_none() {
            return Err(Refusal::conflict(
                "Cannot add Virtual Disk. The Storage Domain isn't attached to a Data Center",
            ));
        }
        let id = new.id.unwrap_or_else(new_id);
        if self.disks.iter().any(|disk| disk.id == id) {
            return Err(Refusal::conflict("Cannot add Virtual Disk. A disk with this ID exists"));
        }
        if new.provisioned_size > MAX_DISK_SIZE {
            return Err(Refusal::conflict("Cannot add Virtual Disk. The disk is too large"));
        }
        if new.incremental_backup && new.format == DiskFormat::Raw {
            return Err(Refusal::conflict("Cannot add Virtual Disk. Backup isn't supported for raw disks"));
        }
        let layer = Layer { image: new_id(), snapshot: new_id(), format: new.format };
        self.disks.push(Disk {
            id: id.clone(),
            name: new.name,
            description: new.description,
            format: new.format,
            content_type: new.content_type,
            provisioned_size: new.provisioned_size,
            initial_size: new.initial_size,
            sparse: new.sparse,
            incremental_backup: new.incremental_backup,
            shareable: new.shareable,
            storage_domain: domain.id.clone(),
            status: DiskStatus::Locked,
            layers: vec![layer],
            lock: Some(Lock::Creation(now + self.delays.disk)),
        });
        Ok(id)
    }

    /// Begins to remove a disk.
    pub(crate) fn remove_disk(&mut self, id: &str, now: Instant) -> Result<(), Refusal> {
        self.disk(id)?.check_free("remove Virtual Disk")?;
        let due = now + self.delays.disk;
        if let Some(disk) = self.disk_mut(id) {
            disk.status = DiskStatus::Locked;
            disk.lock = Some(Lock::Removal(due));
        }
        Ok(())
    }

    /// The image of a disk was made, or could not be.
    pub(crate) fn disk_created(&mut self, id: &str, is_made: bool) {
        if let Some(disk) = self.disk_mut(id) {
            disk.lock = None;
            disk.status = if is_made { DiskStatus::Ok } else { DiskStatus::Illegal };
        }
    }

    /// Forgets a disk, whose images then have to be removed.
    pub(super) fn drop_disk(&mut self, id: &str) {
        if let Some(at) = self.disks.iter().position(|disk| disk.id == id) {
            self.removed.push(self.disks.remove(at));
        }
        for vm in &mut self.vms {
            vm.disks.retain(|disk| disk != id);
            vm.inactive_disks.retain(|disk| disk != id);
        }
    }

    pub(super) fn due_disk(&mut self, now: Instant) -> Option<Task> {
        let is_due = |disk: &&Disk| match disk.lock {
            Some(Lock::Creation(due) | Lock::Removal(due)) => due <= now,
            _ => false,
        };
        let disk = self.disks.iter().find(is_due)?;
        let (id, is_new) = (disk.id.clone(), matches!(disk.lock, Some(Lock::Creation(_))));
        if is_new {
            return Some(Task::CreateDisk(id));
        }
        self.drop_disk(&id);
        self.removed.pop().map(Task::RemoveDisk)
    }
}
