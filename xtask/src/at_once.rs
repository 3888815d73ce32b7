// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that run several at a time, as most tests wait for most of their time. What each prints
//! is shown in one piece.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A program, and what it is called.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) command: Command,
}

/// The end of a program, with what it has printed.
pub(crate) struct Ended {
    pub(crate) name: String,
    /// On standard output and standard error.
    pub(crate) printed: String,
    is_well: bool,
    time: Duration,
}

#[cfg(test)]
impl Ended {
    /// A program that has printed this.
    pub(crate) fn well(name: &str, printed: &str) -> Self {
        Self { name: name.to_owned(), printed: printed.to_owned(), is_well: true, time: Duration::ZERO }
    }
}

/// The number of slowest programs that are named.
const SLOWEST: usize = 10;

/// Starts the programs in their order, as many at a time as there are processors, and at least two.
/// All of them run, also after one has failed. Returns how they have ended, the slowest first.
///
/// # Errors
/// It names those that failed.
pub(crate) fn run(programs: Vec<Program>) -> Result<Vec<Ended>> {
    let workers = thread::available_parallelism().map_or(2, |processors| processors.get().max(2));
    let waiting = Mutex::new(programs.into_iter());
    let work = || {
        // The lock is free again before the program starts.
        let next = || waiting.lock().ok()?.next();
        std::iter::from_fn(next).map(run_one).collect::<Vec<_>>()
    };
    let mut ended: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no worker panics")).collect()
    });
    ended.sort_by_key(|program| std::cmp::Reverse(program.time));
    tell_slowest(&ended);
    let failed: Vec<_> =
        ended.iter().filter(|program| !program.is_well).map(|program| &*program.name).collect();
    if !failed.is_empty() {
        bail!("these have failed: {}", failed.join(", "));
    }
    Ok(ended)
}

fn run_one(program: Program) -> Ended {
    let Program { name, command } = program;
    // A test that hangs is known by this line.
    eprintln!("--- {name} begins");
    let started = Instant::now();
    let (is_well, printed) = match output(command) {
        Ok(ended) => ended,
        Err(error) => (false, format!("{error:#}\n").into_bytes()),
    };
    let time = started.elapsed();
    let word = if is_well { "ok" } else { "FAILED" };
    let printed = String::from_utf8_lossy(&printed).into_owned();
    eprintln!("--- {name}: {word} after {:.1} s\n{printed}", time.as_secs_f64());
    Ended { name, printed, is_well, time }
}

/// Returns whether a program succeeds, and what it prints. It prints into a file: a process that it
/// leaves behind would keep a pipe open.
fn output(mut command: Command) -> Result<(bool, Vec<u8>)> {
    let mut file = tempfile::tempfile()?;
    let for_child = |file: &File| Ok::<_, std::io::Error>(Stdio::from(file.try_clone()?));
    let (out, err) = (for_child(&file)?, for_child(&file)?);
    let status = command.stdin(Stdio::null()).stdout(out).stderr(err).status();
    let status = status.with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut printed = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut printed)?;
    if !status.success() {
        printed.extend_from_slice(format!("{status}\n").as_bytes());
    }
    Ok((status.success(), printed))
}

fn tell_slowest(ended: &[Ended]) {
    eprintln!("the slowest:");
    for program in ended.iter().take(SLOWEST) {
        eprintln!("{:6.1} s  {}", program.time.as_secs_f64(), program.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(name: &str, script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program { name: name.to_owned(), command }
    }

    #[test]
    fn all_run_and_those_that_fail_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let last = dir.path().join("last");
        let programs = vec![
            shell("good", "true"),
            shell("bad", "exit 3"),
            shell("killed", "kill -9 $$"),
            Program { name: "missing".to_owned(), command: Command::new("/no/such/program") },
            shell("last", &format!(": > '{}'", last.display())),
        ];
        let error = run(programs).err().unwrap().to_string();
        let (_, names) = error.split_once(": ").unwrap();
        let mut names: Vec<_> = names.split(", ").collect();
        names.sort_unstable();
        assert_eq!(names, ["bad", "killed", "missing"]);
        assert!(last.exists());
    }

    #[test]
    fn two_run_at_the_same_time() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let pipe = pipe.display();
        // Each waits for the other.
        let programs = vec![
            shell("reader", &format!("timeout 30 cat '{pipe}'")),
            shell("writer", &format!("timeout 30 sh -c \"echo hello > '{pipe}'\"")),
        ];
        let ended = run(programs).unwrap();
        assert!(ended.iter().any(|program| program.name == "reader" && program.printed == "hello\n"));
    }

    #[test]
    fn what_is_printed_is_kept_in_its_order() {
        let (is_well, printed) =
            output(shell("", "echo one; echo two >&2; echo three; exit 3").command).unwrap();
        assert_eq!((is_well, &*printed), (false, &b"one\ntwo\nthree\nexit status: 3\n"[..]));
    }

    #[test]
    fn a_process_that_is_left_behind_is_not_waited_for() {
        let started = Instant::now();
        let program = shell("", "sleep 20 & echo $!");
        let (is_well, printed) = output(program.command).unwrap();
        assert!(is_well && started.elapsed() < Duration::from_secs(10));
        let left = String::from_utf8(printed).unwrap();
        assert!(Command::new("kill").arg(left.trim()).status().unwrap().success());
    }
}
