// SPDX-License-Identifier: MIT OR Apache-2.0
//! Image transfers: a ticket at an imageio server, for as long as the engine says.

mod lead;

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::disks::Reference;
use crate::words::{DiskFormat, TransferPhase};
use crate::{Secret, wire};

/// The direction in which data is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Into the disk.
    Upload,
    /// Out of the disk.
    Download,
}

impl Direction {
    /// The engine's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
        }
    }
}

/// The engine's treatment of a transfer that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeoutPolicy {
    /// It is paused, and can be resumed.
    Pause,
    /// It is cancelled.
    Cancel,
}

/// The disk that is transferred.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// A disk, by its id.
    Disk(String),
    /// A disk as it was when a snapshot was made: the id of its image.
    Snapshot {
        /// [`SnapshotDisk::image_id`](crate::SnapshotDisk::image_id).
        image: String,
        /// True for the content of this image alone, without those below it.
        shallow: bool,
    },
    /// A disk in a backup.
    Backup {
        /// The disk's id.
        disk: String,
        /// The backup's id.
        backup: String,
    },
}

/// A transfer that is to be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewTransfer {
    /// The direction in which data is to go.
    pub direction: Direction,
    /// The disk that is transferred.
    pub subject: Subject,
    /// The host that is to do it.
    pub host: Option<String>,
    /// After so long without use, [`timeout_policy`](Self::timeout_policy) is carried out. In whole
    /// seconds.
    pub inactivity_timeout: Duration,
    /// The engine's treatment of the transfer after that time.
    pub timeout_policy: TimeoutPolicy,
    /// The disk was there before, and is to stay as it is if the transfer can't begin. The engine
    /// removes the disk of an upload that is cancelled, so such a transfer is finalized instead.
    pub keeps_disk: bool,
}

impl NewTransfer {
    /// A transfer that is paused when it isn't used for a minute.
    #[must_use]
    pub fn new(direction: Direction, subject: Subject) -> Self {
        Self {
            direction,
            subject,
            host: None,
            inactivity_timeout: Duration::from_secs(60),
            timeout_policy: TimeoutPolicy::Pause,
            keeps_disk: true,
        }
    }

    /// The request's body. The format is that of the data as a guest sees it: the server's NBD
    /// backend then, with extents.
    fn body(&self, with_policy: bool) -> Value {
        let mut body = json!({
            "direction": self.direction.word(),
            "format": DiskFormat::Raw.word(),
            "inactivity_timeout": self.inactivity_timeout.as_secs(),
        });
        match &self.subject {
            Subject::Disk(disk) => body["disk"] = json!({"id": disk}),
            Subject::Snapshot { image, shallow } => {
                body["snapshot"] = json!({"id": image});
                body["shallow"] = json!(shallow);
            }
            Subject::Backup { disk, backup } => {
                body["disk"] = json!({"id": disk});
                body["backup"] = json!({"id": backup});
            }
        }
        if let Some(host) = &self.host {
            body["host"] = json!({"id": host});
        }
        if with_policy {
            body["timeout_policy"] = match self.timeout_policy {
                TimeoutPolicy::Pause => "pause",
                TimeoutPolicy::Cancel => "cancel",
            }
            .into();
        }
        body
    }

    /// The id by which the engine's transfers tell what they transfer.
    fn image(&self) -> &str {
        match &self.subject {
            Subject::Disk(id) | Subject::Snapshot { image: id, .. } | Subject::Backup { disk: id, .. } => id,
        }
    }
}

/// A transfer (`ImageTransfer` of the API's model).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ImageTransfer {
    /// Its id, which is no secret.
    pub id: String,
    /// The phase that it is in.
    pub phase: TransferPhase,
    /// The direction in which data goes: `upload` or `download`.
    #[serde(default, deserialize_with = "wire::text")]
    pub direction: String,
    /// The server's URL with the ticket, while there is one.
    #[serde(default)]
    pub transfer_url: Option<Secret>,
    /// The URL of the transfer by way of the engine's proxy.
    #[serde(default)]
    pub proxy_url: Option<Secret>,
    /// The image that is transferred.
    #[serde(default)]
    pub image: Reference,
    /// The host that does it.
    #[serde(default)]
    pub host: Reference,
}

/// The end of a transfer, as far as the disk is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// All data is there: the engine is to verify the disk, and to release it.
    Complete,
    /// Data may be missing. A disk that was uploaded to becomes illegal, and is removed by the
    /// engine; one that was downloaded is released.
    Incomplete,
}

impl fmt::Display for ImageTransfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transfer {} ({})", self.id, self.phase)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_read_without_its_ticket_in_debug() {
        let transfer: ImageTransfer = serde_json::from_value(json!({
            "id": "t", "phase": "transferring", "direction": "upload", "active": "false",
            "transfer_url": "https://h:54322/images/ticket", "image": {"id": "d"}, "host": {"id": "h", "href": "/x"},
        }))
        .unwrap();
        assert_eq!((&*transfer.image.id, &transfer.proxy_url), ("d", &None));
        assert_eq!(transfer.transfer_url.as_ref().unwrap().reveal(), "https://h:54322/images/ticket");
        assert!(!format!("{transfer:?} {transfer}").contains("ticket"));
    }

    #[test]
    fn the_policy_is_left_out_for_old_engines() {
        let mut new = NewTransfer::new(Direction::Upload, Subject::Disk("d".into()));
        new.host = Some("h".into());
        let body = new.body(true);
        assert_eq!((&body["timeout_policy"], &body["inactivity_timeout"]), (&json!("pause"), &json!(60)));
        assert_eq!((&body["disk"]["id"], &body["host"]["id"]), (&json!("d"), &json!("h")));
        assert_eq!(new.body(false).get("timeout_policy"), None);
    }

    #[test]
    fn what_is_transferred_is_named() {
        let body = |subject| NewTransfer::new(Direction::Download, subject).body(true);
        let backup = body(Subject::Backup { disk: "d".into(), backup: "b".into() });
        assert_eq!((&backup["disk"]["id"], &backup["backup"]["id"]), (&json!("d"), &json!("b")));
        let snapshot = body(Subject::Snapshot { image: "i".into(), shallow: true });
        assert_eq!((&snapshot["snapshot"]["id"], &snapshot["shallow"]), (&json!("i"), &json!(true)));
        assert_eq!(snapshot.get("disk"), None);
    }
}
