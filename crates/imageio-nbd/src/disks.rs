// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disks that are served: all are opened before any is, and each is flushed whatever becomes of
//! the others.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use engine_transfer::{Clock, Content, Ending};
use imageio_config::{ExportSettings, export_label};
use imageio_device::{Device, Queue, Transfer};
use nbd_frontend::{Config, ExportInfo, Server, Statistics};

use crate::cli::Options;
use crate::statistics::clients;

/// A transfer that was found to be usable.
pub(crate) struct Opened {
    export: Export,
    transfer: Transfer,
    ending: Ending,
}

/// A transfer in use.
pub(crate) struct Disk {
    export: Export,
    device: Arc<Device>,
    /// Its end would close the device, one after the other: it has to outlive [`close`].
    queue: Arc<Queue>,
    /// Last: its end gives up the transfer, for which all connections have to be closed.
    ending: Mutex<Option<Ending>>,
}

/// The name by which clients know a disk, and its label in messages.
struct Export {
    name: String,
    /// Set where there may be several disks.
    label: Option<String>,
}

impl Export {
    fn new(name: Option<String>, options: &Options) -> Self {
        let label = name.as_deref().map(export_label);
        Self { name: name.or_else(|| options.export_name.clone()).unwrap_or_default(), label }
    }

    /// An error is told with the export that it is about.
    fn label<T>(&self, result: Result<T>) -> Result<T> {
        match &self.label {
            Some(label) => result.context(label.clone()),
            None => result,
        }
    }
}

/// Opens all transfers, those that an engine has to be asked for by this clock. None is left open
/// if one fails: they hold no connections, and the engine is told that they aren't needed.
pub(crate) fn open(
    exports: Vec<ExportSettings>,
    options: &Options,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Opened>> {
    let mut opened = Vec::<Opened>::with_capacity(exports.len());
    for ExportSettings { name, source, .. } in exports {
        let export = Export::new(name, options);
        let source = export.label(source.open(Arc::clone(clock)).map_err(Into::into))?;
        let engine_transfer::Opened { transfer, ending } = source;
        // Neither would know of the other's changes.
        let is_same = |other: &&Opened| other.transfer.url().is_same_transfer(transfer.url());
        if let Some(other) = opened.iter().find(is_same) {
            let other = export_label(&other.export.name);
            return export.label(Err(anyhow!("it is the transfer of {other}: give each disk its own")));
        }
        opened.push(Opened { export, transfer, ending });
    }
    Ok(opened)
}

/// Starts the threads.
pub(crate) fn start(opened: Vec<Opened>) -> Result<Vec<Disk>> {
    let start = |Opened { export, transfer, mut ending }| {
        ending.set_in_use();
        let device = Arc::new(transfer.start()?);
        let queue = Arc::new(Queue::start(Arc::clone(&device))?);
        Ok(Disk { export, device, queue, ending: Mutex::new(Some(ending)) })
    };
    opened.into_iter().map(start).collect()
}

/// A server of all of them.
pub(crate) fn server(disks: &[Disk], config: Config) -> Result<Server<Queue>> {
    let info = |disk: &Disk| ExportInfo::new(disk.export.name.clone());
    let [first, others @ ..] = disks else { bail!("bug: there is no disk to serve") };
    let mut server = Server::new(Arc::clone(&first.queue), &info(first), config)?;
    for disk in others {
        server.add_export(Arc::clone(&disk.queue), &info(disk))?;
    }
    Ok(server)
}

/// Returns what is to be observed of each disk, by the figures that the server counts.
pub(crate) fn observed(disks: &[Disk], statistics: &Statistics) -> Vec<imageio_stats::Export> {
    let observed = disks.iter().enumerate().map(|(index, disk)| {
        let statistics = statistics.clone();
        // The server has them in the same order.
        let clients = move || clients(&statistics.snapshot().exports[index]);
        let mut export = imageio_stats::Export::new(&disk.export.name, Arc::clone(&disk.device), clients);
        export.label.clone_from(&disk.export.label);
        export
    });
    observed.collect()
}

/// The outcome for a disk that was to be written, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Whoever has written it says that it is whole.
    Whole,
    /// Whoever has written it has failed, and has said so.
    Failed,
    /// No client was there, or the last one has died, or was still there.
    Unknown,
}

/// Makes safe what was acknowledged, and closes all disks, side by side: each may take its time.
/// Transfers that an engine was asked for are ended, and uploads that may not be whole are given
/// up. False if a disk may be incomplete, for each of which a line is logged.
pub(crate) fn close(disks: &[Disk], written: Vec<Written>) -> bool {
    let is_all_safe = AtomicBool::new(true);
    let is_safe = &is_all_safe;
    thread::scope(|scope| {
        for (disk, written) in disks.iter().zip(written) {
            let close = move || {
                if let Err(error) = disk.close(written) {
                    log::error!("{}", crate::one_line(&error));
                    is_safe.store(false, Relaxed);
                }
            };
            if thread::Builder::new().name("close".into()).spawn_scoped(scope, close).is_err() {
                // The system has no more threads.
                close();
            }
        }
    });
    is_all_safe.into_inner()
}

impl Disk {
    fn close(&self, written: Written) -> Result<()> {
        let closed = self.device.close();
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The line that says what became of the data comes before the engine is waited for.
        let closed =
            closed.map_err(|error| anyhow!("the disk may be incomplete: {error}: begin the upload anew"));
        let closed = self.export.label(closed);
        let Some(ending) = ending else { return closed };
        let is_upload = ending.is_upload();
        let ended = ending.end(self.content(is_upload, written, closed.is_ok()));
        let closed = match (is_upload, written) {
            (true, Written::Unknown) => closed.and(self.export.label(Err(anyhow!(
                "no client has said at its end that the disk is written whole, so the upload was given up"
            )))),
            _ => closed,
        };
        closed.and(self.export.label(ended.map_err(Into::into)))
    }

    fn content(&self, is_upload: bool, written: Written, is_safe: bool) -> Content {
        match (is_upload, written) {
            (false, _) | (true, Written::Whole) if is_safe => Content::Complete,
            _ => left_by_failure(&self.device),
        }
    }
}

/// Tells what a failed upload has left on its disk.
pub(crate) fn left_by_failure(device: &Device) -> Content {
    let sent = device.statistics().operations();
    let is_untouched = sent.writes.sent.requests == 0 && sent.zeroes.sent.requests == 0;
    if is_untouched { Content::Untouched } else { Content::Incomplete }
}
