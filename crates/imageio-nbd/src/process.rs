// SPDX-License-Identifier: MIT OR Apache-2.0
//! Being a process: daemon, parent's child, command's parent, receiver of signals.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use imageio_stats::{Observer, State};
use nbd_frontend::ShutdownHandle;
use nix::sys::mman::{MlockAllFlags, mlockall};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::iterator::{Handle, Signals};
use tempfile::NamedTempFile;

use crate::listen::{Address, Place};
use crate::progress;
use crate::statistics::{self, Teller};

/// A signal that comes sooner after the first belongs to it: the end of a session sends several.
const AGAIN: Duration = Duration::from_secs(1);

/// For how long the figures may keep a process that is to end at once.
const LAST_FIGURES: Duration = Duration::from_secs(1);

/// The signals that end the server in good order.
const STOP: [i32; 3] = [SIGTERM, SIGINT, SIGQUIT];

/// The parent of this process, with which it is to end.
#[derive(Clone, Copy)]
pub(crate) struct Parent(Option<Pid>);

impl Parent {
    /// It should be the one that has started this process: to be called early.
    pub(crate) fn of_this_process() -> Self {
        Self(rustix::process::getppid())
    }
}

/// Asks to be ended with the parent process. Fails if that has ended already. To become another
/// user undoes it.
pub(crate) fn exit_with_parent(Parent(parent): Parent) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .context("--exit-with-parent")?;
    if parent != rustix::process::getppid() {
        bail!("--exit-with-parent: the parent process has ended");
    }
    Ok(())
}

/// Goes into the background. The parent's exit tells that clients can connect.
pub(crate) fn become_daemon() -> Result<()> {
    nix::unistd::daemon(false, false).context("cannot become a daemon")
}

/// Keeps all memory of this process, also what it will have, from being swapped out (`--swap`). A
/// fork would end that.
pub(crate) fn lock_memory() -> Result<()> {
    // Within a limit, this would succeed now, and memory be refused in the middle of an upload.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    ensure!(
        limit.is_none() || rustix::process::geteuid().is_root(),
        "--swap: run as root, or without a limit for locked memory (ulimit -l unlimited)"
    );
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
        .context("--swap: the memory can't be kept from being swapped out")
}

/// A pid file in the making: what can fail is tried while there is someone to tell.
pub(crate) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Tries whether the file can be made, with one that has no name: whatever ends this process
    /// before [`write`](Self::write), nothing is left behind.
    pub(crate) fn prepare(path: &Path) -> Result<Self> {
        let fail = || format!("cannot write the pid file {}", path.display());
        // Absolute: a daemon changes its directory.
        let path = std::path::absolute(path).with_context(fail)?;
        if path.is_dir() {
            bail!("{}: it is a directory", fail());
        }
        let dir = directory(&path);
        // The usual mistake, told without the name of a temporary file.
        dir.metadata().with_context(fail)?;
        tempfile::tempfile_in(dir).with_context(fail)?;
        Ok(Self { path })
    }

    /// Writes the process id, all at once: whoever waits for the file must not find it empty. A
    /// failure removes what was written of it.
    pub(crate) fn write(self) -> Result<()> {
        self.try_write().with_context(|| format!("cannot write the pid file {}", self.path.display()))
    }

    fn try_write(&self) -> std::io::Result<()> {
        let mut file = NamedTempFile::new_in(directory(&self.path))?;
        // Others may read it, as any file, where a temporary file is its owner's alone.
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        writeln!(file, "{}", std::process::id())?;
        file.persist(&self.path)?;
        Ok(())
    }
}

fn directory(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}

/// The signals that end a program in good order are caught; what comes is kept for
/// [`listen`](Self::listen) or [`forward`](Self::forward).
pub(crate) struct Caught(Signals);

/// The thread that waits for signals.
pub(crate) struct SignalThread {
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Caught {
    /// From now on, signals wait.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Signals::new(stop_signals())?))
    }

    /// From now on, signals wait, and one that asks for the figures does, too.
    pub(crate) fn with_figures() -> Result<Self> {
        let caught = Self::new()?;
        caught.0.add_signal(SIGUSR1)?;
        Ok(caught)
    }

    /// The first signal that ends the server, also one that came before, stops it and is passed on
    /// to the `--run` command. One that comes much later ends the process. SIGUSR1 has the figures
    /// told.
    pub(crate) fn listen(
        self,
        server: ShutdownHandle,
        command: Option<Recipient>,
        observer: Arc<Observer>,
    ) -> Result<SignalThread> {
        let mut first = None;
        let asked = Arc::clone(&observer);
        let teller = Teller::start(move || statistics::tell(&asked))?;
        self.forward(move |signal| match first {
            _ if signal == SIGUSR1 => teller.ask(),
            None => {
                log::info!("signal {signal}: finishing the requests in flight");
                if let Some(command) = &command {
                    command.send(signal);
                }
                server.shutdown();
                first = Some(Instant::now());
            }
            Some(first) if first.elapsed() >= AGAIN => give_up(signal, &observer),
            Some(_) => {}
        })
    }

    /// Each signal is given to `take`, by a thread.
    pub(crate) fn forward(mut self, mut take: impl FnMut(i32) + Send + 'static) -> Result<SignalThread> {
        let handle = self.0.handle();
        let wait = move || self.0.forever().for_each(&mut take);
        let thread = thread::Builder::new().name("signals".into()).spawn(wait)?;
        Ok(SignalThread { handle, thread: Some(thread) })
    }
}

/// Somebody insists, though what was acknowledged may not be flushed.
fn give_up(signal: i32, observer: &Arc<Observer>) {
    progress::clear();
    log::error!("signal {signal} again: ending at once, the disk may be incomplete");
    let observer = Arc::clone(observer);
    statistics::within(LAST_FIGURES, move || statistics::finish(&observer, State::Incomplete));
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

/// The signals that end a program in good order. A SIGHUP that was ignored when this process
/// started isn't one of them: `nohup` asks for that.
pub(crate) fn stop_signals() -> impl Iterator<Item = i32> {
    // The standard library has no call for it, and without /proc there is no `nohup` to be seen.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hang_up = (!is_ignored(SIGHUP, &status)).then_some(SIGHUP);
    STOP.into_iter().chain(hang_up)
}

/// Returns true if a process ignores a signal, by what its `/proc/PID/status` tells
/// (`proc_pid_status(5)`).
fn is_ignored(signal: i32, status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// The process that signals are passed on to, and no other one that may get its number after its
/// end.
pub(crate) enum Recipient {
    Process(OwnedFd),
    /// Linux before 5.3 has only this.
    Number(Pid),
}

impl Recipient {
    /// A child that nobody has waited for yet, so that the number is still its own.
    pub(crate) fn of(child: &Child) -> Self {
        let pid = Pid::from_child(child);
        pidfd_open(pid, PidfdFlags::empty()).map_or(Self::Number(pid), Self::Process)
    }

    pub(crate) fn send(&self, signal: i32) {
        let Some(signal) = Signal::from_named_raw(signal) else { return };
        let sent = match self {
            Self::Process(pidfd) => pidfd_send_signal(pidfd, signal),
            Self::Number(pid) => kill_process(*pid, signal),
        };
        if let Err(error) = sent {
            log::debug!("the child process has no use for the signal: {error}");
        }
    }
}

/// Starts the `--run` command in a shell, which finds the server by variables of nbdkit's names.
pub(crate) fn run_command(command: &str, address: &Address, export_name: &str) -> Result<Child> {
    let (unix_socket, port) = match &address.place {
        Place::Unix(path) => (path.display().to_string(), String::new()),
        Place::Tcp { port, .. } => (String::new(), port.to_string()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_mask() {
        let status =
            "Name:\tx\nSigBlk:\t0000000000004003\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(is_ignored(SIGHUP, status));
        assert!(!is_ignored(SIGINT, status) && !is_ignored(SIGTERM, status));
        assert!(!is_ignored(SIGHUP, "") && !is_ignored(SIGHUP, "SigIgn:\tx"));
    }

    #[test]
    fn a_signal_meets_a_child_and_after_its_end_nobody() {
        let mut child = Command::new("sleep").arg("50").spawn().unwrap();
        let recipient = Recipient::of(&child);
        recipient.send(SIGTERM);
        assert_eq!(child.wait().unwrap().signal(), Some(SIGTERM));
        let Recipient::Process(pidfd) = &recipient else { return };
        assert_eq!(pidfd_send_signal(pidfd, Signal::TERM), Err(rustix::io::Errno::SRCH));
    }

    #[test]
    fn a_pid_file_leaves_no_other_file_behind() {
        let dir = tempfile::tempdir().unwrap();
        let names = || -> Vec<_> {
            fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect()
        };
        let path = dir.path().join("pid");
        let file = PidFile::prepare(&path).unwrap();
        // This is what is left if the process is ended here.
        std::mem::forget(file);
        assert!(names().is_empty(), "{:?}", names());

        let file = PidFile::prepare(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(file.write().unwrap_err().to_string().contains("cannot write the pid file"));
        assert_eq!(names(), ["pid"]);
        assert!(PidFile::prepare(&path).is_err(), "it is a directory");

        fs::remove_dir(&path).unwrap();
        PidFile::prepare(&path).unwrap().write().unwrap();
        assert_eq!(names(), ["pid"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }
}
