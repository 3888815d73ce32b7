// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of what was done: when somebody asks for them (SIGUSR1), and in the end.

use std::path::Path;

use anyhow::{Result, ensure};
use imageio_stats::{ClientStatistics, Observer, Output, Requests, State};
use nbd_frontend::ExportSnapshot;

use crate::{logging, progress};

/// Whose figures they are.
pub(crate) const PROGRAM: &str = concat!("imageio-nbd ", env!("CARGO_PKG_VERSION"));

/// Where the document goes, if it is wanted.
pub(crate) fn prepare(stats_json: Option<&Path>, becomes_daemon: bool) -> Result<Option<Output>> {
    let output = stats_json.map(Output::prepare).transpose()?;
    ensure!(
        !(becomes_daemon && output == Some(Output::StandardError)),
        "stats-json=-: nobody sees the standard error of a daemon: give a file, or add -f"
    );
    Ok(output)
}

/// Tells the figures of this moment, whatever is logged besides.
pub(crate) fn tell(observer: &Observer) {
    for line in observer.summaries() {
        log::info!(target: logging::ASKED_FOR, "{line}");
    }
    write(observer, State::Running);
}

/// Tells the figures in the end.
pub(crate) fn finish(observer: &Observer, state: State) {
    for line in observer.summaries() {
        log::info!("{line}");
    }
    write(observer, state);
}

fn write(observer: &Observer, state: State) {
    if let Err(error) = progress::aside(|| observer.write(state)) {
        log::warn!("{error}");
    }
}

/// What the NBD server counts, in the words of both doors.
pub(crate) fn clients(counted: &ExportSnapshot) -> ClientStatistics {
    // imageio has no TRIM.
    let mut others = requests(counted.others);
    others += requests(counted.trims);
    ClientStatistics {
        accepted: counted.clients,
        connected: counted.connected,
        reads: requests(counted.reads),
        writes: requests(counted.writes),
        zeroes: requests(counted.zeroes),
        flushes: requests(counted.flushes),
        extents: requests(counted.block_statuses),
        others,
    }
}

fn requests(counted: nbd_frontend::Requests) -> Requests {
    Requests { requests: counted.requests, bytes: counted.bytes, errors: counted.errors }
}
