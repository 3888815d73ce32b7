// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of the innermost loops in instructions, which are the same on a busy machine as on an
//! idle one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::TestResult;
use crate::tools::VALGRIND;

/// A benchmark of a crate that takes how often it is to do its work.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// The crate.
    pub package: &'static str,
    /// The benchmark's name.
    pub bench: &'static str,
    /// The work that is done each time.
    pub work: &'static str,
    /// The number of repetitions, of which there are so many that little of a run is what differs
    /// from one to the next.
    pub iterations: u64,
    /// Instructions for each of them, on x86_64 with the Rust that CI has.
    ///
    /// `cargo test -p integration-tests --test instructions` prints it; whoever renews it says in
    /// the commit why it changed.
    pub recorded: u64,
}

/// All of them.
pub const COUNTED: [Counted; 2] = [
    Counted {
        package: "nbd-wire",
        bench: "codec",
        work: "5 requests decoded, checked, and answered",
        iterations: 10_000,
        recorded: 714,
    },
    Counted {
        package: "conn-pool",
        bench: "line",
        work: "256 requests that wait, carried out as 24",
        iterations: 100,
        recorded: 262_000,
    },
];

impl Counted {
    /// Builds it for release, and counts the instructions of one iteration.
    ///
    /// # Errors
    /// valgrind is missing, or something fails.
    pub fn count(&self) -> TestResult<u64> {
        let valgrind =
            VALGRIND.find().ok_or_else(|| format!("{} is missing: {}", VALGRIND.name, VALGRIND.install))?;
        let program = self.build()?;
        // The instructions of the start and the end are in both counts.
        let [once, twice] = [1, 2].map(|times| instructions(&valgrind, &program, times * self.iterations));
        Ok((twice? - once?) / self.iterations)
    }

    fn build(&self) -> TestResult<PathBuf> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.args(["bench", "--no-run", "--locked", "--package", self.package, "--bench", self.bench]);
        let messages = run(command.arg("--message-format=json-render-diagnostics"))?.0;
        let mut programs = messages.lines().filter_map(|message| {
            let message: Value = serde_json::from_str(message).ok()?;
            Some(message["executable"].as_str()?.into())
        });
        Ok(programs.next_back().ok_or("cargo tells of no benchmark")?)
    }
}

/// All that the program's threads do, in user space.
fn instructions(valgrind: &Path, program: &Path, iterations: u64) -> TestResult<u64> {
    let mut command = Command::new(valgrind);
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"].map(OsStr::new));
    let said = run(command.arg(program).arg(iterations.to_string()))?.1;
    let count = said.lines().find_map(|line| line.split_once(" Collected : "));
    let (_, count) = count.ok_or_else(|| format!("callgrind tells no count:\n{said}"))?;
    Ok(count.trim().parse()?)
}

/// Runs a program, and returns what it says on standard output and on standard error.
fn run(command: &mut Command) -> TestResult<(String, String)> {
    let output = command.output()?;
    let [out, err] = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    if !output.status.success() {
        return Err(format!("{command:?}: {}:\n{err}", output.status).into());
    }
    Ok((out, err))
}
