// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serving a disk to a program that copies, on a socket that nobody else can reach.

use std::sync::Arc;
use std::thread;

use anyhow::{Context, Error, Result, anyhow};
use engine_transfer::{Content, Ending, Opened, Source};
use imageio_device::{Device, Queue};
use imageio_stats::{Export, Observer, Output, State, Watch};
use nbd_frontend::{Config, ExportInfo, Server, ShutdownHandle, Statistics};

use super::Stop;
use super::image_files::Changed;
use super::stop::Failed;
use crate::disks;
use crate::listen::{Address, Listening};
use crate::statistics::{self, PROGRAM, clients};

/// The way in which a disk is served.
#[derive(Clone, Copy)]
pub(crate) struct Service<'a> {
    /// The name of the disk in messages, where there may be several.
    pub(crate) label: Option<&'a str>,
    pub(crate) stop: &'a Stop,
    /// The destination of the figures, if they are wanted.
    pub(crate) output: Option<&'a Output>,
}

impl Service<'_> {
    /// Serves a device while it is used. What `follow` returns is kept as long.
    pub(crate) fn serve<F>(
        self,
        device: &Arc<Device>,
        follow: impl FnOnce(&Arc<Observer>) -> Result<F>,
        use_it: impl FnOnce(&Address) -> Result<()>,
    ) -> Result<()> {
        let queue = Arc::new(Queue::start(Arc::clone(device))?);
        let Listening { listeners, address, private: _private } = Listening::private()?;
        // The first failure is told at the end, with what the program says of it.
        let config = Config::default().with(|config| config.logs_failures = false);
        let mut server = Server::new(queue, &ExportInfo::default(), config)?;
        listeners.into_iter().for_each(|listener| server.listen(listener));
        let statistics = server.statistics();
        let observer = self.observer(device, &statistics);
        self.stop.observe(&observer);
        let following = follow(&observer)?;
        let watch = Watch::start(Arc::clone(&observer)).context("cannot start a thread")?;
        let end = EndOfServer(server.handle());
        let used = thread::scope(|scope| {
            let serve = move || server.run();
            let serving = thread::Builder::new().name("nbd".into()).spawn_scoped(scope, serve)?;
            let used = use_it(&address);
            drop(end);
            let served = serving.join().map_err(|_| anyhow!("bug: the server panicked"))?;
            used.and(served.map(drop).map_err(Into::into))
        });
        drop((following, watch));
        statistics::finish(&observer, if used.is_ok() { State::Complete } else { State::Incomplete });
        used.map_err(|error| with_reason(error, statistics.first_failure()))
    }

    fn observer(self, device: &Arc<Device>, statistics: &Statistics) -> Arc<Observer> {
        let statistics = statistics.clone();
        let clients = move || clients(&statistics.snapshot().exports[0]);
        let mut export = Export::new(self.label.unwrap_or_default(), Arc::clone(device), clients);
        export.label = self.label.map(str::to_owned);
        Arc::new(Observer::new(PROGRAM, vec![export], self.output.cloned()))
    }
}

/// A program that has copied knows of a request only that it has failed.
fn with_reason(error: Error, first_failure: Option<&str>) -> Error {
    let Some(reason) = first_failure else { return error };
    match error.downcast::<Failed>() {
        Ok(failed) => anyhow!("{reason}").context(failed),
        Err(error) => error,
    }
}

/// Whatever happens, nobody waits for a server that nobody ends.
struct EndOfServer(ShutdownHandle);

impl Drop for EndOfServer {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

/// The outcome of a copy.
pub(crate) struct Copied {
    /// The disk's id.
    pub(crate) disk: Result<Option<String>>,
    /// The content of the disk.
    pub(crate) content: Content,
}

/// Begins the transfer of a disk, has the disk copied, and ends the transfer.
pub(crate) fn copy_disk(
    source: Source,
    stop: &Arc<Stop>,
    copy: impl FnOnce(&Arc<Device>, &mut Ending) -> Result<()>,
) -> Copied {
    let clock = stop.clock();
    let Opened { transfer, mut ending } = match source.open(Arc::clone(&clock) as _) {
        Ok(opened) => opened,
        Err(error) => return Copied { disk: Err(error.into()), content: Content::Untouched },
    };
    let disk = ending.disk().map(str::to_owned);
    ending.set_in_use();
    let (copied, content) = match transfer.start().map(Arc::new) {
        Ok(device) => {
            let copied = close_after(copy(&device, &mut ending), &device);
            let content = if copied.is_ok() { Content::Complete } else { disks::left_by_failure(&device) };
            (copied, content)
        }
        Err(error) => (Err(error.into()), Content::Untouched),
    };
    clock.be_patient();
    let ended = ending.end(content).map_err(Error::from);
    let copied = match (copied, ended) {
        // Somebody has ended the transfer, which is why nobody can go on with it.
        (Err(error), Err(reason)) if !error.is::<Changed>() => Err(reason.context(error.to_string())),
        (copied, ended) => copied.and(ended),
    };
    Copied { disk: copied.map(|()| disk), content }
}

/// Closes a device. If data may be missing, that is the reason for a failure of the copy, whose
/// program knows no more than that some requests have failed.
pub(crate) fn close_after(copied: Result<()>, device: &Device) -> Result<()> {
    let closed = device.close().map_err(|error| anyhow!("the disk may be incomplete: {error}"));
    match (copied, closed) {
        // Without its own reason, which is the same.
        (Err(error), Err(reason)) if error.is::<Failed>() => Err(reason.context(error.to_string())),
        (copied, closed) => copied.and(closed),
    }
}
