// SPDX-License-Identifier: MIT OR Apache-2.0
//! An engine that answers nothing any more, in each phase: everybody ends by itself, and tells what
//! may be left.

use std::fs;

use fake_engine::{Disk, Fault, What};
use support::TestResult;
use support::process::Daemon;

use crate::Test;
use crate::jobs::Moment::{self, Asked};
use crate::jobs::{
    BEFORE, DISK_IS_FOUND, DISK_IS_LOCKED, DISK_IS_MADE, FINALIZE, FINALIZING, INITIALIZING, Job, LOG_IN,
    TRANSFER_IS_MADE, site_with_disk,
};

pub(crate) const TESTS: &[Test] = &[
    ("an_engine_is_silent_when_a_user_logs_in", || silent(Job::Upload, LOG_IN)),
    ("an_engine_is_silent_when_a_disk_is_made", || silent(Job::Upload, DISK_IS_MADE)),
    ("an_engine_is_silent_while_a_disk_is_locked", || silent(Job::Upload, DISK_IS_LOCKED)),
    ("an_engine_is_silent_when_an_upload_is_begun", || silent(Job::Upload, TRANSFER_IS_MADE)),
    ("an_engine_is_silent_while_an_upload_begins", || silent(Job::UploadInto, INITIALIZING)),
    ("an_engine_is_silent_when_an_upload_is_finalized", || silent(Job::Upload, FINALIZE)),
    ("an_engine_is_silent_while_an_upload_is_verified", || silent(Job::UploadInto, FINALIZING)),
    ("an_engine_is_silent_when_a_disk_is_looked_up", || silent(Job::Download, DISK_IS_FOUND)),
    ("an_engine_is_silent_when_a_download_is_begun", || silent(Job::Download, TRANSFER_IS_MADE)),
    ("an_engine_is_silent_when_a_download_is_finalized", || silent(Job::Download, FINALIZE)),
];

/// From this moment on, the engine is silent for good. [`Daemon::wait`] fails if the end doesn't
/// come.
fn silent(job: Job, moment: Moment) -> TestResult {
    let Asked(method, path, nth) = moment else { return Err("nobody asks the engine then".into()) };
    // A request that makes something may be carried out or not.
    let dones: &[bool] = if method == "POST" { &[false, true] } else { &[false] };
    for &done in dones {
        let site = site_with_disk()?;
        let (disks, known) = (site.engine.disks(), site.engine.transfers().len());
        site.engine.fault(Fault::on(method, path).nth(nth).then(What::Silence { done }));
        let mut process = Daemon::spawn(job.command(&site).arg("engine-timeout=2"))?;
        let status = process.wait()?;
        let said = process.said().join("\n");
        let context = format!("{job:?} {moment:?} {done}: {said}");
        assert_eq!(status.code(), Some(1), "{context}");
        site.assert_no_secret(&said)?;
        assert_eq!(fs::read_to_string(site.path("copy"))?, BEFORE, "{context}");
        let is_known = |disk: &Disk| disks.iter().any(|known| known.id == disk.id);
        let mut new = site.engine.disks().into_iter().filter(|disk| !is_known(disk));
        assert!(new.all(|disk| said.contains(&disk.id)), "a disk isn't named: {context}");
        let begun = site.engine.transfers().split_off(known);
        let is_named = |id: &String| said.contains(id);
        let are_named = begun.iter().all(|transfer| is_named(&transfer.id) || is_named(&transfer.disk));
        assert!(are_named, "a transfer isn't named: {context}");
    }
    Ok(())
}
