// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds for release, and becomes the benchmark, which is a program of the package of tests.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

/// Returns only if it fails.
pub(crate) fn run(sh: &Shell) -> Result<()> {
    crate::build::programs(sh)?;
    let benchmark = build(sh)?;
    // Its options are checked already, as they are the same. In its place, signals reach it alone,
    // and it puts everything away before the shell is back.
    let error = Command::new(&benchmark).arg("--bench").args(std::env::args_os().skip(2)).exec();
    Err(error).with_context(|| format!("cannot start {}", benchmark.display()))
}

fn build(sh: &Shell) -> Result<PathBuf> {
    let messages = cmd!(
        sh,
        "cargo bench --no-run --package integration-tests --bench bench
             --message-format=json-render-diagnostics"
    )
    .read()?;
    // Cargo tells of the package's other programs, too, in any order.
    let mut programs = messages.lines().filter_map(|message| {
        let message: Value = serde_json::from_str(message).ok()?;
        let is_benchmark = message["target"]["kind"][0] == "bench";
        Some(message["executable"].as_str().filter(|_| is_benchmark)?.into())
    });
    programs.next().context("cargo tells of no benchmark")
}
