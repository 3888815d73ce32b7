// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd download` to a block device.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use support::TestResult;
use support::image::{SIZE, noise, same};
use support::installation::{Installation, succeed};
use support::loop_device::LoopDevice;

use crate::Test;
use crate::commands::{run, upload};
use crate::serving::{assert_all_well, site};

/// On loop devices, where the system lets us have them.
pub(crate) const TESTS: &[Test] = &[
    ("a_block_device_gets_the_disk_in_both_formats", both_formats),
    ("a_block_device_that_loses_what_was_written_is_an_error", device_that_loses_data),
];

fn path(device: &LoopDevice) -> TestResult<&str> {
    device.path().to_str().ok_or_else(|| "the device's name is no text".into())
}

/// In the place of what it had before: an image of another size.
fn both_formats() -> TestResult {
    let site = site()?;
    succeed(upload(&site, "disk.img", &[])?)?;
    for format in ["raw", "qcow2"] {
        let device = LoopDevice::attach(&site.path("device"), 2 * SIZE)?;
        let path = path(&device)?;
        site.qemu_img(&["create", "-q", "-f", "qcow2", path, "1G"])?;
        succeed(run(&site, &["download", "disk", path, "--format", format])?)?;
        if format == "raw" {
            let content = fs::read(path)?;
            same(path, &content[..SIZE as usize], &fs::read(site.path("disk.img"))?)?;
        } else {
            site.assert_same(path, format, &site.disk()?)?;
        }
    }
    assert_all_well(&site);
    Ok(())
}

/// The kernel takes all of it, and can't bring it to the device afterwards.
fn device_that_loses_data() -> TestResult {
    let site = site_with_data()?;
    let memory: File = memfd_create("device", MemfdFlags::ALLOW_SEALING)?.into();
    let name = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
    let device = LoopDevice::attach(Path::new(&name), 1 << 20)?;
    fcntl_add_seals(&memory, SealFlags::WRITE)?;
    let path = path(&device)?;
    let ended = run(&site, &["download", "disk", path, "--format", "raw"])?;
    let reason = format!("cannot write {path}: Input/output error");
    assert!(ended.code == 1 && ended.err.contains(&reason), "{ended:?}");
    Ok(())
}

/// The disk has no zeroes: `qemu-img` would hear of those that can't be written.
fn site_with_data() -> TestResult<Installation> {
    let site = site()?;
    fs::write(site.path("disk.img"), noise(1 << 20, 3))?;
    succeed(upload(&site, "disk.img", &[])?)?;
    Ok(site)
}
