// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of what was done: when somebody asks for them (SIGUSR1), and in the end.

use std::io;
use std::path::Path;
use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use anyhow::{Result, ensure};
use imageio_stats::{ClientStatistics, Observer, Output, Requests, State};
use nbd_frontend::ExportSnapshot;

use crate::logging;
use crate::progress::StandardError;

/// The program's name and version, which the document has.
pub(crate) const PROGRAM: &str = concat!("imageio-nbd ", env!("CARGO_PKG_VERSION"));

/// Prepares the destination of the document, if it is wanted.
pub(crate) fn prepare(stats_json: Option<&Path>, becomes_daemon: bool) -> Result<Option<Output>> {
    let output = stats_json.map(Output::prepare).transpose()?;
    ensure!(
        !(becomes_daemon && output == Some(Output::StandardError)),
        "stats-json=-: nobody sees the standard error of a daemon: give a file, or add -f"
    );
    Ok(output)
}

/// The name of a thread, which may outlive what it is for: the file system of the document may
/// hang.
const THREAD: &str = "statistics";

/// Has the figures told by another thread, and never waits for that.
pub(crate) struct Teller(SyncSender<()>);

impl Teller {
    pub(crate) fn start(mut tell: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let (ask, asked) = sync_channel(1);
        let tell = move || asked.iter().for_each(|()| tell());
        Builder::new().name(THREAD.into()).spawn(tell)?;
        Ok(Self(ask))
    }

    /// Questions that come before the one before them is taken up are one with it.
    pub(crate) fn ask(&self) {
        let _ = self.0.try_send(());
    }
}

/// Does something that is not worth waiting for longer than this.
pub(crate) fn within(time: Duration, work: impl FnOnce() + Send + 'static) {
    let (working, done) = channel::<()>();
    let work = move || {
        let _working = working;
        work();
    };
    // Without a thread it is left.
    if Builder::new().name(THREAD.into()).spawn(work).is_ok() {
        let _ = done.recv_timeout(time);
    }
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
    if let Err(error) = observer.write(state, &mut StandardError) {
        log::warn!("{}", imageio_config::one_line(&error));
    }
}

/// Translates the counters of the NBD server into the words of both doors.
pub(crate) fn clients(counted: &ExportSnapshot) -> ClientStatistics {
    // imageio has no TRIM.
    let mut others = requests(counted.others);
    others += requests(counted.trims);
    let mut clients = ClientStatistics::default();
    clients.accepted = counted.clients;
    clients.connected = counted.connected;
    clients.reads = requests(counted.reads);
    clients.writes = requests(counted.writes);
    clients.zeroes = requests(counted.zeroes);
    clients.flushes = requests(counted.flushes);
    clients.extents = requests(counted.block_statuses);
    clients.others = others;
    clients
}

fn requests(counted: nbd_frontend::Requests) -> Requests {
    Requests::new(counted.requests, counted.bytes, counted.errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn who_asks_does_not_wait_for_a_file_system_that_hangs() {
        let ((begin, begun), (go_on, hangs)) = (channel(), channel::<()>());
        let teller = Teller::start(move || {
            begin.send(()).unwrap();
            hangs.recv().unwrap();
        });
        let teller = teller.unwrap();
        teller.ask();
        begun.recv_timeout(PATIENCE).unwrap();
        (0..100).for_each(|_| teller.ask());
        go_on.send(()).unwrap();
        begun.recv_timeout(PATIENCE).unwrap();
        go_on.send(()).unwrap();
        drop(teller);
        let ended = begun.recv_timeout(PATIENCE);
        assert_eq!(ended, Err(std::sync::mpsc::RecvTimeoutError::Disconnected), "a hundred were one");
    }

    #[test]
    fn what_takes_too_long_is_left() {
        let (_go_on, hangs) = channel::<()>();
        within(Duration::from_millis(1), move || {
            let _ = hangs.recv();
        });
        let (tell, told) = channel();
        within(PATIENCE, move || tell.send(()).unwrap());
        assert_eq!(told.try_recv(), Ok(()), "it was waited for");
    }
}
