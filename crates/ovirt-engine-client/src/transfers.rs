// SPDX-License-Identifier: MIT OR Apache-2.0
//! Image transfers: a ticket at an imageio server, for as long as the engine says.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::disks::Reference;
use crate::phase::{Act, Goal, Step, step};
use crate::words::{DiskFormat, DiskStatus, TransferPhase};
use crate::{Engine, Error, Result, Secret, wire};

/// How long a transfer may take to begin (`ovirt_imageio/client/_ovirt.py` waits as long).
const BEGIN_TIMEOUT: Duration = Duration::from_secs(120);

/// How long it may take to end: the engine verifies the disk, and copies its metadata.
const END_TIMEOUT: Duration = Duration::from_secs(300);

/// Where data is to go.
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

/// What the engine does with a transfer that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeoutPolicy {
    /// It is paused, and can be resumed.
    Pause,
    /// It is cancelled.
    Cancel,
}

/// What is transferred.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// A disk, by its id.
    Disk(String),
    /// A disk as it was when a snapshot was made: the id of its image.
    Snapshot {
        /// [`SnapshotDisk::image_id`](crate::SnapshotDisk::image_id).
        image: String,
        /// What this image has alone, without those below it.
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
    /// Where data is to go.
    pub direction: Direction,
    /// What is transferred.
    pub subject: Subject,
    /// The host that is to do it.
    pub host: Option<String>,
    /// After so long without use, [`timeout_policy`](Self::timeout_policy) is carried out. In whole seconds.
    pub inactivity_timeout: Duration,
    /// What is done then.
    pub timeout_policy: TimeoutPolicy,
    /// The disk was there before, and is to stay as it is if the transfer can't begin. The engine removes the disk of an upload that is
    /// cancelled, so such a transfer is finalized instead.
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

    /// The request's body. The format is that of the data as a guest sees it: the server's NBD backend then, with extents.
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
    /// How far it is.
    pub phase: TransferPhase,
    /// Where data goes.
    #[serde(default, deserialize_with = "wire::text")]
    pub direction: String,
    /// The server's URL with the ticket, while there is one.
    #[serde(default)]
    pub transfer_url: Option<Secret>,
    /// The same by way of the engine's proxy.
    #[serde(default)]
    pub proxy_url: Option<Secret>,
    /// What is transferred.
    #[serde(default)]
    pub image: Reference,
    /// The host that does it.
    #[serde(default)]
    pub host: Reference,
}

/// How a transfer ended, as far as the disk is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// All data is there: the engine is to verify the disk, and to release it.
    Complete,
    /// Data may be missing. A disk that was uploaded to becomes illegal, and is removed by the engine; one that was
    /// downloaded is released.
    Incomplete,
}

impl fmt::Display for ImageTransfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transfer {} ({})", self.id, self.phase)
    }
}

impl Engine {
    /// Begins a transfer, and waits until its ticket is at the server. If that fails, nothing is left of it.
    ///
    /// # Errors
    /// The engine refuses it, or has it come to a bad end; [`Error::TimedOut`], [`Error::Stopped`].
    pub fn begin_transfer(&self, new: &NewTransfer) -> Result<ImageTransfer> {
        let transfer = self.create_transfer(new)?;
        log::info!("{transfer} has been asked for");
        let end = match (new.direction, new.keeps_disk) {
            (Direction::Upload, true) => End::Complete,
            _ => End::Incomplete,
        };
        self.wait_until_usable(&transfer.id, new.direction).inspect_err(|_| {
            if let Err(error) = self.end_transfer(&transfer.id, new.direction, end) {
                log::warn!("{error}: see transfer {} in the engine", transfer.id);
            }
        })
    }

    fn create_transfer(&self, new: &NewTransfer) -> Result<ImageTransfer> {
        let before: Vec<_> = self.transfers()?.into_iter().map(|transfer| transfer.id).collect();
        let make = |with_policy| {
            self.recover(
                &format!("begun a transfer of {}", new.image()),
                || self.post("/imagetransfers", &new.body(with_policy)),
                || self.find_begun(new, &before),
            )
        };
        match make(true) {
            // Engines before 4.4 know of no policy.
            Err(Error::Refused { status: 400, .. }) => make(false),
            made => made,
        }
    }

    /// The transfer that was begun, among those that weren't there before: what was there is somebody else's. There can't be two with
    /// this disk, as it is locked. Of a snapshot's transfer, engines don't tell the image, so it has to be the only one that may be it.
    fn find_begun(&self, new: &NewTransfer, before: &[String]) -> Result<Option<ImageTransfer>> {
        let is_snapshot = matches!(new.subject, Subject::Snapshot { .. });
        let mut begun = self.transfers()?.into_iter().filter(|transfer| {
            let is_new = matches!(transfer.phase, TransferPhase::Initializing | TransferPhase::Transferring);
            let is_of_disk = is_snapshot || transfer.image.id == new.image();
            let is_ours = is_of_disk && transfer.direction == new.direction.word();
            is_new && is_ours && !before.contains(&transfer.id)
        });
        Ok(match (begun.next(), begun.next()) {
            (found, None) => found,
            (_, Some(_)) => None,
        })
    }

    /// All transfers that the engine knows of.
    ///
    /// # Errors
    /// The engine can't be asked.
    pub fn transfers(&self) -> Result<Vec<ImageTransfer>> {
        self.list("/imagetransfers")
    }

    /// The transfer as it is now; nothing if it is gone.
    ///
    /// # Errors
    /// The engine can't be asked.
    pub fn transfer(&self, id: &str) -> Result<Option<ImageTransfer>> {
        match self.get(&format!("/imagetransfers/{id}")) {
            Err(error) if error.is_missing() => Ok(None),
            transfer => transfer.map(Some),
        }
    }

    /// Waits until data may flow; one that is paused by the engine is resumed.
    ///
    /// # Errors
    /// [`Error::Transfer`] if it has ended; [`Error::TimedOut`], [`Error::Stopped`].
    pub fn wait_until_usable(&self, id: &str, direction: Direction) -> Result<ImageTransfer> {
        self.lead(id, direction, Goal::Use, BEGIN_TIMEOUT)?.ok_or_else(|| gone(id))
    }

    /// Has a transfer go on that the engine has paused, or that it is about to resume. An engine that can't reach the host, or whose host
    /// has lost the ticket, pauses it again and again: that is tried for as long as
    /// [`Config::reconnect_timeout`](crate::Config::reconnect_timeout) says, and two minutes at most. True if the ticket is at the server again; false
    /// if it never was away.
    ///
    /// # Errors
    /// [`Error::Transfer`], [`Error::Missing`] if it has ended; [`Error::TimedOut`], [`Error::Stopped`].
    pub fn resume_transfer(&self, id: &str, direction: Direction) -> Result<bool> {
        let time = BEGIN_TIMEOUT.min(self.reconnect_timeout);
        let transfer = self.poll(&format!("told of transfer {id}"), time, || self.transfer(id).map(Some))?;
        match transfer.ok_or_else(|| gone(id))?.phase {
            TransferPhase::Transferring => Ok(false),
            _ => self.lead(id, direction, Goal::Use, time)?.ok_or_else(|| gone(id)).map(|_| true),
        }
    }

    /// Ends a transfer, and waits until the engine has. All connections to the server have to be closed before, as the engine waits
    /// for those. Nothing is returned of a transfer that is gone: engines before 4.4.7 forget it as soon as it has ended, and the
    /// [disk](Self::judge_by_disk) has to tell what became of it.
    ///
    /// # Errors
    /// [`Error::Transfer`] or [`Error::Disk`] if a complete transfer didn't come to a good end; [`Error::TimedOut`],
    /// [`Error::Stopped`].
    pub fn end_transfer(&self, id: &str, direction: Direction, end: End) -> Result<Option<ImageTransfer>> {
        let goal = match end {
            End::Complete => Goal::Success,
            End::Incomplete => Goal::End,
        };
        self.lead(id, direction, goal, END_TIMEOUT)
    }

    /// Waits for what becomes of a disk whose transfer is gone without a word.
    ///
    /// # Errors
    /// [`Error::Disk`] if the disk isn't usable, [`Error::Missing`] if it is gone.
    pub fn judge_by_disk(&self, disk: &str) -> Result<()> {
        self.poll(&format!("released disk {disk}"), END_TIMEOUT, || {
            let status = self.disk(disk)?.status.unwrap_or(DiskStatus::Ok);
            match status {
                DiskStatus::Ok => Ok(Some(())),
                DiskStatus::Locked => Ok(None),
                status => Err(Error::Disk { id: disk.to_owned(), status, advice: "begin the upload anew" }),
            }
        })
    }

    /// Leads a transfer to a goal, asking once a second how far it is. Actions are asked for again while the phase stays: their
    /// answers tell nothing, and may be lost.
    fn lead(
        &self,
        id: &str,
        direction: Direction,
        goal: Goal,
        time: Duration,
    ) -> Result<Option<ImageTransfer>> {
        self.poll(&format!("{} {id}", goal.in_words()), time, || {
            let Some(transfer) = self.transfer(id)? else {
                return Ok(Some(None));
            };
            match step(goal, direction, &transfer.phase) {
                Step::Reached => Ok(Some(Some(transfer))),
                Step::Wait => Ok(None),
                Step::Act(act) => self.act_on(id, act).map(|()| None),
                Step::Fail => {
                    let advice = direction.advice();
                    Err(Error::Transfer { id: id.to_owned(), phase: transfer.phase, advice })
                }
            }
        })
    }

    fn act_on(&self, id: &str, act: Act) -> Result<()> {
        log::info!("transfer {id}: {}", act.word());
        match self.act(&format!("/imagetransfers/{id}/{}", act.word())) {
            // It has changed its phase meanwhile, which is looked up next.
            Err(Error::Refused { status: 404 | 409, .. }) => Ok(()),
            done => done,
        }
    }
}

fn gone(id: &str) -> Error {
    Error::Missing { kind: crate::Kind::Transfer, name: id.to_owned() }
}

impl Direction {
    fn advice(self) -> &'static str {
        match self {
            Self::Upload => "the disk's content can't be relied on: begin the upload anew",
            Self::Download => "begin the download anew",
        }
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
