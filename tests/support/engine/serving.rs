// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks in and out, by both doors.

use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use fake_engine::{Builder, DEFAULT_USER, Delays, DiskStatus, Phase};
use support::TestResult;
use support::door::Door;
use support::image::{SIZE, guest_disk};
use support::run::{Ended, imageio_nbd};

use crate::Test;
use support::installation::{Installation, STORAGE_DOMAIN, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("a_new_disk_is_made_and_written", a_new_disk_is_made_and_written),
    ("a_disk_is_read_by_name_and_by_id", a_disk_is_read_by_name_and_by_id),
    ("a_disk_that_exists_is_written", a_disk_that_exists_is_written),
    ("a_snapshot_is_read", a_snapshot_is_read),
    ("a_failed_command_takes_the_disk_along", a_failed_command_takes_the_disk_along),
    ("several_disks_are_made_together", several_disks_are_made_together),
    ("the_plugin_does_the_same", the_plugin_does_the_same),
    ("info_and_checksum_leave_nothing_behind", info_and_checksum_leave_nothing_behind),
];

/// Copies the guest's disk into the device.
pub(crate) const COPY_IN: &str = r#"qemu-img convert -n -f raw -O raw disk.img "$uri""#;

/// Copies the device into a file.
const COPY_OUT: &str = r#"qemu-img convert -f raw -O raw "$uri" copy.img"#;

/// An installation, and a guest's disk in `disk.img`.
pub(crate) fn site() -> TestResult<Installation> {
    site_with(|builder| builder)
}

/// An installation that is at once where its client waits for, and else is as chosen.
pub(crate) fn quick_site_with(choose: impl FnOnce(Builder) -> Builder) -> TestResult<Installation> {
    let none = Duration::ZERO;
    site_with(|builder| choose(builder.delays(Delays::all(none))))
}

fn site_with(choose: impl FnOnce(Builder) -> Builder) -> TestResult<Installation> {
    let site = Installation::with(choose)?;
    fs::write(site.path("disk.img"), guest_disk(5))?;
    Ok(site)
}

/// Runs `imageio-nbd` with what it needs of the engine.
pub(crate) fn run(site: &Installation, arguments: &[&str]) -> TestResult<Ended> {
    let engine = [format!("engine={}", site.engine.url()), format!("user={DEFAULT_USER}")];
    let engine = engine.iter().map(String::as_str).chain(["password=+password", "engine-cafile=ca.pem"]);
    let arguments: Vec<_> = engine.chain(arguments.iter().copied()).collect();
    let dir = site.path("");
    Ok(imageio_nbd(&dir, &arguments)?)
}

/// Makes the disk `uploaded`, and writes the guest's disk to it.
pub(crate) fn upload(site: &Installation) -> TestResult<Ended> {
    upload_by(site, COPY_IN)
}

pub(crate) fn upload_by(site: &Installation, command: &str) -> TestResult<Ended> {
    let (domain, size) = (format!("storage-domain={STORAGE_DOMAIN}"), format!("size={SIZE}"));
    run(site, &["new-disk=uploaded", &domain, &size, "--run", command])
}

/// All transfers have ended well, every disk can be used, and nobody is logged in.
pub(crate) fn assert_all_well(site: &Installation) {
    assert_all_ended_well(site);
    assert_eq!(site.engine.sessions(), 0);
}

/// All transfers have ended well, and every disk can be used.
pub(crate) fn assert_all_ended_well(site: &Installation) {
    for transfer in site.engine.transfers() {
        assert_eq!(transfer.phase, Phase::FinishedSuccess, "{transfer:?}");
    }
    for disk in site.engine.disks() {
        assert_eq!(disk.status, DiskStatus::Ok, "{disk:?}");
    }
}

fn a_new_disk_is_made_and_written() -> TestResult {
    for options in [&["format=raw"][..], &["backup=incremental", "description=a test"]] {
        let site = site()?;
        let (domain, size) = (format!("storage-domain={STORAGE_DOMAIN}"), format!("size={SIZE}"));
        let new = ["new-disk=my disk", &domain, &size, "--run", COPY_IN];
        succeed(run(&site, &[options, &new].concat())?)?;
        let disk = site.disk()?;
        assert_eq!(disk.name, "my disk");
        site.assert_same("disk.img", "raw", &disk)?;
        assert_all_well(&site);
    }
    Ok(())
}

fn a_disk_is_read_by_name_and_by_id() -> TestResult {
    let site = site()?;
    succeed(upload(&site)?)?;
    let disk = site.disk()?;
    for name in [&disk.name, &disk.id] {
        succeed(run(&site, &["-r", &format!("disk={name}"), "--run", COPY_OUT])?)?;
        site.assert_same("copy.img", "raw", &disk)?;
        assert_all_well(&site);
        fs::remove_file(site.path("copy.img"))?;
    }
    Ok(())
}

fn a_disk_that_exists_is_written() -> TestResult {
    let site = site()?;
    succeed(upload(&site)?)?;
    fs::write(site.path("disk.img"), guest_disk(6))?;
    succeed(run(&site, &["disk=uploaded", "--run", COPY_IN])?)?;
    site.assert_same("disk.img", "raw", &site.disk()?)?;
    assert_all_well(&site);
    Ok(())
}

fn a_snapshot_is_read() -> TestResult {
    let site = site()?;
    let (domain, size) = (format!("storage-domain={STORAGE_DOMAIN}"), format!("size={SIZE}"));
    let new = ["new-disk=uploaded", &domain, &size, "backup=incremental", "--run", COPY_IN];
    succeed(run(&site, &new)?)?;
    let layer = site.engine.snapshot_disk(&site.disk()?.id)?;
    let before = fs::read(site.path("disk.img"))?;
    fs::write(site.path("disk.img"), guest_disk(6))?;
    succeed(run(&site, &["disk=uploaded", "--run", COPY_IN])?)?;
    succeed(run(&site, &[&format!("snapshot={}", layer.image), "--run", COPY_OUT])?)?;
    support::image::same("the snapshot", &fs::read(site.path("copy.img"))?, &before)?;
    assert_all_well(&site);
    Ok(())
}

fn a_failed_command_takes_the_disk_along() -> TestResult {
    let site = site()?;
    let ended = upload_by(&site, "exit 7")?;
    assert_eq!(ended.code, 7, "{ended:?}");
    assert!(ended.err.contains("which was made for this, has been removed"), "{ended:?}");
    assert_eq!(site.engine.disks().len(), 0);
    assert!(site.engine.transfers().iter().all(|transfer| transfer.phase == Phase::FinishedFailure));

    succeed(upload(&site)?)?;
    // If nothing was written to the disk, nothing is wrong with it.
    for options in [&["--run", "exit 7"][..], &["-U", "/no/such/directory/socket", "-f"]] {
        let ended = run(&site, &[&["disk=uploaded"], options].concat())?;
        assert_ne!(ended.code, 0, "{ended:?}");
        assert!(ended.err.contains("which is as it was"), "{ended:?}");
        site.assert_same("disk.img", "raw", &site.disk()?)?;
        assert_eq!(site.disk()?.status, DiskStatus::Ok);
    }
    let writes = r#"qemu-io -f raw -c "write 0 4k" "$uri" >qemu-io.out && exit 7"#;
    let ended = run(&site, &["disk=uploaded", "--run", writes])?;
    assert_eq!(ended.code, 7, "{ended:?}");
    let is_told = ended.err.contains("the engine has removed disk") || ended.err.contains(" is illegal");
    assert!(is_told, "{ended:?}");
    Ok(())
}

fn several_disks_are_made_together() -> TestResult {
    let site = site()?;
    let (domain, size) = (format!("storage-domain={STORAGE_DOMAIN}"), format!("size={SIZE}"));
    let command = r#"for name in sda sdb
        do qemu-img convert -n -f raw -O raw disk.img "nbd+unix:///$name?socket=$unixsocket" || exit
        done"#;
    let exports = ["export=sda", "new-disk=first", "export=sdb", "new-disk=second"];
    succeed(run(&site, &[&[&*domain, &size], &exports[..], &["--run", command]].concat())?)?;
    let disks = site.engine.disks();
    assert_eq!(disks.len(), 2);
    for disk in &disks {
        site.assert_same("disk.img", "raw", disk)?;
    }
    assert_all_well(&site);
    Ok(())
}

/// By nbdkit, which has to be told what a disk is for.
fn the_plugin_does_the_same() -> TestResult {
    let site = site()?;
    let nbdkit = |disk: &[&str], command: &str| -> TestResult<Ended> {
        let engine = [format!("engine={}", site.engine.url()), format!("user={DEFAULT_USER}")];
        let files = ["password=+password", "engine-cafile=ca.pem"].map(str::to_owned);
        let disk: Vec<_> = disk.iter().map(|parameter| (*parameter).to_owned()).collect();
        let parameters = [&engine[..], &files, &disk].concat();
        let options = ["-U", "-", "--run", command].map(OsStr::new);
        let mut nbdkit = Door::Nbdkit.command(&site.path(""), &options, &parameters)?;
        Ok(nbdkit.current_dir(site.path("")).output()?.into())
    };
    let (domain, size) = (format!("storage-domain={STORAGE_DOMAIN}"), format!("size={SIZE}"));
    succeed(nbdkit(&["new-disk=uploaded", &domain, &size], COPY_IN)?)?;
    site.assert_same("disk.img", "raw", &site.disk()?)?;
    succeed(nbdkit(&["disk=uploaded", "direction=download"], COPY_OUT)?)?;
    site.assert_same("copy.img", "raw", &site.disk()?)?;
    assert_all_well(&site);
    let ended = nbdkit(&["disk=uploaded"], "true")?;
    assert!(ended.code != 0 && ended.err.contains("say direction=download"), "{ended:?}");
    assert_eq!(site.engine.transfers().len(), 2);
    Ok(())
}

fn info_and_checksum_leave_nothing_behind() -> TestResult {
    let site = site()?;
    succeed(upload(&site)?)?;
    let of_disk = |command: &str, more: &[&str]| {
        let engine = [format!("engine={}", site.engine.url()), format!("user={DEFAULT_USER}")];
        let engine = engine.iter().map(String::as_str).chain(["password=+password", "engine-cafile=ca.pem"]);
        let arguments: Vec<_> = [command]
            .into_iter()
            .chain(more.iter().copied())
            .chain(engine)
            .chain(["disk=uploaded"])
            .collect();
        TestResult::Ok(imageio_nbd(&site.path(""), &arguments)?)
    };
    let info = succeed(of_disk("info", &[])?)?;
    assert!(info.contains(&SIZE.to_string()), "{info}");
    succeed(of_disk("checksum", &["--compare", "disk.img"])?)?;
    assert_all_well(&site);
    assert_eq!(site.engine.transfers().len(), 3);
    Ok(())
}
