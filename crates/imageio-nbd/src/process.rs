// SPDX-License-Identifier: MIT OR Apache-2.0
//! Being a process: daemon, parent's child, command's parent, receiver of signals.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::{Context, Result, bail};
use nbd_frontend::ShutdownHandle;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::listen::Address;

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

/// Writes the process id, all at once: whoever waits for the file must not find it empty.
pub(crate) fn write_pidfile(path: &Path) -> Result<()> {
    let write = || {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        writeln!(file, "{}", std::process::id())?;
        share(file.as_file())?;
        file.persist(path).map_err(|e| e.error)
    };
    write().map(drop).with_context(|| format!("cannot write the pid file {}", path.display()))
}

/// Others may read it, as any file, where a temporary file is its owner's alone.
fn share(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

/// The signals that end the server in good order are caught; what comes is kept for [`listen`](Self::listen).
pub(crate) struct Caught(Signals);

/// The thread that waits for signals.
pub(crate) struct SignalThread {
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Caught {
    /// From now on, a first signal waits, and a second one ends the process at once.
    pub(crate) fn new() -> Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in STOP {
            // In this order: at the first signal, the flag is not set yet.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stopping))?;
            signal_hook::flag::register(signal, Arc::clone(&stopping))?;
        }
        Ok(Self(Signals::new(STOP)?))
    }

    /// The first signal, also one that came before, stops the server and is passed on to the `--run` command.
    pub(crate) fn listen(mut self, server: ShutdownHandle, command: Option<u32>) -> Result<SignalThread> {
        let handle = self.0.handle();
        let wait = move || {
            if let Some(signal) = self.0.forever().next() {
                log::info!("signal {signal}: finishing the requests in flight");
                if let Some(pid) = command {
                    pass_on(signal, pid);
                }
                server.shutdown();
            }
        };
        let thread = thread::Builder::new().name("signals".into()).spawn(wait)?;
        Ok(SignalThread { handle, thread: Some(thread) })
    }
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
