// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests of `upload` and `download` to an engine, step by step: whatever may happen, happens
//! at each.

use std::fs;
use std::process::Command;

use fake_engine::{Disk, DiskStatus, Transfer};
use support::TestResult;
use support::image::same;
use support::installation::{Installation, STORAGE_DOMAIN, succeed};

use self::Moment::{Asked, Copying};
use crate::serving::quick_site_with;

/// The job that is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// An upload into a new disk.
    Upload,
    /// An upload into the disk `there`.
    UploadInto,
    /// A download of the disk `there` into the file `copy`.
    Download,
}

/// The moment that the job has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// At the n-th request of this method and path.
    Asked(&'static str, &'static str, u64),
    /// Data flows.
    Copying,
}

pub(crate) const LOG_IN: Moment = Asked("POST", "sso/oauth/token", 1);
pub(crate) const DISK_IS_MADE: Moment = Asked("POST", "api/disks", 1);
pub(crate) const DISK_IS_LOCKED: Moment = Asked("GET", "api/disks/*", 1);
pub(crate) const DISK_IS_FOUND: Moment = Asked("GET", "api/disks", 1);
pub(crate) const TRANSFER_IS_MADE: Moment = Asked("POST", "api/imagetransfers", 1);
pub(crate) const INITIALIZING: Moment = Asked("GET", "api/imagetransfers/*", 1);
pub(crate) const FINALIZE: Moment = Asked("POST", "api/imagetransfers/*/finalize", 1);
/// The first question is answered by `transferring`, the second is the one before `finalize`.
pub(crate) const FINALIZING: Moment = Asked("GET", "api/imagetransfers/*", 3);

impl Job {
    pub(crate) fn moments(self) -> &'static [Moment] {
        match self {
            Self::Upload => &[
                LOG_IN,
                DISK_IS_MADE,
                DISK_IS_LOCKED,
                TRANSFER_IS_MADE,
                INITIALIZING,
                Copying,
                FINALIZE,
                FINALIZING,
            ],
            Self::UploadInto | Self::Download => {
                &[LOG_IN, DISK_IS_FOUND, TRANSFER_IS_MADE, INITIALIZING, Copying, FINALIZE, FINALIZING]
            }
        }
    }

    pub(crate) fn command(self, site: &Installation) -> Command {
        let arguments: &[&str] = match self {
            Self::Upload => &["upload", "disk.img", "-s", STORAGE_DOMAIN],
            Self::UploadInto => &["upload", "disk.img", "--disk", "there"],
            Self::Download => &["download", "there", "copy", "--format", "raw"],
        };
        site.imageio_nbd(&[arguments, &["-c", "lab"]].concat())
    }
}

/// An installation that has the disk `there`, and a file `copy` that a download is to replace when
/// it is complete.
pub(crate) fn site_with_disk() -> TestResult<Installation> {
    let site = quick_site_with(|builder| builder)?;
    let there = ["upload", "disk.img", "-s", STORAGE_DOMAIN, "--disk-name", "there", "-c", "lab"];
    succeed(site.imageio_nbd(&there).output()?.into())?;
    fs::write(site.path("copy"), BEFORE)?;
    Ok(site)
}

pub(crate) const BEFORE: &str = "what was there before";

/// Checks that the content that the job has moved is whole.
pub(crate) fn assert_complete(site: &Installation, job: Job, transfers: &[Transfer]) -> TestResult {
    if job == Job::Download {
        return same("copy", &fs::read(site.path("copy"))?, &fs::read(site.path("disk.img"))?);
    }
    let [transfer] = transfers else { return Err(format!("one is expected: {transfers:?}").into()) };
    site.assert_same("disk.img", "raw", &disk(site, &transfer.disk)?)
}

fn disk(site: &Installation, id: &str) -> TestResult<Disk> {
    let found = site.engine.disks().into_iter().find(|disk| disk.id == id && disk.status == DiskStatus::Ok);
    found.ok_or_else(|| format!("disk {id} can't be used").into())
}
