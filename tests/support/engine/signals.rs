// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals in each phase of `upload` and `download`: SIGTERM leaves nothing under way, and what
//! SIGKILL leaves is ended as docs/engine.md says.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use fake_engine::{DEFAULT_PASSWORD, DEFAULT_USER, Disk, Fault, Gate, Phase, Transfer, What};
use nix::sys::signal::Signal;
use support::TestResult;
use support::installation::{Installation, succeed};
use support::process::{Daemon, PATIENCE};
use support::run::Ended;
use support::tools::{QEMU_IMG, QEMU_IO};

use crate::Test;
use crate::jobs::Moment::{Asked, Copying};
use crate::jobs::{
    BEFORE, DISK_IS_LOCKED, DISK_IS_MADE, FINALIZE, FINALIZING, Job, Moment, assert_complete, site_with_disk,
};

pub(crate) const TESTS: &[Test] = &[
    ("sigterm_ends_an_upload_in_each_phase", || terminate(Job::Upload)),
    ("sigterm_ends_an_upload_into_a_disk_in_each_phase", || terminate(Job::UploadInto)),
    ("sigterm_ends_a_download_in_each_phase", || terminate(Job::Download)),
    ("sigterm_keeps_a_disk_that_was_there_for_an_upload_that_goes_on", keep_for_later),
    ("what_sigkill_leaves_of_an_upload_is_ended_as_documented", || kill(Job::Upload)),
    ("what_sigkill_leaves_of_an_upload_into_a_disk_is_ended_as_documented", || kill(Job::UploadInto)),
    ("what_sigkill_leaves_of_a_download_is_ended_as_documented", || kill(Job::Download)),
];

/// Starts the job, and sends the signal when it has come to the moment.
fn interrupt(
    site: &Installation,
    job: Job,
    moment: Moment,
    hold: fn(Gate) -> What,
    signal: Signal,
) -> TestResult<(ExitStatus, String)> {
    let gate = Gate::new();
    let mut command = job.command(site);
    let mut process = match moment {
        Asked(method, path, nth) => {
            site.engine.fault(Fault::on(method, path).nth(nth).then(hold(gate.clone())));
            let process = Daemon::spawn(&mut command)?;
            if !gate.wait_reached(1, PATIENCE) {
                return Err(format!("{job:?} {moment:?}: it isn't asked").into());
            }
            process
        }
        Copying => start_copying(site, &mut command)?,
    };
    process.signal(signal)?;
    gate.open();
    let status = process.wait()?;
    Ok((status, process.said().join("\n")))
}

/// With a `qemu-img` that writes a little, and never ends before its parent. It must not keep
/// standard error open, whose end tells that the parent has ended.
pub(crate) fn start_copying(site: &Installation, command: &mut Command) -> TestResult<Daemon> {
    let script = format!(
        "[ \"$1\" = convert ] || exec {} \"$@\"\nfor last; do :; done\n\
         {} -f raw -c 'write 0 64k' \"$last\" >&2\n: > begun\nexec tail --pid=$PPID -f /dev/null 2>/dev/null",
        QEMU_IMG.path().display(),
        QEMU_IO.path().display()
    );
    let path = site.stand_in("qemu-img", &script)?;
    let _ = fs::remove_file(site.path("begun"));
    let mut process = Daemon::spawn(command.env("PATH", path))?;
    process.retry(|| fs::metadata(site.path("begun")))?;
    Ok(process)
}

/// A request is not carried out, or carried out and not answered, when the signal comes. In the
/// end, nothing is under way in the engine, and the exit status is 0 only if all was done.
fn terminate(job: Job) -> TestResult {
    for hold in [What::Hold as fn(Gate) -> What, What::HoldReply] {
        let mut site = site_with_disk()?;
        for &moment in job.moments() {
            let (disks, known) = (site.engine.disks(), site.engine.transfers().len());
            let (status, said) = interrupt(&site, job, moment, hold, Signal::SIGTERM)?;
            let context = format!("{job:?} {moment:?}: {status}: {said}");
            let transfers = site.engine.transfers().split_off(known);
            assert!(transfers.iter().all(|transfer| transfer.phase.is_finished()), "{context} {transfers:?}");
            assert_eq!(site.engine.sessions(), 0, "{context}");
            let is_done = transfers.iter().any(|transfer| transfer.phase == Phase::FinishedSuccess);
            if status.success() {
                assert!(is_done && matches!(moment, FINALIZE | FINALIZING), "{context}");
                assert_complete(&site, job, &transfers).map_err(|error| format!("{context}: {error}"))?;
                fs::write(site.path("copy"), BEFORE)?;
                continue;
            }
            assert_eq!(fs::read_to_string(site.path("copy"))?, BEFORE, "{context}");
            assert!(partial_files(&site)?.is_empty(), "{context}");
            if matches!((job, moment), (Job::UploadInto, Copying)) {
                assert!(site.engine.disks().is_empty(), "nobody knows what is on it: {context}");
                site = site_with_disk()?;
            } else {
                assert_eq!(site.engine.disks(), disks, "{context}");
            }
        }
    }
    Ok(())
}

/// The signal comes with the first writes. A disk that was there before isn't given up with them.
fn keep_for_later() -> TestResult {
    let site = site_with_disk()?;
    let (disks, known) = (site.engine.disks(), site.engine.transfers().len());
    let upload = || {
        let mut command = Job::UploadInto.command(&site);
        command.args(["--resume", "state"]);
        command
    };
    let mut process = start_copying(&site, &mut upload())?;
    process.signal(Signal::SIGTERM)?;
    let status = process.wait()?;
    let said = process.said().join("\n");
    assert_eq!(status.code(), Some(1), "{said}");
    let transfers = site.engine.transfers().split_off(known);
    assert!(transfers.iter().all(|transfer| transfer.phase == Phase::PausedUser), "{said} {transfers:?}");
    assert_eq!(site.engine.disks().len(), disks.len(), "{said}");
    succeed(upload().output()?.into())?;
    assert_complete(&site, Job::UploadInto, &site.engine.transfers().split_off(known))
}

fn partial_files(site: &Installation) -> TestResult<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(site.path(""))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name.ends_with(".partial"));
    Ok(names)
}

/// A disk and a transfer that are left stay until somebody ends them; then the next start succeeds.
fn kill(job: Job) -> TestResult {
    let site = site_with_disk()?;
    for &moment in job.moments() {
        let (disks, known) = (site.engine.disks(), site.engine.transfers().len());
        let (status, said) = interrupt(&site, job, moment, What::HoldReply, Signal::SIGKILL)?;
        let context = format!("{job:?} {moment:?}: {said}");
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{context}");
        assert_eq!(fs::read_to_string(site.path("copy"))?, BEFORE, "{context}");
        let is_settled = |transfer: &Transfer| transfer.phase.is_finished() || is_left(transfer);
        let settled = |_: &_| site.engine.transfers().iter().all(is_settled);
        assert!(site.engine.wait_for(PATIENCE, settled), "{context}");
        for transfer in site.engine.transfers().split_off(known) {
            if is_left(&transfer) {
                end_as_documented(&site, job, &transfer).map_err(|error| format!("{context}: {error}"))?;
            } else if job == Job::Upload {
                // The request that was sent before the signal is carried out.
                assert_complete(&site, job, &[transfer]).map_err(|error| format!("{context}: {error}"))?;
                remove_as_documented(&site, &disks)?;
            }
        }
        if matches!(moment, DISK_IS_MADE | DISK_IS_LOCKED) {
            remove_as_documented(&site, &disks)?;
        }
        assert_eq!(site.engine.disks(), disks, "{context}");
        fs::write(site.path("copy"), BEFORE)?;
    }
    succeed(job.command(&site).output()?.into())?;
    Ok(())
}

/// Nobody but a user will end it.
fn is_left(transfer: &Transfer) -> bool {
    matches!(transfer.phase, Phase::Transferring | Phase::PausedSystem)
}

/// The disk is locked until its transfer, which the engine has paused, is ended by hand: in a way
/// that keeps a disk that was there before.
fn end_as_documented(site: &Installation, job: Job, transfer: &Transfer) -> TestResult {
    site.engine.pause_transfer(&transfer.id);
    let again: Ended = site.imageio_nbd(&["download", &transfer.disk, "copy", "-c", "lab"]).output()?.into();
    assert_eq!((again.code, again.err.lines().count()), (1, 1), "{again:?}");
    assert!(again.err.contains("refuses POST /imagetransfers: 409"), "{again:?}");
    let listed = follow_documentation(site, "imagetransfers", &transfer.id)?;
    assert!(listed.contains(&transfer.id), "{listed}");
    let end = if job == Job::UploadInto { "finalize" } else { "cancel" };
    let said = follow_documentation(site, &format!("imagetransfers/ID/{end}"), &transfer.id)?;
    let is_over = |_: &_| {
        let transfers = site.engine.transfers();
        transfers.iter().any(|other| other.id == transfer.id && other.phase.is_finished())
    };
    if site.engine.wait_for(PATIENCE, is_over) {
        Ok(())
    } else {
        Err(format!("it isn't over: {said}").into())
    }
}

/// Removes by hand what wasn't there before.
fn remove_as_documented(site: &Installation, before: &[Disk]) -> TestResult {
    let disks = site.engine.disks();
    let new = disks.iter().find(|disk| !before.contains(disk)).ok_or("there is no new disk")?;
    follow_documentation(site, "disks/ID", &new.id)?;
    let is_gone = |_: &_| site.engine.disks() == before;
    if site.engine.wait_for(PATIENCE, is_gone) { Ok(()) } else { Err("it isn't removed".into()) }
}

/// Runs the command about this in docs/engine.md, as a user does who has read it.
pub(crate) fn follow_documentation(site: &Installation, path: &str, id: &str) -> TestResult<String> {
    let text = include_str!("../../../docs/engine.md");
    let (_, section) = text.split_once("\n## What SIGKILL leaves\n").ok_or("there is no such section")?;
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let blocks = section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let script: String = blocks.collect();
    let is_meant = |command: &&str| command.trim_end().ends_with(&format!("/api/{path}"));
    let command = script.split("curl ").find(is_meant).ok_or("there is no such command")?;
    let command = command
        .replace("https://ENGINE", &site.engine.base())
        .replace("/ID", &format!("/{id}"))
        .replace(DEFAULT_USER, &format!("{DEFAULT_USER}:{DEFAULT_PASSWORD}"));
    succeed(site.run("sh".as_ref(), ["-c", &format!("curl -sS {command}")])?)
}
