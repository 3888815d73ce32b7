// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd upload` and `download`.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use fake_engine::{ContentType, DEFAULT_PASSWORD, DiskFormat, Transfer};
use serde_json::Value;
use support::TestResult;
use support::door::built;
use support::image::{SIZE, guest_disk, same};
use support::process::{Daemon, PATIENCE};
use support::run::Ended;
use support::tools::QEMU_IMG;

use crate::Test;
use crate::jobs::{Job, site_with_disk};
use crate::serving::{assert_all_well, site};
use support::installation::{Installation, STORAGE_DOMAIN, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("an_image_is_what_its_format_says_and_not_what_is_on_it", image_format),
    ("a_backing_file_need_not_be_a_file", backing_device),
    ("an_image_is_not_taken_for_the_state_of_its_upload", image_as_state),
    ("an_image_that_changes_is_no_good_upload", an_image_that_changes_is_no_good_upload),
    ("images_of_any_format_are_uploaded", images_of_any_format_are_uploaded),
    ("an_optical_disk_is_uploaded_as_such", an_optical_disk_is_uploaded_as_such),
    ("a_disk_is_downloaded_in_both_formats", a_disk_is_downloaded_in_both_formats),
    ("progress_is_told_as_json", progress_is_told_as_json),
    ("a_copy_that_fails_leaves_nothing", a_copy_that_fails_leaves_nothing),
    ("the_reason_of_a_failed_copy_is_told_last", the_reason_of_a_failed_copy_is_told_last),
    ("a_disk_of_another_size_is_not_written", a_disk_of_another_size_is_not_written),
    ("what_is_missing_is_told", what_is_missing_is_told),
    ("what_a_command_decides_is_no_parameter_of_it", decided),
    ("a_name_that_no_disk_can_have_is_told_by_its_option", impossible_names),
];

/// Runs a command with a section of the configuration file.
pub(crate) fn run(site: &Installation, arguments: &[&str]) -> TestResult<Ended> {
    run_with(site, arguments, &[])
}

/// Runs a command with a section of the configuration file, and variables of the environment.
pub(crate) fn run_with(
    site: &Installation,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> TestResult<Ended> {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "60"]).arg(built("imageio-nbd")).args(arguments).args(["-c", "lab"]);
    let command = command.current_dir(site.path("")).env("XDG_CONFIG_HOME", site.path(""));
    let ended: Ended = command.envs(variables.iter().copied()).output()?.into();
    assert!(!ended.err.contains(DEFAULT_PASSWORD) && !ended.out.contains(DEFAULT_PASSWORD), "{ended:?}");
    Ok(ended)
}

pub(crate) fn upload(site: &Installation, file: &str, more: &[&str]) -> TestResult<Ended> {
    run(site, &[&["upload", file, "--storage-domain", STORAGE_DOMAIN], more].concat())
}

fn images_of_any_format_are_uploaded() -> TestResult {
    for (image_format, disk_format) in [("raw", "qcow2"), ("qcow2", "raw"), ("vmdk", "qcow2")] {
        let site = site()?;
        let file = format!("guest.{image_format}");
        site.qemu_img(&["convert", "-f", "raw", "-O", image_format, "disk.img", &file])?;
        let id = succeed(upload(&site, &file, &["--format", disk_format, "--description", "a test"])?)?;
        let disk = site.disk()?;
        assert_eq!((id.trim(), &*disk.name, disk.provisioned_size), (&*disk.id, "guest", SIZE));
        let is_cow = disk.format == DiskFormat::Cow;
        assert_eq!((is_cow, disk.incremental_backup), (disk_format == "qcow2", disk_format == "qcow2"));
        site.assert_same("disk.img", "raw", &disk)?;
        assert_all_well(&site);
    }
    Ok(())
}

fn an_optical_disk_is_uploaded_as_such() -> TestResult {
    let site = site()?;
    let mut iso = guest_disk(7);
    iso[0x8000..0x8007].copy_from_slice(b"\x01CD001\x01");
    fs::write(site.path("setup.iso"), &iso)?;
    succeed(upload(&site, "setup.iso", &["--disk-name", "setup"])?)?;
    let disk = site.disk()?;
    assert_eq!((disk.content_type, disk.format, disk.sparse), (ContentType::Iso, DiskFormat::Raw, false));
    site.assert_same("setup.iso", "raw", &disk)?;
    assert_all_well(&site);
    Ok(())
}

fn a_disk_is_downloaded_in_both_formats() -> TestResult {
    let site = site()?;
    succeed(upload(&site, "disk.img", &[])?)?;
    for format in ["raw", "qcow2"] {
        fs::write(site.path("copy"), "what was there before")?;
        succeed(run(&site, &["download", "disk", "copy", "--format", format])?)?;
        site.assert_same("copy", format, &site.disk()?)?;
    }
    assert_all_well(&site);
    Ok(())
}

fn progress_is_told_as_json() -> TestResult {
    let site = site()?;
    let out = succeed(upload(&site, "disk.img", &["--output", "json"])?)?;
    let lines: Vec<Value> = out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let last = lines.last().ok_or("nothing is told")?;
    assert_eq!(last["description"], "upload completed");
    assert_eq!((&last["transferred"], &last["size"]), (&SIZE.into(), &SIZE.into()));
    assert_eq!(last["disk"], site.disk()?.id);
    let transferred: Vec<_> = lines.iter().map(|line| line["transferred"].as_u64()).collect();
    assert!(transferred.is_sorted() && lines.len() >= 3, "{lines:?}");
    Ok(())
}

fn a_copy_that_fails_leaves_nothing() -> TestResult {
    let site = site()?;
    succeed(upload(&site, "disk.img", &[])?)?;
    let before = site.engine.disks();
    site.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "disk.img", "broken.qcow2"])?;
    let image = fs::read(site.path("broken.qcow2"))?;
    fs::write(site.path("broken.qcow2"), &image[..image.len() / 2])?;
    let ended = upload(&site, "broken.qcow2", &[])?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    assert!(ended.err.contains("broken.qcow2: the image is damaged"), "{ended:?}");

    // It finds out when a part of the disk is written.
    let real = QEMU_IMG.path().display().to_string();
    let stand_in = format!(
        "[ $1 = convert ] || exec {real} \"$@\"\nfor disk; do :; done\n\
         {real} bench -q -w -c 16 -s 64k -f raw \"$disk\" && exit 1"
    );
    let path = site.stand_in("qemu-img", &stand_in)?;
    let copy = ["upload", "disk.img", "--storage-domain", STORAGE_DOMAIN];
    let ended = run_with(&site, &copy, &[("PATH", &path)])?;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("qemu-img failed (exit status: 1)"), "{ended:?}");
    assert_eq!(site.engine.disks(), before, "what was made is removed, and nothing else");

    // No room for the file.
    let ended = run(&site, &["download", "disk", "/no/such/directory/copy"])?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    fs::write(site.path("copy"), "what was there before")?;
    let limited = format!("ulimit -f 100; exec {} download disk copy -c lab", built("imageio-nbd").display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &limited]).current_dir(site.path("")).env("XDG_CONFIG_HOME", site.path(""));
    let ended: Ended = shell.output()?.into();
    assert_ne!(ended.code, 0, "{ended:?}");
    same("the file", &fs::read(site.path("copy"))?, b"what was there before")?;
    let left: Vec<_> =
        fs::read_dir(site.path(""))?.filter_map(|file| file.ok()?.file_name().into_string().ok()).collect();
    assert!(!left.iter().any(|name| name.contains("partial")), "{left:?}");
    Ok(())
}

/// An administrator cancels the transfer before data flows. The program that copies knows only that
/// its requests fail.
fn the_reason_of_a_failed_copy_is_told_last() -> TestResult {
    for job in [Job::Upload, Job::Download] {
        let site = site_with_disk()?;
        let (code, said) = copy_after(&site, &mut job.command(&site), COPY, cancel)?;
        assert_eq!(code, Some(1), "{job:?}: {said:?}");
        let last = said.last().ok_or("nothing is said")?;
        assert!(last.contains("the engine has ended transfer"), "{job:?}: {said:#?}");
        assert!(said.len() < 6, "{job:?}: {said:#?}");
    }
    Ok(())
}

/// The commands of a shell in the place of `qemu-img convert`, before and after something happens.
pub(crate) type Copying<'a> = [&'a str; 2];

/// With `qemu-img`, after something has happened.
pub(crate) const COPY: Copying<'_> = ["", ""];

/// Starts a command, and does something while it copies. Returns its exit status, and what it has
/// said.
pub(crate) fn copy_after(
    site: &Installation,
    command: &mut Command,
    [before, after]: Copying<'_>,
    act: impl FnOnce(&Installation, &Transfer) -> TestResult,
) -> TestResult<(Option<i32>, Vec<String>)> {
    succeed(Command::new("mkfifo").arg(site.path("go")).output()?.into())?;
    let wait = format!(
        "[ $1 != convert ] || {{ for last; do :; done; {before}\n: > begun; read -r _ < go; {after}\n}}\nexec {} \"$@\"",
        QEMU_IMG.path().display()
    );
    let path = site.stand_in("qemu-img", &wait)?;
    let mut process = Daemon::spawn(command.env("PATH", path))?;
    process.retry(|| fs::metadata(site.path("begun")))?;
    act(site, &site.engine.transfers().pop().ok_or("there is no transfer")?)?;
    fs::write(site.path("go"), "\n")?;
    let status = process.wait()?;
    Ok((status.code(), process.said().to_vec()))
}

/// Cancels a transfer, and waits until the server has lost its ticket.
pub(crate) fn cancel(site: &Installation, transfer: &Transfer) -> TestResult {
    site.engine.cancel_transfer(&transfer.id);
    let is_removed = |_: &_| site.engine.transfers().iter().all(|transfer| !transfer.has_ticket);
    if site.engine.wait_for(PATIENCE, is_removed) { Ok(()) } else { Err("the ticket is there".into()) }
}

fn a_disk_of_another_size_is_not_written() -> TestResult {
    let site = site()?;
    succeed(upload(&site, "disk.img", &[])?)?;
    succeed(run(&site, &["upload", "disk.img", "--disk", "disk"])?)?;
    for size in [SIZE - (1 << 20), SIZE + (1 << 20)] {
        fs::write(site.path("other.img"), vec![1; usize::try_from(size)?])?;
        let ended = run(&site, &["upload", "other.img", "--disk", "disk"])?;
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        assert!(ended.err.contains(&format!("has {SIZE} bytes, and the image {size}")), "{ended:?}");
    }
    site.assert_same("disk.img", "raw", &site.disk()?)?;
    assert_all_well(&site);
    Ok(())
}

fn what_is_missing_is_told() -> TestResult {
    let site = site()?;
    for (arguments, expected) in [
        (&["upload", "none.img", "--storage-domain", STORAGE_DOMAIN][..], "none.img: No such file"),
        (&["upload", "two\nlines.img", "--storage-domain", STORAGE_DOMAIN], "two\\nlines.img: No such file"),
        (&["upload", "disk.img", "--storage-domain", "none"], "the engine has no storage domain 'none'"),
        (&["upload", "disk.img", "--disk", "none"], "the engine has no disk 'none'"),
        (&["download", "none", "copy"], "the engine has no disk 'none'"),
    ] {
        let ended = run(&site, arguments)?;
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        assert!(ended.err.contains(expected), "{ended:?}");
    }
    let ended = run(&site, &["upload", "disk.img"])?;
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(site.engine.disks().is_empty() && !site.path("copy").exists());
    Ok(())
}

fn decided() -> TestResult {
    let site = site()?;
    let new = ["upload", "disk.img", "--storage-domain", STORAGE_DOMAIN];
    let old = ["upload", "disk.img", "--disk", "disk"];
    for (command, more, expected) in [
        (&new[..], "size=1M", "size=: it is that of the image: leave it out"),
        (&old, "size=1M", "size=: it is that of the image: leave it out"),
        (&new, "new-disk=x", "new-disk=: use --disk-name: leave it out"),
        (&new, "storage_domain=x", "storage-domain=: use --storage-domain"),
        (&old, "direction=download", "direction=: it is an upload"),
        (&new, "other.img", "'other.img': no more arguments are expected but parameters"),
        (&["download", "disk", "copy"], "disk=other", "disk=: the first argument is the disk"),
        (&["download", "disk", "copy"], "more", "'more': no more arguments are expected"),
        (&["backup", "guest", "backups"], "more", "'more': no more arguments are expected"),
    ] {
        let ended = run(&site, &[command, &[more]].concat())?;
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        assert!(ended.err.contains(expected), "{ended:?}");
    }
    assert!(site.engine.disks().is_empty() && site.engine.transfers().is_empty());
    let help = succeed(Ended::from(Command::new(built("imageio-nbd")).args(["upload", "--help"]).output()?))?;
    let usage = help.lines().find(|line| line.starts_with("Usage:")).ok_or("no usage")?;
    assert!(usage.contains("|--disk NAME [--resume STATE]"), "{usage}");
    Ok(())
}

fn impossible_names() -> TestResult {
    let site = site()?;
    let long = "x".repeat(256);
    for name in ["", "two\nlines", &long] {
        for (arguments, option) in [
            (&["upload", "disk.img", "-s", STORAGE_DOMAIN, "--disk-name", name][..], "--disk-name"),
            (&["upload", "disk.img", "-s", name], "--storage-domain"),
            (&["upload", "disk.img", "--disk", name], "--disk"),
            (&["upload", "disk.img", "-s", STORAGE_DOMAIN, "-d", name], "--description"),
            (&["download", name, "copy"], "<DISK>"),
            (&["restore", "backups", "-s", name], "--storage-domain"),
        ] {
            let ended = run(&site, arguments)?;
            assert!(ended.code == 2 && ended.err.contains(option), "{arguments:?}: {ended:?}");
            assert!(ended.err.contains("a text of 1 to 255 bytes in one line"), "{ended:?}");
        }
    }
    fs::copy(site.path("disk.img"), site.path("two\nlines.img"))?;
    let ended = upload(&site, "two\nlines.img", &[])?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    assert!(ended.err.contains("--disk-name is missing: the name of the image's file"), "{ended:?}");
    succeed(upload(&site, "two\nlines.img", &["--disk-name", "one line"])?)?;
    Ok(())
}

/// A disk of one half before and one half after a change is none that ever was.
fn an_image_that_changes_is_no_good_upload() -> TestResult {
    let site = site()?;
    let script = format!(
        "{} \"$@\" && if [ \"$1\" = convert ]; then truncate -s 1M disk.img; fi",
        QEMU_IMG.path().display()
    );
    let path = site.stand_in("qemu-img", &script)?;
    let ended =
        run_with(&site, &["upload", "disk.img", "--storage-domain", STORAGE_DOMAIN], &[("PATH", &path)])?;
    assert!(ended.code == 1 && ended.err.contains("disk.img has changed"), "{ended:?}");
    assert!(site.engine.disks().is_empty(), "{ended:?}");
    Ok(())
}

/// A guest can write the header of another format to its disk, with a file of the host in it.
fn image_format() -> TestResult {
    let site = site()?;
    fs::write(site.path("secret"), [7; 65536])?;
    site.qemu_img(&["create", "-q", "-f", "qcow2", "-b", "secret", "-F", "raw", "guest.img", "64K"])?;
    let upload = ["upload", "guest.img", "-s", STORAGE_DOMAIN, "--disk-name", "guest"];
    succeed(run_with(&site, &[&upload[..], &["--image-format", "raw"]].concat(), &[])?)?;
    site.assert_same("guest.img", "raw", &site.disk()?)?;
    let ended = run_with(&site, &[&upload[..], &["--image-format", "none"]].concat(), &[])?;
    assert!(ended.code == 1 && ended.err.contains("Unknown driver 'none'"), "{ended:?}");
    Ok(())
}

/// Nobody can tell whether it changes, so such an upload can't be resumed.
fn backing_device() -> TestResult {
    let site = site()?;
    let zeroes =
        r#"json:{"driver": "raw", "file": {"driver": "null-co", "read-zeroes": true, "size": 1048576}}"#;
    let backing = ["-b", zeroes, "-F", "raw"];
    site.qemu_img(&[&["create", "-q", "-f", "qcow2"][..], &backing, &["top.qcow2", "1M"]].concat())?;
    let upload = ["upload", "top.qcow2", "-s", STORAGE_DOMAIN];
    let refused = run_with(&site, &[&upload[..], &["--resume", "state"]].concat(), &[])?;
    assert!(refused.code == 1 && refused.err.contains("leave out --resume"), "{refused:?}");
    succeed(run_with(&site, &upload, &[])?)?;
    site.assert_same("top.qcow2", "qcow2", &site.disk()?)
}

/// Nor is anything written to it.
fn image_as_state() -> TestResult {
    let site = site()?;
    fs::write(site.path("empty.img"), "")?;
    for image in ["disk.img", "empty.img"] {
        let before = fs::read(site.path(image))?;
        let (hard, soft) = (format!("{image}.hard"), format!("{image}.soft"));
        fs::hard_link(site.path(image), site.path(&hard))?;
        symlink(image, site.path(&soft))?;
        for state in [image, &hard, &soft] {
            let ended = upload(&site, image, &["--resume", state])?;
            assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
            assert!(ended.err.contains(&format!("{state} is the image: name another file")), "{ended:?}");
            assert!(site.path(state).exists(), "{ended:?}");
        }
        assert_eq!(fs::read(site.path(image))?, before);
    }
    let ended = upload(&site, "none.img", &["--resume", "none.img"])?;
    assert!(ended.code == 1 && !site.path("none.img").exists(), "{ended:?}");
    let ended = run(&site, &["upload", "--resume", "disk.img"])?;
    assert!(ended.code == 1 && ended.err.contains("name another file"), "{ended:?}");
    assert!(!ended.err.contains("remove it") && site.engine.disks().is_empty(), "{ended:?}");
    Ok(())
}
