// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images that can't be read, or of which a part is missing.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use support::TestResult;
use support::installation::{Installation, STORAGE_DOMAIN, succeed};
use support::process::Daemon;
use support::tools::QEMU_IMG;

use crate::Test;
use crate::commands::{run_with, upload};
use crate::serving::site;

pub(crate) const TESTS: &[Test] = &[
    ("an_image_that_is_not_whole_is_refused_with_the_reason", unreadable_images),
    ("a_check_of_an_image_that_is_ended_is_not_taken_for_damage", ended_check),
    ("sigterm_during_a_check_is_heeded_before_anything_is_begun", sigterm_during_check),
    ("a_whole_image_of_any_format_is_uploaded_also_as_a_backing_file", whole_images),
];

fn unreadable_images() -> TestResult {
    let site = site()?;
    site.qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-b", "none.img", "-F", "raw", "top.qcow2", "1M"])?;
    let key = ["--object", "secret,id=key,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=key"];
    site.qemu_img(&[&["create", "-q", "-f", "qcow2"], &key[..], &["locked.qcow2", "1M"]].concat())?;
    for (format, cut) in [("vdi", "cut.vdi"), ("vmdk", "cut.vmdk"), ("qcow2", "cut.qcow2")] {
        site.qemu_img(&["convert", "-f", "raw", "-O", format, "disk.img", cut])?;
        self::cut(&site, cut)?;
    }
    // Data files of their own, and a backing file.
    let flat = ["-O", "vmdk", "-o", "subformat=monolithicFlat", "disk.img", "flat.vmdk"];
    site.qemu_img(&[&["convert", "-f", "raw"], &flat[..]].concat())?;
    cut(&site, "flat-flat.vmdk")?;
    let outside = ["-O", "qcow2", "-o", "data_file=outside.raw", "disk.img", "outside.qcow2"];
    site.qemu_img(&[&["convert", "-f", "raw"], &outside[..]].concat())?;
    cut(&site, "outside.raw")?;
    site.qemu_img(&["create", "-q", "-f", "qcow2", "-b", "cut.qcow2", "-F", "qcow2", "over.qcow2"])?;
    // Within the last cluster.
    site.qemu_img(
        &[&["convert", "-f", "raw", "-O"], &["qcow2", "-o", "cluster_size=2M", "disk.img", "end.qcow2"][..]]
            .concat(),
    )?;
    let end = fs::OpenOptions::new().write(true).open(site.path("end.qcow2"))?;
    end.set_len(end.metadata()?.len() - 2_000_000)?;
    fs::write(site.path("empty.img"), "")?;
    succeed(Command::new("mkfifo").arg(site.path("pipe")).output()?.into())?;
    for (image, reason) in [
        ("end.qcow2", "the image is damaged: it has "),
        ("empty.img", "the image is empty"),
        ("pipe", "an image is a file or a block device"),
        ("top.qcow2", "none.img': No such file or directory"),
        ("locked.qcow2", "the image is encrypted: upload a copy"),
        ("cut.vdi", "the image is damaged: it has "),
        ("cut.vmdk", "points after EOF"),
        ("cut.qcow2", "the image is damaged: see qemu-img check"),
    ] {
        let ended = upload(&site, image, &[])?;
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        assert!(ended.err.contains(&format!("/{image}: ")) && ended.err.contains(reason), "{ended:?}");
    }
    for (image, part) in
        [("flat.vmdk", "flat-flat.vmdk"), ("outside.qcow2", "outside.raw"), ("over.qcow2", "cut.qcow2")]
    {
        let ended = upload(&site, image, &[])?;
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        assert!(ended.err.contains(&format!("{part}: the image is damaged: ")), "{ended:?}");
    }
    assert!(site.engine.disks().is_empty());
    Ok(())
}

fn whole_images() -> TestResult {
    for (format, options) in [
        ("vdi", "static=off"),
        ("qcow", ""),
        ("vmdk", "subformat=twoGbMaxExtentFlat"),
        ("qcow2", "data_file=outside.raw"),
        ("qcow2", "extended_l2=on"),
    ] {
        let site = site()?;
        let options: &[&str] = if format == "qcow" { &[] } else { &["-o", options] };
        let convert = ["convert", "-f", "raw", "-O", format];
        site.qemu_img(&[&convert, options, &["disk.img", "whole"]].concat())?;
        site.qemu_img(&["create", "-q", "-f", "qcow2", "-b", "whole", "-F", format, "top"])?;
        for image in ["whole", "top"] {
            let id = succeed(upload(&site, image, &[])?)?;
            let disks = site.engine.disks();
            let disk = disks.iter().find(|disk| disk.id == id.trim()).ok_or("there is no disk")?;
            site.assert_same("disk.img", "raw", disk)?;
        }
    }
    Ok(())
}

/// Cuts a file off in the middle.
fn cut(site: &Installation, name: &str) -> TestResult {
    let file = fs::OpenOptions::new().write(true).open(site.path(name))?;
    Ok(file.set_len(file.metadata()?.len() / 2)?)
}

/// An installation with the image `good.qcow2`, and the value of `PATH` by which one command of
/// `qemu-img` begins with this.
fn site_where(command: &str, does: &str) -> TestResult<(Installation, String)> {
    let site = site()?;
    site.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "disk.img", "good.qcow2"])?;
    let script =
        format!("[ \"$1\" != {command} ] || {{ {does}; }}\nexec {} \"$@\"", QEMU_IMG.path().display());
    let path = site.stand_in("qemu-img", &script)?;
    Ok((site, path))
}

fn ended_check() -> TestResult {
    for command in ["info", "check"] {
        let (site, path) = site_where(command, "kill -9 $$")?;
        let ended = run_with(&site, &["upload", "good.qcow2", "-s", STORAGE_DOMAIN], &[("PATH", &path)])?;
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        let reason = format!("/good.qcow2: qemu-img {command} was ended by a signal");
        assert!(ended.err.contains(&reason), "{ended:?}");
        assert!(site.engine.disks().is_empty());
    }
    Ok(())
}

fn sigterm_during_check() -> TestResult {
    let (site, path) = site_where("check", ": > begun; read -r _ < go")?;
    succeed(Command::new("mkfifo").arg(site.path("go")).output()?.into())?;
    let mut upload = site.imageio_nbd(&["upload", "good.qcow2", "-s", STORAGE_DOMAIN, "-c", "lab"]);
    let mut process = Daemon::spawn(upload.env("PATH", path))?;
    process.retry(|| fs::metadata(site.path("begun")))?;
    process.signal(Signal::SIGTERM)?;
    process.wait_for_line(|line| line.contains("signal 15: ending").then_some(()))?;
    fs::write(site.path("go"), "\n")?;
    let status = process.wait()?;
    let said = process.said().join("\n");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("signal 15 has ended this command: nothing was begun"), "{said}");
    assert!(site.engine.disks().is_empty() && site.engine.transfers().is_empty(), "{said}");
    Ok(())
}
