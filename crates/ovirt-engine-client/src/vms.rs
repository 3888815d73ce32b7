// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual machines, their disks and snapshots; hosts.

use serde::Deserialize;
use serde_json::Value;

use crate::disks::{Reference, StorageDomain};
use crate::find::{Kind, Named, quoted};
use crate::words::HostStatus;
use crate::{Disk, Engine, Result, wire};

/// A virtual machine (`Vm` of the API's model).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Vm {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default, deserialize_with = "wire::text")]
    pub name: String,
    /// The machine's state: `up`, `down` and others.
    #[serde(default, deserialize_with = "wire::text")]
    pub status: String,
}

impl Named for Vm {
    const KIND: Kind = Kind::Vm;
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> &str {
        &self.name
    }
}

/// A snapshot of a virtual machine (`Snapshot` of the API's model).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// The user's words for it.
    #[serde(default, deserialize_with = "wire::text")]
    pub description: String,
    /// `active`, `regular` and others.
    #[serde(default, deserialize_with = "wire::text")]
    pub snapshot_type: String,
}

/// A disk's part in a snapshot. A transfer of a snapshot is asked for by
/// [`image_id`](Self::image_id).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct SnapshotDisk {
    /// The disk's id.
    pub id: String,
    /// The id of what the disk's storage has for this snapshot.
    #[serde(default, deserialize_with = "wire::text")]
    pub image_id: String,
    /// The disk's name.
    #[serde(default, deserialize_with = "wire::text")]
    pub name: String,
}

/// A host (`Host` of the API's model).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Host {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default, deserialize_with = "wire::text")]
    pub name: String,
    /// The host's state.
    #[serde(default)]
    pub status: Option<HostStatus>,
}

/// A disk of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachedDisk {
    /// The disk.
    pub disk: Disk,
    /// The virtual machine sees it (`DiskAttachment.active` of the API's model).
    pub is_active: bool,
    /// Other virtual machines may have it, too (`Disk.shareable`).
    pub is_shareable: bool,
}

#[derive(Deserialize)]
struct DiskAttachment {
    #[serde(default)]
    disk: Reference,
    #[serde(default, deserialize_with = "wire::flag")]
    active: Option<bool>,
}

/// A disk with what is of interest together with its attachment only.
#[derive(Deserialize)]
struct DiskOfVm {
    #[serde(flatten)]
    disk: Disk,
    #[serde(default, deserialize_with = "wire::flag")]
    shareable: Option<bool>,
}

impl Named for DiskOfVm {
    const KIND: Kind = Kind::Disk;
    fn id(&self) -> &str {
        &self.disk.id
    }
    fn name(&self) -> &str {
        &self.disk.name
    }
}

impl AttachedDisk {
    /// An engine that says nothing else has active disks that are not shareable.
    fn new(attachment: &DiskAttachment, of_vm: DiskOfVm) -> Self {
        let DiskOfVm { disk, shareable } = of_vm;
        Self { disk, is_active: attachment.active.unwrap_or(true), is_shareable: shareable.unwrap_or(false) }
    }
}

#[derive(Deserialize)]
struct DataCenter {
    #[serde(default, deserialize_with = "wire::text")]
    name: String,
}

impl Engine {
    /// The virtual machine of this name or id.
    ///
    /// # Errors
    /// [`Missing`](crate::Error::Missing), [`Ambiguous`](crate::Error::Ambiguous), or the engine
    /// can't be asked.
    pub fn find_vm(&self, name_or_id: &str) -> Result<Vm> {
        self.find(name_or_id)
    }

    /// All that the engine tells of a virtual machine, with its configuration as OVF, for whoever
    /// makes it anew.
    ///
    /// # Errors
    /// The engine can't be asked.
    pub fn vm_configuration(&self, vm: &str) -> Result<Value> {
        self.get(&format!("/vms/{vm}?all_content=true"))
    }

    /// The disks of a virtual machine.
    ///
    /// # Errors
    /// The engine can't be asked.
    pub fn vm_disks(&self, vm: &str) -> Result<Vec<AttachedDisk>> {
        let attachments: Vec<DiskAttachment> = self.list(&format!("/vms/{vm}/diskattachments"))?;
        let disk = |attachment: &DiskAttachment| {
            Ok(AttachedDisk::new(attachment, self.get_by_id(&attachment.disk.id)?))
        };
        attachments.iter().map(disk).collect()
    }

    /// The snapshots of a virtual machine.
    ///
    /// # Errors
    /// The engine can't be asked.
    pub fn snapshots(&self, vm: &str) -> Result<Vec<Snapshot>> {
        self.list(&format!("/vms/{vm}/snapshots"))
    }

    /// The disks of a snapshot.
    ///
    /// # Errors
    /// The engine can't be asked.
    pub fn snapshot_disks(&self, vm: &str, snapshot: &str) -> Result<Vec<SnapshotDisk>> {
        self.list(&format!("/vms/{vm}/snapshots/{snapshot}/disks"))
    }

    /// The host with this hardware id, which oVirt keeps in `/etc/vdsm/vdsm.id`, if it works and
    /// reaches a storage domain: a transfer by it can use the server's unix socket. (As `find_host`
    /// of `ovirt_imageio/client/_ovirt.py` does.)
    ///
    /// # Errors
    /// The engine can't be asked.
    pub fn find_host(&self, hardware_id: &str, domain: &StorageDomain) -> Result<Option<Host>> {
        let centers: Vec<DataCenter> =
            self.search("datacenters", &format!("storage.name={}", quoted(&domain.name)))?;
        let Some(center) = centers.into_iter().next() else { return Ok(None) };
        let condition =
            format!("hw_id={} and datacenter={} and status=Up", quoted(hardware_id), quoted(&center.name));
        Ok(self.search::<Host>("hosts", &condition)?.into_iter().next())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn attached(active: &Value, shareable: &Value) -> AttachedDisk {
        let attachment = json!({"id": "a", "active": active, "disk": {"id": "a"}});
        let disk = json!({
            "id": "a", "name": "data", "provisioned_size": "1024", "format": "cow", "backup": "incremental",
            "shareable": shareable, "storage_domains": {"storage_domain": [{"id": "s"}]},
        });
        AttachedDisk::new(
            &serde_json::from_value(attachment).unwrap(),
            serde_json::from_value::<DiskOfVm>(disk).unwrap(),
        )
    }

    #[test]
    fn a_disk_is_active_and_not_shareable_unless_the_engine_says_so() {
        for (active, shareable, expected) in [
            (json!(null), json!(null), (true, false)),
            (json!("true"), json!("false"), (true, false)),
            (json!("false"), json!("true"), (false, true)),
            (json!(false), json!(true), (false, true)),
        ] {
            let disk = attached(&active, &shareable);
            assert_eq!((disk.is_active, disk.is_shareable), expected, "{active} {shareable}");
            assert_eq!((disk.disk.provisioned_size, &*disk.disk.backup), (Some(1024), "incremental"));
            assert_eq!(disk.disk.storage_domains[0].id, "s");
        }
    }
}
