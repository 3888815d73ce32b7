// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd upload` and `download` whose output nobody gets.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write, pipe};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use fake_engine::DiskStatus;
use nix::sys::signal::Signal;
use rustix::fs::OFlags;
use support::TestResult;
use support::run::Ended;

use crate::Test;
use crate::jobs::{Job, site_with_disk};
use crate::serving::{assert_all_well, site};
use crate::signals::start_copying;
use support::installation::{Installation, STORAGE_DOMAIN, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("the_disk_of_an_upload_whose_output_is_lost_is_told_as_an_error", upload),
    ("a_download_whose_output_is_lost_fails", download),
    ("sigterm_ends_a_copy_whose_output_nobody_takes", stalled),
];

/// Runs it with such a standard output.
fn run(site: &Installation, arguments: &[&str], output: Stdio) -> TestResult<Ended> {
    let mut command = site.imageio_nbd(arguments);
    Ok(command.args(["-c", "lab"]).stdout(output).stderr(Stdio::piped()).spawn()?.wait_with_output()?.into())
}

fn full() -> TestResult<Stdio> {
    Ok(OpenOptions::new().write(true).open("/dev/full")?.into())
}

/// The reader has gone.
fn closed() -> TestResult<Stdio> {
    Ok(pipe()?.1.into())
}

fn upload() -> TestResult {
    let site = site()?;
    for (number, (output, format)) in
        [(full()?, "text"), (full()?, "json"), (closed()?, "text"), (closed()?, "json")]
            .into_iter()
            .enumerate()
    {
        let (state, name) = (format!("state-{number}"), format!("disk-{number}"));
        let resume: &[&str] = if number == 0 { &["--resume", &state] } else { &[] };
        let what = ["upload", "disk.img", "-s", STORAGE_DOMAIN, "--disk-name", &name, "--output", format];
        let ended = run(&site, &[&what[..], resume].concat(), output)?;
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        let disk = site.engine.disks().pop().ok_or("no disk")?;
        assert!(ended.err.contains(&format!("disk {} is complete", disk.id)), "{ended:?}");
        assert_eq!((disk.name.as_str(), disk.status), (name.as_str(), DiskStatus::Ok));
        site.assert_same("disk.img", "raw", &disk)?;
        assert!(!site.path(&state).exists(), "there is nothing to be resumed");
    }
    assert_all_well(&site);
    Ok(())
}

fn download() -> TestResult {
    let site = site()?;
    run(&site, &["upload", "disk.img", "-s", STORAGE_DOMAIN], Stdio::piped())?;
    let ended = run(&site, &["download", "disk", "copy", "--output", "json"], full()?)?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    assert!(ended.err.contains("the download is complete"), "{ended:?}");
    site.assert_same("copy", "qcow2", &site.disk()?)?;
    // There is nothing to be told.
    let ended = run(&site, &["download", "disk", "copy"], full()?)?;
    assert_eq!((ended.code, &*ended.err), (0, ""), "{ended:?}");
    Ok(())
}

/// A pipe by the name `pipe`, which is full, and which nobody reads while this is there.
fn full_pipe(site: &Installation) -> TestResult<File> {
    succeed(Command::new("mkfifo").arg(site.path("pipe")).output()?.into())?;
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let open = OpenOptions::new().read(true).write(true).custom_flags(nonblock).open(site.path("pipe"));
    let mut pipe = open?;
    loop {
        match pipe.write(b"x") {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(pipe),
            Err(error) => return Err(error.into()),
        }
    }
}

fn stalled() -> TestResult {
    for job in [Job::Upload, Job::UploadInto, Job::Download] {
        let site = site_with_disk()?;
        let known = site.engine.transfers().len();
        let _pipe = full_pipe(&site)?;
        let copy = job.command(&site);
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$0\" \"$@\" --output json > pipe"]).arg(copy.get_program());
        shell.args(copy.get_args()).current_dir(site.path("")).env("XDG_CONFIG_HOME", site.path(""));
        let mut process = start_copying(&site, &mut shell)?;
        process.signal(Signal::SIGTERM)?;
        let status = process.wait()?;
        let said = process.said().join("\n");
        assert_eq!(status.code(), Some(1), "{job:?}: {said}");
        let transfers = site.engine.transfers().split_off(known);
        assert_eq!(transfers.len(), 1, "{job:?}: {said}");
        assert!(transfers[0].phase.is_finished(), "{job:?}: {said} {transfers:?}");
        assert_eq!(site.engine.sessions(), 0, "{job:?}: {said}");
    }
    Ok(())
}
