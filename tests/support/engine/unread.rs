// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd upload` and `download` whose output nobody gets.

use std::fs::OpenOptions;
use std::io::{Write, pipe};
use std::process::{Command, Stdio};

use fake_engine::{DiskStatus, Phase};
use nix::sys::signal::Signal;
use support::TestResult;
use support::run::Ended;

use crate::Test;
use crate::jobs::Job;
use crate::serving::{assert_all_well, site};
use crate::signals::start_copying;
use support::installation::{Installation, STORAGE_DOMAIN, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("the_disk_of_an_upload_whose_output_is_lost_is_told_as_an_error", upload),
    ("a_download_whose_output_is_lost_fails", download),
    ("a_reader_that_stalls_holds_up_no_signal", stalled),
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

/// A pipe takes so many bytes, page by page.
const PIPE: usize = 64 << 10;

fn stalled() -> TestResult {
    let site = site()?;
    succeed(Command::new("mkfifo").arg(site.path("out")).output()?.into())?;
    let mut reader = OpenOptions::new().read(true).write(true).open(site.path("out"))?;
    // The first line, that it begins, finds room in the last page, and the others don't.
    reader.write_all(&vec![b'x'; PIPE - 150])?;
    let upload = Job::Upload.command(&site);
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$0\" \"$@\" --output json >out"])
        .arg(upload.get_program())
        .args(upload.get_args());
    for (name, value) in upload.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.current_dir(site.path(""));
    let mut process = start_copying(&site, &mut command)?;
    process.signal(Signal::SIGTERM)?;
    let status = process.wait()?;
    let said = process.said().join("\n");
    assert!(status.code() == Some(1) && said.contains("signal 15"), "{status} {said}");
    assert!(
        site.engine.transfers().iter().all(|transfer| transfer.phase == Phase::FinishedFailure),
        "{said}"
    );
    assert!(site.engine.disks().is_empty(), "{said}");
    drop(reader);
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
