// SPDX-License-Identifier: MIT OR Apache-2.0
//! Beginning a transfer, and leading it to where it is to come.

use std::time::Duration;

use error_reporter::Report;

use super::{Direction, End, ImageTransfer, NewTransfer, Subject};
use crate::phase::{Act, Goal, Step, step};
use crate::wait::tell_doubt;
use crate::words::{DiskStatus, TransferPhase};
use crate::{Engine, Error, Result};

/// The time that a transfer may take to begin (`ovirt_imageio/client/_ovirt.py` waits as long).
const BEGIN_TIMEOUT: Duration = Duration::from_secs(120);

/// The time that a transfer may take to end: the engine verifies the disk, and copies its metadata.
const END_TIMEOUT: Duration = Duration::from_secs(300);

impl Engine {
    /// Begins a transfer, and waits until its ticket is at the server. If that fails, nothing is
    /// left of it.
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
                log::warn!("{}: see transfer {} in the engine", Report::new(error), transfer.id);
            }
        })
    }

    fn create_transfer(&self, new: &NewTransfer) -> Result<ImageTransfer> {
        let before: Vec<_> = self.transfers()?.into_iter().map(|transfer| transfer.id).collect();
        let what = format!("begun a transfer of {}", new.image());
        let make = |with_policy| {
            let make = || self.post("/imagetransfers", &new.body(with_policy));
            match &new.subject {
                // Transfers don't tell the snapshot, so that nobody can know which one is ours.
                Subject::Snapshot { .. } => make().inspect_err(|error: &Error| tell_doubt(error, &what)),
                Subject::Disk(_) | Subject::Backup { .. } => {
                    self.recover(&what, make, || self.find_begun(new, &before))
                }
            }
        };
        match make(true) {
            // Engines before 4.4 know of no policy.
            Err(Error::Refused { status: 400, .. }) => make(false),
            Err(error @ Error::Refused { status: 409, .. }) => Err(self.name_holder(error, new)),
            made => made,
        }
    }

    /// A refusal, with the transfer that has the disk, as far as there is one.
    fn name_holder(&self, refusal: Error, new: &NewTransfer) -> Error {
        // The refusal says enough where this can't be asked.
        let transfers = self.transfers().unwrap_or_default();
        let has_disk =
            |transfer: &ImageTransfer| transfer.image.id == new.image() && !transfer.phase.is_finished();
        match transfers.into_iter().find(has_disk) {
            Some(ImageTransfer { id, phase, .. }) => {
                Error::InUse { refusal: Box::new(refusal), advice: busy(&phase), id, phase }
            }
            None => refusal,
        }
    }

    /// The transfer that was begun, among those that weren't there before: what was there is
    /// somebody else's. There can't be two with this disk, as it is locked.
    fn find_begun(&self, new: &NewTransfer, before: &[String]) -> Result<Option<ImageTransfer>> {
        let mut begun = self.transfers()?.into_iter().filter(|transfer| {
            let is_new = matches!(transfer.phase, TransferPhase::Initializing | TransferPhase::Transferring);
            let is_ours = transfer.image.id == new.image() && transfer.direction == new.direction.word();
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

    /// Has a transfer go on that the engine has paused, or that it is about to resume. An engine
    /// that can't reach the host, or whose host has lost the ticket, pauses it again and again:
    /// that is tried for as long as [`Config::reconnect_timeout`](crate::Config::reconnect_timeout)
    /// says, and two minutes at most. True if the ticket is at the server again; false if it never
    /// was away.
    ///
    /// # Errors
    /// [`Error::Transfer`], [`Error::Missing`] if it has ended; [`Error::TimedOut`],
    /// [`Error::Stopped`].
    pub fn resume_transfer(&self, id: &str, direction: Direction) -> Result<bool> {
        let time = self.patience();
        let transfer = self.poll(&format!("told of transfer {id}"), time, || self.transfer(id).map(Some))?;
        match transfer.ok_or_else(|| gone(id))?.phase {
            TransferPhase::Transferring => Ok(false),
            _ => self.lead(id, direction, Goal::Use, time)?.ok_or_else(|| gone(id)).map(|_| true),
        }
    }

    /// Returns the time that a paused transfer may take to go on.
    fn patience(&self) -> Duration {
        BEGIN_TIMEOUT.min(self.reconnect_timeout)
    }

    /// Has an upload wait until it is [taken up](Self::take_up_transfer). Its disk stays locked,
    /// and its ticket may expire.
    ///
    /// # Errors
    /// [`Error::Transfer`], [`Error::Missing`] if it has ended; [`Error::TimedOut`],
    /// [`Error::Stopped`].
    pub fn pause_upload(&self, id: &str) -> Result<ImageTransfer> {
        self.lead(id, Direction::Upload, Goal::Pause, BEGIN_TIMEOUT)?.ok_or_else(|| gone(id))
    }

    /// Has a transfer go on, whoever has paused it, and waits until data may flow.
    ///
    /// # Errors
    /// [`Error::Transfer`], [`Error::Missing`] if it has ended; [`Error::TimedOut`],
    /// [`Error::Stopped`].
    pub fn take_up_transfer(&self, id: &str, direction: Direction) -> Result<ImageTransfer> {
        self.lead(id, direction, Goal::TakeUp, self.patience())?.ok_or_else(|| gone(id))
    }

    /// Ends a transfer, and waits until the engine has. All connections to the server have to be
    /// closed before, as the engine waits for those. Nothing is returned of a transfer that is
    /// gone: engines before 4.4.7 forget it as soon as it has ended, and the
    /// [disk](Self::judge_by_disk) has to tell what became of it.
    ///
    /// # Errors
    /// [`Error::Transfer`] or [`Error::Disk`] if a complete transfer didn't come to a good end;
    /// [`Error::TimedOut`], [`Error::Stopped`].
    pub fn end_transfer(&self, id: &str, direction: Direction, end: End) -> Result<Option<ImageTransfer>> {
        let goal = match end {
            End::Complete => Goal::Success,
            End::Incomplete => Goal::End,
        };
        self.lead(id, direction, goal, END_TIMEOUT)
    }

    /// Finalizes an upload all of whose data is on the disk, also one that is paused, by whomever,
    /// and waits until the engine has verified the disk. No ticket is needed for that. Nothing is
    /// returned of a transfer that is gone, as by [`end_transfer`](Self::end_transfer).
    ///
    /// # Errors
    /// [`Error::Transfer`] or [`Error::Disk`] if it didn't come to a good end; [`Error::TimedOut`],
    /// [`Error::Stopped`].
    pub fn finalize_paused_upload(&self, id: &str) -> Result<Option<ImageTransfer>> {
        self.lead(id, Direction::Upload, Goal::SuccessOfPaused, END_TIMEOUT)
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

    /// Leads a transfer to a goal, asking once a second how far it is. Actions are asked for again
    /// while the phase stays: their answers tell nothing, and may be lost.
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

/// Returns the advice about a transfer that has a disk which somebody else wants.
fn busy(phase: &TransferPhase) -> &'static str {
    if phase.is_paused() {
        "if nobody goes on with it, cancel it in the engine (Storage, Disks, the disk, Upload or Download, Cancel); a cancelled upload takes its disk along, and one that is finalized by the API keeps it"
    } else {
        "wait for its end; if its program is gone, the engine pauses it after some time, and then it can be cancelled there"
    }
}
