// SPDX-License-Identifier: MIT OR Apache-2.0
//! A block device that is a file.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::LOSETUP;

/// Returns true if this system lets us have block devices of our own: for root, with a kernel that
/// knows loop devices.
#[must_use]
pub fn has_loop_devices() -> bool {
    let attach = || LoopDevice::attach(tempfile::NamedTempFile::new()?.path(), 1 << 20);
    LOSETUP.find().is_some() && attach().is_ok()
}

/// A loop device, which is detached when it is dropped.
#[derive(Debug)]
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    /// Makes a device of a file, which is made if it is not there, and gets this size in bytes.
    ///
    /// # Errors
    /// If the file can't be made, or the system doesn't let us.
    pub fn attach(file: &Path, size: u64) -> io::Result<Self> {
        File::options().write(true).create(true).truncate(false).open(file)?.set_len(size)?;
        let output = Command::new(LOSETUP.path()).args(["--show", "-f"]).arg(file).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Ok(Self(String::from_utf8_lossy(&output.stdout).trim().into()))
    }

    /// Returns the path of the device.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new(LOSETUP.path()).arg("-d").arg(&self.0).status();
        let is_detached = detached.is_ok_and(|status| status.success());
        assert!(is_detached || std::thread::panicking(), "{} stays attached", self.0.display());
    }
}
