// SPDX-License-Identifier: MIT OR Apache-2.0
//! The phases of a transfer, and what leads from one to another: two tables
//! (`TransferDiskImageCommand`, `TransferImageStatusCommand` of ovirt-engine).

use super::Refusal;

/// The phase of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The host is being prepared.
    Initializing,
    /// Data can be moved.
    Transferring,
    /// It was paused, and is going on.
    Resuming,
    /// The engine has paused it.
    PausedSystem,
    /// A user has paused it.
    PausedUser,
    /// The engine has cancelled it.
    CancelledSystem,
    /// A user has cancelled it.
    CancelledUser,
    /// A user has finalized it.
    FinalizingSuccess,
    /// It has failed, and is cleaned up.
    FinalizingFailure,
    /// It was cancelled, and is cleaned up.
    FinalizingCleanup,
    /// It was cancelled, and is almost over.
    FinishedCleanup,
    /// All is well.
    FinishedSuccess,
    /// Nothing came of it.
    FinishedFailure,
}

/// The direction in which the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the disk.
    Upload,
    /// From the disk.
    Download,
}

/// The treatment of a transfer that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutPolicy {
    /// Uploads are paused, downloads are cancelled.
    Legacy,
    /// It is paused.
    Pause,
    /// It is cancelled.
    Cancel,
}

/// A user's action on a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Finalize,
    Cancel,
    Pause,
    Resume,
    /// It only shows that somebody is there.
    Extend,
}

/// The step that a phase needs in order to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A user.
    Stay,
    /// Time.
    Go(Phase),
    /// The host has to serve the image.
    Open,
    /// The host's ticket has to live on, if there is one.
    Renew,
    /// The host has to be asked now and then.
    Watch,
    /// The host has to stop.
    Close,
}

impl Phase {
    /// Returns the word that the API has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Transferring => "transferring",
            Self::Resuming => "resuming",
            Self::PausedSystem => "paused_system",
            Self::PausedUser => "paused_user",
            Self::CancelledSystem => "cancelled_system",
            Self::CancelledUser => "cancelled_user",
            Self::FinalizingSuccess => "finalizing_success",
            Self::FinalizingFailure => "finalizing_failure",
            Self::FinalizingCleanup => "finalizing_cleanup",
            Self::FinishedCleanup => "finished_cleanup",
            Self::FinishedSuccess => "finished_success",
            Self::FinishedFailure => "finished_failure",
        }
    }

    /// Returns true if the transfer is over.
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::FinishedSuccess | Self::FinishedFailure)
    }

    fn is_paused(self) -> bool {
        matches!(self, Self::PausedSystem | Self::PausedUser)
    }

    pub(super) fn step(self) -> Step {
        match self {
            Self::Initializing => Step::Open,
            Self::Resuming => Step::Renew,
            Self::Transferring => Step::Watch,
            Self::PausedSystem | Self::PausedUser => Step::Stay,
            Self::CancelledSystem => Step::Go(Self::FinalizingFailure),
            Self::CancelledUser => Step::Go(Self::FinalizingCleanup),
            Self::FinalizingSuccess | Self::FinalizingFailure | Self::FinalizingCleanup => Step::Close,
            Self::FinishedCleanup => Step::Go(Self::FinishedFailure),
            Self::FinishedSuccess | Self::FinishedFailure => Step::Stay,
        }
    }

    /// Returns the phase that follows when its host has closed the image, and found it good.
    pub(super) fn closed(self) -> Self {
        match self {
            Self::FinalizingSuccess => Self::FinishedSuccess,
            Self::FinalizingCleanup => Self::FinishedCleanup,
            _ => Self::FinishedFailure,
        }
    }

    /// Returns the phase to which a user's action leads: wherever it is, but that only what is
    /// paused is resumed, and only uploads are paused.
    pub(super) fn asked(self, action: Action, direction: Direction) -> Result<Self, Refusal> {
        match action {
            Action::Resume if !self.is_paused() => {
                Err(Refusal::conflict("Cannot resume image transfer. The transfer isn't paused"))
            }
            Action::Pause if direction == Direction::Download => {
                Err(Refusal::conflict("Cannot pause image download. Downloads can't be paused"))
            }
            Action::Finalize => Ok(Self::FinalizingSuccess),
            Action::Cancel => Ok(Self::CancelledUser),
            Action::Pause => Ok(Self::PausedUser),
            Action::Resume => Ok(Self::Resuming),
            Action::Extend => Ok(self),
        }
    }
}

impl Direction {
    /// Returns the word that the API has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        match text.to_ascii_lowercase().as_str() {
            "upload" => Ok(Self::Upload),
            "download" => Ok(Self::Download),
            _ => Err(Refusal::bad_request(format!("direction {text}: upload or download is expected"))),
        }
    }
}

impl TimeoutPolicy {
    /// Returns the word that the API has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Pause => "pause",
            Self::Cancel => "cancel",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        match text.to_ascii_lowercase().as_str() {
            "legacy" => Ok(Self::Legacy),
            "pause" => Ok(Self::Pause),
            "cancel" => Ok(Self::Cancel),
            _ => Err(Refusal::bad_request(format!(
                "timeout_policy {text}: legacy, pause or cancel is expected"
            ))),
        }
    }

    /// Returns the phase of a transfer that nobody uses.
    pub(super) fn idle(self, direction: Direction) -> Phase {
        match (self, direction) {
            (Self::Pause, _) | (Self::Legacy, Direction::Upload) => Phase::PausedSystem,
            (Self::Cancel, _) | (Self::Legacy, Direction::Download) => Phase::CancelledSystem,
        }
    }
}

impl Action {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "finalize" => Some(Self::Finalize),
            "cancel" => Some(Self::Cancel),
            "pause" => Some(Self::Pause),
            "resume" => Some(Self::Resume),
            "extend" => Some(Self::Extend),
            _ => None,
        }
    }
}
