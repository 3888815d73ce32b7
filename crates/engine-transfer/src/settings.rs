// SPDX-License-Identifier: MIT OR Apache-2.0
//! The choices that a user has.

use std::time::Duration;

use imageio_device::Settings;
use ovirt_engine_client::{ContentType, Direction, DiskFormat};

use crate::credentials::Credentials;

/// A disk's source, and the settings for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Source {
    /// The settings for the transfer and its server. Where there is an [engine](Self::engine), the
    /// URL in them is not used.
    pub settings: Settings,
    /// The engine that is to be asked for the transfer. Without one, somebody has got the transfer,
    /// and will end it.
    pub engine: Option<EngineSettings>,
}

impl Source {
    /// A transfer that somebody else has got of the engine.
    #[must_use]
    pub fn url(settings: Settings) -> Self {
        Self { settings, engine: None }
    }

    /// Returns true if it was said whether the disk is to be read or to be written, or if that
    /// makes no difference, or follows from something else. A door that doesn't know in time
    /// whether clients may write has to insist.
    #[must_use]
    pub fn has_direction(&self) -> bool {
        let is_open =
            |engine: &EngineSettings| matches!(engine.target, Target::Disk(_)) && engine.direction.is_none();
        !self.engine.as_ref().is_some_and(is_open)
    }

    /// A transfer that is to be got of an engine.
    #[must_use]
    pub fn engine(settings: Settings, engine: EngineSettings) -> Self {
        Self { settings, engine: Some(engine) }
    }
}

/// An engine, who asks it, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineSettings {
    /// The engine, and who asks it.
    pub credentials: Credentials,
    /// The disk that is transferred.
    pub target: Target,
    /// A disk that is there has to be of this size, in bytes: one that is copied to would keep what
    /// is behind that.
    pub exact_size: Option<u64>,
    /// The direction in which data is to go. `None`: out of the disk if the device is for reading
    /// only.
    pub direction: Option<Direction>,
    /// The time without use after which the engine is to pause the transfer.
    pub inactivity_timeout: Duration,
}

impl EngineSettings {
    /// A transfer that is paused when nobody has used it for a minute.
    #[must_use]
    pub fn new(credentials: Credentials, target: Target) -> Self {
        Self {
            credentials,
            target,
            exact_size: None,
            direction: None,
            inactivity_timeout: Duration::from_secs(60),
        }
    }
}

/// The disk that is transferred.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// A disk, by name or id: out of it if the device is for reading only, else into it.
    Disk(String),
    /// A disk that is to be made.
    NewDisk(NewDiskSettings),
    /// A disk as it was when a snapshot was made, for reading only.
    Snapshot {
        /// The id of the disk's image in the snapshot.
        image: String,
        /// True for the content of this image alone, without those below it.
        shallow: bool,
    },
    /// A disk in a backup that is under way, for reading only.
    Backup {
        /// The disk's id.
        disk: String,
        /// The backup's id.
        backup: String,
    },
    /// An upload that was interrupted.
    Interrupted(Interrupted),
}

/// An upload that was begun before, and is to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interrupted {
    /// The transfer's id.
    pub transfer: String,
    /// The disk's id.
    pub disk: String,
    /// The disk was made for this upload, and is good for nothing if that fails.
    pub is_new: bool,
}

impl Interrupted {
    /// An upload by this transfer into this disk.
    #[must_use]
    pub fn new(transfer: impl Into<String>, disk: impl Into<String>, is_new: bool) -> Self {
        Self { transfer: transfer.into(), disk: disk.into(), is_new }
    }
}

/// A disk that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewDiskSettings {
    /// The id that the disk gets. `None`: any. A disk that has it was made for the same upload by a
    /// process that was killed before it could write anything. That disk is used then, by the
    /// transfer that is there for it, if there is one.
    pub id: Option<String>,
    /// Its name.
    pub name: String,
    /// The name or id of the storage domain where it is to be.
    pub storage_domain: String,
    /// The size that a guest sees, in bytes.
    pub size: u64,
    /// The format in which it is stored.
    pub format: DiskFormat,
    /// True if its storage is allocated as it is needed. `None`: as is usual for this format and
    /// storage.
    pub sparse: Option<bool>,
    /// The kind of its content.
    pub content_type: ContentType,
    /// The number of bytes that are allocated from the beginning on block storage. `None`: as many
    /// as a guest sees.
    pub initial_size: Option<u64>,
    /// A description, for those who look at it later.
    pub description: String,
    /// True if changes are tracked for incremental backups.
    pub tracks_changes: bool,
}

impl NewDiskSettings {
    /// A raw disk.
    #[must_use]
    pub fn new(name: impl Into<String>, storage_domain: impl Into<String>, size: u64) -> Self {
        Self {
            id: None,
            name: name.into(),
            storage_domain: storage_domain.into(),
            size,
            format: DiskFormat::Raw,
            sparse: None,
            content_type: ContentType::Data,
            initial_size: None,
            description: String::new(),
            tracks_changes: false,
        }
    }
}
