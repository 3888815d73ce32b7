// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transfers: their phases, their disks, and their tickets.

use std::time::Duration;

use super::super::phase::Step;
use super::super::*;
use super::{DELAY, World, status_of};

const ALL_PHASES: [Phase; 13] = [
    Phase::Initializing,
    Phase::Transferring,
    Phase::Resuming,
    Phase::PausedSystem,
    Phase::PausedUser,
    Phase::CancelledSystem,
    Phase::CancelledUser,
    Phase::FinalizingSuccess,
    Phase::FinalizingFailure,
    Phase::FinalizingCleanup,
    Phase::FinishedCleanup,
    Phase::FinishedSuccess,
    Phase::FinishedFailure,
];

#[test]
fn a_disk_is_good_before_its_upload_is_over_and_free_afterwards() {
    let mut world = World::new(OldEngine::default());
    let (disk, transfer) = world.upload();
    assert_eq!(world.status(&disk), DiskStatus::Locked);
    assert!(world.state.transfer(&transfer).unwrap().has_ticket);
    world.act(&transfer, Action::Finalize).unwrap();
    assert_eq!(world.pass(DELAY), [Task::CloseTransfer(transfer.clone())]);
    assert_eq!((world.phase(&transfer), world.status(&disk)), (Phase::FinalizingSuccess, DiskStatus::Ok));
    assert!(!world.state.transfer(&transfer).unwrap().has_ticket);
    assert_eq!(status_of(world.new_transfer(&disk, |_| {})), 409, "the lock stays");
    world.pass(DELAY);
    assert_eq!(world.phase(&transfer), Phase::FinishedSuccess);
    assert_eq!(status_of(world.new_transfer(&disk, |_| {})), 200);
    world.now += Duration::from_secs(15 * 60);
    world.settle();
    assert_eq!(status_of(world.state.transfer(&transfer)), 404, "after a while it is forgotten");
}

#[test]
fn what_an_upload_leaves_behind_is_illegal_and_then_gone() {
    use Phase::{
        CancelledUser, FinalizingCleanup, FinalizingFailure, FinalizingSuccess, FinishedCleanup,
        FinishedFailure, Initializing, PausedSystem,
    };
    let cancelled = [CancelledUser, FinalizingCleanup, FinishedCleanup, FinishedFailure];
    let mut world = World::new(OldEngine::default());
    let (disk, transfer) = world.upload();
    world.act(&transfer, Action::Cancel).unwrap();
    world.pass(DELAY);
    world.pass(DELAY);
    assert_eq!(world.status(&disk), DiskStatus::Illegal);
    assert_eq!(world.phases(&transfer)[..], cancelled[1..]);
    assert!(world.state.disks.is_empty());

    let (_, transfer) = world.upload();
    world.state.bad_images = 1;
    world.act(&transfer, Action::Finalize).unwrap();
    assert_eq!(world.phases(&transfer), [FinalizingSuccess, FinalizingFailure, FinishedFailure]);
    assert!(world.state.disks.is_empty() && world.state.bad_images == 0);

    let disk = world.disk(DiskFormat::Raw);
    world.opens = false;
    let transfer = world.new_transfer(&disk, |_| {}).unwrap();
    assert_eq!(world.phases(&transfer), [Initializing, PausedSystem], "its user decides");
}

#[test]
fn a_download_that_no_host_begins_is_cancelled() {
    use Phase::{CancelledSystem, FinalizingFailure, FinishedFailure, Initializing};
    let mut world = World::new(OldEngine::default());
    let disk = world.disk(DiskFormat::Raw);
    world.opens = false;
    let transfer = world.new_transfer(&disk, |new| new.direction = Direction::Download).unwrap();
    let failed = [Initializing, CancelledSystem, FinalizingFailure, FinishedFailure];
    assert_eq!(world.phases(&transfer), failed);
    assert_eq!(world.status(&disk), DiskStatus::Ok);
}

#[test]
fn a_download_leaves_its_disk_as_it_was() {
    for action in [Action::Finalize, Action::Cancel] {
        let mut world = World::new(OldEngine::default());
        let disk = world.disk(DiskFormat::Cow);
        let transfer = world.new_transfer(&disk, |new| new.direction = Direction::Download).unwrap();
        world.pass(DELAY);
        assert_eq!(status_of(world.act(&transfer, Action::Pause)), 409);
        world.act(&transfer, action).unwrap();
        world.phases(&transfer);
        assert!(world.phase(&transfer).is_finished());
        assert_eq!(world.status(&disk), DiskStatus::Ok);
        assert_eq!(world.state.disk(&disk).unwrap().lock, None);
    }
}

#[test]
fn what_becomes_of_an_idle_transfer_is_its_policy() {
    use Direction::{Download, Upload};
    use TimeoutPolicy::{Cancel, Legacy, Pause};
    for (policy, direction, expected) in [
        (None, Upload, Phase::PausedSystem),
        (None, Download, Phase::CancelledSystem),
        (Some(Legacy), Upload, Phase::PausedSystem),
        (Some(Pause), Upload, Phase::PausedSystem),
        (Some(Pause), Download, Phase::PausedSystem),
        (Some(Cancel), Upload, Phase::CancelledSystem),
        (Some(Cancel), Download, Phase::CancelledSystem),
    ] {
        let mut world = World::new(OldEngine::default());
        let disk = world.disk(DiskFormat::Raw);
        let choose = |new: &mut NewTransfer| {
            (new.timeout_policy, new.direction, new.inactivity_timeout) = (policy, direction, Some(10));
        };
        let transfer = world.new_transfer(&disk, choose).unwrap();
        world.pass(DELAY);
        let idle =
            |seconds| Some(TicketStatus { idle: Duration::from_secs(seconds), ..TicketStatus::default() });
        world.ticket = Some(TicketStatus { active: true, ..idle(100).unwrap() });
        world.pass(Duration::from_secs(100));
        world.ticket = idle(10);
        world.pass(DELAY);
        assert_eq!(world.phase(&transfer), Phase::Transferring, "{policy:?} {direction:?}");
        world.ticket = idle(11);
        world.act(&transfer, Action::Extend).unwrap();
        world.pass(DELAY);
        assert_eq!(world.phase(&transfer), Phase::Transferring, "somebody is there");
        world.pass(Duration::from_secs(11));
        assert_eq!(world.phase(&transfer), expected, "{policy:?} {direction:?}");
    }
}

#[test]
fn without_a_timeout_a_transfer_may_be_idle_forever() {
    let mut world = World::new(OldEngine::default());
    let disk = world.disk(DiskFormat::Raw);
    let transfer = world.new_transfer(&disk, |new| new.inactivity_timeout = Some(0)).unwrap();
    world.pass(DELAY);
    world.ticket = Some(TicketStatus { idle: Duration::from_secs(100_000), ..TicketStatus::default() });
    world.pass(Duration::from_secs(100_000));
    assert_eq!(world.phase(&transfer), Phase::Transferring);
}

#[test]
fn a_paused_transfer_goes_on_with_the_same_ticket() {
    let mut world = World::new(OldEngine::default());
    let (disk, transfer) = world.upload();
    let ticket = world.state.transfer(&transfer).unwrap().ticket.clone();
    assert_eq!(status_of(world.act(&transfer, Action::Resume)), 409);
    for action in [Some(Action::Pause), None] {
        match action {
            Some(action) => world.act(&transfer, action).unwrap(),
            None => world.state.enter(&transfer, Phase::PausedSystem, world.now),
        }
        assert_eq!(world.pass(Duration::from_secs(1000)), [], "nothing is done to it");
        assert_eq!(world.status(&disk), DiskStatus::Locked);
        world.act(&transfer, Action::Resume).unwrap();
        assert_eq!(world.phase(&transfer), Phase::Resuming);
        assert_eq!(world.pass(DELAY), [Task::RenewTicket(transfer.clone())]);
        assert_eq!(world.phase(&transfer), Phase::Transferring);
    }
    assert_eq!(world.state.transfer(&transfer).unwrap().ticket, ticket);
}

#[test]
fn a_ticket_that_the_host_has_lost_is_not_made_anew() {
    let mut world = World::new(OldEngine::default());
    let (_, transfer) = world.upload();
    world.state.enter(&transfer, Phase::PausedSystem, world.now);
    world.ticket = None;
    world.act(&transfer, Action::Resume).unwrap();
    assert_eq!(world.pass(DELAY), [Task::RenewTicket(transfer.clone())]);
    assert_eq!(world.phase(&transfer), Phase::Transferring, "it is found out later");
    assert_eq!(world.pass(Duration::from_secs(1)), [Task::WatchTransfer(transfer.clone())]);
    assert_eq!(world.phase(&transfer), Phase::PausedSystem);
}

#[test]
fn a_ticket_that_the_host_has_lost_stops_its_transfer() {
    let mut world = World::new(OldEngine::default());
    let (_, transfer) = world.upload();
    world.ticket = None;
    world.pass(DELAY);
    assert_eq!(world.phase(&transfer), Phase::PausedSystem);
}

#[test]
fn a_ticket_in_use_holds_the_end_of_its_transfer_up() {
    let mut world = World::new(OldEngine::default());
    let (_, transfer) = world.upload();
    world.closed = Closed::InUse;
    world.act(&transfer, Action::Finalize).unwrap();
    assert_eq!(world.phases(&transfer), [Phase::FinalizingSuccess]);
    world.closed = Closed::Good;
    assert_eq!(world.phases(&transfer), [Phase::FinalizingSuccess, Phase::FinishedSuccess]);
}

#[test]
fn actions_on_what_is_over_or_was_never_there_are_no_errors() {
    use Action::{Cancel, Extend, Finalize, Pause};
    let mut world = World::new(OldEngine::default());
    let (disk, transfer) = world.upload();
    for action in [Cancel, Extend, Finalize, Pause, Action::Resume] {
        assert_eq!(status_of(world.act("none", action)), 200, "{action:?}");
    }
    world.act(&transfer, Finalize).unwrap();
    world.phases(&transfer);
    assert_eq!(status_of(world.act(&transfer, Action::Resume)), 409);
    for (action, told) in [
        (Extend, Phase::FinishedSuccess),
        (Finalize, Phase::FinalizingSuccess),
        (Cancel, Phase::CancelledUser),
        (Pause, Phase::PausedUser),
    ] {
        assert_eq!(status_of(world.act(&transfer, action)), 200, "{action:?}");
        assert_eq!(world.phases(&transfer), [told], "nobody looks at it any more");
        assert_eq!(
            (world.status(&disk), world.state.transfer(&transfer).unwrap().is_over()),
            (DiskStatus::Ok, true)
        );
    }
    assert_eq!(status_of(world.new_transfer(&disk, |_| {})), 200, "the disk is free");
}

#[test]
fn the_last_action_counts_until_a_transfer_is_over() {
    let mut world = World::new(OldEngine::default());
    let (_, transfer) = world.upload();
    world.act(&transfer, Action::Finalize).unwrap();
    world.pass(DELAY);
    world.act(&transfer, Action::Cancel).unwrap();
    assert_eq!(world.phases(&transfer).last(), Some(&Phase::FinishedFailure));
    assert!(world.state.disks.is_empty());
}

#[test]
fn every_phase_ends_or_waits_for_a_user() {
    for phase in ALL_PHASES {
        let waits = matches!(phase, Phase::PausedSystem | Phase::PausedUser | Phase::Transferring);
        let stays = matches!(phase.step(), Step::Stay | Step::Watch);
        assert_eq!(stays, waits || phase.is_finished(), "{phase:?}");
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut world = World::new(OldEngine::default());
    let disk = world.disk(DiskFormat::Raw);
    for (choose, expected) in [
        ((|new| new.disk = None) as fn(&mut NewTransfer), 400),
        (|new| new.disk = Some("none".to_owned()), 409),
        (|new| new.snapshot = Some("both".to_owned()), 400),
        (|new| (new.disk, new.snapshot) = (None, Some("upload".to_owned())), 400),
        (|new| new.host = Some("none".to_owned()), 409),
        (|new| new.backup = Some("none".to_owned()), 409),
    ] {
        assert_eq!(status_of(world.new_transfer(&disk, choose)), expected);
    }
    assert_eq!(world.status(&disk), DiskStatus::Ok, "it isn't locked by what was refused");
    world.state.hosts[0].status = HostStatus::Down;
    assert_eq!(status_of(world.new_transfer(&disk, |_| {})), 409);
}

#[test]
fn old_engines_forget_at_once_and_know_no_policy() {
    let old =
        OldEngine { removes_finished_transfers: true, refuses_timeout_policy: true, ..OldEngine::default() };
    let mut world = World::new(old);
    let (disk, transfer) = world.upload();
    world.act(&transfer, Action::Finalize).unwrap();
    world.pass(DELAY);
    world.pass(DELAY);
    assert_eq!(status_of(world.state.transfer(&transfer)), 404);
    assert_eq!(world.status(&disk), DiskStatus::Ok);
    let refused = world.new_transfer(&disk, |new| new.timeout_policy = Some(TimeoutPolicy::Cancel));
    assert_eq!(status_of(refused), 400);
    assert_eq!(status_of(world.new_transfer(&disk, |_| {})), 200);
}
