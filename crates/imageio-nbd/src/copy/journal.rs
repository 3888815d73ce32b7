// SPDX-License-Identifier: MIT OR Apache-2.0
//! The notes of an upload that may be interrupted, in the file of `--resume`.
//!
//! Before the engine is asked for a new disk, a line says which id it gets. The next line says what
//! is uploaded by which transfer. Each further line says how much of it is on the disk for good: it
//! is added after the server has flushed that. A line that is cut off, as by a power failure, is as
//! good as none. The file has no secret. It is locked by the process that uploads, and removed when
//! all is done.

mod noted;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use noted::{Flushed, Noted, Planned, parse};

pub(super) use noted::{Begun, Destination, Plan};

/// More isn't read of a file, in bytes: it must be another one.
const MOST_READ: u64 = 16 << 20;

/// The file, which no other process uses.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    noted: Noted,
    /// Another process has planned a disk, which may be there.
    has_left: bool,
    /// Somebody else has made the file, and nothing was in it.
    is_given: bool,
}

impl Journal {
    /// Opens the file, and reads what was noted. A file that is no journal is left as it is.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).context("--resume: the name of a file is expected")?;
        Self::try_open(&path).with_context(|| format!("--resume: {}", path.display()))
    }

    fn try_open(path: &Path) -> Result<Self> {
        let was_there = path.exists();
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).mode(0o600).open(path)?;
        ensure!(file.metadata()?.is_file(), "it isn't a file: name another one");
        // In the end, the file is removed, and not a symbolic link to it.
        let path = &path.canonicalize()?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            let error = std::io::Error::from(error);
            ensure!(
                error.kind() != ErrorKind::WouldBlock,
                "another process is uploading this: wait until it has ended"
            );
            return Err(error.into());
        }
        // Whoever had the lock may have removed the file.
        let is_there = std::fs::metadata(path).is_ok_and(|there| {
            file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
        });
        ensure!(is_there, "another process has just ended its upload: try again");
        let mut text = Vec::new();
        (&file).take(MOST_READ).read_to_end(&mut text)?;
        let (noted, whole) = parse(&text)?;
        file.set_len(whole)?;
        let (has_left, is_given) = (noted.planned.is_some(), was_there && text.is_empty());
        Ok(Self { path: path.to_owned(), file, noted, has_left, is_given })
    }

    /// Returns the upload that was begun, if anything was.
    pub(super) fn begun(&self) -> Option<&Begun> {
        self.noted.begun.as_ref()
    }

    /// All before this offset, in bytes, is on the disk for good.
    pub(super) fn flushed(&self) -> u64 {
        self.noted.flushed
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The id that a new disk is to get, which is noted. It is that of a disk that an earlier
    /// process may have made for the same plan.
    pub(super) fn plan(&mut self, plan: Plan) -> Result<String> {
        match &self.noted.planned {
            Some(planned) if planned.plan == plan => return Ok(planned.new_disk.clone()),
            Some(other) => log::warn!(
                "an upload that was interrupted may have made disk {}: remove it in the engine if it is there",
                other.new_disk
            ),
            None => {}
        }
        let planned = Planned::new(plan);
        let new_disk = planned.new_disk.clone();
        self.add(&planned)?;
        self.keep()?;
        self.noted.planned = Some(planned);
        Ok(new_disk)
    }

    /// Notes what is begun.
    pub(super) fn begin(&mut self, begun: Begun) -> Result<()> {
        self.add(&begun)?;
        self.keep()?;
        self.noted.begun = Some(begun);
        Ok(())
    }

    /// Has the file itself be there after a power failure.
    fn keep(&self) -> Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .with_context(|| format!("cannot write {}", dir.display()))
    }

    /// Notes that all before this offset, in bytes, is on the disk for good.
    pub(super) fn note(&mut self, flushed: u64) -> Result<()> {
        self.add(&Flushed { flushed })?;
        self.noted.flushed = flushed;
        Ok(())
    }

    fn add(&mut self, line: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        let added = self.file.seek(SeekFrom::End(0)).and_then(|_| self.file.write_all(&line));
        added
            .and_then(|()| self.file.sync_all())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Forgets what was noted, as it is of no use any more: the file will be removed.
    pub(super) fn forget(&mut self) {
        self.noted = Noted::default();
        self.has_left = false;
    }

    /// Returns true if all data is on the disk for good.
    pub(super) fn has_all(&self) -> bool {
        self.noted.begun.as_ref().is_some_and(|begun| begun.size == self.noted.flushed)
    }

    /// Removes the file: all is done.
    pub(super) fn complete(self) -> Result<()> {
        std::fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Nobody else can be using it.
        if self.noted.begun.is_none() && !self.has_left {
            // One that is there is read the next time.
            let _ = if self.is_given { self.file.set_len(0) } else { std::fs::remove_file(&self.path) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use engine_transfer::Interrupted;

    use super::*;

    /// Opens a journal that this process may just have closed: a child of another test has its lock
    /// until it runs its program.
    fn open(path: &Path) -> Result<Journal> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match Journal::open(path) {
                Err(error) if is_locked(&error) && Instant::now() < end => std::thread::yield_now(),
                opened => return opened,
            }
        }
    }

    fn is_locked(error: &anyhow::Error) -> bool {
        error.root_cause().to_string().contains("another process")
    }

    fn begun() -> Begun {
        let image = ("/tmp/disk.img".into(), "raw".to_owned(), 100);
        let engine = Some("https://engine".to_owned());
        Begun::new(image, Vec::new(), true, Destination::default(), engine, Interrupted::new("t", "d", true))
    }

    #[test]
    fn what_was_noted_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut journal = open(&path).unwrap();
        assert!(journal.begun().is_none());
        assert!(is_locked(&Journal::open(&path).unwrap_err()));
        journal.begin(begun()).unwrap();
        journal.note(40).unwrap();
        drop(journal);
        let mut journal = open(&path).unwrap();
        assert_eq!((journal.begun(), journal.flushed()), (Some(&begun()), 40));
        journal.note(100).unwrap();
        drop(journal);
        let journal = open(&path).unwrap();
        assert_eq!(journal.flushed(), 100);
        journal.complete().unwrap();
        assert!(!path.exists());
    }

    fn plan(size: u64) -> Plan {
        let parameters = vec![format!("size={size}")];
        Plan { image: "/tmp/disk.img".into(), engine: "https://engine".to_owned(), parameters }
    }

    #[test]
    fn a_disk_is_planned_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut journal = open(&path).unwrap();
        let disk = journal.plan(plan(100)).unwrap();
        // The process is killed.
        let noted = fs::read(&path).unwrap();
        drop(journal);
        assert!(!path.exists(), "what this process has made, it has ended");
        fs::write(&path, [&noted[..], b"{\"version\":1,\"image\":\"/x"].concat()).unwrap();
        drop(open(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), noted, "the next one may use it");
        let mut journal = open(&path).unwrap();
        assert!(journal.begun().is_none());
        assert_eq!(journal.plan(plan(100)).unwrap(), disk);
        let other = journal.plan(plan(200)).unwrap();
        assert_ne!(other, disk);
        assert_eq!(journal.plan(plan(200)).unwrap(), other);
        journal.begin(begun()).unwrap();
        journal.note(40).unwrap();
        drop(journal);
        let journal = open(&path).unwrap();
        assert_eq!((journal.begun(), journal.flushed()), (Some(&begun()), 40));
    }

    #[test]
    fn a_line_that_is_cut_off_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let whole = {
            let mut journal = open(&path).unwrap();
            journal.begin(begun()).unwrap();
            journal.note(40).unwrap();
            fs::read(&path).unwrap()
        };
        for more in
            [&b"{\"flushed\":1"[..], b"{\"flushed\":10}\n", b"{\"flushed\":101}\n", b"\0\0\0\0", b"\0\n"]
        {
            fs::write(&path, [&whole, more].concat()).unwrap();
            let mut journal = open(&path).unwrap();
            assert_eq!(journal.flushed(), 40, "{more:?}");
            journal.note(60).unwrap();
            drop(journal);
            assert_eq!(open(&path).unwrap().flushed(), 60, "{more:?}");
        }
    }

    #[test]
    fn a_file_of_something_else_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        for text in ["a disk", "{}\n", "{\"version\":1", "\n\n"] {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", open(&path).unwrap_err());
            assert!(error.contains("it isn't what an upload has noted"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(Journal::open(dir.path()).is_err());
    }

    #[test]
    fn an_empty_file_of_somebody_else_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, "").unwrap();
        drop(open(&path).unwrap());
        open(&path).unwrap().plan(plan(100)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        open(&path).unwrap().complete().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_symbolic_link_leads_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("state"), dir.path().join("link"));
        std::os::unix::fs::symlink("state", &link).unwrap();
        let mut journal = open(&link).unwrap();
        journal.begin(begun()).unwrap();
        drop(journal);
        assert!(path.exists());
        open(&link).unwrap().complete().unwrap();
        assert!(!path.exists() && link.is_symlink());
    }

    #[test]
    fn nothing_is_left_of_what_was_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        drop(open(&path).unwrap());
        assert!(!path.exists());
    }
}
