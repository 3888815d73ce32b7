// SPDX-License-Identifier: MIT OR Apache-2.0
mod model;

use super::*;
use crate::samples::{SIZE, backup, disk, disk_backup, manifest};

const WHERE_POSSIBLE: Policy = Policy::IncrementalWherePossible;

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}

fn decisions(plan: &Plan) -> Vec<&Decision> {
    plan.disks.iter().map(|plan| &plan.decision).collect()
}

fn to(file: &str) -> Decision {
    Decision::Incremental { backing_file: file.to_owned() }
}

/// Returns the decision about the disk `a`, which is in both backups of the manifest, after this
/// change.
fn decided(change: impl FnOnce(&mut Manifest, &mut Vec<String>, &mut Disk)) -> Decision {
    let (mut manifest, mut checkpoints, mut disk) = (manifest(), ids(&["c-one", "c-two"]), disk("a"));
    change(&mut manifest, &mut checkpoints, &mut disk);
    let plan = plan(Some(&manifest), &checkpoints, &[disk], WHERE_POSSIBLE).unwrap();
    let is_incremental = matches!(plan.disks[0].decision, Decision::Incremental { .. });
    assert_eq!(plan.from_checkpoint_id.is_some(), is_incremental);
    plan.disks[0].decision.clone()
}

#[test]
fn a_disk_is_read_as_a_whole_for_a_reason() {
    type Change = fn(&mut Manifest, &mut Vec<String>, &mut Disk);
    let cases: &[(Change, Decision)] = &[
        (|_, _, _| {}, to("two/a.qcow2")),
        (|_, checkpoints, _| checkpoints.push("another's".into()), to("two/a.qcow2")),
        (|_, checkpoints, _| drop(checkpoints.pop()), to("one/a.qcow2")),
        (|_, checkpoints, _| checkpoints.clear(), Decision::Full(Reason::CheckpointsGone)),
        (|manifest, _, _| manifest.backups.clear(), Decision::Full(Reason::FirstBackup)),
        (|manifest, _, _| manifest.backups[1].to_checkpoint_id = None, to("one/a.qcow2")),
        (
            |manifest, _, _| manifest.backups.iter_mut().for_each(|backup| backup.to_checkpoint_id = None),
            Decision::Full(Reason::NoCheckpoint),
        ),
        (|_, _, disk| disk.id = "z".into(), Decision::Full(Reason::NewDisk)),
        (|manifest, _, _| drop(manifest.backups[1].disks.remove(0)), Decision::Full(Reason::NewDisk)),
        (|_, _, disk| disk.backup = BackupSupport::None, Decision::Full(Reason::NotEnabled)),
        (
            |manifest, _, _| manifest.backups[1].disks[0].disk.backup = BackupSupport::None,
            Decision::Full(Reason::EnabledSince),
        ),
        (
            |_, _, disk| disk.provisioned_size *= 2,
            Decision::Full(Reason::SizeChanged { from: SIZE, to: 2 * SIZE }),
        ),
    ];
    for (index, (change, expected)) in cases.iter().enumerate() {
        assert_eq!(decided(change), *expected, "case {index}");
    }
}

#[test]
fn a_chain_does_not_become_too_long() {
    let with_chain = |length: usize| {
        decided(|manifest, checkpoints, _| {
            manifest.backups.clear();
            for number in 0..length {
                let backing = number.checked_sub(1).map(|before| format!("{before}/a.qcow2"));
                let id = number.to_string();
                manifest.backups.push(backup(&id, vec![disk_backup(disk("a"), &id, backing)]));
            }
            *checkpoints = vec![format!("c-{}", length - 1)];
        })
    };
    assert_eq!(with_chain(LONGEST_CHAIN - 1), to("98/a.qcow2"));
    assert_eq!(with_chain(LONGEST_CHAIN), Decision::Full(Reason::LongChain));
}

#[test]
fn each_disk_is_decided_about_by_itself() {
    let disks = [disk("a"), disk("new"), disk("b")];
    let plan = plan(Some(&manifest()), &ids(&["c-two"]), &disks, WHERE_POSSIBLE).unwrap();
    assert_eq!(decisions(&plan), [&to("two/a.qcow2"), &Decision::Full(Reason::NewDisk), &to("two/b.qcow2")]);
    assert_eq!(plan.from_checkpoint_id.as_deref(), Some("c-two"));
    assert_eq!(plan.passed_over, None);
}

#[test]
fn an_older_checkpoint_is_told() {
    let plan = plan(Some(&manifest()), &ids(&["c-one"]), &[disk("a")], WHERE_POSSIBLE).unwrap();
    assert_eq!(
        (plan.from_checkpoint_id.as_deref(), plan.passed_over.as_deref()),
        (Some("c-one"), Some("two"))
    );
}

#[test]
fn a_full_backup_begins_from_no_checkpoint() {
    let plan = plan(Some(&manifest()), &ids(&["c-two"]), &[disk("a")], Policy::Full).unwrap();
    assert_eq!((plan.from_checkpoint_id, plan.passed_over), (None, None));
    assert_eq!(plan.disks[0].decision, Decision::Full(Reason::AskedFor));
}

#[test]
fn an_incremental_backup_fails_rather_than_be_full() {
    let plan = |disks: &[Disk]| plan(Some(&manifest()), &ids(&["c-two"]), disks, Policy::Incremental);
    assert!(plan(&[disk("a"), disk("b")]).is_ok());
    let said = plan(&[disk("a"), disk("new")]).unwrap_err().to_string();
    assert!(said.contains("\"the disk new\": it is not in the backup") && !said.contains("disk a"), "{said}");
    let said = super::plan(None, &[], &[disk("a")], Policy::Incremental).unwrap_err().to_string();
    assert!(said.contains("no backup yet"), "{said}");
}

#[test]
fn a_refused_incremental_backup_becomes_a_full_one_unless_it_must_not() {
    let (manifest, checkpoints) = (manifest(), ids(&["c-one", "c-two"]));
    let mut raw = disk("b");
    raw.backup = BackupSupport::None;
    let planned = |disks: &[Disk], policy| plan(Some(&manifest), &checkpoints, disks, policy).unwrap();
    let mixed = planned(&[disk("a"), raw], WHERE_POSSIBLE);
    let full = mixed.without_increments().unwrap();
    assert_eq!(full.from_checkpoint_id, None);
    let reasons = [Decision::Full(Reason::Refused), Decision::Full(Reason::NotEnabled)];
    assert_eq!(decisions(&full), reasons.iter().collect::<Vec<_>>());
    assert_eq!(full.without_increments(), None, "there is only one more try");
    assert_eq!(planned(&[disk("a")], Policy::Full).without_increments(), None);
    assert_eq!(planned(&[disk("a")], Policy::Incremental).without_increments(), None);
}

#[test]
fn a_vm_without_disks_is_not_backed_up() {
    assert!(matches!(plan(Some(&manifest()), &[], &[], WHERE_POSSIBLE), Err(Error::NoDisks)));
}

#[test]
fn the_engine_has_the_last_word_about_what_is_dirty() {
    let modes =
        |modes: &[(&str, BackupMode)]| modes.iter().map(|&(id, mode)| (id.to_owned(), mode)).collect();
    let disks = [disk("a"), disk("b"), disk("new")];
    let planned = |policy| plan(Some(&manifest()), &ids(&["c-two"]), &disks[..2], policy).unwrap();
    let told = modes(&[("a", BackupMode::Incremental), ("b", BackupMode::Full)]);
    let settled = planned(WHERE_POSSIBLE).settle(&told).unwrap();
    assert_eq!(decisions(&settled), [&to("two/a.qcow2"), &Decision::Full(Reason::Engine)]);
    // A disk that the engine doesn't tell of is read as a whole.
    let settled = planned(WHERE_POSSIBLE).settle(&modes(&[])).unwrap();
    assert_eq!(decisions(&settled), [&Decision::Full(Reason::Engine); 2]);
    assert!(matches!(planned(Policy::Incremental).settle(&told), Err(Error::NotIncremental(_))));
    // A disk that has nothing to be an increment to stays full.
    let plan = plan(Some(&manifest()), &ids(&["c-two"]), &disks, WHERE_POSSIBLE).unwrap();
    let settled = plan.settle(&modes(&[("new", BackupMode::Incremental)])).unwrap();
    assert_eq!(decisions(&settled)[2], &Decision::Full(Reason::NewDisk));
}
