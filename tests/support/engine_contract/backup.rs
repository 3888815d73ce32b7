// SPDX-License-Identifier: MIT OR Apache-2.0
//! Backups by the engine's client for Python.

use std::fs;

use fake_engine::{BackupPhase, Disk};
use serde_json::Value;
use support::TestResult;
use support::image::guest_disk;

use crate::Test;
use support::installation::{Installation, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("increments_of_the_sdk_hold_what_has_changed_and_restore_the_disk", increments),
    ("raw_disks_are_always_backed_up_in_full", raw_disks),
    ("a_checkpoint_that_is_not_there_is_refused", unknown_checkpoint),
];

/// A virtual machine with a disk of this format.
fn with_disk(format: &str) -> TestResult<(Installation, Disk)> {
    let site = Installation::new()?;
    fs::write(site.path("disk.img"), guest_disk(7))?;
    let disk = site.upload("disk.img", format)?;
    site.engine.attach_disk(&site.vm(), &disk.id)?;
    Ok((site, disk))
}

fn back_up(site: &Installation, dir: &str, checkpoint: &[&str]) -> TestResult<Value> {
    fs::create_dir(site.path(dir))?;
    fs::write(site.path("backup.py"), include_str!("backup.py"))?;
    let (url, vm) = (site.engine.url(), site.vm());
    let arguments = [&[url.as_str(), &vm, dir], checkpoint].concat();
    let printed = succeed(site.python(&site.path("backup.py"), &arguments)?)?;
    Ok(serde_json::from_str(printed.lines().last().unwrap_or_default())?)
}

/// Returns the number of bytes of data that an image has itself, without what is below it.
fn data_of(site: &Installation, image: &str) -> TestResult<u64> {
    let map: Vec<Value> = serde_json::from_str(&site.qemu_img(&["map", "--output=json", image])?)?;
    let own = map.iter().filter(|extent| extent["depth"] == 0 && extent["data"] == true);
    Ok(own.filter_map(|extent| extent["length"].as_u64()).sum())
}

fn increments() -> TestResult {
    let (site, disk) = with_disk("qcow2")?;
    let full = back_up(&site, "full", &[])?;
    assert_eq!(full["modes"][&disk.id], "full");
    let image = format!("full/{}.qcow2", disk.id);
    site.assert_same(&image, "qcow2", &disk)?;
    let checkpoint = full["checkpoint"].as_str().ok_or("no checkpoint")?.to_owned();

    // Twice since the first one, so that two bitmaps are merged.
    site.guest_does(&disk, &["write -P 0xaa 1M 64k", "write -z 2M 64k"])?;
    let first = back_up(&site, "first", &[&checkpoint])?;
    assert_eq!(first["modes"][&disk.id], "incremental");
    site.assert_same(&format!("first/{}.qcow2", disk.id), "qcow2", &disk)?;
    site.guest_does(&disk, &["write -P 0xbb 5M 64k"])?;
    back_up(&site, "second", &[&checkpoint])?;
    let image = format!("second/{}.qcow2", disk.id);
    site.assert_same(&image, "qcow2", &disk)?;
    assert_eq!(data_of(&site, &image)?, 128 << 10, "what was written is there, and nothing else");

    assert!(site.engine.backups().iter().all(|backup| backup.phase == BackupPhase::Succeeded));
    let checkpoints = site.engine.checkpoints();
    assert_eq!(checkpoints.len(), 3);
    assert_eq!((&checkpoints[0].id, &checkpoints[0].parent), (&checkpoint, &None));
    assert_eq!(checkpoints[2].parent.as_ref(), Some(&checkpoints[1].id));
    assert_eq!(checkpoints[1].description.as_deref(), Some("a test"));
    Ok(())
}

fn raw_disks() -> TestResult {
    let (site, disk) = with_disk("raw")?;
    let full = back_up(&site, "full", &[])?;
    assert_eq!(full["modes"][&disk.id], "full");
    assert_eq!(full["checkpoint"], Value::Null);
    site.assert_same(&format!("full/{}.qcow2", disk.id), "qcow2", &disk)?;
    assert_eq!(site.engine.checkpoints(), []);
    Ok(())
}

fn unknown_checkpoint() -> TestResult {
    let (site, _) = with_disk("qcow2")?;
    let refused = back_up(&site, "full", &["00000000-0000-4000-8000-000000000000"]);
    let said = refused.map_or_else(|error| error.to_string(), |_| String::new());
    assert!(said.contains("HTTP response code is 409"), "{said}");
    assert!(said.contains("[Cannot backup VM: The specified checkpoint does not exist.]"), "{said}");
    assert_eq!(site.engine.backups(), []);
    Ok(())
}
