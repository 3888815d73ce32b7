// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running a client to its end, unless a signal ends the benchmark.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::measure::{Cpu, cpu, peak_memory};

/// No client takes so long.
const PATIENCE: Duration = Duration::from_secs(600);

/// Readable once the benchmark shall end.
pub(crate) struct Stop(UnixStream);

impl Stop {
    /// From now on, signals no longer end the process, so that everything is put away.
    pub(crate) fn on_signals() -> Result<Self> {
        let (stop, sender) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self(stop))
    }

    /// An error if it is time to go.
    pub(crate) fn check(&self) -> Result<()> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => Ok(()),
            _ => bail!("interrupted"),
        }
    }
}

/// The exit of a client, with what it has used.
pub(crate) struct Ended {
    pub(crate) time: Duration,
    pub(crate) cpu: Cpu,
    pub(crate) memory: Option<u64>,
    pub(crate) printed: String,
}

/// Its child is killed if nobody has waited for it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Neither does anything to a child that was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs it, and fails if it does.
pub(crate) fn run(command: &mut Command, stop: &Stop) -> Result<Ended> {
    // Files, as nobody reads while it runs.
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?);
    let started = Instant::now();
    let child =
        command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut child = Running(child);
    let memory = wait(&child.0, stop)?;
    let time = started.elapsed();
    // Not waited for yet, it is a zombie, which still has its figures.
    let cpu = cpu(child.0.id())?;
    let status = child.0.wait()?;
    ensure!(status.success(), "{command:?}: {status}: {}", text(&mut err)?);
    Ok(Ended { time, cpu, memory, printed: text(&mut out)? })
}

/// Returns when it has ended, with the most memory that was seen.
fn wait(child: &Child, stop: &Stop) -> Result<Option<u64>> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let deadline = Instant::now() + PATIENCE;
    let mut memory = None;
    while Instant::now() < deadline {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&stop.0, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 })) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [ended, stopped] = fds.map(|fd| !fd.revents().is_empty());
        ensure!(!stopped, "interrupted");
        if ended {
            return Ok(memory);
        }
        memory = peak_memory(child.id()).or(memory);
    }
    bail!("the client did not end")
}

fn text(file: &mut File) -> Result<String> {
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
