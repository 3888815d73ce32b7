// SPDX-License-Identifier: MIT OR Apache-2.0
//! One process at a time writes to a directory.
//!
//! The lock is the kernel's, and ends with the process, whatever ends it. What is in the file is
//! for people: it stays, and says nothing when nobody has the lock.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// The name of the file in its directory.
pub(crate) const LOCK: &str = ".lock";

/// The number of bytes that are read of what another process has written there.
const MOST_READ: u64 = 300;

/// The right to write to a directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Fails at once if another process has it.
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        let path = directory.join(LOCK);
        let mut options = OpenOptions::new();
        let open = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open.map_err(Error::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::Locked { path: directory.to_owned(), holder: holder(&file) });
            }
            Err(error) => return Err(Error::io("lock", &path)(error.into())),
        }
        let tell = file.set_len(0).and_then(|()| file.write_all(this_process().as_bytes()));
        tell.map_err(Error::io("write", &path))?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    /// A program that is being started has a copy of the file until it runs. It would hold the lock
    /// for that long.
    fn drop(&mut self) {
        // If that fails, the lock ends with the last copy of the file.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Reads what the lock's holder has written about itself, as far as a terminal can show it.
fn holder(file: &File) -> String {
    let mut text = Vec::new();
    // One that can't be read is as good as an empty one.
    let _ = file.take(MOST_READ).read_to_end(&mut text);
    let line = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned();
    let is_clean = !line.is_empty() && !line.chars().any(char::is_control);
    if is_clean { line } else { "another process".to_owned() }
}

fn this_process() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let (pid, now) = (std::process::id(), Timestamp::now().round(jiff::Unit::Second));
    let since = now.map(|now| format!(" since {now}")).unwrap_or_default();
    format!("process {pid} on {host}{since}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_file_holds_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let copy = lock.file.try_clone().unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(Error::Locked { .. })));
        drop(lock);
        Lock::take(dir.path()).unwrap();
        drop(copy);
    }
}
