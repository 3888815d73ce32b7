// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of the plugin, from its parameters to the last flush.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, mem};

use block_device_traits::{BlockDevice, Errno, Error, Result};
use engine_transfer::{Content, Ending, Opened, Source, SystemClock};
use imageio_config::{Parser, one_line};
use imageio_device::Device;
use imageio_stats::{Export, Observer, Output, State, Watch};

use crate::client::Client;
use crate::ffi::channel;
use crate::{logging, stats};

/// The stage that the plugin has reached. nbdkit calls what changes it from one thread, one call at
/// a time; clients open while it is `Serving`.
enum Stage {
    Unloaded,
    Configuring(Parser),
    Configured { source: Source, stats_json: Option<PathBuf> },
    Ready(Opened, Option<PathBuf>),
    Serving(Serving),
    Closed,
}

struct Serving {
    device: Arc<Device>,
    ending: Ending,
    observer: Arc<Observer>,
    /// To the end: somebody may want to know why the last flush takes so long.
    watch: Watch,
    /// Someone who didn't ask for a read-only disk was told that it is.
    told_read_only: bool,
}

/// The error that asks nbdkit's user for the direction.
const NO_DIRECTION: &str =
    "direction: say direction=download to read the disk (with -r), or direction=upload to write it";

/// The plugin's name and version, which the statistics have.
const PROGRAM: &str = concat!("nbdkit-imageio-plugin ", env!("CARGO_PKG_VERSION"));

static STAGE: Mutex<Stage> = Mutex::new(Stage::Unloaded);

fn stage() -> MutexGuard<'static, Stage> {
    // A panic under the lock leaves a stage out of order, which the next call refuses.
    STAGE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first call.
pub(crate) fn load() {
    logging::start();
    stats::reset();
    *stage() = Stage::Configuring(Parser::new());
}

/// Takes a parameter.
pub(crate) fn config(name: &str, value: &str) -> Result<()> {
    match &mut *stage() {
        Stage::Configuring(parser) => parser.set(name, value).map_err(invalid),
        _ => Err(out_of_order("config")),
    }
}

/// All parameters are there.
pub(crate) fn config_complete() -> Result<()> {
    let mut stage = stage();
    match mem::replace(&mut *stage, Stage::Closed) {
        Stage::Configuring(parser) => {
            let stats_json = parser.stats_json().map(Path::to_owned);
            let source = parser.finish().map_err(invalid)?;
            if !source.has_direction() {
                return Err(Error::new(Errno::Inval, NO_DIRECTION));
            }
            *stage = Stage::Configured { source, stats_json };
            Ok(())
        }
        _ => Err(out_of_order("config_complete")),
    }
}

/// Tries all that can fail. No connection and no thread is left: nbdkit may fork after this.
///
/// nbdkit's `-r` is told to each client only, much later, so the ticket decides here.
pub(crate) fn get_ready() -> Result<()> {
    let mut stage = stage();
    match mem::replace(&mut *stage, Stage::Closed) {
        Stage::Configured { source, stats_json } => {
            output(stats_json.as_deref())?;
            let opened = source.open_as_allowed(Arc::new(SystemClock::default())).map_err(invalid)?;
            if opened.transfer.is_read_only() {
                log::info!("the ticket allows reading only");
            }
            *stage = Stage::Ready(opened, stats_json);
            Ok(())
        }
        _ => Err(out_of_order("get_ready")),
    }
}

/// Prepares the destination of the figures, if they are wanted: tried by the user that the process
/// is.
fn output(stats_json: Option<&Path>) -> Result<Option<Output>> {
    stats_json.map(Output::prepare).transpose().map_err(invalid)
}

/// Starts the threads.
pub(crate) fn after_fork() -> Result<()> {
    let mut stage = stage();
    match mem::replace(&mut *stage, Stage::Closed) {
        Stage::Ready(Opened { transfer, mut ending }, stats_json) => {
            ending.set_in_use();
            // Once more: nbdkit may have become another user (-u) meanwhile.
            let output = output(stats_json.as_deref())?;
            let device = Arc::new(transfer.start().map_err(failed)?);
            let observer = Arc::new(Observer::new(PROGRAM, vec![observed(&device)], output));
            let watch = Watch::start(Arc::clone(&observer)).map_err(failed)?;
            *stage = Stage::Serving(Serving { device, ending, observer, watch, told_read_only: false });
            Ok(())
        }
        _ => Err(out_of_order("after_fork")),
    }
}

/// A client came.
pub(crate) fn open(read_only: bool) -> Result<Client> {
    match &mut *stage() {
        Stage::Serving(serving) => {
            if serving.device.capabilities().read_only
                && !read_only
                && !mem::replace(&mut serving.told_read_only, true)
            {
                log::warn!(
                    "the ticket allows reading only, so no client can write: to upload, ask for a transfer that \
                     allows it; to read, say so with -r"
                );
            }
            Ok(Client::new(Arc::clone(&serving.device) as Arc<dyn BlockDevice>, read_only))
        }
        _ => Err(Error::new(Errno::Shutdown, "the transfer is closed")),
    }
}

fn incomplete(error: &Error) -> String {
    format!("the disk may be incomplete: {error}: begin the upload anew")
}

/// Returns what is to be observed of the one device.
fn observed(device: &Arc<Device>) -> Export {
    Export::new("", Arc::clone(device), stats::clients)
}

/// Tells what was done.
fn tell(observer: &Observer, state: State) {
    observer.summaries().iter().for_each(|line| log::info!("{line}"));
    if let Err(error) = observer.write(state, &mut io::stderr()) {
        log::warn!("{}", one_line(&error));
    }
}

/// The clients are gone: waits for all that is under way, flushes, closes, and ends all threads.
/// More calls change nothing.
pub(crate) fn close() -> Result<()> {
    // Not under the lock: this may take long.
    let before = mem::replace(&mut *stage(), Stage::Closed);
    match before {
        Stage::Serving(Serving { device, ending, observer, watch, .. }) => {
            let closed = device.close();
            let content = if closed.is_ok() { Content::Complete } else { Content::Incomplete };
            let ended = ending.end(content).map_err(failed);
            drop(watch);
            let is_complete = closed.is_ok() && ended.is_ok();
            tell(&observer, if is_complete { State::Complete } else { State::Incomplete });
            closed.map_err(|error| Error::new(error.errno(), incomplete(&error))).and(ended)
        }
        _ => Ok(()),
    }
}

/// The last call.
pub(crate) fn unload() {
    if crate::ffi::flags::stats() {
        stats::table().iter().for_each(|line| channel::debug(line));
    }
    logging::stop();
    *stage() = Stage::Unloaded;
}

/// The user's mistake, or the server's refusal.
fn invalid(error: impl std::error::Error + 'static) -> Error {
    Error::new(Errno::Inval, one_line(&error))
}

/// No fault of anybody.
fn failed(error: impl std::error::Error + 'static) -> Error {
    Error::new(Errno::Io, one_line(&error))
}

fn out_of_order(call: &str) -> Error {
    Error::new(Errno::Inval, format!("bug: {call} was called out of order"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fake_imageio::FakeServer;

    use super::*;
    use crate::ffi::channel::server::said;
    use crate::ffi::registered;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// One test, as there is one plugin in a process.
    #[test]
    fn from_load_to_unload_and_again() {
        let server = FakeServer::builder().size(1 << 20).start().unwrap();
        let callbacks = registered();
        for has_cleanup in [true, false, true] {
            load();
            assert!(config("colour", "red").unwrap_err().to_string().contains("colour"));
            config("url", "https://first.invalid/images/x").unwrap();
            config("url", &server.url()).unwrap();
            config("is_ovirt_host", "true").unwrap();
            assert!(get_ready().is_err(), "out of order");
            load();
            config("url", &server.url()).unwrap();
            config_complete().unwrap();
            get_ready().unwrap();
            let closed = server.wait_for(PATIENCE, |log| log.open().count() == 0);
            assert!(closed, "nothing is left open across the fork");
            assert!(open(false).is_err());
            after_fork().unwrap();
            let client = open(false).unwrap();
            client.write(0, bytes::Bytes::from_static(b"data"), false).unwrap();
            // nbdkit before 1.26 has none.
            for last in [callbacks.cleanup.filter(|_| has_cleanup), callbacks.unload].into_iter().flatten() {
                last();
                assert_eq!(client.flush().unwrap_err().errno(), Errno::Shutdown);
            }
        }
        assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0 && log.lost_unflushed() == 0));
        assert_eq!(server.read(0, 4).unwrap(), b"data");
        let errors: Vec<_> = said().into_iter().filter(|line| line.starts_with("error")).collect();
        assert_eq!(errors, [""; 0]);
    }
}
