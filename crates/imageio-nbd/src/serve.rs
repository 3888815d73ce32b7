// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serving the disks, from the first client to the last flush.

use std::process::Child;
use std::thread;

use anyhow::{Context, Result};
use imageio_device::Queue;
use nbd_frontend::{Config, Server, ShutdownHandle, Tls};

use crate::cli::Options;
use crate::disks::{self, Disk};
use crate::entrance::{Beside, Entrance};
use crate::process::{self, Caught, Recipient};
use crate::single::Relay;

/// Serves until a signal comes, the command of `--run` ends, whose exit status it returns, or the client of `--single` has
/// gone; and closes the disks. 1 if one of them may be incomplete.
pub(crate) fn serve(
    options: &Options,
    entrance: Entrance,
    tls: Tls,
    signals: Caught,
    disks: &[Disk],
) -> Result<u8> {
    let mut server = disks::server(disks, config(options, tls))?;
    let handle = server.handle();
    let Beside { command, relay, private } = entrance.lead_to(&mut server, options)?;
    // To the end: somebody may lose patience with the last flush.
    let _signals = signals.listen(handle.clone(), command.as_ref().map(Recipient::of))?;
    let served = run_server(server, &handle, command);
    drop(private);
    // Whatever happened, what was acknowledged is to be made safe.
    let is_all_safe = disks::close(disks);
    relay.iter().for_each(Relay::finish);
    let code = served?;
    Ok(if is_all_safe { code } else { 1 })
}

fn config(options: &Options, tls: Tls) -> Config {
    let clients = usize::from(options.max_clients);
    let defaults = Config::default();
    Config {
        requests: if options.threads == 0 { defaults.requests } else { usize::from(options.threads) },
        sessions: clients,
        sessions_per_address: clients.div_ceil(2),
        structured_replies: !options.no_sr,
        meta_contexts: !options.no_mc,
        tls,
        negotiation_timeout: options.timeout.unwrap_or(defaults.negotiation_timeout),
        ..defaults
    }
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
