// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running `imageio-nbd` to its end.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::door::built;
use crate::process::{says_one_of, tickets};

/// The exit of a program, with what it printed.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; 128 and a signal's number if that ended it.
    pub code: i32,
    /// On standard output.
    pub out: String,
    /// On standard error.
    pub err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let status = output.status;
        Self {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs `imageio-nbd` in `dir`, for a minute at most: a hang is exit status 124.
///
/// # Errors
/// If it can't be started.
///
/// # Panics
/// If it says the ticket of a URL in `arguments`.
pub fn imageio_nbd<S: AsRef<std::ffi::OsStr>>(dir: &Path, arguments: &[S]) -> io::Result<Ended> {
    let mut command = Command::new("timeout");
    // In the foreground of the test, so that a terminal's signals reach it.
    command.args(["--foreground", "60"]).arg(built("imageio-nbd")).args(arguments);
    let ended: Ended = command.current_dir(dir).output()?.into();
    let tickets = tickets(&command);
    assert!(
        !says_one_of(&ended.out, &tickets) && !says_one_of(&ended.err, &tickets),
        "the ticket: {ended:?}"
    );
    Ok(ended)
}
