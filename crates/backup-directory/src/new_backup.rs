// SPDX-License-Identifier: MIT OR Apache-2.0
//! A backup in the making: in a hidden directory, which becomes visible as a whole.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::MANIFEST;
use crate::directory::check_image;
use crate::error::{Error, Result};
use crate::file_name::{from_below, is_name};
use crate::manifest::{Backup, DiskBackup, Manifest};
use crate::replace::{replace, sync};
use crate::writer::{Writer, discard, is_engine_id};

/// The beginning of the name of the directory of a backup in the making; the backup's id follows.
pub(crate) const PARTIAL: &str = ".partial-";

/// A file in the directory of a backup that may not be in the manifest yet. It holds the engine's
/// id of the backup from before the engine is asked for it until the engine has ended it, for
/// whoever has to end it there after an interruption.
pub(crate) const INCOMPLETE: &str = ".incomplete";

/// The part of a backup's manifest entry that is only known at the end of the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRecord {
    /// [`Backup::engine_backup_id`].
    pub engine_backup_id: String,
    /// [`Backup::from_checkpoint_id`].
    pub from_checkpoint_id: Option<String>,
    /// [`Backup::to_checkpoint_id`].
    pub to_checkpoint_id: Option<String>,
    /// [`Backup::vm_configuration`]: what [`NewBackup::write_configuration`] has returned.
    pub vm_configuration: Option<String>,
    /// [`Backup::disks`], with files that [`NewBackup::image`] has named.
    pub disks: Vec<DiskBackup>,
}

/// The file to which the image of a disk is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Image {
    /// Now, for those who write it.
    pub path: PathBuf,
    /// Once the backup is committed, for the manifest.
    pub file: String,
    /// The name of the backing file that the image has to have: a name relative to the image's own
    /// place.
    pub backing_name: Option<String>,
}

/// A backup in the making. If it is dropped, it is removed, but for the note of a backup that the
/// engine may still have.
#[derive(Debug)]
pub struct NewBackup<'w> {
    writer: &'w mut Writer,
    id: String,
    created: Timestamp,
    /// The hidden directory, until it gets its name.
    partial: PathBuf,
    /// The manifest may have it.
    is_over: bool,
}

impl<'w> NewBackup<'w> {
    pub(crate) fn begin(writer: &'w mut Writer, created: Timestamp) -> Result<Self> {
        // Without fractions, which neither the id has.
        let created = Timestamp::from_second(created.as_second()).unwrap_or(created);
        let id = free_id(writer.path(), writer.manifest(), created);
        let partial = writer.path().join(format!("{PARTIAL}{id}"));
        DirBuilder::new().mode(0o700).create(&partial).map_err(Error::io("create", &partial))?;
        let backup = Self { writer, id, created, partial, is_over: false };
        let mark = backup.partial.join(INCOMPLETE);
        File::create(&mark).map_err(Error::io("create", &mark))?;
        Ok(backup)
    }

    /// [`Backup::id`].
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The engine is going to be asked to begin the backup with this id. When this returns, the
    /// note survives a loss of power. Until the engine [has ended](Self::engine_backup_ended) the
    /// backup, the next process that opens the directory [is told](Writer::abandoned), whatever
    /// happens to this one.
    ///
    /// # Errors
    /// [`Error::Name`] if it can't be the engine's id of a backup; [`Error::Io`].
    pub fn note_engine_backup(&self, id: &str) -> Result<()> {
        if !is_engine_id(id) {
            return Err(Error::Name(id.to_owned()));
        }
        replace(&self.partial, INCOMPLETE, id.as_bytes())?;
        sync(self.writer.path())
    }

    /// The engine has ended the noted backup, or has none of this id: nobody has to look after it
    /// any more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn engine_backup_ended(&self) -> Result<()> {
        let mark = self.partial.join(INCOMPLETE);
        File::create(&mark).map(drop).map_err(Error::io("write", &mark))
    }

    /// Returns the file to which the image of a disk is to be written. `backing_file` is the file
    /// in the manifest that it is an increment to.
    ///
    /// # Errors
    /// [`Error::Name`] if the disk's id can't be the name of a file.
    pub fn image(&self, disk_id: &str, backing_file: Option<&str>) -> Result<Image> {
        let name = format!("{disk_id}.qcow2");
        let (path, file) = self.place(&name)?;
        Ok(Image { path, file, backing_name: backing_file.map(from_below) })
    }

    /// Keeps the VM's configuration as the engine gave it, in a file of this name. What the
    /// manifest has to name is returned.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Io`].
    pub fn write_configuration(&self, name: &str, content: &[u8]) -> Result<String> {
        let (path, file) = self.place(name)?;
        fs::write(&path, content).map_err(Error::io("write", &path))?;
        Ok(file)
    }

    fn place(&self, name: &str) -> Result<(PathBuf, String)> {
        if !is_name(name) {
            return Err(Error::Name(name.to_owned()));
        }
        Ok((self.partial.join(name), format!("{}/{name}", self.id)))
    }

    /// Makes the backup a part of the directory, and returns when it survives a loss of power.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if the record makes no sense, [`Error::File`] if an image is not what
    /// the record says, or [`Error::Io`]. The directory is in its last good state then.
    pub fn commit(mut self, record: BackupRecord) -> Result<()> {
        let manifest = self.with_record(record)?;
        for step in STEPS {
            step(&mut self, &manifest)?;
        }
        self.writer.manifest = manifest;
        Ok(())
    }

    /// The manifest that has this backup, too.
    fn with_record(&self, record: BackupRecord) -> Result<Manifest> {
        let BackupRecord { engine_backup_id, from_checkpoint_id, to_checkpoint_id, vm_configuration, disks } =
            record;
        let (id, created) = (self.id.clone(), self.created);
        let backup = Backup {
            id,
            created,
            engine_backup_id,
            from_checkpoint_id,
            to_checkpoint_id,
            vm_configuration,
            disks,
        };
        self.check_record(&backup)?;
        let mut manifest = self.writer.manifest().clone();
        manifest.backups.push(backup);
        manifest.check().map_err(Error::Incomplete)?;
        Ok(manifest)
    }

    /// Returns an error if a file is missing that the manifest is going to name.
    fn check_record(&self, backup: &Backup) -> Result<()> {
        for file in backup.files() {
            let name = file.strip_prefix(&format!("{}/", self.id)).filter(|name| is_name(name));
            let is_there = name.is_some_and(|name| self.partial.join(name).is_file());
            if !is_there {
                return Err(Error::Incomplete(format!("{file:?} was not written")));
            }
        }
        let directory = format!("{PARTIAL}{}/", self.id);
        let now = |file: &str| file.replacen(&format!("{}/", self.id), &directory, 1);
        backup.disks.iter().try_for_each(|disk| check_image(self.writer.path(), &now(&disk.file), disk))
    }

    fn directory(&self) -> PathBuf {
        self.writer.path().join(&self.id)
    }
}

impl Drop for NewBackup<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // Anything that can't be removed is left to the next one who opens the directory.
            let _ = discard(&self.partial);
        }
    }
}

type Step = fn(&mut NewBackup<'_>, &Manifest) -> Result<()>;

/// A process may be interrupted between any two of them, and within each. Up to the manifest's
/// replacement, the next one who opens the directory removes all of it, by the hidden name or by
/// the mark in it.
const STEPS: [Step; 4] = [
    |backup, _| sync_files(&backup.partial),
    |backup, _| {
        fs::rename(&backup.partial, backup.directory()).map_err(Error::io("rename", &backup.partial))?;
        backup.partial = backup.directory();
        sync(backup.writer.path())
    },
    |backup, manifest| {
        // Even if this fails, the manifest may be in its place. Whoever opens the directory next
        // will see.
        backup.is_over = true;
        replace(backup.writer.path(), MANIFEST, manifest.to_json().as_bytes())
    },
    |backup, _| {
        // The backup is complete by now: whoever opens the directory next removes the mark if it is
        // still there.
        let _ = fs::remove_file(backup.partial.join(INCOMPLETE));
        Ok(())
    },
];

/// Makes all files of a directory safe. Those who have written them may not have.
fn sync_files(directory: &Path) -> Result<()> {
    let entries = fs::read_dir(directory).map_err(Error::io("list", directory))?;
    for entry in entries {
        sync(&entry.map_err(Error::io("list", directory))?.path())?;
    }
    sync(directory)
}

/// The time in UTC, or, where that is taken, with a number behind it.
fn free_id(directory: &Path, manifest: &Manifest, created: Timestamp) -> String {
    let time = created.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
    let numbered = (2_u64..).map(|number| format!("{time}-{number}"));
    let is_free = |id: &String| {
        let is_there = |name: &str| directory.join(name).symlink_metadata().is_ok();
        manifest.backup(id).is_none() && !is_there(id) && !is_there(&format!("{PARTIAL}{id}"))
    };
    std::iter::once(time.clone()).chain(numbered).find(is_free).expect("numbers don't run out")
}

#[cfg(test)]
mod tests;
