// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks, and where they are.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::find::{Kind, Named};
use crate::words::{ContentType, DiskFormat, DiskStatus};
use crate::{Engine, Error, Result, wire};

/// The time that a disk may take to be made or released. Preallocated ones take their time.
const DISK_TIMEOUT: Duration = Duration::from_secs(300);

/// Something that is named by its id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Reference {
    /// The id.
    #[serde(deserialize_with = "wire::text")]
    pub id: String,
}

/// A disk (`Disk` of the API's model).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Disk {
    /// Its id.
    pub id: String,
    /// Its name, which others may have, too.
    #[serde(default, deserialize_with = "wire::text")]
    pub name: String,
    /// Its description.
    #[serde(default, deserialize_with = "wire::text")]
    pub description: String,
    /// The disk's state: it can be used, is busy, or can't be relied on.
    #[serde(default)]
    pub status: Option<DiskStatus>,
    /// The size that a guest sees, in bytes.
    #[serde(default, deserialize_with = "wire::number")]
    pub provisioned_size: Option<u64>,
    /// The bytes that it takes on its storage.
    #[serde(default, deserialize_with = "wire::number")]
    pub actual_size: Option<u64>,
    /// The format in which it is stored.
    #[serde(default)]
    pub format: Option<DiskFormat>,
    /// True if its storage is allocated as it is needed.
    #[serde(default, deserialize_with = "wire::flag")]
    pub sparse: Option<bool>,
    /// `incremental`, if changes are tracked for incremental backups.
    #[serde(default, deserialize_with = "wire::text")]
    pub backup: String,
    /// The storage domains that it is on.
    #[serde(default, deserialize_with = "wire::list")]
    pub storage_domains: Vec<Reference>,
}

impl Named for Disk {
    const KIND: Kind = Kind::Disk;
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> &str {
        &self.name
    }
}

/// A storage domain (`StorageDomain` of the API's model).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct StorageDomain {
    /// Its id.
    pub id: String,
    /// Its name.
    #[serde(default, deserialize_with = "wire::text")]
    pub name: String,
    /// The storage that it is made of: `nfs`, `iscsi`, `fcp` and others.
    #[serde(default)]
    pub storage: Storage,
}

/// The storage that a storage domain is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Storage {
    /// Its kind (`StorageType`).
    #[serde(rename = "type", deserialize_with = "wire::text")]
    pub kind: String,
}

impl StorageDomain {
    /// Returns true if disks are block devices there, which have to be told how much of them is to
    /// be allocated.
    #[must_use]
    pub fn is_block(&self) -> bool {
        matches!(&*self.storage.kind, "iscsi" | "fcp")
    }
}

impl Named for StorageDomain {
    const KIND: Kind = Kind::StorageDomain;
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> &str {
        &self.name
    }
}

/// A disk that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewDisk {
    /// Its id, which is chosen here, so that the disk is found again where the engine's answer is
    /// lost.
    pub id: String,
    /// Its name.
    pub name: String,
    /// A description, for those who look at it later.
    pub description: String,
    /// The size that a guest sees, in bytes.
    pub provisioned_size: u64,
    /// The number of bytes that are allocated from the beginning on block storage.
    pub initial_size: Option<u64>,
    /// The format in which it is stored.
    pub format: DiskFormat,
    /// True if its storage is allocated as it is needed.
    pub sparse: bool,
    /// The kind of its content.
    pub content_type: ContentType,
    /// True if changes are tracked for incremental backups. That takes the format `cow`.
    pub tracks_changes: bool,
    /// The id of the storage domain where it is to be.
    pub storage_domain: String,
}

impl NewDisk {
    /// A sparse raw disk with an id of its own.
    #[must_use]
    pub fn new(name: impl Into<String>, provisioned_size: u64, storage_domain: impl Into<String>) -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            name: name.into(),
            description: String::new(),
            provisioned_size,
            initial_size: None,
            format: DiskFormat::Raw,
            sparse: true,
            content_type: ContentType::Data,
            tracks_changes: false,
            storage_domain: storage_domain.into(),
        }
    }

    /// The request's body.
    fn body(&self) -> Value {
        let mut body = json!({
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "content_type": self.content_type.word(),
            "format": self.format.word(),
            "provisioned_size": self.provisioned_size,
            "sparse": self.sparse,
            "storage_domains": {"storage_domain": [{"id": self.storage_domain}]},
        });
        if let Some(initial_size) = self.initial_size {
            body["initial_size"] = initial_size.into();
        }
        if self.tracks_changes {
            body["backup"] = "incremental".into();
        }
        body
    }
}

impl Engine {
    /// The disk with this id.
    ///
    /// # Errors
    /// [`Error::Missing`], or the engine can't be asked.
    pub fn disk(&self, id: &str) -> Result<Disk> {
        self.get_by_id(id)
    }

    /// The disk of this name or id.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Ambiguous`], or the engine can't be asked.
    pub fn find_disk(&self, name_or_id: &str) -> Result<Disk> {
        self.find(name_or_id)
    }

    /// The storage domain of this name or id.
    ///
    /// # Errors
    /// As [`find_disk`](Self::find_disk).
    pub fn find_storage_domain(&self, name_or_id: &str) -> Result<StorageDomain> {
        self.find(name_or_id)
    }

    /// The storage domain with this id.
    ///
    /// # Errors
    /// As [`disk`](Self::disk).
    pub fn storage_domain(&self, id: &str) -> Result<StorageDomain> {
        self.get_by_id(id)
    }

    /// Makes a disk. It can be used when [`wait_for_disk`](Self::wait_for_disk) says so.
    ///
    /// # Errors
    /// The engine refuses it, or can't be asked.
    pub fn create_disk(&self, disk: &NewDisk) -> Result<Disk> {
        let id = &disk.id;
        let body = disk.body();
        self.recover(
            &format!("made disk {id}"),
            || self.post("/disks", &body),
            || match self.disk(id) {
                Err(error) if error.is_missing() => Ok(None),
                found => found.map(Some),
            },
        )
    }

    /// Waits until a disk can be used.
    ///
    /// # Errors
    /// [`Error::Disk`] if it can't; [`Error::TimedOut`], [`Error::Stopped`].
    pub fn wait_for_disk(&self, id: &str) -> Result<Disk> {
        self.poll(&format!("made disk {id} usable"), DISK_TIMEOUT, || {
            let disk = self.disk(id)?;
            match &disk.status {
                Some(DiskStatus::Locked) => Ok(None),
                // A disk of another kind has none.
                Some(DiskStatus::Ok) | None => Ok(Some(disk)),
                Some(status) => Err(Error::Disk {
                    id: id.to_owned(),
                    status: status.clone(),
                    advice: "see its events in the engine",
                }),
            }
        })
    }

    /// Removes a disk. One that is gone is no error.
    ///
    /// # Errors
    /// The engine refuses it, or can't be asked.
    pub fn delete_disk(&self, id: &str) -> Result<()> {
        match self.delete(&format!("/disks/{id}")) {
            Err(error) if error.is_missing() => Ok(()),
            deleted => deleted,
        }
    }
}

impl Engine {
    /// Removes a disk whose transfer was cancelled. The engine does so, too, some time after the
    /// transfer has ended, and the disk is locked until then.
    ///
    /// # Errors
    /// The engine refuses it, or can't be asked; [`Error::TimedOut`], [`Error::Stopped`].
    pub fn remove_unfinished_disk(&self, id: &str) -> Result<()> {
        self.poll(&format!("removed disk {id}"), DISK_TIMEOUT, || {
            let disk = match self.disk(id) {
                Err(error) if error.is_missing() => return Ok(Some(())),
                disk => disk?,
            };
            if disk.status == Some(DiskStatus::Locked) {
                return Ok(None);
            }
            match self.delete_disk(id) {
                // Somebody was faster: the engine itself.
                Err(Error::Refused { status: 409, .. }) => Ok(None),
                // It is gone when it isn't found any more.
                deleted => deleted.map(|()| None),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_read_as_the_engine_writes_it() {
        let disk: Disk = serde_json::from_value(json!({
            "id": "d", "name": "x", "status": "locked", "provisioned_size": "1073741824", "actual_size": "0",
            "format": "cow", "sparse": "true", "backup": "incremental", "alias": "x",
            "storage_domains": {"storage_domain": [{"id": "s", "href": "/h"}]}, "link": [{"rel": "permissions"}],
        }))
        .unwrap();
        assert_eq!((disk.status, disk.format), (Some(DiskStatus::Locked), Some(DiskFormat::Cow)));
        assert_eq!(
            (disk.provisioned_size, disk.sparse, &*disk.backup),
            (Some(1 << 30), Some(true), "incremental")
        );
        assert_eq!(disk.storage_domains[0].id, "s");
        let bare: Disk = serde_json::from_value(json!({"id": "d", "status": "melting"})).unwrap();
        assert_eq!(bare.status, Some(DiskStatus::Other("melting".into())));
    }

    #[test]
    fn a_new_disk_says_no_more_than_it_must() {
        let mut disk = NewDisk::new("x", 5, "s");
        let body = disk.body();
        assert_eq!((body.get("initial_size"), body.get("backup")), (None, None));
        disk.initial_size = Some(7);
        disk.tracks_changes = true;
        let body = disk.body();
        assert_eq!((&body["initial_size"], &body["backup"]), (&json!(7), &json!("incremental")));
        assert_eq!(body["storage_domains"]["storage_domain"][0]["id"], "s");
    }
}
