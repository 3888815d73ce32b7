// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd backup`, `backups`, `verify` and `restore`: a directory with the backups of a
//! virtual machine (crate `backup-directory`), filled from an engine and brought back to one.
//!
//! A backup first ends what it has begun in the engine, whatever ends it, and leaves the directory
//! in its last good state.

mod copy;
mod in_engine;
mod list;
mod restore;
mod save;
mod verify;

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use backup_directory::{Backup, BackupDirectory, Disk};
use engine_transfer::{Content, Credentials, EngineSettings, Opened, Source, Target};
use imageio_config::Parser;
use imageio_device::Settings;

use crate::cli::{EngineOptions, check_parameters};
use crate::copy::{Following, Made, Progress, Report, Stop, StopClock};
use copy::Task;

pub(crate) use list::run as list;
pub(crate) use restore::run as restore;
pub(crate) use save::run as back_up;
pub(crate) use verify::run as verify;

const NO_BACKUP: &str = "the directory has no backup: is it the right one?";

/// What to do about an error of a backup, where an option helps.
pub(crate) fn advice(error: &backup_directory::Error) -> Option<&'static str> {
    match error {
        backup_directory::Error::NotIncremental(_) => {
            Some("leave out --incremental to back up such disks as a whole")
        }
        backup_directory::Error::Version { .. } => Some("use a newer imageio-nbd"),
        _ => None,
    }
}

/// Which engine is asked, and how its disks are treated.
struct Site {
    settings: Settings,
    credentials: Credentials,
    stop: Arc<Stop>,
    progress: Arc<Progress>,
    report: Report,
}

impl Site {
    /// Makes what the options describe, for work of this description.
    fn new(options: &EngineOptions, stop: Arc<Stop>, description: &'static str) -> Result<Self> {
        check_parameters(&options.parameters, &[])?;
        let mut parser = Parser::new();
        options.config.iter().try_for_each(|section| parser.set("config", section))?;
        options.parameters.iter().try_for_each(|argument| parser.set_argument(argument))?;
        let (settings, credentials) = parser.finish_engine()?;
        let (credentials, progress) = (credentials.with_password_read()?, Arc::default());
        let report = Report::new(options.output, description, 0);
        Ok(Self { settings, credentials, stop, progress, report })
    }

    /// All of these disks are to be copied.
    fn is_about<'d>(&mut self, disks: impl IntoIterator<Item = &'d Disk>) {
        let sizes = disks.into_iter().map(|disk| disk.provisioned_size);
        self.report.set_size(sizes.fold(0, u64::saturating_add));
    }

    /// Tells how far it is, until it is dropped.
    fn follow(&self) -> Result<Following> {
        Following::all(&self.report, &self.progress)
    }

    /// Tells what has come of it: a person in these words. Returns the exit status.
    fn tell_made(&self, description: &str, made: Made<'_>, words: &str) -> u8 {
        self.report.tell_made(description, self.progress.copied(), made, words)
    }

    /// Work on a disk that messages call so.
    fn task<'a>(&'a self, label: &'a str) -> Task<'a> {
        Task { label, stop: &self.stop, progress: &self.progress }
    }

    /// Begins a transfer of one disk, uses the disk, and ends the transfer: as a failed one, if its
    /// use has failed.
    fn with_disk<T>(
        &self,
        settings: Settings,
        target: Target,
        use_it: impl FnOnce(imageio_device::Transfer, Option<&str>) -> Result<T>,
    ) -> Result<T> {
        let clock: Arc<StopClock> = self.stop.clock();
        let source = Source::engine(settings, EngineSettings::new(self.credentials.clone(), target));
        let Opened { transfer, ending } = source.open(Arc::clone(&clock) as _)?;
        let used = use_it(transfer, ending.disk());
        if used.is_err() {
            // The other disks are of no use without this one.
            self.stop.stop();
        }
        clock.be_patient();
        let ended = ending.end(if used.is_ok() { Content::Complete } else { Content::Incomplete });
        let used = used?;
        ended?;
        Ok(used)
    }
}

/// The backup that is asked for, or the last one.
fn choose<'d>(directory: &'d BackupDirectory, id: Option<&str>) -> Result<&'d Backup> {
    let manifest = directory.manifest();
    match id {
        Some(id) => manifest.backup(id).with_context(|| {
            format!(
                "--backup: the directory has no backup {id:?}: `imageio-nbd backups` tells which there are"
            )
        }),
        None => manifest.backups.last().context(NO_BACKUP),
    }
}

/// Returns true unless the file with the VM's configuration is missing, which is told.
fn has_configuration(directory: &BackupDirectory, backup: &Backup) -> bool {
    let Some(file) = &backup.vm_configuration else { return true };
    let path = directory.path_of(file);
    if !path.is_file() {
        log::warn!("{} is missing, which had the VM's configuration", path.display());
    }
    path.is_file()
}

/// Prints a line for those who want to know what has come of it.
fn print(line: &str) -> Result<()> {
    crate::progress::around(|| writeln!(std::io::stdout(), "{line}"))
        .context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use anyhow::Error;

    #[test]
    fn the_option_that_helps_is_named_behind_the_error() {
        let error = backup_directory::Error::NotIncremental("disk \"a\" is new".to_owned());
        assert_eq!(
            crate::one_line(&Error::new(error).context("the VM")),
            "the VM: an incremental backup is not possible: disk \"a\" is new: leave out --incremental to back up such disks as a whole"
        );
        let other = Error::new(backup_directory::Error::NoDisks);
        assert_eq!(crate::one_line(&other), "the VM has no disk that can be backed up");
    }
}
