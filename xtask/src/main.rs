// SPDX-License-Identifier: MIT OR Apache-2.0
//! The project's commands: `cargo xtask demo`, `cargo xtask test`, `cargo xtask fuzz`,
//! `cargo xtask bench`, `cargo xtask build`, `cargo xtask dist`.

mod bench;
mod build;
mod demo;
mod dist;
mod fuzz;
#[path = "../../tests/bench/options.rs"]
mod options;
mod test;
mod tidy;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use xshell::Shell;

/// The commands of the project imageio-nbd.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Upload an image to a fake imageio server through NBD, read it back, and compare. Needs nothing but Rust
    Demo(demo::Arguments),
    /// Check everything: format, lints, docs, unit tests, and tests of the whole with each real tool found
    Test(test::Arguments),
    /// Send random bytes to whatever reads what strangers send: for a minute each, with cargo-fuzz
    Fuzz(fuzz::Arguments),
    /// Measure the Python plugin, ours, and others side by side, and write docs/benchmarks.md
    Bench(options::Options),
    /// Build for release into target/dist: binaries, man pages, shell completions
    Build,
    /// Build packages into target/packages: a .deb and an archive
    Dist,
    /// The demo's NBD client, which imageio-nbd runs
    #[command(hide = true)]
    DemoClient(demo::ClientArguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    if let Command::DemoClient(arguments) = arguments.command {
        return demo::client(&arguments);
    }
    let sh = Shell::new()?;
    sh.change_dir(project_root());
    match arguments.command {
        Command::Demo(arguments) => demo::run(&sh, &arguments),
        Command::Test(arguments) => test::run(&sh, &arguments),
        Command::Fuzz(arguments) => fuzz::run(&sh, &arguments),
        Command::Bench(_) => bench::run(&sh),
        Command::Build => build::run(&sh),
        Command::Dist => dist::run(&sh).map(drop),
        Command::DemoClient(_) => Ok(()),
    }
}

fn project_root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    xtask.parent().map(ToOwned::to_owned).unwrap_or(xtask)
}

/// Where Cargo puts what it builds.
fn target_dir(sh: &Shell) -> Result<PathBuf> {
    let metadata = xshell::cmd!(sh, "cargo metadata --format-version 1 --no-deps").quiet().read()?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let dir = metadata["target_directory"].as_str().context("cargo metadata tells no target directory")?;
    Ok(dir.into())
}
