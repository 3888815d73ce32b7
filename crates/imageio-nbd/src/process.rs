// SPDX-License-Identifier: MIT OR Apache-2.0
//! Being a process: daemon, parent's child, command's parent, receiver of signals.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nbd_frontend::ShutdownHandle;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use tempfile::NamedTempFile;

use crate::listen::Address;

/// A signal that comes sooner after the first belongs to it: the end of a session sends several.
const AGAIN: Duration = Duration::from_secs(1);

/// What ends the server in good order.
const STOP: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT];

/// Asks to be ended with the parent process. Fails if that has ended already.
pub(crate) fn exit_with_parent() -> Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context("--exit-with-parent")?;
    if parent != rustix::process::getppid() {
        bail!("--exit-with-parent: the parent process has ended");
    }
    Ok(())
}

/// Goes into the background. The parent's exit tells that clients can connect.
pub(crate) fn become_daemon() -> Result<()> {
    nix::unistd::daemon(false, false).context("cannot become a daemon")?;
    crate::logging::to_syslog();
    Ok(())
}

/// A pid file in the making: what can fail is tried while there is someone to tell.
pub(crate) struct PidFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl PidFile {
    pub(crate) fn prepare(path: &Path) -> Result<Self> {
        let fail = || format!("cannot write the pid file {}", path.display());
        // Absolute: a daemon changes its directory.
        let path = std::path::absolute(path).with_context(fail)?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        // The usual mistake, told without the name of the temporary file.
        dir.metadata().with_context(fail)?;
        let file = NamedTempFile::new_in(dir).with_context(fail)?;
        // Others may read it, as any file, where a temporary file is its owner's alone.
        file.as_file().set_permissions(Permissions::from_mode(0o644)).with_context(fail)?;
        Ok(Self { path, file })
    }

    /// Writes the process id, all at once: whoever waits for the file must not find it empty.
    pub(crate) fn write(self) -> Result<()> {
        let Self { path, mut file } = self;
        writeln!(file, "{}", std::process::id())
            .and_then(|()| file.persist(&path).map_err(|e| e.error))
            .map(drop)
            .with_context(|| format!("cannot write the pid file {}", path.display()))
    }
}

/// The signals that end the server in good order are caught; what comes is kept for [`listen`](Self::listen).
pub(crate) struct Caught(Signals);

/// The thread that waits for signals.
pub(crate) struct SignalThread {
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Caught {
    /// From now on, signals wait.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Signals::new(STOP)?))
    }

    /// The first signal, also one that came before, stops the server and is passed on to the `--run` command. One that
    /// comes much later ends the process.
    pub(crate) fn listen(mut self, server: ShutdownHandle, command: Option<u32>) -> Result<SignalThread> {
        let handle = self.0.handle();
        let wait = move || {
            let mut first = None;
            for signal in self.0.forever() {
                match first {
                    None => {
                        log::info!("signal {signal}: finishing the requests in flight");
                        if let Some(pid) = command {
                            pass_on(signal, pid);
                        }
                        server.shutdown();
                        first = Some(Instant::now());
                    }
                    Some(first) if first.elapsed() >= AGAIN => give_up(signal),
                    Some(_) => {}
                }
            }
        };
        let thread = thread::Builder::new().name("signals".into()).spawn(wait)?;
        Ok(SignalThread { handle, thread: Some(thread) })
    }
}

/// Somebody insists, though what was acknowledged may not be flushed.
fn give_up(signal: i32) {
    log::error!("signal {signal} again: ending at once, the disk may be incomplete");
    signal_hook::low_level::exit(1);
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // It doesn't panic; and there is nothing to do if it did.
            let _ = thread.join();
        }
    }
}

fn pass_on(signal: i32, pid: u32) {
    if let (Ok(signal), Ok(pid)) = (Signal::try_from(signal), i32::try_from(pid)) {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Starts the `--run` command in a shell, which finds the server by variables of nbdkit's names.
pub(crate) fn run_command(command: &str, address: &Address, export_name: &str) -> Result<Child> {
    let (unix_socket, port) = match address {
        Address::Unix(path) => (path.display().to_string(), String::new()),
        Address::Tcp { port, .. } => (String::new(), port.to_string()),
    };
    Command::new("sh")
        .args(["-c", command])
        .env("uri", address.uri(export_name))
        .env("unixsocket", unix_socket)
        .env("port", port)
        .env("exportname", export_name)
        .spawn()
        .context("cannot start a shell for --run")
}

/// The exit status as a shell tells it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
