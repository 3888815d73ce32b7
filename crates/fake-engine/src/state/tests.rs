// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state under a clock that the tests hold, with tasks that succeed unless a test says
//! otherwise.

mod transfers;

use std::time::{Duration, Instant};

use super::*;

const DELAY: Duration = Duration::from_secs(1);

struct World {
    state: State,
    now: Instant,
    ticket: Option<TicketStatus>,
    opens: bool,
    closed: Closed,
}

impl World {
    fn new(old: OldEngine) -> Self {
        let now = Instant::now();
        let delays = Delays { disk: DELAY, transfer: DELAY, backup: DELAY, job: DELAY };
        let mut state = State::new(delays, old, now);
        let id = |text: &str| text.to_owned();
        state.clusters.push(Cluster { id: id("cluster"), name: id("c"), data_center: id("dc") });
        state.storage_domains.push(StorageDomain {
            id: id("sd"),
            name: id("data"),
            data_center: Some(id("dc")),
        });
        state.hosts.push(Host {
            id: id("host"),
            name: id("h"),
            address: id("::1"),
            hardware_id: id("hw"),
            status: HostStatus::Up,
            cluster: id("cluster"),
        });
        state.vms.push(Vm {
            id: id("vm"),
            name: id("v"),
            cluster: id("cluster"),
            disks: vec![],
            inactive_disks: vec![],
            configuration: id("ovf"),
        });
        Self { state, now, ticket: Some(TicketStatus::default()), opens: true, closed: Closed::Good }
    }

    /// Does all that is due, and tells what it was.
    fn settle(&mut self) -> Vec<Task> {
        let mut done = Vec::new();
        while let Some(task) = self.state.due(self.now) {
            match &task {
                Task::CreateDisk(id) => self.state.disk_created(id, self.opens),
                Task::RemoveDisk(_) => {}
                Task::OpenTransfer(id) => self.state.transfer_opened(id, self.opens, self.now),
                Task::RenewTicket(id) => self.state.ticket_renewed(id, self.now),
                Task::WatchTransfer(id) => self.state.transfer_watched(id, self.ticket, self.now),
                Task::CloseTransfer(id) => self.state.transfer_closed(id, self.closed, self.now),
                Task::StartBackup(id) => self.state.backup_started(id, self.opens, self.now),
                Task::EndBackup(id) => self.state.backup_ended(id, self.now),
            }
            done.push(task);
        }
        done
    }

    fn pass(&mut self, time: Duration) -> Vec<Task> {
        self.now += time;
        self.settle()
    }

    fn new_disk(&mut self, format: DiskFormat) -> Result<Id, Refusal> {
        let new = NewDisk {
            id: None,
            name: "disk".to_owned(),
            description: None,
            format,
            content_type: ContentType::Data,
            provisioned_size: 1 << 20,
            initial_size: None,
            sparse: true,
            incremental_backup: format == DiskFormat::Cow,
            shareable: false,
            storage_domain: "data".to_owned(),
        };
        self.state.add_disk(new, self.now)
    }

    fn disk(&mut self, format: DiskFormat) -> Id {
        let id = self.new_disk(format).unwrap();
        self.pass(DELAY);
        id
    }

    fn new_transfer(&mut self, disk: &str, choose: impl FnOnce(&mut NewTransfer)) -> Result<Id, Refusal> {
        let mut new = NewTransfer {
            disk: Some(disk.to_owned()),
            snapshot: None,
            backup: None,
            host: None,
            direction: Direction::Upload,
            format: None,
            shallow: false,
            inactivity_timeout: None,
            timeout_policy: None,
        };
        choose(&mut new);
        self.state.add_transfer(new, self.now)
    }

    fn upload(&mut self) -> (Id, Id) {
        let disk = self.disk(DiskFormat::Raw);
        let transfer = self.new_transfer(&disk, |_| {}).unwrap();
        self.pass(DELAY);
        assert_eq!(self.phase(&transfer), Phase::Transferring);
        (disk, transfer)
    }

    fn act(&mut self, transfer: &str, action: Action) -> Result<(), Refusal> {
        self.state.act(transfer, action, self.now)
    }

    fn phase(&self, transfer: &str) -> Phase {
        self.state.transfer(transfer).unwrap().phase
    }

    fn status(&self, disk: &str) -> DiskStatus {
        self.state.disk(disk).unwrap().status
    }

    /// The phases that it passes through by itself, one delay after the other.
    fn phases(&mut self, transfer: &str) -> Vec<Phase> {
        let mut phases = vec![self.phase(transfer)];
        for _ in 0..10 {
            self.pass(DELAY);
            let phase = self.phase(transfer);
            if phases.last() != Some(&phase) {
                phases.push(phase);
            }
        }
        phases
    }

    fn backup(&mut self, disks: &[&Id], from_checkpoint: Option<&Id>) -> Result<Id, Refusal> {
        let new = NewBackup {
            id: None,
            vm: "vm".to_owned(),
            description: None,
            disks: disks.iter().map(|&disk| disk.clone()).collect(),
            from_checkpoint: from_checkpoint.cloned(),
        };
        self.state.add_backup(new, self.now)
    }

    fn whole_backup(&mut self, disk: &Id, from_checkpoint: Option<&Id>) -> Backup {
        let backup = self.backup(&[disk], from_checkpoint).unwrap();
        self.pass(DELAY);
        self.pass(DELAY);
        self.state.finalize_backup("vm", &backup, self.now).unwrap();
        self.pass(DELAY);
        self.state.backup("vm", &backup).unwrap().clone()
    }
}

fn status_of<T>(result: Result<T, Refusal>) -> u16 {
    result.map_or_else(|refusal| refusal.status, |_| 200)
}

#[test]
fn a_disk_is_locked_while_it_is_made_and_removed() {
    let mut world = World::new(OldEngine::default());
    let disk = world.new_disk(DiskFormat::Raw).unwrap();
    assert_eq!(world.settle(), []);
    assert_eq!(world.status(&disk), DiskStatus::Locked);
    assert_eq!(status_of(world.state.remove_disk(&disk, world.now)), 409);
    assert_eq!(status_of(world.new_transfer(&disk, |_| {})), 409);
    assert_eq!(world.pass(DELAY), [Task::CreateDisk(disk.clone())]);
    assert_eq!(world.status(&disk), DiskStatus::Ok);
    world.state.attach_disk("vm", &disk).unwrap();
    world.state.remove_disk(&disk, world.now).unwrap();
    assert_eq!(world.status(&disk), DiskStatus::Locked);
    assert!(matches!(world.pass(DELAY)[..], [Task::RemoveDisk(_)]));
    assert!(world.state.disks.is_empty() && world.state.vms[0].disks.is_empty());
    world.opens = false;
    let disk = world.disk(DiskFormat::Raw);
    assert_eq!(world.status(&disk), DiskStatus::Illegal);
}

#[test]
fn a_backup_has_its_disks_for_itself_and_leaves_a_checkpoint() {
    let mut world = World::new(OldEngine::default());
    let (disk, raw) = (world.disk(DiskFormat::Cow), world.disk(DiskFormat::Raw));
    assert_eq!(status_of(world.backup(&[&disk], None)), 409, "it isn't attached");
    world.state.attach_disk("vm", &disk).unwrap();
    world.state.attach_disk("vm", &raw).unwrap();
    let backup = world.backup(&[&disk, &raw], None).unwrap();
    assert_eq!(status_of(world.backup(&[&disk], None)), 409, "one at a time");
    assert_eq!(status_of(world.state.finalize_backup("vm", &backup, world.now)), 409, "it isn't ready");
    assert_eq!((world.pass(DELAY), world.pass(DELAY)), (vec![], vec![Task::StartBackup(backup.clone())]));
    assert_eq!(world.state.backup("vm", &backup).unwrap().phase, BackupPhase::Ready);

    assert_eq!(status_of(world.new_transfer(&disk, |new| new.direction = Direction::Download)), 409);
    let of_backup = |format| {
        let backup = backup.clone();
        move |new: &mut NewTransfer| {
            (new.backup, new.direction, new.format) = (Some(backup), Direction::Download, Some(format));
        }
    };
    assert_eq!(status_of(world.new_transfer(&disk, of_backup(DiskFormat::Cow))), 409);
    let transfer = world.new_transfer(&disk, of_backup(DiskFormat::Raw)).unwrap();
    assert_eq!(status_of(world.new_transfer(&disk, of_backup(DiskFormat::Raw))), 409);
    assert_eq!(status_of(world.state.finalize_backup("vm", &backup, world.now)), 409, "a transfer runs");
    world.act(&transfer, Action::Finalize).unwrap();
    world.phases(&transfer);
    world.state.finalize_backup("vm", &backup, world.now).unwrap();
    assert_eq!(world.pass(DELAY), [Task::EndBackup(backup.clone())]);
    assert_eq!(status_of(world.new_transfer(&raw, |_| {})), 200, "the disks are free");

    let checkpoint = &world.state.checkpoints[0];
    assert_eq!(checkpoint.disks, [disk]);
    assert_eq!(world.state.backup("vm", &backup).unwrap().to_checkpoint.as_ref(), Some(&checkpoint.id));
}

#[test]
fn checkpoints_follow_each_other_and_the_oldest_goes_first() {
    let mut world = World::new(OldEngine::default());
    let disk = world.disk(DiskFormat::Cow);
    world.state.attach_disk("vm", &disk).unwrap();
    let mut last = None;
    for expected in [BackupMode::Full, BackupMode::Incremental, BackupMode::Incremental] {
        let backup = world.whole_backup(&disk, last.as_ref());
        assert_eq!((backup.phase, backup.disks[0].mode), (BackupPhase::Succeeded, expected));
        last = backup.to_checkpoint;
    }
    let ids: Vec<_> = world.state.checkpoints.iter().map(|checkpoint| checkpoint.id.clone()).collect();
    let parents: Vec<_> =
        world.state.checkpoints.iter().map(|checkpoint| checkpoint.parent.clone()).collect();
    assert_eq!(parents, [None, Some(ids[0].clone()), Some(ids[1].clone())]);
    assert_eq!(world.state.checkpoints_since(&ids[1], &disk), ids[1..]);
    assert_eq!(status_of(world.state.remove_checkpoint("vm", &ids[1])), 409);
    assert_eq!(status_of(world.state.remove_checkpoint("vm", "none")), 404);
    assert_eq!(status_of(world.state.remove_checkpoint("vm", &ids[0])), 200);
    assert_eq!(world.state.checkpoints[0].parent, None);
    assert_eq!(status_of(world.backup(&[&disk], Some(&ids[0]))), 409);
}

#[test]
fn an_inactive_disk_is_refused_and_a_shareable_one_left_out() {
    let mut world = World::new(OldEngine::default());
    let (disk, other) = (world.disk(DiskFormat::Cow), world.disk(DiskFormat::Cow));
    world.state.attach_disk("vm", &disk).unwrap();
    world.state.attach_disk("vm", &other).unwrap();
    world.state.set_disk_active("vm", &other, false).unwrap();
    let refused = world.backup(&[&disk, &other], None).unwrap_err();
    assert!(refused.status == 409 && refused.detail.contains(&other), "{refused:?}");
    world.state.set_disk_active("vm", &other, true).unwrap();
    world.state.disk_mut(&other).unwrap().shareable = true;
    let backup = world.backup(&[&disk, &other], None).unwrap();
    let disks = &world.state.backup("vm", &backup).unwrap().disks;
    assert_eq!(disks.iter().map(|part| &part.disk).collect::<Vec<_>>(), [&disk]);
    assert_eq!(status_of(world.state.set_disk_active("vm", "none", false)), 404);
}

#[test]
fn an_old_cluster_refuses_backups_that_are_incremental_in_part() {
    let old = OldEngine { refuses_mixed_backups: true, ..OldEngine::default() };
    for format in [DiskFormat::Raw, DiskFormat::Cow] {
        let mut world = World::new(old);
        let disk = world.disk(DiskFormat::Cow);
        world.state.attach_disk("vm", &disk).unwrap();
        let checkpoint = world.whole_backup(&disk, None).to_checkpoint.unwrap();
        let new = world.disk(format);
        world.state.attach_disk("vm", &new).unwrap();
        assert_eq!(status_of(world.backup(&[&disk, &new], Some(&checkpoint))), 409);
        assert_eq!(status_of(world.backup(&[&disk, &new], None)), 200);
    }
}

#[test]
fn a_backup_that_fails_lets_go_of_its_disks_and_is_in_the_log() {
    let mut world = World::new(OldEngine::default());
    let disk = world.disk(DiskFormat::Cow);
    world.state.attach_disk("vm", &disk).unwrap();
    world.opens = false;
    let backup = world.backup(&[&disk], None).unwrap();
    world.pass(DELAY);
    world.pass(DELAY);
    assert_eq!(world.state.backup("vm", &backup).unwrap().phase, BackupPhase::Failed);
    assert!(world.state.checkpoints.is_empty() && world.state.events[0].description.contains(&backup));
    assert_eq!(world.state.disk(&disk).unwrap().lock, None);
}

#[test]
fn a_vm_is_imported_by_a_job() {
    let mut world = World::new(OldEngine::default());
    let vm = Vm { id: new_id(), name: "w".to_owned(), ..world.state.vms[0].clone() };
    world.state.import_vm(vm.clone(), "mine", world.now).unwrap();
    assert_eq!(status_of(world.state.import_vm(vm.clone(), "mine", world.now)), 409);
    let nowhere = Vm { cluster: "none".to_owned(), name: "x".to_owned(), ..vm };
    assert_eq!(status_of(world.state.import_vm(nowhere, "mine", world.now)), 400);
    assert!(!world.state.jobs[0].is_finished);
    world.pass(DELAY);
    assert!(world.state.jobs[0].is_finished && world.state.jobs[0].correlation_id == "mine");
}

#[test]
fn identifiers_are_uuids_and_tickets_are_not_shown() {
    let id = new_id();
    let bytes = id.as_bytes();
    assert_eq!((id.len(), bytes[14]), (36, b'4'));
    assert!(b"89ab".contains(&bytes[19]), "{id}");
    assert_ne!(new_id(), id);
    let mut world = World::new(OldEngine::default());
    let (_, transfer) = world.upload();
    let transfer = world.state.transfer(&transfer).unwrap();
    assert!(!format!("{transfer:?}").contains(transfer.ticket.secret()));
}
