// SPDX-License-Identifier: MIT OR Apache-2.0
use std::fs;
use std::process::Command;

use super::*;
use crate::samples::{SIZE, manifest, write_directory, write_image};

/// Returns the message of the error when a directory is opened after this change, and all its
/// images are looked at.
fn said(change: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    write_directory(dir.path(), &manifest());
    change(dir.path());
    let looked_at = BackupDirectory::open(dir.path()).and_then(|directory| {
        let mut disks = directory.manifest().backups.iter().flat_map(|backup| &backup.disks);
        disks.try_for_each(|disk| directory.image(disk).map(drop))
    });
    let said = looked_at.unwrap_err().to_string();
    assert!(!said.contains('\n'), "{said}");
    said
}

#[test]
fn a_missing_file_concerns_those_disks_alone_that_need_it() {
    let dir = tempfile::tempdir().unwrap();
    write_directory(dir.path(), &manifest());
    fs::remove_file(dir.path().join("one/a.qcow2")).unwrap();
    let directory = BackupDirectory::open(dir.path()).unwrap();
    let [one, two] = &directory.manifest().backups[..] else { panic!("two backups are expected") };
    for disk in [&one.disks[0], &two.disks[0]] {
        assert!(directory.image(disk).unwrap_err().is_missing(), "{}", disk.file);
    }
    for disk in [&one.disks[1], &two.disks[1]] {
        assert_eq!(directory.image(disk).unwrap(), dir.path().join(&disk.file));
    }
    let writer = crate::Writer::open(dir.path(), crate::samples::vm()).unwrap();
    let error = writer.image(&two.disks[0]).unwrap_err();
    assert!(error.is_missing() && error.to_string().contains("one/a.qcow2"), "{error}");
}

#[test]
fn a_sound_directory_is_opened_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (before, after) = (dir.path().join("before"), dir.path().join("after"));
    fs::create_dir(&before).unwrap();
    write_directory(&before, &manifest());
    fs::rename(&before, &after).unwrap();
    let directory = BackupDirectory::open(&after).unwrap();
    assert_eq!(directory.manifest(), &manifest());
    assert!(directory.path_of("two/a.qcow2").is_file());
}

#[test]
fn what_is_missing_or_wrong_is_told_with_its_file() {
    type Change = fn(&Path);
    let cases: &[(Change, &str)] = &[
        (|dir| fs::remove_file(dir.join("manifest.json")).unwrap(), "has no manifest.json"),
        (|dir| fs::remove_dir_all(dir).unwrap(), "cannot read"),
        (|dir| fs::write(dir.join("manifest.json"), "{").unwrap(), "is damaged"),
        (|dir| fs::write(dir.join("manifest.json"), r#"{"version":9}"#).unwrap(), "has version 9"),
        (|dir| fs::remove_file(dir.join("one/a.qcow2")).unwrap(), "one/a.qcow2"),
        (|dir| fs::write(dir.join("one/a.qcow2"), "").unwrap(), "it is no qcow2 image"),
        (|dir| fs::write(dir.join("one/a.qcow2"), [0; 200]).unwrap(), "it is no qcow2 image"),
        (|dir| write_image(&dir.join("one/a.qcow2"), 512, None), "it is an image of 512 bytes"),
        (|dir| write_image(&dir.join("two/a.qcow2"), SIZE, None), "its backing file is none"),
        (|dir| write_image(&dir.join("two/a.qcow2"), SIZE, Some("one/b.qcow2")), "one/b.qcow2"),
        (|dir| write_image(&dir.join("two/a.qcow2"), SIZE, Some("../../../etc/passwd")), "etc/passwd"),
        (|dir| write_image(&dir.join("two/b.qcow2"), SIZE, Some("one/b.qcow2")), "the manifest says none"),
        (
            |dir| {
                fs::remove_file(dir.join("one/b.qcow2")).unwrap();
                fs::create_dir(dir.join("one/b.qcow2")).unwrap();
            },
            "it is no file",
        ),
        (
            |dir| {
                fs::remove_file(dir.join("one/b.qcow2")).unwrap();
                assert!(Command::new("mkfifo").arg(dir.join("one/b.qcow2")).status().unwrap().success());
            },
            "it is no file",
        ),
    ];
    for (change, reason) in cases {
        let said = said(change);
        assert!(said.contains(reason), "{reason}: {said}");
    }
}

#[test]
fn an_image_that_has_its_data_elsewhere_is_refused() {
    let said = said(|dir| {
        let path = dir.join("one/a.qcow2");
        let mut header = fs::read(&path).unwrap();
        header[79] |= 4;
        fs::write(path, header).unwrap();
    });
    assert!(said.contains("its data is in another file"), "{said}");
}
