// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serving the disks, from the first client to the last flush.

use std::process::Child;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use imageio_device::Queue;
use imageio_stats::{Observer, Output, State, Watch};
use nbd_frontend::{Config, Server, ShutdownHandle, Tls};

use crate::cli::Options;
use crate::disks::{self, Disk, Written};
use crate::entrance::{Beside, Entrance};
use crate::process::{self, Caught, PidFile, Recipient, SignalThread};
use crate::progress::Line;
use crate::single::Relay;
use crate::statistics::{self, PROGRAM};

/// Everything that was made ready while there was someone to tell.
pub(crate) struct Prepared {
    pub(crate) entrance: Entrance,
    pub(crate) tls: Tls,
    pub(crate) signals: Caught,
    pub(crate) pidfile: Option<PidFile>,
    pub(crate) output: Option<Output>,
}

/// A server with all that goes on beside it.
struct Running {
    server: Server<Queue>,
    beside: Beside,
    /// These are needed to the end: somebody may lose patience with the last flush, or want to know
    /// why it takes so long.
    signals: SignalThread,
    watch: Watch,
    line: Option<Line>,
}

/// Serves until a signal comes, the command of `--run` ends, whose exit status it returns, or the
/// client of `--single` has gone; and closes the disks. 1 if one of them may be incomplete. The
/// figures are told in the end, whatever happens.
pub(crate) fn serve(options: &Options, prepared: Prepared, disks: &[Disk]) -> Result<u8> {
    let Prepared { entrance, tls, signals, pidfile, output } = prepared;
    let server = disks::server(disks, config(options, tls))?;
    let observed = disks::observed(disks, &server.statistics());
    let observer = Arc::new(Observer::new(PROGRAM, observed, output));
    match start(options, server, entrance, signals, pidfile, &observer) {
        Ok(running) => until_the_end(running, disks, &observer),
        Err(error) => {
            statistics::finish(&observer, State::Incomplete);
            Err(error)
        }
    }
}

fn start(
    options: &Options,
    mut server: Server<Queue>,
    entrance: Entrance,
    signals: Caught,
    pidfile: Option<PidFile>,
    observer: &Arc<Observer>,
) -> Result<Running> {
    if let Some(pidfile) = pidfile {
        pidfile.write()?;
    }
    let beside = entrance.lead_to(&mut server, options)?;
    let command = beside.command.as_ref().map(Recipient::of);
    let signals = signals.listen(server.handle(), command, Arc::clone(observer))?;
    let watch = Watch::start(Arc::clone(observer)).context("cannot start a thread")?;
    // A daemon has no terminal.
    let line = if options.progress { Line::draw(Arc::clone(observer))? } else { None };
    Ok(Running { server, beside, signals, watch, line })
}

fn until_the_end(running: Running, disks: &[Disk], observer: &Observer) -> Result<u8> {
    let (statistics, runs) = (running.server.statistics(), running.beside.command.is_some());
    let Running { server, beside: Beside { command, relay, private }, signals, watch, line } = running;
    let handle = server.handle();
    let served = run_server(server, &handle, command);
    drop(private);
    // Whatever happened, what was acknowledged is to be made safe.
    let exports = statistics.snapshot().exports;
    let written = exports.iter().map(|export| match (runs, &served) {
        (true, Ok(0)) => Written::Whole,
        (_, Ok(1..) | Err(_)) => Written::Failed,
        (false, Ok(0)) if export.said_goodbye && export.connected == 0 => Written::Whole,
        (false, Ok(0)) => Written::Unknown,
    });
    let is_all_safe = disks::close(disks, written.collect());
    relay.iter().for_each(Relay::finish);
    drop((line, watch));
    statistics::finish(observer, if is_all_safe { State::Complete } else { State::Incomplete });
    // Not before: the file system of the figures may hang.
    drop(signals);
    if is_all_safe { served } else { served.map(|_| 1) }
}

fn config(options: &Options, tls: Tls) -> Config {
    let clients = usize::from(options.max_clients);
    Config::default().with(|config| {
        if options.threads != 0 {
            config.requests = usize::from(options.threads);
        }
        config.sessions = clients;
        config.sessions_per_address = clients.div_ceil(2);
        config.structured_replies = !options.no_sr;
        config.meta_contexts = !options.no_mc;
        config.tls = tls;
        if let Some(timeout) = options.timeout {
            config.negotiation_timeout = timeout;
        }
    })
}

fn run_server(server: Server<Queue>, handle: &ShutdownHandle, command: Option<Child>) -> Result<u8> {
    thread::scope(|scope| {
        let waiter = command.map(|command| {
            thread::Builder::new().name("run".into()).spawn_scoped(scope, move || wait_for(command, handle))
        });
        let waiter = waiter.transpose()?;
        let outcome = server.run()?;
        log::debug!("{outcome:?}");
        waiter.map_or(Ok(0), |waiter| waiter.join().unwrap_or(Ok(1)))
    })
}

fn wait_for(mut command: Child, server: &ShutdownHandle) -> Result<u8> {
    let status = command.wait();
    server.shutdown();
    status.map(process::exit_code).context("cannot wait for the command of --run")
}
