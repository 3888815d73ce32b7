// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening a directory to add a backup: the lock, and what an interrupted process has left.

use std::fs::{self, DirBuilder, DirEntry, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::directory::{image, read_manifest};
use crate::error::{Error, Result};
use crate::file_name::is_name;
use crate::lock::{LOCK, Lock};
use crate::manifest::{DiskBackup, Manifest, Vm};
use crate::new_backup::{INCOMPLETE, NewBackup, PARTIAL};
use crate::replace::TEMPORARY;

/// The length in bytes that the engine's id of a backup may have: it is a UUID.
const LONGEST_ID: u64 = 100;

/// The remains of a process that was interrupted.
#[derive(Debug, Default)]
struct Leftovers {
    removed: Vec<String>,
    abandoned: Vec<Abandoned>,
}

/// A backup that may still be under way in the engine.
#[derive(Debug)]
struct Abandoned {
    /// The engine's.
    id: String,
    /// The directory in which that is noted.
    directory: PathBuf,
}

/// A directory that this process alone may add backups to.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    pub(crate) manifest: Manifest,
    leftovers: Leftovers,
    _lock: Lock,
}

impl Writer {
    /// Opens the directory of a VM's backups. One that isn't there is made, for its owner alone.
    /// The remains of an interrupted process are removed.
    ///
    /// # Errors
    /// Those of [`BackupDirectory::open`](crate::BackupDirectory::open) where there are backups;
    /// [`Error::NotEmpty`], [`Error::OtherVm`], [`Error::Locked`].
    pub fn open(path: &Path, vm: Vm) -> Result<Self> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", path)(error));
            }
            _ => {}
        }
        let is_foreign = read_manifest(path)?.is_none() && !is_empty_but_for_ours(path)?;
        if is_foreign {
            return Err(Error::NotEmpty(path.to_owned()));
        }
        let lock = Lock::take(path)?;
        // Once more: it may just have been written.
        let manifest = match read_manifest(path)? {
            Some(manifest) => of_vm(manifest, vm, path)?,
            None => Manifest::new(vm),
        };
        let leftovers = remove_leftovers(path, &manifest)?;
        Ok(Self { path: path.to_owned(), manifest, leftovers, _lock: lock })
    }

    /// Returns the manifest, which tells what the directory has.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the path of a disk's image, and checks what is read with it, as
    /// [`BackupDirectory::image`](crate::BackupDirectory::image) does.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Io`].
    pub fn image(&self, disk: &DiskBackup) -> Result<PathBuf> {
        image(&self.path, &self.manifest, disk)
    }

    /// Returns the names in the directory that were removed, as they belonged to a backup that was
    /// never completed.
    #[must_use]
    pub fn removed(&self) -> &[String] {
        &self.leftovers.removed
    }

    /// The engine's ids of the backups that were not completed, as far as they were
    /// [noted](NewBackup::note_engine_backup). They may still be under way in the engine. Each is
    /// told whenever the directory is opened, until it is [forgotten](Self::forget_abandoned).
    #[must_use]
    pub fn abandoned(&self) -> Vec<String> {
        self.leftovers.abandoned.iter().map(|abandoned| abandoned.id.clone()).collect()
    }

    /// The engine has ended an abandoned backup, or has none of this id: nobody is told of it any
    /// more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn forget_abandoned(&mut self, id: &str) -> Result<()> {
        for Abandoned { directory, .. } in
            self.leftovers.abandoned.extract_if(.., |abandoned| abandoned.id == id)
        {
            fs::remove_dir_all(&directory).map_err(Error::io("remove", &directory))?;
        }
        Ok(())
    }

    /// Begins a backup of the state at `created`. Until it is [committed](NewBackup::commit),
    /// nothing of it is in the manifest.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin(&mut self, created: Timestamp) -> Result<NewBackup<'_>> {
        NewBackup::begin(self, created)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The manifest, with the VM's name as it is now.
fn of_vm(mut manifest: Manifest, vm: Vm, path: &Path) -> Result<Manifest> {
    if manifest.vm.id != vm.id {
        let Vm { id, name } = manifest.vm;
        return Err(Error::OtherVm { path: path.to_owned(), name, id });
    }
    manifest.vm = vm;
    Ok(manifest)
}

fn entries(path: &Path) -> Result<Vec<DirEntry>> {
    let entries = fs::read_dir(path).and_then(Iterator::collect);
    entries.map_err(Error::io("list", path))
}

/// Returns true if a directory without a manifest is new, or is one whose first backup was
/// interrupted.
fn is_empty_but_for_ours(path: &Path) -> Result<bool> {
    Ok(entries(path)?.iter().all(|entry| entry.file_name() == LOCK || is_leftover(entry)))
}

/// Returns true if this is of a backup that may not be complete.
fn is_leftover(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    name.starts_with(PARTIAL) || name.starts_with(TEMPORARY) || entry.path().join(INCOMPLETE).exists()
}

/// Removes what is not in the manifest, and nothing that isn't known to be ours.
fn remove_leftovers(path: &Path, manifest: &Manifest) -> Result<Leftovers> {
    let mut leftovers = Leftovers::default();
    for entry in entries(path)?.iter().filter(|entry| is_leftover(entry)) {
        let (name, entry) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let mark = entry.join(INCOMPLETE);
        if manifest.backup(&name).is_some() {
            // The process was interrupted when all was done but this.
            fs::remove_file(&mark).map_err(Error::io("remove", &mark))?;
            continue;
        }
        let is_directory = entry.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let id = engine_backup(&mark).filter(|_| is_directory);
        let discarded = if is_directory { discard(&entry) } else { fs::remove_file(&entry).map(|()| 1) };
        if discarded.map_err(Error::io("remove", &entry))? > 0 {
            leftovers.removed.push(name);
        }
        leftovers.abandoned.extend(id.map(|id| Abandoned { id, directory: entry }));
    }
    Ok(leftovers)
}

/// Removes the directory of a backup that is not complete, but for the note of a backup that the
/// engine may still have. How much was removed is told: 0 if there was nothing but the note.
pub(crate) fn discard(directory: &Path) -> io::Result<usize> {
    if engine_backup(&directory.join(INCOMPLETE)).is_none() {
        return fs::remove_dir_all(directory).map(|()| 1);
    }
    let mut count = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == INCOMPLETE {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
        count += 1;
    }
    Ok(count)
}

/// Returns true if the engine can have a backup of this id, which becomes a part of the path of a
/// request.
pub(crate) fn is_engine_id(id: &str) -> bool {
    is_name(id) && id.len() as u64 <= LONGEST_ID
}

/// The id in a mark, if it can be one.
fn engine_backup(mark: &Path) -> Option<String> {
    let mut id = String::new();
    File::open(mark).ok()?.take(LONGEST_ID + 1).read_to_string(&mut id).ok()?;
    is_engine_id(&id).then_some(id)
}
