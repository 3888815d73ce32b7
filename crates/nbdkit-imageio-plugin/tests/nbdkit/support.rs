// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running nbdkit.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use fake_imageio::{DEFAULT_TICKET, FakeServer};
use rustix::process::{Pid, Signal, kill_process};

/// The longest time that anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Of nbdkit with `-U sock`.
pub(crate) const URI: &str = "nbd+unix:///?socket=sock";

/// The directories in which tools are looked for: a Python in the user's PATH may not have nbdsh's
/// modules.
const PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin";

/// Returns true if the tools are there. If not, it says so; with `CI` set, that is a failure.
pub(crate) fn has(tools: &[&str]) -> bool {
    let missing: Vec<_> =
        tools.iter().filter(|tool| which::which_in(tool, Some(PATH), "/").is_err()).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "missing: {missing:?}");
    // Not by println, which the test harness would swallow.
    let _ = writeln!(std::io::stderr(), "not tested: {missing:?} missing");
    false
}

/// The plugin as it was built for this test.
pub(crate) fn plugin() -> PathBuf {
    const NAME: &str = "libnbdkit_imageio_plugin.so";
    let test = std::env::current_exe().unwrap();
    let found = test.ancestors().skip(1).take(2).map(|dir| dir.join(NAME)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{NAME} is not beside {}", test.display()))
}

/// A program that can't find what the user has, and ends when its time is up (exit status 124).
pub(crate) fn tool(dir: &Path, name: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "60", name]).current_dir(dir).env("PATH", PATH).stdin(Stdio::null());
    command
}

/// Waits until the server has seen all connections end.
pub(crate) fn assert_all_closed(server: &FakeServer) {
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0), "{:?}", server.log());
}

/// The server has all of the data and no more, and no connection that holds any back.
pub(crate) fn assert_uploaded(server: &FakeServer, data: &[u8]) {
    assert_all_closed(server);
    assert_eq!(server.log().lost_unflushed(), 0);
    // Not by assert_eq, which would print megabytes.
    assert!(server.contents().unwrap() == data, "the disk's bytes are others");
}

/// The exit of a program, with what it printed.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn run(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let ended = Ended {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    ended.out.lines().chain(ended.err.lines()).for_each(assert_secret_kept);
    ended
}

/// Nobody says the ticket, but for nbdkit itself, which shows parameters where it debugs.
fn assert_secret_kept(line: &str) {
    assert!(line.starts_with("nbdkit: debug: ") || !line.contains(DEFAULT_TICKET), "{line}");
}

/// nbdkit with the plugin: options, the plugin, parameters.
pub(crate) fn nbdkit(dir: &Path, options: &[&str], parameters: &[&str]) -> Ended {
    run(tool(dir, "nbdkit").args(options).arg(plugin()).args(parameters))
}

/// `nbdkit -U - PLUGIN PARAMETERS --run COMMAND`.
pub(crate) fn captive(dir: &Path, parameters: &[&str], command: &str) -> Ended {
    nbdkit(dir, &["-U", "-"], &[parameters, &["--run", command]].concat())
}

/// Runs nbdkit with some Python for nbdsh; the connection is `h`.
pub(crate) fn nbdsh(dir: &Path, parameters: &[&str], script: &str) -> Ended {
    std::fs::write(dir.join("script.py"), script).unwrap();
    captive(dir, parameters, "nbdsh -u \"$uri\" -c \"exec(open('script.py').read())\"")
}

/// Python that tries a statement, and prints the errno that the client got.
pub(crate) fn attempt(what: &str) -> String {
    format!("try:\n  {what}\n  print('no error')\nexcept nbd.Error as e:\n  print(e.errno)\n")
}

/// Some Python for nbdsh, with [`Served`] or a daemon as `h`.
pub(crate) fn nbdsh_at_sock(dir: &Path, script: &str) -> Ended {
    run(tool(dir, "nbdsh").args(["-u", URI, "-c", script]))
}

/// nbdkit in the foreground. Dropping it kills it.
pub(crate) struct Served {
    child: Child,
    lines: Receiver<String>,
    pub(crate) said: Vec<String>,
}

impl Served {
    /// `nbdkit -f -v -U sock OPTIONS PLUGIN PARAMETERS`, ready for clients.
    pub(crate) fn start(dir: &Path, options: &[&str], parameters: &[&str]) -> Self {
        Self::start_by(dir, &["nbdkit"], options, parameters)
    }

    /// Starts nbdkit by a program, such as a shell: that is what gets the signals.
    pub(crate) fn start_by(dir: &Path, program: &[&str], options: &[&str], parameters: &[&str]) -> Self {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).current_dir(dir).env("PATH", PATH);
        command.args(["-f", "-v", "-U", "sock"]).args(options);
        command.arg(plugin()).args(parameters).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let read = move || {
            stderr.lines().map_while(Result::ok).for_each(|line| {
                let _ = sender.send(line);
            });
        };
        std::thread::Builder::new().spawn(read).unwrap();
        let mut served = Self { child, lines, said: Vec::new() };
        served.wait_for_line("bound to unix socket");
        served
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn hear(&mut self, line: String) {
        assert_secret_kept(&line);
        self.said.push(line);
    }

    /// Waits until it says this.
    pub(crate) fn wait_for_line(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|error| panic!("{error}, no '{text}' in {:#?}", self.said));
            self.hear(line);
            if self.said.last().is_some_and(|line| line.contains(text)) {
                return;
            }
        }
    }

    /// Ends it by SIGTERM. What it said is in `said` then.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.hear(line),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("it doesn't end: {:#?}", self.said),
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that repeat nowhere near.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32 / 4).flat_map(|i| i.wrapping_mul(0x9e37_79b1).to_le_bytes()).collect()
}
