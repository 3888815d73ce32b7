// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images that can't be read, or of which a part is missing.

use std::fs;

use support::TestResult;
use support::installation::{Installation, STORAGE_DOMAIN, succeed};
use support::tools::QEMU_IMG;

use crate::Test;
use crate::commands::{run_with, upload};
use crate::serving::site;

pub(crate) const TESTS: &[Test] = &[
    ("an_image_that_is_not_whole_is_refused_with_the_reason", unreadable_images),
    ("an_image_whose_check_is_interrupted_is_not_told_to_be_damaged", interrupted),
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
    succeed(std::process::Command::new("mkfifo").arg(site.path("pipe")).output()?.into())?;
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

/// Ctrl-C reaches `qemu-img`, too.
fn interrupted() -> TestResult {
    let site = site()?;
    site.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "disk.img", "disk.qcow2"])?;
    let real = QEMU_IMG.path().display().to_string();
    for instead in ["kill $PPID; kill -9 $$", "kill -9 $$"] {
        let path =
            site.stand_in("qemu-img", &format!("[ $1 != check ] || {{ {instead}; }}\nexec {real} \"$@\""))?;
        let upload = ["upload", "disk.qcow2", "-s", STORAGE_DOMAIN];
        let ended = run_with(&site, &upload, &[("PATH", &path)])?;
        assert_eq!(ended.code, 1, "{ended:?}");
        let is_told = ended.err.contains("has not come to its end (signal: 9");
        assert!(is_told && !ended.err.contains("damaged"), "{instead}: {ended:?}");
        assert!(site.engine.journal().is_empty(), "{instead}: nothing is asked of the engine");
    }
    Ok(())
}

fn whole_images() -> TestResult {
    for (format, options) in [
        ("vdi", "static=off"),
        ("qcow", ""),
        ("vmdk", "subformat=twoGbMaxExtentFlat"),
        ("qcow2", "data_file=outside.raw"),
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
