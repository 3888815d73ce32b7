// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers that go into the background once clients can connect.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use support::TestResult;

/// Set for the one that goes there.
const VARIABLE: &str = "SHIM_IN_BACKGROUND";
const READY: &str = "ready";

/// Returns true if this process is the one in the background.
pub(crate) fn is_there() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts another of this process with these arguments, and waits until clients can connect to it.
pub(crate) fn start(arguments: &[String]) -> TestResult<ExitCode> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).env(VARIABLE, "").stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    for line in child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).lines()) {
        match line? {
            line if line == READY => return Ok(ExitCode::SUCCESS),
            line => say(&line),
        }
    }
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Tells the process in the foreground that clients can connect.
pub(crate) fn ready() {
    if is_there() {
        say(READY);
    }
}

/// On standard error, where somebody may listen or not.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
