// SPDX-License-Identifier: MIT OR Apache-2.0
//! All checks, one after another.

mod ignored;
mod programs;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use xshell::{Shell, cmd};

use programs::Of;

use crate::tools::{
    CARGO_DENY, CARGO_FUZZ, CARGO_ZIGBUILD, MANDOC, NBDCOPY, QEMU_IMG, QEMU_IO, QEMU_NBD, TOOLS,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only the tests, without format, lints and docs
    #[arg(long)]
    quick: bool,
    /// Only this step. May be given several times
    #[arg(long, value_name = "STEP", conflicts_with = "quick", value_parser = names())]
    only: Vec<String>,
}

/// The outcome of a step: it was done, or had to be left out, which it has said why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Yes,
    LeftOut,
}

type Step = (&'static str, fn(&Shell) -> Result<Done>);

const CHECKS: &[Step] = &[("format", format), ("lints", lints), ("docs", docs), ("oldest-rust", oldest_rust)];
const TESTS: &[Step] = &[
    ("build", build),
    ("tests", tests),
    ("models", models),
    ("demo", demo),
    ("packages", packages),
    ("fuzzers", fuzzers),
    ("dependencies", dependencies),
];

/// Steps that are run if they are asked for: what they do is a part of others, or needs the
/// network.
const OTHERS: &[Step] = &[("crates", crates), ("advisories", advisories)];

fn names() -> Vec<&'static str> {
    [CHECKS, TESTS, OTHERS].concat().iter().map(|(name, _)| *name).collect()
}

/// Runs all steps, also after one failed, and ends with a table.
pub(crate) fn run(sh: &Shell, arguments: &Arguments) -> Result<()> {
    let missing = list_missing_tools();
    let mut table = Vec::new();
    for (name, step) in steps(arguments) {
        eprintln!("\n=== {name}");
        let started = Instant::now();
        let mut result = step(sh);
        if matches!(result, Ok(Done::LeftOut)) && arguments.only.iter().any(|only| only == name) {
            result = Err(anyhow::anyhow!("it was asked for, and is left out"));
        }
        if let Err(error) = &result {
            eprintln!("{name}: {error:#}");
        }
        table.push((name, result.ok(), started.elapsed()));
    }
    print_table(&table);
    let failed: Vec<_> = table.iter().filter(|(_, done, _)| done.is_none()).map(|(name, ..)| *name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    // A step that was asked for says itself what it needs.
    if in_ci() && missing > 0 && arguments.only.is_empty() {
        bail!("{missing} tools are missing, and CI is set");
    }
    Ok(())
}

/// The steps that were asked for, in their order.
fn steps(arguments: &Arguments) -> Vec<Step> {
    let Arguments { quick, only } = arguments;
    if only.is_empty() {
        return if *quick { TESTS.to_vec() } else { [CHECKS, TESTS].concat() };
    }
    let is_asked_for = |step: &Step| only.iter().any(|name| name == step.0);
    [CHECKS, TESTS, OTHERS].concat().into_iter().filter(is_asked_for).collect()
}

fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| !ci.is_empty())
}

/// Says what is missing, and how to get it. Tests that need it are ignored, visibly; with `CI` set,
/// they fail.
fn list_missing_tools() -> usize {
    let missing: Vec<_> = TOOLS.iter().filter(|tool| tool.find().is_none()).collect();
    for tool in &missing {
        eprintln!("missing: {:14} {}", tool.name, tool.install);
    }
    missing.len()
}

fn print_table(table: &[(&str, Option<Done>, Duration)]) {
    eprintln!();
    for (name, done, time) in table {
        let word = match done {
            Some(Done::Yes) => "ok",
            Some(Done::LeftOut) => "left out",
            None => "FAILED",
        };
        eprintln!("{word:8} {name:14} {:6.1} s", time.as_secs_f64());
    }
}

fn format(sh: &Shell) -> Result<Done> {
    cmd!(sh, "cargo fmt --all --check").run()?;
    Ok(Done::Yes)
}

fn lints(sh: &Shell) -> Result<Done> {
    cmd!(sh, "cargo clippy --workspace --all-targets --locked -- -D warnings").run()?;
    // Others may have the server without TLS, and the fakes without their command lines.
    cmd!(sh, "cargo clippy --package nbd-frontend --all-targets --locked -- -D warnings").run()?;
    cmd!(sh, "cargo clippy --package fake-imageio --package fake-engine --no-default-features --all-targets --locked -- -D warnings")
        .run()?;
    Ok(Done::Yes)
}

fn docs(sh: &Shell) -> Result<Done> {
    let _denied = sh.push_env("RUSTDOCFLAGS", "-D warnings");
    cmd!(sh, "cargo doc --workspace --no-deps --locked --document-private-items").run()?;
    Ok(Done::Yes)
}

fn oldest_rust(sh: &Shell) -> Result<Done> {
    Ok(if crate::oldest_rust::check(sh)? { Done::Yes } else { Done::LeftOut })
}

/// Builds the programs and the plugin that the tests run. With the tests, since those need other
/// features of what all use: otherwise it would be built twice.
fn build(sh: &Shell) -> Result<Done> {
    cmd!(sh, "cargo build --workspace --all-targets --locked").run()?;
    Ok(Done::Yes)
}

fn tests(sh: &Shell) -> Result<Done> {
    programs::run(sh, Of::Everything)?;
    Ok(Done::Yes)
}

/// The tests of the crates alone. They need few of the tools, and so run on systems that lack the
/// others.
fn crates(sh: &Shell) -> Result<Done> {
    programs::run(sh, Of::Crates)?;
    Ok(Done::Yes)
}

/// The orders in which threads can use the pool. Built by itself, as all of it is built in another
/// way.
fn models(sh: &Shell) -> Result<Done> {
    let _loom = sh.push_env("RUSTFLAGS", "--cfg loom --cfg oneshot_loom");
    let target_dir = crate::target_dir(sh)?.join("loom");
    cmd!(sh, "cargo test --locked --package conn-pool --release --target-dir {target_dir} --test models")
        .run()?;
    Ok(Done::Yes)
}

fn demo(sh: &Shell) -> Result<Done> {
    cmd!(sh, "cargo xtask demo").run()?;
    cmd!(sh, "cargo xtask demo --tls").run()?;
    // In CI, where all tools are there, it fails if one is missing.
    let needed = [QEMU_IMG, QEMU_IO, QEMU_NBD, NBDCOPY];
    if in_ci() || needed.iter().all(|tool| tool.find().is_some()) {
        cmd!(sh, "cargo xtask demo --engine").run()?;
    } else {
        eprintln!("the demo with an engine is left out: see the missing tools above");
    }
    Ok(Done::Yes)
}

/// Makes the packages twice, and installs them into root directories of their own.
fn packages(sh: &Shell) -> Result<Done> {
    if CARGO_ZIGBUILD.find().is_none() {
        eprintln!("no packages: cargo-zigbuild is missing: {}", CARGO_ZIGBUILD.install);
        return Ok(Done::LeftOut);
    }
    let arguments = crate::dist::Arguments::default();
    let again = crate::dist::run(sh, &arguments)?.contents(sh)?;
    let made = crate::dist::run(sh, &arguments)?;
    ensure!(made.contents(sh)? == again, "packages of the same sources differ");
    check_man_pages(sh, &made.built)?;
    let _packages = sh.push_env("IMAGEIO_NBD_PACKAGES", crate::dist::directory(sh)?);
    cmd!(sh, "cargo test --locked --package integration-tests --test package").run()?;
    Ok(Done::Yes)
}

fn check_man_pages(sh: &Shell, built: &Path) -> Result<()> {
    let Some(mandoc) = MANDOC.find() else { return Ok(()) };
    for page in sh.read_dir(built.join("man/man1"))? {
        cmd!(sh, "{mandoc} -T lint -W error {page}").run()?;
    }
    Ok(())
}

fn fuzzers(sh: &Shell) -> Result<Done> {
    if CARGO_FUZZ.find().is_none() {
        eprintln!("not fuzzed: cargo-fuzz is missing: {}", CARGO_FUZZ.install);
        return Ok(Done::LeftOut);
    }
    crate::fuzz::smoke(sh)?;
    Ok(Done::Yes)
}

/// Licences, sources and duplicates, where cargo-deny is installed.
fn dependencies(sh: &Shell) -> Result<Done> {
    deny(sh, &["bans", "licenses", "sources"])
}

/// Checks our dependencies for known vulnerabilities, which are asked of the network.
fn advisories(sh: &Shell) -> Result<Done> {
    deny(sh, &["advisories"])
}

fn deny(sh: &Shell, what: &[&str]) -> Result<Done> {
    if CARGO_DENY.find().is_none() {
        eprintln!("not checked: cargo-deny is missing: {}", CARGO_DENY.install);
        return Ok(Done::LeftOut);
    }
    cmd!(sh, "cargo deny check {what...}").run()?;
    Ok(Done::Yes)
}
