// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ovirt-img`, which uploads and downloads disks.

use std::fs;

use fake_engine::{DiskStatus, Phase};
use support::TestResult;
use support::image::guest_disk;

use crate::Test;
use crate::installation::{Installation, STORAGE_DOMAIN, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("ovirt_img_uploads_and_downloads_raw_disks", || there_and_back("raw")),
    ("ovirt_img_uploads_and_downloads_qcow2_disks", || there_and_back("qcow2")),
];

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
