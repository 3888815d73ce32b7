// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzers for what strangers may send: NBD clients, imageio servers, and whoever writes a command
//! line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::at_once::{self, Program};
use crate::tools::CARGO_FUZZ;

/// The fuzzers are a package of their own, as no other build should need a fuzzer.
const DIR: &str = "tests/fuzz";

/// The time in which each target shows that it still works, and finds what is found at once, in
/// seconds.
const SMOKE: u32 = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fuzz these only: the names of files in tests/fuzz/targets
    targets: Vec<String>,
    /// Run each for this many seconds
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(sh: &Shell, arguments: &Arguments) -> Result<()> {
    ensure!(CARGO_FUZZ.find().is_some(), "cargo-fuzz is missing: {}", CARGO_FUZZ.install);
    let known = targets(sh)?;
    if let Some(unknown) = arguments.targets.iter().find(|name| !known.contains(name)) {
        bail!("no target {unknown}: there are {}", known.join(", "));
    }
    let chosen = if arguments.targets.is_empty() { &known } else { &arguments.targets };
    // First, so that no one waits for another's build.
    let target_dir = target_dir(sh)?;
    cmd!(sh, "cargo fuzz build --fuzz-dir {DIR} --target-dir {target_dir} --sanitizer none").run()?;
    let fuzzers = chosen.iter().map(|target| fuzzer(sh, target, arguments.seconds)).collect::<Result<_>>()?;
    at_once::run(fuzzers)?;
    Ok(())
}

/// All targets, for a moment.
pub(crate) fn smoke(sh: &Shell) -> Result<()> {
    run(sh, &Arguments { targets: Vec::new(), seconds: SMOKE })
}

fn targets(sh: &Shell) -> Result<Vec<String>> {
    let files = sh.read_dir(format!("{DIR}/targets"))?;
    let names = files.iter().map(|file| file.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
    names.collect::<Option<_>>().context("a target's name is not a word")
}

fn target_dir(sh: &Shell) -> Result<PathBuf> {
    Ok(crate::target_dir(sh)?.join("fuzz"))
}

/// Builds the command of a fuzzer. Its findings are kept in the target directory, and are where the
/// next run begins.
fn fuzzer(sh: &Shell, target: &str, seconds: u32) -> Result<Program> {
    let target_dir = target_dir(sh)?;
    let corpus = target_dir.join("corpus").join(target);
    sh.create_dir(&corpus)?;
    // No sanitizer: they need a nightly Rust, and there is no unsafe code of ours here. What a
    // target fails on is in its folder of tests/fuzz/artifacts, which it says.
    let fuzz =
        cmd!(sh, "cargo fuzz run --fuzz-dir {DIR} --target-dir {target_dir} --sanitizer none {target}");
    let seeds = format!("{DIR}/seeds/{target}");
    let limits = [format!("-max_total_time={seconds}"), "-timeout=20".into(), "-verbosity=0".into()];
    let fuzz =
        fuzz.args([corpus.as_os_str(), seeds.as_ref()]).args(["--", "-print_final_stats=1"]).args(limits);
    Ok(Program { name: format!("fuzzer {target}"), command: fuzz.into() })
}
