// SPDX-License-Identifier: MIT OR Apache-2.0
//! What to do next with a transfer: one table.
//!
//! The phases and their order are those of the engine's `ImageTransferPhase` and `TransferDiskImageCommand`.

use crate::Direction;
use crate::words::TransferPhase as Phase;

/// Where a transfer is to be led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Data may flow.
    Use,
    /// The engine says that all went well.
    Success,
    /// It has ended, however.
    End,
}

impl Goal {
    /// What the engine has or has not done, in an error.
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Use => "made ready transfer",
            Self::Success | Self::End => "ended transfer",
        }
    }
}

/// What can be asked of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Finalize,
    Cancel,
    Resume,
}

impl Act {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Finalize => "finalize",
            Self::Cancel => "cancel",
            Self::Resume => "resume",
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The goal is reached.
    Reached,
    /// The engine is busy: look again.
    Wait,
    /// Ask for this, and look again.
    Act(Act),
    /// The goal can't be reached any more.
    Fail,
}

/// The table. A phase that isn't known is waited for, as a newer engine may have more of them.
pub(crate) fn step(goal: Goal, direction: Direction, phase: &Phase) -> Step {
    use Goal::{End, Success, Use};
    match (phase, goal) {
        (Phase::Initializing | Phase::Resuming, Use | Success) => Step::Wait,
        (Phase::Transferring, Use) => Step::Reached,
        (Phase::Transferring, Success) => Step::Act(Act::Finalize),
        // Its ticket may have expired; and what is to end well should be in order before.
        (Phase::PausedSystem, Use | Success) => Step::Act(Act::Resume),
        // Somebody had a reason, and knows how to undo it.
        (Phase::PausedUser, Use | Success) => Step::Wait,

        (
            Phase::Initializing
            | Phase::Resuming
            | Phase::Transferring
            | Phase::PausedSystem
            | Phase::PausedUser,
            End,
        ) => Step::Act(give_up(direction)),

        (Phase::FinalizingSuccess, Success | End) => Step::Wait,
        (Phase::FinishedSuccess, Success | End) => Step::Reached,

        (
            Phase::CancelledSystem
            | Phase::CancelledUser
            | Phase::Cancelled
            | Phase::FinalizingFailure
            | Phase::FinalizingCleanup,
            End,
        ) => Step::Wait,
        (Phase::FinishedFailure | Phase::FinishedCleanup, End) => Step::Reached,

        (
            Phase::FinalizingSuccess
            | Phase::FinishedSuccess
            | Phase::CancelledSystem
            | Phase::CancelledUser
            | Phase::Cancelled
            | Phase::FinalizingFailure
            | Phase::FinalizingCleanup
            | Phase::FinishedFailure
            | Phase::FinishedCleanup,
            Use | Success,
        ) => Step::Fail,

        (Phase::Other(_), _) => Step::Wait,
    }
}

/// A cancelled upload takes its disk along, as nobody knows what is on it. A download harms no disk: it is finalized, as
/// `ovirt_imageio/client/_api.py` does.
fn give_up(direction: Direction) -> Act {
    match direction {
        Direction::Upload => Act::Cancel,
        Direction::Download => Act::Finalize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 14] = [
        Phase::Initializing,
        Phase::Transferring,
        Phase::Resuming,
        Phase::PausedSystem,
        Phase::PausedUser,
        Phase::CancelledSystem,
        Phase::CancelledUser,
        Phase::Cancelled,
        Phase::FinalizingSuccess,
        Phase::FinalizingFailure,
        Phase::FinalizingCleanup,
        Phase::FinishedSuccess,
        Phase::FinishedFailure,
        Phase::FinishedCleanup,
    ];

    #[test]
    fn nothing_but_the_engine_s_word_is_success() {
        for direction in [Direction::Upload, Direction::Download] {
            for phase in PHASES {
                let is_success = step(Goal::Success, direction, &phase) == Step::Reached;
                assert_eq!(is_success, phase == Phase::FinishedSuccess, "{phase}");
                let is_usable = step(Goal::Use, direction, &phase) == Step::Reached;
                assert_eq!(is_usable, phase == Phase::Transferring, "{phase}");
            }
        }
    }

    #[test]
    fn every_transfer_can_be_ended() {
        for phase in PHASES {
            assert_ne!(step(Goal::End, Direction::Upload, &phase), Step::Fail, "{phase}");
        }
    }

    #[test]
    fn only_what_nobody_needs_is_cancelled() {
        for (goal, direction) in [
            (Goal::Use, Direction::Upload),
            (Goal::Success, Direction::Upload),
            (Goal::End, Direction::Download),
        ] {
            let steps = PHASES.iter().map(|phase| step(goal, direction, phase));
            assert!(!steps.into_iter().any(|step| step == Step::Act(Act::Cancel)), "{goal:?} {direction:?}");
        }
        assert_eq!(step(Goal::End, Direction::Upload, &Phase::Transferring), Step::Act(Act::Cancel));
    }

    #[test]
    fn unknown_phases_are_waited_for() {
        let phase = Phase::from("pondering".to_owned());
        assert_eq!(step(Goal::Success, Direction::Upload, &phase), Step::Wait);
    }
}
