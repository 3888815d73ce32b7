// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ending a transfer, and what becomes of its disk.

use std::sync::{Arc, Mutex, PoisonError};

use error_reporter::Report;
use imageio_device::TicketKeeper;
use ovirt_engine_client::{Direction, DiskStatus, End, Engine, Error as EngineError, ImageTransfer, Secret};

use crate::Error;
use crate::open::{ItsDisk, Origin};
use crate::settings::Interrupted;

/// A transfer that the engine was asked for.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) engine: Engine,
    pub(crate) transfer: ImageTransfer,
    pub(crate) direction: Direction,
    pub(crate) disk: Option<ItsDisk>,
    pub(crate) is_by_this_host: bool,
    /// It was there before.
    pub(crate) is_taken_up: bool,
    pub(crate) resuming: Mutex<Resuming>,
}

/// The chance that the engine gives the ticket again if it is asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Resuming {
    #[default]
    Possible,
    /// It was asked for as long as makes sense, and this is why it doesn't. Whoever asks next would
    /// wait as long, one after the other.
    GivenUp(String),
}

/// The work that is to be done when a device is closed. It has to be closed before: the engine
/// waits for its connections to the server.
///
/// An ending that is dropped gives up the transfer.
#[derive(Debug)]
#[must_use]
pub struct Ending {
    begun: Option<Arc<Begun>>,
    is_in_use: bool,
    resumable: Resumable,
}

/// The condition for an upload that isn't complete to go on later. It is paused then, and else
/// given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumable {
    /// It can't.
    No,
    /// It can when something was written to the disk. Before that, there is nothing to go on with.
    OnceWritten,
    /// It can.
    Yes,
}

/// The state of a disk's content when its device is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// All data is there, and flushed.
    Complete,
    /// Nothing was written: the disk is as it was.
    Untouched,
    /// Data may be missing.
    Incomplete,
}

impl Ending {
    /// Nothing: somebody else ends the transfer.
    pub(crate) fn of_somebody_else() -> Self {
        Self { begun: None, is_in_use: false, resumable: Resumable::No }
    }

    pub(crate) fn of(begun: Begun) -> Self {
        let resumable = if begun.is_taken_up { Resumable::Yes } else { Resumable::No };
        Self { begun: Some(Arc::new(begun)), is_in_use: false, resumable }
    }

    /// Returns the keeper that brings back the ticket of a transfer that the engine has paused.
    pub(crate) fn ticket_keeper(&self) -> Option<Arc<dyn TicketKeeper>> {
        self.begun.clone().map(|begun| begun as _)
    }

    /// The ways to the server, the best one first.
    pub(crate) fn urls(&self) -> Vec<Secret> {
        let transfer = self.begun.as_ref().map(|begun| &begun.transfer);
        let urls = transfer.map(|transfer| [transfer.transfer_url.clone(), transfer.proxy_url.clone()]);
        let mut urls: Vec<_> = urls.into_iter().flatten().flatten().collect();
        urls.dedup();
        urls
    }

    /// The id of the disk, if the engine was asked for its transfer.
    #[must_use]
    pub fn disk(&self) -> Option<&str> {
        self.begun.as_ref()?.disk.as_ref().map(|disk| &*disk.id)
    }

    /// The id of the transfer, if the engine was asked for it.
    #[must_use]
    pub fn transfer(&self) -> Option<&str> {
        self.begun.as_ref().map(|begun| &*begun.transfer.id)
    }

    /// Sets the condition: it says whether somebody knows enough of the upload to go on with it
    /// later.
    pub fn set_resumable(&mut self, resumable: Resumable) {
        self.resumable = resumable;
    }

    /// The id of a disk that an interrupted upload has made, and that may have been used since
    /// then.
    pub(crate) fn left_disk(&self) -> Option<&str> {
        let disk = self.begun.as_ref()?.disk.as_ref()?;
        (disk.origin == Origin::Left).then_some(&*disk.id)
    }

    /// There is nothing on the disk that was found: it is as good as a new one.
    pub(crate) fn take_left_disk(&mut self) {
        let begun = self.begun.as_mut().and_then(Arc::get_mut);
        if let Some(disk) = begun.and_then(|begun| begun.disk.as_mut()) {
            disk.origin = Origin::New;
            self.resumable = Resumable::No;
        }
    }

    /// Returns true if the engine was asked for a transfer into a disk.
    #[must_use]
    pub fn is_upload(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.direction == Direction::Upload)
    }

    /// The device starts: from now on, nobody knows what is on the disk until [`end`](Self::end) is
    /// told.
    pub fn set_in_use(&mut self) {
        self.is_in_use = true;
    }

    /// Ends the transfer, and waits until the engine has. If it isn't complete, it is given up, and
    /// a line is logged that says what became of the disk: one that was there before and wasn't
    /// written stays as it is.
    ///
    /// # Errors
    /// The engine doesn't say that a complete disk is good. An upload that was to go on later
    /// can't, as the engine has ended it.
    pub fn end(mut self, content: Content) -> Result<(), Error> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let ended = match content {
            Content::Complete => begun.finish().inspect_err(|error| begun.clear_up_after(error)),
            Content::Untouched | Content::Incomplete => {
                begun.leave(content, self.resumable).map_err(Error::from)
            }
        };
        begun.engine.log_out();
        ended
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            let content = if self.is_in_use { Content::Incomplete } else { Content::Untouched };
            if let Err(error) = begun.leave(content, self.resumable) {
                begun.tell_to_look(&error);
            }
            begun.engine.log_out();
        }
    }
}

impl TicketKeeper for Begun {
    fn bring_back(&self) -> bool {
        // One asks the engine at a time, and those that waited find that the transfer goes on, or
        // that there is no hope.
        let mut resuming = self.resuming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Resuming::GivenUp(_) = *resuming {
            return false;
        }
        let resumed = self.engine.resume_transfer(&self.transfer.id, self.direction);
        match &resumed {
            Ok(true) => log::warn!("the engine had paused transfer {}, which goes on now", self.transfer.id),
            Ok(false) => {}
            Err(error) => {
                let reason = Report::new(error).to_string();
                log::debug!("the ticket can't be brought back: {reason}");
                *resuming = Resuming::GivenUp(reason);
            }
        }
        resumed.unwrap_or(false)
    }

    fn why_lost(&self) -> Option<String> {
        match &*self.resuming.lock().unwrap_or_else(PoisonError::into_inner) {
            Resuming::Possible => None,
            Resuming::GivenUp(reason) => Some(reason.clone()),
        }
    }
}

impl Begun {
    fn finish(&self) -> Result<(), Error> {
        let written = self.disk.as_ref().filter(|_| self.direction == Direction::Upload);
        finalize(&self.engine, &self.transfer.id, self.direction, written.map(|disk| &*disk.id))
    }

    /// Has a transfer wait for somebody who will go on with it, or gives it up. Fails if nobody can
    /// go on with it.
    fn leave(&self, content: Content, resumable: Resumable) -> Result<(), EngineError> {
        match (resumable, content) {
            (Resumable::No, _) | (Resumable::OnceWritten, Content::Untouched) => {
                self.give_up(content);
                return Ok(());
            }
            (Resumable::OnceWritten | Resumable::Yes, _) => {}
        }
        match self.engine.pause_upload(&self.transfer.id) {
            Ok(paused) => log::warn!("{paused} waits to be resumed, and its disk is locked until then"),
            Err(error @ (EngineError::Transfer { .. } | EngineError::Missing { .. })) => return Err(error),
            Err(error) => self.tell_to_look(&error),
        }
        Ok(())
    }

    /// Tells that the transfer isn't where it was to be.
    fn tell_to_look(&self, error: &EngineError) {
        log::error!("{}: see transfer {} in the engine", Report::new(error), self.transfer.id);
    }

    /// Removes a disk that was made for the transfer, if the engine has said that the transfer has
    /// failed: the disk is of no use then. Where it has said nothing, nobody knows, and nothing is
    /// touched.
    fn clear_up_after(&self, error: &Error) {
        use ovirt_engine_client::Error::{Disk, Transfer};
        let has_failed = matches!(error, Error::Engine(Transfer { .. } | Disk { .. }));
        let (transfer, is_upload) = (&self.transfer.id, self.direction == Direction::Upload);
        match &self.disk {
            Some(ItsDisk { id, origin: Origin::New }) if has_failed => remove(&self.engine, id),
            _ if has_failed => self.tell_fate(Content::Incomplete),
            Some(ItsDisk { id, .. }) if is_upload => log::error!(
                "all data is on disk {id}, and nobody knows whether transfer {transfer} has ended: see it in the engine, and don't cancel it"
            ),
            _ => log::error!("nobody knows whether transfer {transfer} has ended: see it in the engine"),
        }
    }

    fn give_up(&self, content: Content) {
        let is_new = self.disk.as_ref().is_some_and(|disk| disk.origin == Origin::New);
        // A cancelled upload takes its disk along: one that has good data on it is finalized.
        let keeps_disk = content == Content::Untouched && !is_new && self.direction == Direction::Upload;
        let transfer = &*self.transfer.id;
        let ended = match keeps_disk {
            true => self.engine.finalize_paused_upload(transfer),
            false => self.engine.end_transfer(transfer, self.direction, End::Incomplete),
        };
        if let Err(error) = &ended {
            self.tell_to_look(error);
        }
        match &self.disk {
            Some(ItsDisk { id, origin: Origin::New }) if is_still_ending(&ended) => {
                log::error!(
                    "disk {id} was made for this: remove it in the engine when the transfer has ended"
                );
            }
            Some(ItsDisk { id, origin: Origin::New }) => remove(&self.engine, id),
            Some(ItsDisk { id, .. }) if keeps_disk && ended.is_ok() => {
                log::warn!("nothing was written to disk {id}, which is as it was");
            }
            Some(ItsDisk { id, .. }) if keeps_disk && !is_over(&ended) => log::error!(
                "nothing was written to disk {id}, which is as it was: finalize transfer {transfer} by the engine's API, as one that is cancelled takes the disk along"
            ),
            _ => self.tell_fate(content),
        }
    }

    /// Logs the state of a disk that was there before.
    fn tell_fate(&self, content: Content) {
        let Some(disk) = &self.disk else { return };
        if self.direction == Direction::Download {
            return;
        }
        match self.engine.disk(&disk.id) {
            Err(error) if error.is_missing() => log::error!("the engine has removed disk {}", disk.id),
            Err(error) => log::error!("{}: look for disk {} in the engine", Report::new(error), disk.id),
            Ok(found) => {
                let status = found.status.unwrap_or(DiskStatus::Ok);
                match content {
                    Content::Untouched => {
                        log::error!("disk {} is {status}, and nothing was written to it", disk.id);
                    }
                    Content::Complete | Content::Incomplete => log::error!(
                        "disk {} is {status}, and its content can't be relied on: write all of it again",
                        disk.id
                    ),
                }
            }
        }
    }
}

/// Returns true if the engine is still about to end the transfer, as it is while it can't reach the
/// host. Until it has ended it, it refuses to remove the disk.
fn is_still_ending<T>(ended: &Result<T, EngineError>) -> bool {
    matches!(ended, Err(EngineError::TimedOut { .. }))
}

/// Returns true if the engine says that the transfer has ended.
fn is_over<T>(ended: &Result<T, EngineError>) -> bool {
    use EngineError::{Disk, Missing, Transfer};
    matches!(ended, Ok(_) | Err(Disk { .. } | Missing { .. } | Transfer { .. }))
}

/// Finalizes a transfer, and waits until the engine says that it ended well.
fn finalize(
    engine: &Engine,
    transfer: &str,
    direction: Direction,
    written: Option<&str>,
) -> Result<(), Error> {
    judge(engine, transfer, engine.end_transfer(transfer, direction, End::Complete)?, written)
}

/// Judges a transfer that has ended: if the engine has forgotten it, a disk that was `written` has
/// to tell.
fn judge(
    engine: &Engine,
    transfer: &str,
    ended: Option<ImageTransfer>,
    written: Option<&str>,
) -> Result<(), Error> {
    match (ended, written) {
        (Some(ended), _) => log::info!("{ended}"),
        (None, Some(disk)) => engine.judge_by_disk(disk)?,
        (None, None) => log::info!("transfer {transfer} has ended"),
    }
    Ok(())
}

/// Finalizes an upload all of whose data is flushed, if that wasn't done before.
pub(crate) fn finalize_interrupted(engine: &Engine, interrupted: &Interrupted) -> Result<(), Error> {
    let Interrupted { transfer, disk, .. } = interrupted;
    judge(engine, transfer, engine.finalize_paused_upload(transfer)?, Some(disk))
}

/// Removes a disk that was made for a transfer which has failed. The engine does so after it has
/// cancelled an upload.
pub(crate) fn remove(engine: &Engine, disk: &str) {
    match engine.remove_unfinished_disk(disk) {
        Ok(()) => log::error!("disk {disk}, which was made for this, has been removed"),
        Err(error) => log::error!("{}: remove disk {disk} in the engine", Report::new(error)),
    }
}
