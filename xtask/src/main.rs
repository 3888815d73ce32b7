// SPDX-License-Identifier: MIT OR Apache-2.0
//! The project's commands: `cargo xtask demo`, `cargo xtask test`, `cargo xtask fuzz`,
//! `cargo xtask suites`, `cargo xtask bench`, `cargo xtask build`, `cargo xtask dist`,
//! `cargo xtask publish`, `cargo xtask release`, `cargo xtask tidy`.

mod at_once;
mod bench;
mod build;
mod demo;
mod dist;
mod fuzz;
mod oldest_rust;
#[path = "../../tests/bench/options.rs"]
mod options;
mod public_api;
mod publish;
mod readme;
mod release;
mod suites;
mod test;
mod tidy;
mod tools;

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
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
    /// Upload an image to a fake imageio server through NBD, read it back, and compare. Needs
    /// nothing but Rust
    Demo(demo::Arguments),
    /// Check everything: format, lints, docs, unit tests, and tests of the whole with each real
    /// tool found
    Test(test::Arguments),
    /// Send random bytes to whatever reads what strangers send: for a minute each, with cargo-fuzz
    Fuzz(fuzz::Arguments),
    /// Run other projects' tests of NBD with their own servers and with imageio-nbd, and tell what
    /// differs. It takes an hour
    Suites(suites::Arguments),
    /// Measure the Python plugin, ours, and others side by side, and write docs/benchmarks.md
    Bench(options::Options),
    /// Build for release into target/dist: binaries, man pages, shell completions
    Build,
    /// Build packages for all systems into target/packages: .deb, .rpm and an archive. Needs
    /// cargo-zigbuild
    Dist(dist::Arguments),
    /// Publish the crates, each after those that it needs. Nothing is uploaded without --execute
    Publish(publish::Arguments),
    /// Write the checksums of all packages in target/packages, and publish these as a release
    Release(release::Arguments),
    /// Check the house rules that no lint knows
    Tidy,
    /// The demo's NBD client, which imageio-nbd runs
    #[command(hide = true)]
    DemoClient(demo::ClientArguments),
}

fn main() -> ExitCode {
    if let Err(error) = leave_cargos_environment() {
        eprintln!("cannot start again: {error}");
        return ExitCode::FAILURE;
    }
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this program again without what `cargo run` has told it of its own package. Build scripts
/// (that of ring, for one) ask for these variables, and all that depends on them would be built
/// anew after each change from `cargo test` to `cargo xtask test`, and back.
fn leave_cargos_environment() -> std::io::Result<()> {
    let is_cargos = |name: &OsStr| {
        name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_PACKAGE"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
    };
    let names: Vec<_> = std::env::vars_os().map(|(name, _)| name).filter(|name| is_cargos(name)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut again = std::process::Command::new(std::env::current_exe()?);
    for name in &names {
        again.env_remove(name);
    }
    Err(again.args(std::env::args_os().skip(1)).exec())
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
        Command::Suites(arguments) => suites::run(&sh, &arguments),
        Command::Bench(_) => bench::run(&sh),
        Command::Build => build::run(&sh),
        Command::Dist(arguments) => dist::run(&sh, &arguments).map(drop),
        Command::Publish(arguments) => publish::run(&sh, &arguments),
        Command::Release(arguments) => release::run(&sh, &arguments),
        Command::Tidy => tidy::run(&sh),
        Command::DemoClient(_) => Ok(()),
    }
}

fn project_root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// Returns the directory in which Cargo puts what it builds.
fn target_dir(sh: &Shell) -> Result<PathBuf> {
    let metadata = xshell::cmd!(sh, "cargo metadata --format-version 1 --no-deps").quiet().read()?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let dir = metadata["target_directory"].as_str().context("cargo metadata tells no target directory")?;
    Ok(dir.into())
}
