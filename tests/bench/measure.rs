// SPDX-License-Identifier: MIT OR Apache-2.0
//! The resources that a process has used.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// CPU-seconds, in the kernel and out of it, of all threads, also of those that have ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) own: f64,
    /// Of its children that it has waited for.
    pub(crate) children: f64,
}

/// Returns the CPU time that the process has used so far; of a zombie, all that it ever did.
pub(crate) fn cpu(pid: u32) -> Result<Cpu> {
    // Its clock counts in nanoseconds, /proc/PID/stat in hundredths of a second, of which some runs
    // take but a few.
    let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into()?))?;
    let own = Duration::from(clock.now()?).as_secs_f64();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let children = children(&stat).with_context(|| format!("/proc/{pid}/stat: {stat}"))?;
    Ok(Cpu { own, children })
}

fn children(stat: &str) -> Option<f64> {
    // The name before may have spaces and parentheses. proc(5) counts it as field 2, and cutime as
    // 16.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(13).map_while(|field| field.parse::<f64>().ok());
    Some((ticks.next()? + ticks.next()?) / rustix::param::clock_ticks_per_second() as f64)
}

/// The sum of several processes.
pub(crate) fn cpu_of_all(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| Ok(cpu(*pid)?.own)).sum()
}

/// The most resident memory that the process ever had, in bytes; none of a zombie.
pub(crate) fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}
