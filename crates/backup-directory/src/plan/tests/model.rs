// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM with a few disks of a few blocks, an engine that keeps track of them, and a directory of
//! backups: whatever happens to them, each backup restores what the disks held when it was made.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use crate::manifest::{Backup, BackupMode, BackupSupport, Disk, DiskBackup, Manifest};
use crate::plan::{Decision, Policy, plan};
use crate::samples::{backup, disk, disk_backup, vm};

const BLOCKS: usize = 6;

/// An event of the model.
#[derive(Debug, Clone)]
enum Event {
    /// A block of a disk is written.
    Write {
        disk: usize,
        block: usize,
    },
    BackUp {
        policy: Policy,
    },
    /// Somebody removes a checkpoint, the oldest being 0.
    RemoveCheckpoint {
        index: usize,
    },
    /// The VM goes back to the state of a checkpoint. The engine forgets all later ones.
    GoBack {
        index: usize,
    },
    /// A disk is removed, or comes back as another one.
    Replace {
        disk: usize,
    },
    Resize {
        disk: usize,
    },
    /// The engine begins or ceases to keep track of a disk.
    Enable {
        disk: usize,
        is_enabled: bool,
    },
    /// The next backup's directory is lost, as the process was interrupted; the engine has the
    /// checkpoint.
    Interrupted,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let policy =
        prop_oneof![Just(Policy::IncrementalWherePossible), Just(Policy::Full), Just(Policy::Incremental)];
    let event = prop_oneof![
        8 => (0..3_usize, 0..BLOCKS).prop_map(|(disk, block)| Event::Write { disk, block }),
        6 => policy.prop_map(|policy| Event::BackUp { policy }),
        1 => (0..4_usize).prop_map(|index| Event::RemoveCheckpoint { index }),
        1 => (0..4_usize).prop_map(|index| Event::GoBack { index }),
        1 => (0..3_usize).prop_map(|disk| Event::Replace { disk }),
        1 => (0..3_usize).prop_map(|disk| Event::Resize { disk }),
        1 => (0..3_usize, any::<bool>()).prop_map(|(disk, is_enabled)| Event::Enable { disk, is_enabled }),
        1 => Just(Event::Interrupted),
    ];
    proptest::collection::vec(event, 0..60)
}

/// The content of a disk: for each block, the number of the write that it has.
type Content = Vec<u64>;

#[derive(Debug, Clone)]
struct DiskNow {
    disk: Disk,
    content: Content,
}

/// The engine's record of a checkpoint.
#[derive(Debug, Clone)]
struct Checkpoint {
    id: String,
    /// All disks as they were, to go back to.
    state: Vec<DiskNow>,
    /// The blocks that were written since, by the id of each disk that has a bitmap.
    dirty: HashMap<String, BTreeSet<usize>>,
}

struct World {
    disks: Vec<DiskNow>,
    checkpoints: Vec<Checkpoint>,
    manifest: Manifest,
    /// The content of each file, by the number of the block.
    files: HashMap<String, HashMap<usize, u64>>,
    /// The content that the disks had at the time of the backup, by the file.
    expected: HashMap<String, Content>,
    /// Ever more: for writes, backups and disks.
    counter: u64,
}

impl World {
    fn new() -> Self {
        let disks = ["x", "y", "z"].map(|id| DiskNow { disk: disk(id), content: vec![0; BLOCKS] }).to_vec();
        let (checkpoints, manifest) = (Vec::new(), Manifest::new(vm()));
        Self { disks, checkpoints, manifest, files: HashMap::new(), expected: HashMap::new(), counter: 0 }
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Write { disk, block } => self.write(disk, block),
            Event::BackUp { policy } => self.back_up(policy),
            Event::RemoveCheckpoint { index } => {
                if index < self.checkpoints.len() {
                    self.checkpoints.remove(index);
                }
            }
            Event::GoBack { index } => self.go_back(index),
            Event::Replace { disk: index } => {
                let id = format!("disk-{}", self.next());
                self.disks[index] = DiskNow { disk: disk(&id), content: vec![0; BLOCKS] };
            }
            Event::Resize { disk } => self.disks[disk].disk.provisioned_size += 512,
            Event::Enable { disk, is_enabled } => self.enable(disk, is_enabled),
            Event::Interrupted => drop(self.checkpoint()),
        }
    }

    fn write(&mut self, index: usize, block: usize) {
        let write = self.next();
        let DiskNow { disk, content } = &mut self.disks[index];
        content[block] = write;
        for checkpoint in &mut self.checkpoints {
            if let Some(dirty) = checkpoint.dirty.get_mut(&disk.id) {
                dirty.insert(block);
            }
        }
    }

    fn go_back(&mut self, index: usize) {
        if let Some(checkpoint) = self.checkpoints.get_mut(index) {
            self.disks.clone_from(&checkpoint.state);
            checkpoint.dirty.values_mut().for_each(BTreeSet::clear);
            self.checkpoints.truncate(index + 1);
            // An older bitmap still covers what was written up to this state, and perhaps more.
        }
    }

    fn enable(&mut self, index: usize, is_enabled: bool) {
        let disk = &mut self.disks[index].disk;
        disk.backup = if is_enabled { BackupSupport::Incremental } else { BackupSupport::None };
        if !is_enabled {
            self.checkpoints.iter_mut().for_each(|checkpoint| drop(checkpoint.dirty.remove(&disk.id)));
        }
    }

    /// The engine makes a checkpoint of all disks that it keeps track of.
    fn checkpoint(&mut self) -> String {
        let id = format!("c-{}", self.next());
        let tracked = self.disks.iter().filter(|now| now.disk.backup == BackupSupport::Incremental);
        let dirty = tracked.map(|now| (now.disk.id.clone(), BTreeSet::new())).collect();
        self.checkpoints.push(Checkpoint { id: id.clone(), state: self.disks.clone(), dirty });
        id
    }

    fn back_up(&mut self, policy: Policy) {
        let checkpoints: Vec<_> = self.checkpoints.iter().map(|checkpoint| checkpoint.id.clone()).collect();
        let disks: Vec<_> = self.disks.iter().map(|now| now.disk.clone()).collect();
        let Ok(plan) = plan(Some(&self.manifest), &checkpoints, &disks, policy) else { return };
        let from = self.checkpoints.iter().find(|from| Some(&from.id) == plan.from_checkpoint_id.as_ref());
        assert_eq!(
            from.is_some(),
            plan.from_checkpoint_id.is_some(),
            "the checkpoint is one of the engine's"
        );
        let dirty = from.map(|from| from.dirty.clone()).unwrap_or_default();
        let mode = |disk: &Disk| match dirty.contains_key(&disk.id) {
            true => (disk.id.clone(), BackupMode::Incremental),
            false => (disk.id.clone(), BackupMode::Full),
        };
        let Ok(plan) = plan.settle(&disks.iter().map(mode).collect()) else { return };
        let to = self.checkpoint();
        let id = self.next().to_string();
        let mut entries = Vec::new();
        for (disk, decision) in plan.disks.into_iter().map(|plan| (plan.disk, plan.decision)) {
            entries.push(self.copy(&id, disk, decision, &dirty));
        }
        let backup = Backup { to_checkpoint_id: Some(to), ..backup(&id, entries) };
        self.manifest.backups.push(backup);
        self.manifest.check().unwrap();
    }

    fn copy(
        &mut self,
        id: &str,
        disk: Disk,
        decision: Decision,
        dirty: &HashMap<String, BTreeSet<usize>>,
    ) -> DiskBackup {
        let content = &self.disks.iter().find(|now| now.disk.id == disk.id).unwrap().content;
        let (blocks, backing_file) = match decision {
            Decision::Full(_) => ((0..BLOCKS).collect(), None),
            Decision::Incremental { backing_file } => (dirty[&disk.id].clone(), Some(backing_file)),
        };
        let entry = disk_backup(disk, id, backing_file);
        self.files
            .insert(entry.file.clone(), blocks.into_iter().map(|block| (block, content[block])).collect());
        self.expected.insert(entry.file.clone(), content.clone());
        entry
    }

    /// Restores every disk of every backup.
    fn check(&self) {
        for disk in self.manifest.backups.iter().flat_map(|backup| &backup.disks) {
            let chain = self.manifest.chain(disk);
            let block =
                |block: usize| chain.iter().find_map(|disk| self.files[&disk.file].get(&block)).copied();
            let restored: Option<Content> = (0..BLOCKS).map(block).collect();
            assert_eq!(restored.as_ref(), self.expected.get(&disk.file), "{}", disk.file);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_backup_restores_what_the_disks_held(events in events()) {
        let mut world = World::new();
        events.iter().for_each(|event| world.happens(event));
        world.check();
    }
}
