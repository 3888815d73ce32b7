// SPDX-License-Identifier: MIT OR Apache-2.0
//! The README's own lines, in a root directory where a package is installed and nothing else was
//! prepared.

use std::fs;

use fake_engine::DEFAULT_PASSWORD;
use support::image::guest_disk;
use support::installation::Installation;
use support::root::{Root, User};
use support::run::Ended;

const README: &str = include_str!("../../../README.md");

/// The README's configuration file, and the place of its certificate.
const CONFIG: &str = "root/.config/ovirt-img.conf";
const CA: &str = "/etc/pki/engine-ca.pem";

/// Uploads a disk and downloads it.
pub(crate) fn is_followed(root: &Root) {
    let site = Installation::new().unwrap();
    fs::write(site.path("web.raw"), guest_disk(21)).unwrap();
    site.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "web.raw", "web.qcow2"]).unwrap();
    fs::copy(site.path("web.qcow2"), root.path("work/web.qcow2")).unwrap();
    write(root, CONFIG, &config(&site.engine.base()));
    write(root, CA, &fs::read_to_string(site.path("ca.pem")).unwrap());
    follow(root, "imageio-nbd upload ");
    let disk = site.disk().unwrap();
    assert_eq!(disk.name, "web");
    site.assert_same("web.raw", "raw", &disk).unwrap();
    follow(root, "imageio-nbd download ");
    let (copy, raw) = (root.path("work/copy.qcow2"), site.path("web.raw"));
    let compare = ["compare", "-f", "qcow2", "-F", "raw", copy.to_str().unwrap(), raw.to_str().unwrap()];
    site.qemu_img(&compare).unwrap();
}

fn write(root: &Root, path: &str, text: &str) {
    let path = root.path(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The README's block with the engine's address and the password.
fn config(engine: &str) -> String {
    let (_, rest) = README.split_once("```ini\n").unwrap();
    let (config, _) = rest.split_once("```").unwrap();
    assert!(config.contains(CA), "{config}");
    let line = |line: &str| match line.split_once(" = ").map(|(name, _)| name) {
        Some("engine_url") => format!("engine_url = {engine}\n"),
        Some("password") => format!("password = {DEFAULT_PASSWORD}\n"),
        _ => format!("{line}\n"),
    };
    config.lines().map(line).collect()
}

/// Runs the README's line that begins so, as it is printed.
fn follow(root: &Root, begin: &str) {
    let line = README.lines().find(|line| line.starts_with(begin)).unwrap();
    let mut command = root.command(User::Root, "/work", "sh");
    let ended: Ended = command.env("HOME", "/root").args(["-c", line]).output().unwrap().into();
    assert_eq!((ended.code, &*ended.err), (0, ""), "{line}: {ended:?}");
}
