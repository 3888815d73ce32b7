// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::BackupDirectory;
use crate::manifest::BackupMode;
use crate::samples::{SIZE, disk, disk_backup, vm, write_image};

const NOW: &str = "2026-11-27T23:20:00Z";

fn open(path: &Path) -> Writer {
    Writer::open(path, vm()).unwrap()
}

fn record(disks: Vec<DiskBackup>) -> BackupRecord {
    BackupRecord {
        engine_backup_id: "e".to_owned(),
        from_checkpoint_id: None,
        to_checkpoint_id: Some("c".to_owned()),
        vm_configuration: None,
        disks,
    }
}

/// Writes the files of a backup of the disk `a`, and tells what the record says of them.
fn write(backup: &NewBackup<'_>, backing_file: Option<&str>) -> BackupRecord {
    let image = backup.image("a", backing_file).unwrap();
    write_image(&image.path, SIZE, backing_file);
    let configuration = backup.write_configuration("vm.xml", b"<vm/>").unwrap();
    let entry = disk_backup(disk("a"), backup.id(), backing_file.map(str::to_owned));
    assert_eq!(entry.file, image.file);
    BackupRecord { vm_configuration: Some(configuration), ..record(vec![entry]) }
}

fn back_up(writer: &mut Writer, backing_file: Option<&str>) -> String {
    let backup = writer.begin(NOW.parse().unwrap()).unwrap();
    let (id, record) = (backup.id().to_owned(), write(&backup, backing_file));
    backup.commit(record).unwrap();
    id
}

fn names(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn backups_are_added_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let mut writer = open(&path);
    let one = back_up(&mut writer, None);
    let two = back_up(&mut writer, Some(&format!("{one}/a.qcow2")));
    assert_eq!((&*one, &*two), ("20261127T232000Z", "20261127T232000Z-2"));
    drop(writer);
    assert_eq!(names(&path), [".lock", &one, &two, "manifest.json"]);
    assert_eq!(names(&path.join(&two)), ["a.qcow2", "vm.xml"]);
    let directory = BackupDirectory::open(&path).unwrap();
    assert_eq!(directory.manifest().chain(&directory.manifest().backups[1].disks[0]).len(), 2);
    assert_eq!(open(&path).manifest(), directory.manifest());
}

#[test]
fn a_backup_is_called_by_its_second() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let backup = writer.begin("2026-11-27T23:20:00.999Z".parse().unwrap()).unwrap();
    let record = write(&backup, None);
    backup.commit(record).unwrap();
    let backup = &writer.manifest().backups[0];
    assert_eq!((&*backup.id, backup.created.to_string().as_str()), ("20261127T232000Z", NOW));
}

#[test]
fn wherever_it_is_interrupted_the_last_good_state_is_there() {
    for steps in 0..=STEPS.len() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let mut writer = open(path);
        let one = back_up(&mut writer, None);
        let mut backup = writer.begin(NOW.parse().unwrap()).unwrap();
        let record = write(&backup, Some(&format!("{one}/a.qcow2")));
        let (two, manifest) = (backup.id().to_owned(), backup.with_record(record).unwrap());
        backup.note_engine_backup("e-2").unwrap();
        for step in &STEPS[..steps] {
            step(&mut backup, &manifest).unwrap();
        }
        // A process that is killed leaves the same, but for the lock, which ends with the process.
        std::mem::forget(backup);
        drop(writer);

        let expected: &[&str] = if steps < 3 { &[&one] } else { &[&one, &two] };
        let ids = |manifest: &Manifest| -> Vec<_> {
            manifest.backups.iter().map(|backup| backup.id.clone()).collect()
        };
        assert_eq!(
            ids(BackupDirectory::open(path).unwrap().manifest()),
            expected,
            "{steps} steps, for readers"
        );
        let mut writer = open(path);
        assert_eq!(ids(writer.manifest()), expected, "{steps} steps");
        let removed = match steps {
            0 | 1 => vec![format!("{PARTIAL}{two}")],
            2 => vec![two.clone()],
            _ => vec![],
        };
        assert_eq!(writer.removed(), removed, "{steps} steps");
        let abandoned: &[&str] = if removed.is_empty() { &[] } else { &["e-2"] };
        assert_eq!(writer.abandoned(), abandoned, "{steps} steps");
        abandoned.iter().for_each(|id| writer.forget_abandoned(id).unwrap());
        assert_eq!(names(path), [&[".lock"], expected, &["manifest.json"]].concat(), "{steps} steps");
        assert_eq!(names(&path.join(expected[expected.len() - 1])), ["a.qcow2", "vm.xml"], "{steps} steps");
        back_up(&mut writer, None);
    }
}

#[test]
fn the_first_backup_is_interrupted_as_well() {
    for steps in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = open(dir.path());
        let mut backup = writer.begin(NOW.parse().unwrap()).unwrap();
        let record = write(&backup, None);
        let manifest = backup.with_record(record).unwrap();
        for step in &STEPS[..steps] {
            step(&mut backup, &manifest).unwrap();
        }
        std::mem::forget(backup);
        drop(writer);
        let error = BackupDirectory::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::NoManifest(_)), "{error}");
        let mut writer = open(dir.path());
        assert_eq!(names(dir.path()), [".lock"], "{steps} steps");
        assert_eq!(back_up(&mut writer, None), "20261127T232000Z");
    }
}

#[test]
fn a_manifest_that_was_not_yet_in_its_place_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    back_up(&mut open(dir.path()), None);
    let before = names(dir.path());
    fs::write(dir.path().join(".replacing-x"), "{").unwrap();
    assert_eq!(open(dir.path()).removed(), [".replacing-x"]);
    assert_eq!(names(dir.path()), before);
}

#[test]
fn what_is_not_known_to_be_ours_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    back_up(&mut open(dir.path()), None);
    fs::create_dir(dir.path().join("20200101T000000Z")).unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    fs::create_dir(dir.path().join(".snapshots")).unwrap();
    let before = names(dir.path());
    assert!(open(dir.path()).removed().is_empty());
    assert_eq!(names(dir.path()), before);
}

#[test]
fn a_backup_that_is_dropped_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let backup = writer.begin(NOW.parse().unwrap()).unwrap();
    write(&backup, None);
    drop(backup);
    assert_eq!(names(dir.path()), [".lock"]);
}

#[test]
fn the_engines_backup_is_told_until_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let backup = writer.begin(NOW.parse().unwrap()).unwrap();
    backup.note_engine_backup("e-1").unwrap();
    write(&backup, None);
    // It is not known whether the backup was ended in the engine.
    drop(backup);
    drop(writer);
    let partial = format!("{PARTIAL}20261127T232000Z");
    for _ in 0..2 {
        assert_eq!(names(&dir.path().join(&partial)), [INCOMPLETE]);
        let writer = open(dir.path());
        assert_eq!((writer.abandoned(), writer.removed()), (vec!["e-1".to_owned()], &[][..]));
    }
    let mut writer = open(dir.path());
    assert_eq!(back_up(&mut writer, None), "20261127T232000Z-2", "backups can be made meanwhile");
    writer.forget_abandoned("e-1").unwrap();
    assert!(writer.abandoned().is_empty());
    drop(writer);
    assert!(open(dir.path()).abandoned().is_empty());
    assert_eq!(names(dir.path()), [".lock", "20261127T232000Z-2", "manifest.json"]);
}

#[test]
fn the_engines_backup_that_has_ended_is_told_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let backup = writer.begin(NOW.parse().unwrap()).unwrap();
    backup.note_engine_backup("e-1").unwrap();
    backup.engine_backup_ended().unwrap();
    std::mem::forget(backup);
    drop(writer);
    let mut writer = open(dir.path());
    assert!(writer.abandoned().is_empty());
    let backup = writer.begin(NOW.parse().unwrap()).unwrap();
    for bad in ["", "../e", "e 1", &"e".repeat(101)] {
        assert!(matches!(backup.note_engine_backup(bad), Err(Error::Name(_))), "{bad:?}");
    }
    drop(backup);
    assert_eq!(names(dir.path()), [".lock"]);
}

#[test]
fn a_record_that_is_not_true_is_refused_and_nothing_is_left() {
    type Change = fn(&mut BackupRecord);
    let cases: &[(Change, &str)] = &[
        (|record| record.disks[0].file = "20261127T232000Z/b.qcow2".into(), "was not written"),
        (|record| record.disks[0].file = "elsewhere/a.qcow2".into(), "was not written"),
        (|record| record.vm_configuration = Some("20261127T232000Z/../x".into()), "was not written"),
        (|record| record.disks[0].disk.provisioned_size += 512, "it is an image of"),
        (|record| record.disks[0].backup_mode = BackupMode::Incremental, "has no backing file"),
        (|record| record.disks.push(record.disks[0].clone()), "two entries"),
    ];
    for (change, reason) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = open(dir.path());
        let backup = writer.begin(NOW.parse().unwrap()).unwrap();
        let mut record = write(&backup, None);
        change(&mut record);
        let said = backup.commit(record).unwrap_err().to_string();
        assert!(said.contains(reason), "{reason}: {said}");
        assert_eq!(names(dir.path()), [".lock"], "{reason}");
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = open(dir.path());
    let backup = writer.begin(NOW.parse().unwrap()).unwrap();
    for bad in ["", "..", "../a", "a/b", ".a", "a\0b"] {
        assert!(matches!(backup.image(bad, None), Err(Error::Name(_))), "{bad:?}");
        assert!(matches!(backup.write_configuration(bad, b""), Err(Error::Name(_))), "{bad:?}");
    }
}

#[test]
fn one_process_at_a_time_writes() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open(dir.path());
    let said = Writer::open(dir.path(), vm()).unwrap_err().to_string();
    let holder = format!("is in use by process {} on ", std::process::id());
    assert!(said.contains(&holder) && !said.contains('\n'), "{said}");
    drop(writer);
    open(dir.path());
}

#[test]
fn what_a_stranger_wrote_into_the_lock_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let _writer = open(dir.path());
    fs::write(dir.path().join(".lock"), "\x1b[2J").unwrap();
    let said = Writer::open(dir.path(), vm()).unwrap_err().to_string();
    assert!(said.contains("is in use by another process"), "{said:?}");
}

#[test]
fn directories_of_others_are_refused_and_nothing_is_written_there() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "").unwrap();
    assert!(matches!(Writer::open(dir.path(), vm()), Err(Error::NotEmpty(_))));
    assert_eq!(names(dir.path()), ["thesis.txt"]);

    let dir = tempfile::tempdir().unwrap();
    back_up(&mut open(dir.path()), None);
    let other = crate::Vm { id: "vm-2".to_owned(), name: "db".to_owned() };
    let said = Writer::open(dir.path(), other).unwrap_err().to_string();
    assert!(said.contains("has the backups of the VM \"web\" (vm-1)"), "{said}");
}

#[test]
fn the_name_of_the_vm_is_that_of_the_last_backup() {
    let dir = tempfile::tempdir().unwrap();
    back_up(&mut open(dir.path()), None);
    let renamed = crate::Vm { name: "www".to_owned(), ..vm() };
    back_up(&mut Writer::open(dir.path(), renamed.clone()).unwrap(), None);
    assert_eq!(BackupDirectory::open(dir.path()).unwrap().manifest().vm, renamed);
}

#[test]
fn the_directory_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let id = back_up(&mut open(&path), None);
    for (file, mode) in [(path.clone(), 0o700), (path.join(&id), 0o700), (path.join(MANIFEST), 0o600)] {
        let is = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(is, mode, "{}", file.display());
    }
}
