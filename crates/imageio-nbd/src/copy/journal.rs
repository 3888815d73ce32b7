// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of an upload that may be interrupted, in the file of `--resume`.
//!
//! The first line says what is uploaded by which transfer. Each further line says how much of it is on the disk for good: it is added
//! after the server has flushed that. A line that is cut off, as by a power failure, is as good as none. The file has no secret. It
//! is locked by the process that uploads, and removed when all is done.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use engine_transfer::Interrupted;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::image_files::ImageFile;

/// More isn't read of a file, in bytes: it must be another one.
const MOST_READ: u64 = 16 << 20;

const VERSION: u32 = 1;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// Of this line.
    version: u32,
    pub(super) image: PathBuf,
    /// qemu's word for the image's format.
    pub(super) format: String,
    /// The size that a guest sees, in bytes.
    pub(super) size: u64,
    pub(super) files: Vec<ImageFile>,
    /// The disk had nothing but zeroes before.
    pub(super) is_zero: bool,
    /// Where it was to go, as the user has said it.
    pub(super) destination: Destination,
    transfer: String,
    disk: String,
    /// The disk was made for this upload.
    is_new: bool,
}

/// Where an upload goes, in the user's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Destination {
    pub(super) disk: Option<String>,
    pub(super) storage_domain: Option<String>,
    pub(super) disk_name: Option<String>,
}

impl Destination {
    /// What is said now, and was said in another way when the upload was begun: an option.
    pub(super) fn contradiction(&self, begun: &Self) -> Option<&'static str> {
        let differs = |now: &Option<String>, before: &Option<String>| now.is_some() && now != before;
        let options = [
            ("--disk", &self.disk, &begun.disk),
            ("--storage-domain", &self.storage_domain, &begun.storage_domain),
            ("--disk-name", &self.disk_name, &begun.disk_name),
        ];
        options.into_iter().find(|(_, now, before)| differs(now, before)).map(|(option, ..)| option)
    }
}

/// A further line.
#[derive(Debug, Serialize, Deserialize)]
struct Flushed {
    /// All before this offset, in bytes, is on the disk for good.
    flushed: u64,
}

impl Begun {
    pub(super) fn new(
        (image, format, size): (PathBuf, String, u64),
        files: Vec<ImageFile>,
        is_zero: bool,
        destination: Destination,
        Interrupted { transfer, disk, is_new, .. }: Interrupted,
    ) -> Self {
        Self { version: VERSION, image, format, size, files, is_zero, destination, transfer, disk, is_new }
    }

    pub(super) fn interrupted(&self) -> Interrupted {
        Interrupted::new(&self.transfer, &self.disk, self.is_new)
    }
}

/// The file, which no other process uses.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    begun: Option<Begun>,
    flushed: u64,
}

impl Journal {
    /// Opens the file, and reads what was noted. A file that is no journal is left as it is.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).context("--resume: the name of a file is expected")?;
        Self::try_open(&path).with_context(|| format!("--resume: {}", path.display()))
    }

    fn try_open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).mode(0o600).open(path)?;
        ensure!(file.metadata()?.is_file(), "it isn't a file");
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            let error = std::io::Error::from(error);
            ensure!(error.kind() != ErrorKind::WouldBlock, "another process is uploading this");
            return Err(error.into());
        }
        // Whoever had the lock may have removed the file.
        let is_there = std::fs::metadata(path).is_ok_and(|there| {
            file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
        });
        ensure!(is_there, "another process has just ended its upload: try again");
        let mut text = Vec::new();
        (&file).take(MOST_READ).read_to_end(&mut text)?;
        let (begun, flushed, whole) = parse(&text)?;
        file.set_len(whole)?;
        Ok(Self { path: path.to_owned(), file, begun, flushed })
    }

    /// What was begun, if anything was.
    pub(super) fn begun(&self) -> Option<&Begun> {
        self.begun.as_ref()
    }

    /// All before this offset, in bytes, is on the disk for good.
    pub(super) fn flushed(&self) -> u64 {
        self.flushed
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes what is begun.
    pub(super) fn begin(&mut self, begun: Begun) -> Result<()> {
        self.add(&begun)?;
        // The directory is synchronised, so that the file itself is still there after a power
        // failure.
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| dir.display().to_string())?;
        self.begun = Some(begun);
        Ok(())
    }

    /// Notes that all before this offset, in bytes, is on the disk for good.
    pub(super) fn note(&mut self, flushed: u64) -> Result<()> {
        self.add(&Flushed { flushed })?;
        self.flushed = flushed;
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

    /// What was noted is of no use any more: the file will be removed.
    pub(super) fn forget(&mut self) {
        self.begun = None;
    }

    /// Removes the file: all is done.
    pub(super) fn complete(self) -> Result<()> {
        std::fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Nobody else can be using it.
        if self.begun.is_none() {
            // One that is there is read the next time.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What was noted, and how many bytes of it are whole lines.
fn parse(text: &[u8]) -> Result<(Option<Begun>, u64, u64)> {
    if text.is_empty() {
        return Ok((None, 0, 0));
    }
    let mut lines = text.split_inclusive(|byte| *byte == b'\n').take_while(|line| line.ends_with(b"\n"));
    let first = lines.next().and_then(|line| Some((line, serde_json::from_slice::<Begun>(line).ok()?)));
    let Some((line, begun)) = first else {
        bail!("it isn't what an upload has noted: give another name, or remove it to begin an upload");
    };
    ensure!(begun.version == VERSION, "another version of imageio-nbd has written it: go on with that one");
    let (mut flushed, mut whole) = (0, line.len());
    for line in lines {
        let Ok(Flushed { flushed: noted }) = serde_json::from_slice(line) else { break };
        if noted < flushed || noted > begun.size {
            break;
        }
        flushed = noted;
        whole += line.len();
    }
    Ok((Some(begun), flushed, u64::try_from(whole)?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;

    /// Opens a journal that this process may just have closed: a child of another test has its lock until it runs its program.
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
        Begun::new(image, Vec::new(), true, Destination::default(), Interrupted::new("t", "d", true))
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
    fn another_destination_is_a_contradiction() {
        let disk = |disk: &str| Destination { disk: Some(disk.to_owned()), ..Destination::default() };
        assert_eq!(disk("one").contradiction(&disk("one")), None);
        assert_eq!(Destination::default().contradiction(&disk("one")), None);
        assert_eq!(disk("two").contradiction(&disk("one")), Some("--disk"));
        assert_eq!(disk("two").contradiction(&Destination::default()), Some("--disk"));
    }

    #[test]
    fn nothing_is_left_of_what_was_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        drop(open(&path).unwrap());
        assert!(!path.exists());
    }
}
