// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file that `imageio-nbd download` writes: its mode, its owner, and its place.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::Command;

use fake_engine::{Fault, What};
use support::TestResult;
use support::door::built;
use support::run::Ended;
use support::tools::QEMU_IMG;

use crate::Test;
use crate::commands::{run, run_with};
use crate::jobs::{self, BEFORE, FINALIZE, Job, Moment::Asked};
use crate::serving::site;
use support::installation::{Installation, STORAGE_DOMAIN, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("a_new_file_has_the_mode_that_the_umask_leaves", new_file),
    ("a_file_that_is_replaced_keeps_its_mode_and_owner", replaced),
    ("a_symbolic_link_is_followed", links),
    ("a_directory_is_no_target", directory),
    ("a_whole_download_that_can_not_get_its_name_is_kept", without_its_name),
    ("a_whole_download_whose_end_the_engine_does_not_confirm_is_kept", without_an_end),
];

fn site_with_disk() -> TestResult<Installation> {
    let site = site()?;
    succeed(run(&site, &["upload", "disk.img", "-s", STORAGE_DOMAIN])?)?;
    Ok(site)
}

fn mode(site: &Installation, name: &str) -> TestResult<u32> {
    Ok(fs::metadata(site.path(name))?.permissions().mode() & 0o7777)
}

/// Nothing unfinished is left.
fn assert_no_partial(site: &Installation, dir: &str) -> TestResult {
    for entry in fs::read_dir(site.path(dir))? {
        let name = entry?.file_name();
        assert!(!name.to_string_lossy().ends_with(".partial"), "{}", name.display());
    }
    Ok(())
}

fn new_file() -> TestResult {
    let site = site_with_disk()?;
    let script = format!("umask 027; exec {} download disk copy -c lab", built("imageio-nbd").display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(site.path("")).env("XDG_CONFIG_HOME", site.path(""));
    succeed(Ended::from(shell.output()?))?;
    assert_eq!(mode(&site, "copy")?, 0o640);
    Ok(())
}

fn replaced() -> TestResult {
    let site = site_with_disk()?;
    let copy = site.path("copy");
    fs::write(&copy, "what was there before")?;
    fs::set_permissions(&copy, Permissions::from_mode(0o604))?;
    // Only root may give files away.
    let is_given = chown(&copy, Some(1234), Some(1235)).is_ok();
    let before = fs::metadata(&copy)?;
    let ended = run(&site, &["download", "disk", "copy"])?;
    assert_eq!(ended.err, "");
    succeed(ended)?;
    site.assert_same("copy", "qcow2", &site.disk()?)?;
    let after = fs::metadata(&copy)?;
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_eq!((mode(&site, "copy")?, is_given), (0o604, after.uid() == 1234));
    assert_ne!(after.ino(), before.ino(), "it was replaced as a whole");
    Ok(())
}

fn links() -> TestResult {
    let site = site_with_disk()?;
    fs::create_dir(site.path("images"))?;
    symlink("images/current", site.path("copy"))?;
    symlink("../images/first", site.path("images/current"))?;
    // Once to a file that isn't there yet, and once to one that is.
    for format in ["qcow2", "raw"] {
        succeed(run(&site, &["download", "disk", "copy", "--format", format])?)?;
        for link in ["copy", "images/current"] {
            assert!(site.path(link).symlink_metadata()?.is_symlink(), "{link}");
        }
        site.assert_same("images/first", format, &site.disk()?)?;
    }
    assert_no_partial(&site, "")?;
    assert_no_partial(&site, "images")?;
    symlink("circle", site.path("circle"))?;
    let ended = run(&site, &["download", "disk", "circle"])?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    assert!(ended.err.contains("cannot write circle: there are too many symbolic links"), "{ended:?}");
    Ok(())
}

fn directory() -> TestResult {
    let site = site_with_disk()?;
    let transfers = site.engine.transfers().len();
    fs::create_dir(site.path("images"))?;
    for (target, reason) in [("images", "Is a directory"), ("none/", "this is the name of a directory")] {
        let ended = run(&site, &["download", "disk", target])?;
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        assert!(ended.err.contains(&format!("cannot write {target}: {reason}")), "{ended:?}");
    }
    assert_eq!(site.engine.transfers().len(), transfers, "nothing is begun");
    assert_no_partial(&site, "")
}

/// The file that a message names as the one with all data.
fn kept(said: &str) -> TestResult<&str> {
    let (_, rest) = said.split_once("all data was read: it is in ").ok_or_else(|| said.to_owned())?;
    let (path, _) = rest.split_once(".partial: ").ok_or_else(|| said.to_owned())?;
    Ok(&rest[..path.len() + ".partial".len()])
}

/// Somebody makes a directory of this name meanwhile.
fn without_its_name() -> TestResult {
    let site = site_with_disk()?;
    let real = QEMU_IMG.path().display().to_string();
    let path = site.stand_in("qemu-img", &format!("[ $1 != convert ] || mkdir copy\nexec {real} \"$@\""))?;
    let ended = run_with(&site, &["download", "disk", "copy"], &[("PATH", &path)])?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    assert!(ended.err.contains("/copy: Is a directory"), "{ended:?}");
    site.assert_same(kept(&ended.err)?, "qcow2", &site.disk()?)
}

fn without_an_end() -> TestResult {
    let site = jobs::site_with_disk()?;
    let Asked(method, path, nth) = FINALIZE else { return Err("the engine is asked for it".into()) };
    site.engine.fault(Fault::on(method, path).nth(nth).then(What::Silence { done: false }));
    let ended: Ended = Job::Download.command(&site).arg("engine-timeout=2").output()?.into();
    assert_eq!(ended.code, 1, "{ended:?}");
    site.assert_same(kept(&ended.err)?, "raw", &site.disk()?)?;
    assert_eq!(fs::read_to_string(site.path("copy"))?, BEFORE, "{ended:?}");
    Ok(())
}
