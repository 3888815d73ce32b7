// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd` in the place of the real server.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::iterator::Signals;
use support::TestResult;
use support::door::built;

use crate::asked::{Asked, is_activated};
use crate::background;
use crate::stack::Stack;

/// Serves until a signal comes, or what else the server that was asked for waits for. Returns the
/// exit status.
pub(crate) fn serve(stack: &Stack, asked: &Asked, signals: Signals) -> TestResult<u8> {
    let mut command = command(stack, asked)?;
    if !asked.is_captive() {
        command.env("RUST_LOG", "info,nbd_frontend=debug").stderr(Stdio::piped());
    }
    let mut child = command.spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    forward(signals, pid)?;
    if let Some(log) = child.stderr.take() {
        watch(log, asked, pid)?;
    }
    Ok(exit_code(wait(child, asked)?))
}

fn wait(mut child: Child, asked: &Asked) -> io::Result<ExitStatus> {
    let status = child.wait()?;
    if let Some(path) = &asked.pid_file {
        // It is there once clients could connect.
        let _ = fs::remove_file(path);
    }
    Ok(status)
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn command(stack: &Stack, asked: &Asked) -> io::Result<Command> {
    let url = stack.dir().join("url");
    fs::write(&url, stack.url())?;
    let mut url_parameter = OsString::from("url=+");
    url_parameter.push(url);
    let mut command = Command::new("sh");
    if is_activated() {
        // The sockets are those of the process that this becomes.
        command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]);
    } else {
        command.args(["-c", "exec \"$0\" \"$@\""]);
    }
    command.arg(built("imageio-nbd")).args(["--exit-with-parent", "--foreground"]).args(&asked.door);
    command.arg(format!("--export-name={}", asked.export));
    // A disk without a byte to read has a size all the same.
    command
        .args(stack.is_read_only.then_some("--readonly"))
        .arg(url_parameter)
        .arg(format!("size={}", stack.size));
    command.args(asked.bitmap.iter().map(|bitmap| format!("dirty-bitmap={bitmap}")));
    // The tests' own programs may not be where ours are.
    command.envs(std::env::var_os("SHIM_PATH").map(|path| ("PATH", path)));
    Ok(command)
}

/// All of them mean that it is to end.
fn forward(mut signals: Signals, pid: Pid) -> io::Result<()> {
    thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            // It may have ended by itself.
            let _ = kill(pid, Signal::SIGTERM);
        }
    })?;
    Ok(())
}

/// Reads the log for what the real server would do at such a time.
fn watch(log: ChildStderr, asked: &Asked, pid: Pid) -> TestResult {
    let mut clients = asked.ends_with_clients.then(Clients::default);
    for line in BufReader::new(log).lines() {
        let line = line?;
        if line.contains(": info: listening: ") {
            asked
                .pid_file
                .iter()
                .try_for_each(|path| fs::write(path, format!("{}\n", std::process::id())))?;
            background::ready();
        }
        if line.contains(": error: ") || line.contains(": warning: ") {
            background::say(&line);
        }
        if clients.as_mut().is_some_and(|clients| clients.last_has_gone(&line)) {
            kill(pid, Signal::SIGTERM)?;
        }
    }
    Ok(())
}

/// The clients that have opened the export.
#[derive(Debug, Default)]
struct Clients(BTreeSet<String>);

impl Clients {
    /// Returns true if a line of the log tells that the last client has gone.
    fn last_has_gone(&mut self, line: &str) -> bool {
        let Some((id, event)) = line.split_once(": client ").and_then(|(_, rest)| rest.split_once(": "))
        else {
            return false;
        };
        if event.starts_with("opened export") {
            self.0.insert(id.to_owned());
        }
        event == "closed" && self.0.remove(id) && self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Clients;

    #[test]
    fn who_only_looks_is_no_client() {
        let mut clients = Clients::default();
        let mut hear = |event| clients.last_has_gone(&format!("imageio-nbd: debug: client {event}"));
        assert!(!hear("1: opened export ''"));
        assert!(!hear("2: closed"));
        assert!(!hear("3: opened export ''"));
        assert!(!hear("1: closed"));
        assert!(hear("3: closed"));
    }
}
