// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks into and out of oVirt, and as NBD devices.
//!
//! The order of things: all that can fail is tried first, while there is someone to tell; then the
//! process may become a daemon; only then threads start.

mod activation;
mod backup;
mod checksum;
mod cli;
mod copy;
mod disks;
mod entrance;
mod generate;
mod identity;
mod info;
mod interrupt;
mod listen;
mod logging;
mod nbdkit;
mod probing;
mod process;
mod progress;
mod reading;
mod secrets;
mod selinux;
mod serve;
mod single;
mod statistics;
mod tls;
mod tools;
mod virt_v2v;
mod writing;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::FromArgMatches;
use engine_transfer::{Source, SystemClock};
use imageio_config::{ExportSettings, Exports, Parser, STATS_JSON};
use imageio_device::UrlSource;
use imageio_stats::Output;
use nbd_frontend::Listener;

use crate::cli::{Command, Options};
use crate::copy::upload::Advice;
use crate::entrance::Entrance;
use crate::identity::Identity;
use crate::interrupt::Interrupts;
use crate::process::{Caught, Parent, PidFile};
use crate::serve::Prepared;

fn main() -> ExitCode {
    let result = if virt_v2v::shim::is_called() {
        virt_v2v::shim::run()
    } else {
        let matches = cli::command().try_get_matches();
        let options = matches.and_then(|matches| Options::from_arg_matches(&matches));
        match options {
            Ok(options) => {
                logging::init(options.verbosity(), options.log_format);
                run(&options)
            }
            Err(error) => return secrets::print(&error),
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::error!("{}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, and what to do about it.
fn one_line(error: &anyhow::Error) -> String {
    if error.is::<Advice>() {
        return imageio_config::without_advice(error.as_ref());
    }
    let line = imageio_config::one_line(error.as_ref());
    match error.downcast_ref().and_then(backup::advice) {
        Some(advice) => format!("{line}: {advice}"),
        None => line,
    }
}

/// Everything, up to the exit status.
fn run(options: &Options) -> Result<u8> {
    if let Some(dir) = &options.generate {
        return generate::generate(dir).map(|()| 0);
    }
    if let Some(text) = probing::asked(options) {
        return probing::print(&text);
    }
    match &options.command {
        // The arguments are passed on as they are: a parser has its own idea of `--`.
        Some(Command::VirtV2v { .. }) => return virt_v2v::run(std::env::args_os().skip(2)),
        Some(Command::Info { json, parameters, .. }) => return info::run(source(parameters)?, *json),
        Some(Command::Checksum(options)) => return checksum::run(options),
        Some(Command::Backup(options)) => return backup::back_up(options),
        Some(Command::Backups(options)) => return backup::list(options),
        Some(Command::Restore(options)) => return backup::restore(options),
        Some(Command::Verify(options)) => return backup::verify(options),
        Some(Command::Upload(options)) => return copy::upload::run(options),
        Some(Command::Download(options)) => return copy::download::run(options),
        None => {}
    }
    nbdkit::check(options)?;
    if let Some(place) = options.log {
        logging::to(place);
    }
    if options.single {
        single::keep_messages_out()?;
    }
    secrets::check(options)?;
    let mut passed = activation::listeners()?;
    let result = open_and_serve(options, &mut passed);
    // The sockets that are left are closed by the exit, after the error was told: a client that
    // finds them closed ends this process.
    std::mem::forget(passed);
    result
}

fn open_and_serve(options: &Options, passed: &mut Vec<Listener>) -> Result<u8> {
    let is_activated = !passed.is_empty();
    let parent = options.exit_with_parent.then(Parent::of_this_process);
    parent.map(process::exit_with_parent).transpose()?;
    let identity = Identity::find(options)?;
    let pidfile = options.pidfile.as_deref().map(PidFile::prepare).transpose()?;
    let tls = tls::configure(options)?;
    let (exports, stats_json) = exports(options, is_activated)?;
    let output = statistics::prepare(stats_json.as_deref(), options.becomes_daemon(is_activated))?;
    // Transfers that are begun in an engine have to be ended there, whatever comes.
    let asks_engine = exports.iter().any(|export| export.source.engine.is_some());
    let caught = asks_engine.then(Caught::with_figures).transpose()?;
    let interrupts = asks_engine.then(Interrupts::new).transpose()?;
    let clock = interrupts.as_ref().map_or_else(|| Arc::new(SystemClock::default()) as _, Interrupts::clock);
    let opened = disks::open(exports, options, &clock)?;
    drop(interrupts);
    // Before anybody can know that there is something to stop.
    let signals = caught.map_or_else(Caught::with_figures, Ok)?;
    let entrance = Entrance::open(options, std::mem::take(passed))?;
    if !identity.is_of_this_process() {
        entrance.give_to(&identity)?;
        identity.assume()?;
        parent.map(process::exit_with_parent).transpose()?;
        options.pidfile.as_deref().map(PidFile::prepare).transpose()?;
        stats_json.as_deref().map(Output::prepare).transpose()?;
    }
    if options.swap {
        process::lock_memory()?;
    }
    if options.becomes_daemon(is_activated) {
        process::become_daemon()?;
        if options.log.is_none() {
            logging::to_syslog();
        }
        if options.swap {
            // The fork has ended it.
            process::lock_memory()?;
        }
    }
    let disks = disks::start(opened)?;
    serve::serve(options, Prepared { entrance, tls, signals, pidfile, output }, &disks)
}

/// Finds the disk that the parameters of one transfer name.
fn source(parameters: &[String]) -> Result<Source> {
    let mut parser = Parser::new();
    for argument in parameters {
        parser.set_argument(argument)?;
    }
    ensure!(
        parser.stats_json().is_none(),
        "stats-json: there are figures only where a disk is served: leave it out"
    );
    Ok(parser.finish()?)
}

/// Reads which disks are to be served, and where their figures go.
fn exports(options: &Options, is_activated: bool) -> Result<(Vec<ExportSettings>, Option<PathBuf>)> {
    let mut exports = Exports::new();
    if let Some(stats_json) = &options.stats_json {
        exports.set(STATS_JSON.name, stats_json)?;
    }
    for argument in &options.parameters {
        exports.set_argument(argument)?;
    }
    let stats_json = exports.stats_json().map(Path::to_owned);
    let mut exports = exports.finish()?;
    options.check(is_activated)?;
    for ExportSettings { name, source: Source { settings, .. }, .. } in &mut exports {
        settings.read_only |= options.readonly;
        ensure!(
            name.is_none() || options.export_name.is_none(),
            "-e: it names the only disk, and export= each of several: leave out -e"
        );
        ensure!(
            !(options.single && settings.url == UrlSource::Stdin),
            "url=-: standard input is the NBD client's with -s: use url=+FILE"
        );
    }
    Ok((exports, stats_json))
}
