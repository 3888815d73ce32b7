// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands of README.md, where a package was installed: nothing else of ours is there.

use std::fs;

use support::image::guest_disk;
use support::installation::Installation;
use support::root::{Root, User};

use crate::run;

const README: &str = include_str!("../../../README.md");

/// The line of README.md that begins with this.
fn line(beginning: &str) -> &'static str {
    let found = README.lines().find(|line| line.starts_with(beginning));
    found.unwrap_or_else(|| panic!("README.md has no {beginning}"))
}

/// Uploads an image and downloads the disk, with the configuration file that README.md describes.
pub(crate) fn commands_work(root: &Root) {
    let site = Installation::new().unwrap();
    fs::write(site.path("disk.img"), guest_disk(13)).unwrap();
    site.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "disk.img", "web.qcow2"]).unwrap();
    fs::copy(site.path("web.qcow2"), root.path("work/web.qcow2")).unwrap();
    fs::copy(site.path("ca.pem"), root.path("work/ca.pem")).unwrap();
    let config = fs::read_to_string(site.path("ovirt-img.conf")).unwrap();
    let config = config.replace(&site.path("ca.pem").display().to_string(), "ca.pem");
    fs::create_dir(root.path("root/.config")).unwrap();
    fs::write(root.path("root/.config/ovirt-img.conf"), config).unwrap();
    for command in ["imageio-nbd upload ", "imageio-nbd download "].map(line) {
        run(root.command(User::Root, "/work", "sh").args(["-c", command]).env("HOME", "/root"));
    }
    let disk = site.disk().unwrap();
    assert_eq!(disk.name, "web");
    site.assert_same("disk.img", "raw", &disk).unwrap();
    fs::copy(root.path("work/copy.qcow2"), site.path("copy.qcow2")).unwrap();
    site.assert_same("copy.qcow2", "qcow2", &disk).unwrap();
}
