// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ways in which clients come to the server.

use std::io::{self, Write};
use std::process::Child;

use anyhow::{Context, Result};
use imageio_device::Queue;
use nbd_frontend::{Listener, Server};
use tempfile::TempDir;

use crate::cli::Options;
use crate::identity::Identity;
use crate::listen::{Listening, Place};
use crate::process;
use crate::single::{Relay, Single};

/// The way by which clients come to the server.
pub(crate) enum Entrance {
    /// They connect.
    Listening(Listening),
    /// Whoever has passed these sockets to this process knows how clients connect.
    Activated(Vec<Listener>),
    /// There is one, and it is connected.
    Single(Single),
}

/// The things that go on beside the server, and are needed until it has ended.
#[derive(Default)]
pub(crate) struct Beside {
    /// The command of `--run`.
    pub(crate) command: Option<Child>,
    /// Between the server and the pipes of its only client.
    pub(crate) relay: Option<Relay>,
    /// The directory of a private socket, which is removed on drop.
    pub(crate) private: Option<TempDir>,
}

impl Entrance {
    /// Opens what the options ask for, where no sockets were `passed` to this process.
    pub(crate) fn open(options: &Options, passed: Vec<Listener>) -> Result<Self> {
        if !passed.is_empty() {
            return Ok(Self::Activated(passed));
        }
        if options.single {
            return Single::take().map(Self::Single);
        }
        Listening::bind(options).map(Self::Listening)
    }

    /// Gives a user what this process has made: it is to connect to the socket, and to remove it at
    /// the end.
    pub(crate) fn give_to(&self, identity: &Identity) -> Result<()> {
        let Self::Listening(Listening { address, private, .. }) = self else { return Ok(()) };
        if let Place::Unix(socket) = &address.place {
            identity.own(socket)?;
        }
        private.as_ref().map_or(Ok(()), |dir| identity.own(dir.path()))
    }

    /// Leads clients to `server`, and starts the command of `--run`.
    pub(crate) fn lead_to(self, server: &mut Server<Queue>, options: &Options) -> Result<Beside> {
        match self {
            Self::Listening(listening) => listen(listening, server, options),
            Self::Activated(listeners) => {
                log::info!("listening: sockets that were passed to this process: {}", listeners.len());
                listeners.into_iter().for_each(|listener| server.listen(listener));
                Ok(Beside::default())
            }
            Self::Single(client) => {
                let (socket, relay) = client.connect().context("-s")?;
                server.adopt(socket);
                Ok(Beside { relay, ..Beside::default() })
            }
        }
    }
}

fn listen(listening: Listening, server: &mut Server<Queue>, options: &Options) -> Result<Beside> {
    let Listening { listeners, address, private } = listening;
    // Of several, the first one also has the empty name.
    let export_name = options.export_name.as_deref().unwrap_or_default();
    let uri = address.uri(export_name);
    log::info!("listening: {uri}");
    if options.print_uri {
        writeln!(io::stdout(), "{uri}").context("--print-uri: cannot write to standard output")?;
    }
    listeners.into_iter().for_each(|listener| server.listen(listener));
    let run = options.run.as_ref();
    let command = run.map(|run| process::run_command(run, &address, export_name)).transpose()?;
    Ok(Beside { command, private, ..Beside::default() })
}
