// SPDX-License-Identifier: MIT OR Apache-2.0
//! The next step with a transfer: one table.
//!
//! The phases and their order are those of the engine's `ImageTransferPhase` and
//! `TransferDiskImageCommand`.

use crate::Direction;
use crate::words::TransferPhase as Phase;

/// The state that a transfer is to be led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Data may flow.
    Use,
    /// Data may flow again, whoever has paused it.
    TakeUp,
    /// It waits until it is taken up.
    Pause,
    /// The engine says that all went well.
    Success,
    /// The engine says that all went well, also where a user has paused it.
    SuccessOfPaused,
    /// It has ended, however.
    End,
}

impl Goal {
    /// Returns the words for the act that an engine has done, or has not, when the goal is reached,
    /// or is not: for errors.
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Use | Self::TakeUp => "made ready transfer",
            Self::Pause => "paused transfer",
            Self::Success | Self::SuccessOfPaused | Self::End => "ended transfer",
        }
    }
}

/// A change that can be asked of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Finalize,
    Cancel,
    Pause,
    Resume,
}

impl Act {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Finalize => "finalize",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// The next step.
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
    use Goal::{End, Pause, Success, SuccessOfPaused, TakeUp, Use};
    match (phase, goal) {
        (Phase::Initializing | Phase::Resuming, Use | TakeUp | Pause | Success | SuccessOfPaused) => {
            Step::Wait
        }
        (Phase::Transferring, Use | TakeUp) => Step::Reached,
        (Phase::Transferring, Pause) => Step::Act(Act::Pause),
        (Phase::Transferring, Success | SuccessOfPaused) => Step::Act(Act::Finalize),
        (Phase::PausedSystem | Phase::PausedUser, Pause) => Step::Reached,
        // Its ticket may have expired.
        (Phase::PausedSystem, Use | TakeUp) | (Phase::PausedUser, TakeUp) => Step::Act(Act::Resume),
        // All data is there, so no ticket is needed any more; and none can be had where the server
        // has lost it.
        (Phase::PausedSystem, Success | SuccessOfPaused) | (Phase::PausedUser, SuccessOfPaused) => {
            Step::Act(Act::Finalize)
        }
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

        (Phase::FinalizingSuccess, Success | SuccessOfPaused | End) => Step::Wait,
        (Phase::FinishedSuccess, Success | SuccessOfPaused | End) => Step::Reached,

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
            Use | TakeUp | Pause | Success | SuccessOfPaused,
        ) => Step::Fail,

        (Phase::Other(_), _) => Step::Wait,
    }
}

/// A cancelled upload takes its disk along, as nobody knows what is on it. A download harms no
/// disk: it is finalized, as `ovirt_imageio/client/_api.py` does.
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
                for goal in [Goal::Success, Goal::SuccessOfPaused] {
                    let is_success = step(goal, direction, &phase) == Step::Reached;
                    assert_eq!(is_success, phase == Phase::FinishedSuccess, "{goal:?} {phase}");
                }
                let is_usable = step(Goal::Use, direction, &phase) == Step::Reached;
                assert_eq!(is_usable, phase == Phase::Transferring, "{phase}");
                assert_eq!(step(Goal::TakeUp, direction, &phase) == Step::Reached, is_usable, "{phase}");
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
            (Goal::SuccessOfPaused, Direction::Upload),
            (Goal::End, Direction::Download),
        ] {
            let steps = PHASES.iter().map(|phase| step(goal, direction, phase));
            assert!(!steps.into_iter().any(|step| step == Step::Act(Act::Cancel)), "{goal:?} {direction:?}");
        }
        assert_eq!(step(Goal::End, Direction::Upload, &Phase::Transferring), Step::Act(Act::Cancel));
    }

    #[test]
    fn what_is_paused_goes_on_only_if_somebody_takes_it_up() {
        let upload = |goal, phase| step(goal, Direction::Upload, &phase);
        for phase in PHASES {
            let is_paused = upload(Goal::Pause, phase.clone()) == Step::Reached;
            assert_eq!(is_paused, phase.is_paused(), "{phase}");
            if is_paused {
                assert_eq!(upload(Goal::TakeUp, phase.clone()), Step::Act(Act::Resume));
                assert_eq!(upload(Goal::SuccessOfPaused, phase), Step::Act(Act::Finalize));
            }
        }
        assert_eq!(upload(Goal::Use, Phase::PausedUser), Step::Wait);
        assert_eq!(upload(Goal::Success, Phase::PausedUser), Step::Wait);
        assert_eq!(upload(Goal::Success, Phase::PausedSystem), Step::Act(Act::Finalize));
        assert_eq!(upload(Goal::Pause, Phase::FinishedSuccess), Step::Fail);
    }

    #[test]
    fn unknown_phases_are_waited_for() {
        let phase = Phase::from("pondering".to_owned());
        assert_eq!(step(Goal::Success, Direction::Upload, &phase), Step::Wait);
    }
}
