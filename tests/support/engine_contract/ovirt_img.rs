// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ovirt-img`, which uploads and downloads disks.

use std::fs;

use fake_engine::{DiskStatus, Fault, HostStatus, OldEngine, Phase, What};
use support::TestResult;
use support::image::guest_disk;

use crate::Test;
use support::installation::{Installation, STORAGE_DOMAIN, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("ovirt_img_uploads_and_downloads_raw_disks", || there_and_back("raw")),
    ("ovirt_img_uploads_and_downloads_qcow2_disks", || there_and_back("qcow2")),
    ("ovirt_img_gets_along_with_old_engines", old_engine),
    ("ovirt_img_logs_in_again_when_its_token_has_expired", expired_token),
    ("ovirt_img_fails_where_an_upload_is_found_to_be_bad", bad_upload),
    ("ovirt_img_fails_where_nothing_can_be_done", refused),
];

const UPLOAD: [&str; 6] = ["upload-disk", "--storage-domain", STORAGE_DOMAIN, "--format", "raw", "disk.img"];

fn there_and_back(format: &str) -> TestResult {
    let site = Installation::new()?;
    fs::write(site.path("disk.img"), guest_disk(5))?;
    let upload = ["upload-disk", "--storage-domain", STORAGE_DOMAIN, "--format", format, "disk.img"];
    succeed(site.ovirt_img(&upload)?)?;
    let disk = site.disk()?;
    assert_eq!((disk.status, disk.name.as_str()), (DiskStatus::Ok, "disk"));
    site.assert_same("disk.img", "raw", &disk)?;

    succeed(site.ovirt_img(&["download-disk", "--format", format, &disk.id, "copy"])?)?;
    site.assert_same("copy", format, &disk)?;
    let phases: Vec<_> = site.engine.transfers().iter().map(|transfer| transfer.phase).collect();
    assert_eq!(phases, [Phase::FinishedSuccess; 2]);
    assert_eq!(site.disk()?.status, DiskStatus::Ok);
    assert_eq!(site.engine.sessions(), 0, "each logs out");
    Ok(())
}

fn old_engine() -> TestResult {
    // ovirt-img itself asks for a policy.
    let old = OldEngine::default().with(|engine| engine.removes_finished_transfers = true);
    let site = Installation::with(|builder| builder.old_engine(old))?;
    fs::write(site.path("disk.img"), [3; 1 << 20])?;
    let disk = site.upload("disk.img", "raw")?;
    site.assert_same("disk.img", "raw", &disk)?;
    assert!(site.engine.transfers().is_empty());
    let journal = site.engine.journal();
    assert!(
        journal.iter().any(|request| request.status == Some(404)),
        "it has asked for the transfer, then the disk"
    );
    Ok(())
}

fn expired_token() -> TestResult {
    let site = Installation::new()?;
    fs::write(site.path("disk.img"), [3; 1 << 20])?;
    let expired = What::Status { status: 401, reason: "expired".to_owned(), detail: String::new() };
    site.engine.fault(Fault::on("POST", "api/imagetransfers").then(expired));
    let disk = site.upload("disk.img", "raw")?;
    site.assert_same("disk.img", "raw", &disk)?;
    let journal = site.engine.journal();
    assert_eq!(journal.iter().filter(|request| request.path == "sso/oauth/token").count(), 2);
    Ok(())
}

fn bad_upload() -> TestResult {
    let site = Installation::new()?;
    fs::write(site.path("disk.img"), [3; 1 << 20])?;
    site.engine.spoil_next_upload();
    let ended = site.ovirt_img(&UPLOAD)?;
    assert!(ended.code != 0 && ended.err.contains("failed"), "{ended:?}");
    assert_eq!(site.engine.transfers()[0].phase, Phase::FinishedFailure);
    assert!(site.engine.disks().is_empty());
    Ok(())
}

fn refused() -> TestResult {
    let site = Installation::with(|builder| builder.host("one", "11-22", HostStatus::Down))?;
    fs::write(site.path("disk.img"), [3; 1 << 20])?;
    let ended = site.ovirt_img(&UPLOAD)?;
    let detail = "[Cannot transfer Virtual Disk. There is no host in status Up for it.]";
    assert!(ended.code != 0 && ended.err.contains(detail), "{ended:?}");
    let ended = site.ovirt_img(&["upload-disk", "--storage-domain", "none", "disk.img"])?;
    assert!(ended.code != 0 && ended.err.contains("HTTP response code is 404"), "{ended:?}");
    let missing = "00000000-0000-4000-8000-000000000000";
    let ended = site.ovirt_img(&["download-disk", missing, "copy"])?;
    assert!(ended.code != 0 && ended.err.contains("Entity not found"), "{ended:?}");
    Ok(())
}
