// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any oVirt disk transfer as an NBD device.
//!
//! The order of things: all that can fail is tried first, while there is someone to tell; then the process may become a
//! daemon; only then threads start.

mod cli;
mod generate;
mod info;
mod listen;
mod logging;
mod process;
mod secrets;
mod tls;
mod virt_v2v;

use std::process::{Child, ExitCode};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use clap::FromArgMatches;
use imageio_config::Parser;
use imageio_device::{Device, Queue, Settings, Transfer};
use nbd_frontend::{Config, ExportInfo, Server, ShutdownHandle, Tls};

use crate::cli::{Command, Options};
use crate::listen::Listening;
use crate::process::{Caught, PidFile, Recipient};

fn main() -> ExitCode {
    let result = if virt_v2v::shim::is_called() {
        logging::init(1);
        virt_v2v::shim::run()
    } else {
        let matches = cli::command().try_get_matches();
        let options = matches.and_then(|matches| Options::from_arg_matches(&matches));
        match options {
            Ok(options) => {
                logging::init(options.verbosity());
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

/// An error with its causes, as far as its text doesn't tell them.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// Everything, up to the exit status.
fn run(options: &Options) -> Result<u8> {
    if let Some(dir) = &options.generate {
        return generate::generate(dir).map(|()| 0);
    }
    match &options.command {
        // As they are: a parser has its own idea of `--`.
        Some(Command::VirtV2v { .. }) => return virt_v2v::run(std::env::args_os().skip(2)),
        Some(Command::Info { json, parameters, .. }) => return info::run(settings(parameters)?, *json),
        None => {}
    }
    secrets::check(options)?;
    if options.exit_with_parent {
        process::exit_with_parent()?;
    }
    let pidfile = options.pidfile.as_deref().map(PidFile::prepare).transpose()?;
    let tls = tls::configure(options)?;
    let transfer = open(options)?;
    // Before anybody can know that there is something to stop.
    let signals = Caught::new()?;
    let listening = Listening::bind(options)?;
    if !(options.foreground || options.run.is_some() || options.exit_with_parent) {
        process::become_daemon()?;
    }
    let device = Arc::new(transfer.start()?);
    if let Some(pidfile) = pidfile {
        pidfile.write()?;
    }
    serve(options, listening, tls, signals, &device)
}

/// What the parameters of a transfer say.
fn settings(parameters: &[String]) -> Result<Settings> {
    let mut parser = Parser::new();
    for argument in parameters {
        parser.set_argument(argument)?;
    }
    Ok(parser.finish()?)
}

fn open(options: &Options) -> Result<Transfer> {
    let mut settings = settings(&options.parameters)?;
    settings.read_only |= options.readonly;
    options.check()?;
    Ok(Transfer::open(settings)?)
}

/// Serves until a signal comes or the command of `--run` ends, whose exit status it returns, and closes the disk.
fn serve(
    options: &Options,
    listening: Listening,
    tls: Tls,
    signals: Caught,
    device: &Arc<Device>,
) -> Result<u8> {
    let info = ExportInfo { name: options.export_name.clone(), ..ExportInfo::default() };
    let clients = usize::from(options.max_clients);
    let config = Config {
        requests: usize::from(options.threads),
        sessions: clients,
        sessions_per_address: clients.div_ceil(2),
        tls,
        ..Config::default()
    };
    let queue = Arc::new(Queue::start(Arc::clone(device))?);
    let mut server = Server::new(queue, &info, config)?;
    let Listening { listeners, address, .. } = listening;
    log::info!("listening: {}", address.uri(&info.name));
    for listener in listeners {
        server.listen(listener);
    }
    let handle = server.handle();
    let command = options.run.as_deref().map(|run| process::run_command(run, &address, &info.name));
    let command = command.transpose()?;
    // To the end: somebody may lose patience with the last flush.
    let _signals = signals.listen(handle.clone(), command.as_ref().map(Recipient::of))?;
    let served = run_server(server, &handle, command);
    // Whatever happened, what was acknowledged is to be made safe.
    let closed = device.close();
    let code = served?;
    closed.context("the disk may be incomplete")?;
    Ok(code)
}

fn run_server(server: Server<Queue>, handle: &ShutdownHandle, command: Option<Child>) -> Result<u8> {
    thread::scope(|scope| {
        let waiter = command.map(|command| {
            thread::Builder::new().name("run".into()).spawn_scoped(scope, move || wait_for(command, handle))
        });
        let waiter = waiter.transpose()?;
        let outcome = server.run()?;
        log::info!("{outcome:?}");
        waiter.map_or(Ok(0), |waiter| waiter.join().unwrap_or(Ok(1)))
    })
}

fn wait_for(mut command: Child, server: &ShutdownHandle) -> Result<u8> {
    let status = command.wait();
    server.shutdown();
    status.map(process::exit_code).context("waiting for the command of --run")
}
