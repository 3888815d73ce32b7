// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::samples::{backup, disk, disk_backup, manifest};

fn problem(change: impl FnOnce(&mut Manifest)) -> String {
    let mut manifest = manifest();
    change(&mut manifest);
    let text = manifest.to_json();
    match Manifest::parse(text.as_bytes()) {
        Err(Unreadable::Problem(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_manifest_survives_json() {
    let manifest = manifest();
    assert_eq!(Manifest::parse(manifest.to_json().as_bytes()), Ok(manifest));
}

#[test]
fn the_json_has_the_words_of_the_documentation() {
    let text = manifest().to_json();
    for word in [
        r#""version": 1"#,
        r#""created": "2026-11-27T23:20:00Z""#,
        r#""to_checkpoint_id": "c-one""#,
        r#""from_checkpoint_id": null"#,
        r#""format": "cow""#,
        r#""backup": "incremental""#,
        r#""backup_mode": "incremental""#,
        r#""backing_file": "one/a.qcow2""#,
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_newer_version_is_told_before_what_it_has_anew() {
    let text = r#"{"version": 2, "backups": "elsewhere"}"#;
    assert_eq!(Manifest::parse(text.as_bytes()), Err(Unreadable::Version(2)));
}

#[test]
fn a_field_that_is_not_known_is_refused_and_not_lost() {
    let text = manifest().to_json().replacen("\"backups\"", "\"extra\": 1, \"backups\"", 1);
    let Err(Unreadable::Problem(problem)) = Manifest::parse(text.as_bytes()) else { panic!() };
    assert!(problem.contains("extra") && !problem.contains('\n'), "{problem}");
}

#[test]
fn what_disagrees_with_itself_is_refused_with_its_reason() {
    type Change = fn(&mut Manifest);
    let cases: &[(Change, &str)] = &[
        (|m| m.backups[1].id = "one".into(), "two backups have the id one"),
        (|m| m.backups[1].id = "../x".into(), "no plain name"),
        (|m| m.backups[0].disks[0].file = "../a".into(), "no plain path"),
        (|m| m.backups[0].disks[0].file = "/etc/passwd".into(), "no plain path"),
        (|m| m.backups[0].vm_configuration = Some("x/../y".into()), "no plain path"),
        (|m| m.backups[1].disks[1].file = "one/b.qcow2".into(), "two entries have the file one/b.qcow2"),
        (|m| m.backups[1].disks[1].disk.id = "a".into(), "the backup two has the disk a twice"),
        (|m| m.backups[1].disks[0].backing_file = None, "is incremental, and has no backing file"),
        (|m| m.backups[1].disks[0].backup_mode = BackupMode::Full, "has all of its disk, and a backing file"),
        (|m| m.backups[1].disks[0].backing_file = Some("one/x".into()), "which no earlier backup has"),
        (|m| m.backups[1].disks[0].backing_file = Some("two/b.qcow2".into()), "which no earlier backup has"),
        (|m| m.backups[1].disks[0].backing_file = Some("two/a.qcow2".into()), "which no earlier backup has"),
        (|m| m.backups[1].disks[0].backing_file = Some("one/b.qcow2".into()), "is of another disk"),
        (|m| m.backups[1].disks[0].disk.provisioned_size = 5, "has another provisioned size"),
        (|m| m.backups.swap(0, 1), "which no earlier backup has"),
        (|m| drop(m.backups.remove(0)), "which no earlier backup has"),
        (|m| m.backups[0].disks[0].checksum.value = "xyz".into(), "makes no sense"),
        (|m| m.backups[0].disks[0].checksum.block_size = 0, "makes no sense"),
    ];
    for (change, reason) in cases {
        let problem = problem(change);
        assert!(problem.contains(reason), "{reason}: {problem}");
        assert!(!problem.contains('\n'), "{problem}");
    }
}

#[test]
fn a_chain_goes_from_the_increment_to_the_full_image() {
    let mut manifest = manifest();
    let third = disk_backup(disk("a"), "three", Some("two/a.qcow2".to_owned()));
    manifest.backups.push(backup("three", vec![third]));
    let files = |disk: &DiskBackup| -> Vec<_> {
        manifest.chain(disk).into_iter().map(|disk| disk.file.clone()).collect()
    };
    assert_eq!(files(&manifest.backups[2].disks[0]), ["three/a.qcow2", "two/a.qcow2", "one/a.qcow2"]);
    assert_eq!(files(&manifest.backups[1].disks[1]), ["two/b.qcow2"]);
}

#[test]
fn a_circle_is_followed_once() {
    let mut manifest = manifest();
    manifest.backups[0].disks[0].backing_file = Some("two/a.qcow2".to_owned());
    assert_eq!(manifest.chain(&manifest.backups[0].disks[0]).len(), 4, "as many as there are entries");
}

#[test]
fn a_backup_is_incremental_if_one_of_its_disks_is() {
    let modes: Vec<_> = manifest().backups.iter().map(Backup::mode).collect();
    assert_eq!(modes, [BackupMode::Full, BackupMode::Incremental]);
}
