// SPDX-License-Identifier: MIT OR Apache-2.0
//! Getting a transfer of the engine, and opening it.

use std::sync::{Arc, Mutex};

use error_reporter::Report;
use imageio_device::{OpenError, Settings, Transfer, UrlSource};
use ovirt_engine_client::{
    Clock, Direction, Disk, DiskFormat, Engine, Error as EngineError, ImageTransfer, NewDisk, NewTransfer,
    Secret, StorageDomain, Subject,
};

use crate::Error;
use crate::ending::{self, Begun, Ending};
use crate::host::ThisHost;
use crate::left::{self, Left};
use crate::settings::{EngineSettings, Interrupted, NewDiskSettings, Source, Target};

/// A disk that can be used.
#[derive(Debug)]
pub struct Opened {
    /// The transfer, which becomes a device.
    pub transfer: Transfer,
    /// The work that is to be done when the device is closed.
    pub ending: Ending,
}

impl Source {
    /// Gets the transfer of the engine if there is one, and opens it. No thread and no connection
    /// is left, so the process may fork. If it fails, nothing is left in the engine. `clock` may
    /// end the wait for the engine.
    ///
    /// # Errors
    /// The engine or the server refuses, or can't be reached.
    pub fn open(self, clock: Arc<dyn Clock>) -> Result<Opened, Error> {
        self.open_with(clock, Transfer::open)
    }

    /// Opens it for reading only where its ticket allows no more.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_as_allowed(self, clock: Arc<dyn Clock>) -> Result<Opened, Error> {
        self.open_with(clock, Transfer::open_as_allowed)
    }

    /// Finalizes an [interrupted](Target::Interrupted) upload, all of which is on the disk, also
    /// one that was finalized before, and waits until the engine says that it is good.
    ///
    /// # Errors
    /// The engine doesn't say so.
    pub fn finalize_interrupted(self, clock: Arc<dyn Clock>) -> Result<(), Error> {
        let Some(EngineSettings { credentials, target: Target::Interrupted(interrupted), .. }) = self.engine
        else {
            return Err(Error::Bug("it is no interrupted upload"));
        };
        let (config, _) = credentials.resolve()?;
        let engine = Engine::with_clock(config, clock)?;
        let finalized = ending::finalize_interrupted(&engine, &interrupted);
        engine.log_out();
        finalized
    }

    fn open_with(self, clock: Arc<dyn Clock>, open: Open) -> Result<Opened, Error> {
        let Self { mut settings, engine } = self;
        let Some(engine) = engine else {
            return Ok(Opened { transfer: open(settings)?, ending: Ending::of_somebody_else() });
        };
        let direction = direction(&engine, settings.read_only)?;
        settings.read_only = direction == Direction::Download;
        let (config, cafile) = engine.credentials.resolve()?;
        let begun = begin(Engine::with_clock(config, clock)?, &engine, direction)?;
        settings.cafile = settings.cafile.or(cafile);
        settings.is_ovirt_host |= begun.is_by_this_host;
        // Its drop gives up the transfer.
        let mut ending = Ending::of(begun);
        let mut transfer = by_any_way(&settings, ending.urls(), open)?;
        if let Some(disk) = ending.left_disk() {
            left::check_empty(disk, &transfer)?;
            ending.take_left_disk();
        }
        if let Some(keeper) = ending.ticket_keeper() {
            transfer = transfer.with_ticket_keeper(keeper);
        }
        Ok(Opened { transfer, ending })
    }
}

type Open = fn(Settings) -> Result<Transfer, OpenError>;

/// Returns the direction in which data is to go.
fn direction(engine: &EngineSettings, read_only: bool) -> Result<Direction, Error> {
    use Direction::{Download, Upload};
    match (&engine.target, engine.direction, read_only) {
        (Target::NewDisk(_), _, true) => Err(Error::NothingToRead),
        (_, Some(Upload), true) | (Target::Interrupted(_), _, true) => Err(Error::ReadOnlyUpload),
        (Target::Snapshot { .. } | Target::Backup { .. }, ..) | (_, Some(Download), _) | (_, None, true) => {
            Ok(Download)
        }
        (_, Some(Upload) | None, false) => Ok(Upload),
    }
}

/// By the first URL that leads to the server.
fn by_any_way(settings: &Settings, urls: Vec<Secret>, open: Open) -> Result<Transfer, Error> {
    let mut urls = urls.into_iter().peekable();
    let mut unreachable = None;
    while let Some(url) = urls.next() {
        let url = UrlSource::Inline(url.reveal().to_owned());
        match open(settings.clone().with(|settings| settings.url = url)) {
            Err(error) if error.is_unreachable() => {
                if urls.peek().is_some() {
                    log::warn!("{}: trying the engine's proxy instead", Report::new(&error));
                }
                unreachable.get_or_insert(error);
            }
            opened => return opened.map_err(Error::from),
        }
    }
    // The first one is where the data should go.
    Err(unreachable.map_or(Error::NoUrl, Error::from))
}

fn begin(engine: Engine, settings: &EngineSettings, direction: Direction) -> Result<Begun, Error> {
    let begun = match &settings.target {
        Target::Interrupted(Interrupted { transfer, disk, is_new }) => {
            let origin = if *is_new { Origin::New } else { Origin::Before };
            take_up(&engine, transfer, ItsDisk { id: disk.clone(), origin })
        }
        _ => begin_with(&engine, settings, direction),
    };
    match begun {
        Ok(Led { transfer, disk, is_by_this_host, is_taken_up }) => {
            let resuming = Mutex::default();
            Ok(Begun { engine, transfer, direction, disk, is_by_this_host, is_taken_up, resuming })
        }
        Err(error) => {
            engine.log_out();
            Err(error)
        }
    }
}

/// A disk of which the engine has been asked for a transfer.
#[derive(Debug, Clone)]
pub(crate) struct ItsDisk {
    pub(crate) id: String,
    pub(crate) origin: Origin,
}

/// The origin of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was there before.
    Before,
    /// It was made for this transfer, and is good for nothing if that fails.
    New,
    /// An interrupted upload has made it. Whoever has used it since then may need it.
    Left,
}

/// A transfer whose ticket is at the server.
struct Led {
    transfer: ImageTransfer,
    disk: Option<ItsDisk>,
    is_by_this_host: bool,
    /// It was there before, and is to be there if this process gets nowhere.
    is_taken_up: bool,
}

fn begin_with(engine: &Engine, settings: &EngineSettings, direction: Direction) -> Result<Led, Error> {
    let (subject, disk) = match &settings.target {
        Target::Snapshot { image, shallow } => {
            (Subject::Snapshot { image: image.clone(), shallow: *shallow }, None)
        }
        Target::Backup { disk, backup } => {
            (Subject::Backup { disk: disk.clone(), backup: backup.clone() }, None)
        }
        Target::Disk(name_or_id) => {
            let disk = engine.find_disk(name_or_id)?;
            check_size(&disk, settings.exact_size)?;
            (Subject::Disk(disk.id.clone()), Some((disk, Origin::Before)))
        }
        Target::Interrupted(_) => return Err(Error::Bug("an interrupted upload is begun anew")),
        Target::NewDisk(new) => {
            let (disk, origin) = match left::find(engine, new)? {
                Some(Left::Transfer(transfer, disk)) => return take_up(engine, &transfer, disk),
                Some(Left::Disk(disk)) => (disk, Origin::Left),
                None => (make_disk(engine, new)?, Origin::New),
            };
            (Subject::Disk(disk.id.clone()), Some((disk, origin)))
        }
    };
    let mut new = NewTransfer::new(direction, subject);
    new.inactivity_timeout = settings.inactivity_timeout;
    begin_new(engine, new, &settings.target, disk)
}

fn begin_new(
    engine: &Engine,
    mut new: NewTransfer,
    target: &Target,
    disk: Option<(Disk, Origin)>,
) -> Result<Led, Error> {
    new.keeps_disk = disk.as_ref().is_none_or(|(_, origin)| *origin != Origin::New);
    let this_host = match (&disk, target) {
        (Some((disk, _)), _) => ThisHost::find(engine, || Ok(disk.clone())),
        (None, Target::Backup { disk, .. }) => ThisHost::find(engine, || engine.disk(disk)),
        (None, _) => None,
    };
    // A running virtual machine is backed up by its own host, whichever is asked for.
    new.host = this_host.as_ref().filter(|_| disk.is_some()).map(|host| host.id().to_owned());
    let disk = disk.map(|(disk, origin)| ItsDisk { id: disk.id, origin });
    match engine.begin_transfer(&new) {
        Ok(transfer) => {
            let is_by_this_host = this_host.is_some_and(|host| host.does(&transfer));
            Ok(Led { transfer, disk, is_by_this_host, is_taken_up: false })
        }
        Err(error) => {
            if let Some(ItsDisk { id, origin: Origin::New }) = &disk {
                ending::remove(engine, id);
            }
            Err(error.into())
        }
    }
}

/// Has an upload go on, wherever this runs now. If it can't, it waits for the next attempt.
fn take_up(engine: &Engine, id: &str, disk: ItsDisk) -> Result<Led, Error> {
    let taken = engine.take_up_transfer(id, Direction::Upload);
    let transfer = taken.inspect_err(|error| pause_again(engine, id, error))?;
    let this_host = ThisHost::find(engine, || engine.disk(&disk.id));
    let is_by_this_host = this_host.is_some_and(|host| host.does(&transfer));
    Ok(Led { transfer, disk: Some(disk), is_by_this_host, is_taken_up: true })
}

/// Has an upload that couldn't go on wait again, whatever it was about to do. One that has ended
/// doesn't, and a user who can't log in isn't to be locked out by trying again.
fn pause_again(engine: &Engine, transfer: &str, error: &EngineError) {
    use EngineError::{Refused, Stopped, TimedOut, Unreachable};
    let may_go_on = matches!(error, Refused { .. } | Stopped { .. } | TimedOut { .. } | Unreachable { .. });
    if may_go_on && let Err(error) = engine.pause_upload(transfer) {
        log::error!("{}: see transfer {transfer} in the engine", Report::new(error));
    }
}

fn check_size(disk: &Disk, expected: Option<u64>) -> Result<(), Error> {
    match (disk.provisioned_size, expected) {
        (Some(size), Some(expected)) if size != expected => {
            Err(Error::Size { disk: disk.id.clone(), size, expected })
        }
        _ => Ok(()),
    }
}

/// Tells of disks of this name that wait for the rest of an upload: it may be one that was killed,
/// and that is now begun anew. A question that isn't answered is none that matters.
fn tell_of_left_uploads(engine: &Engine, name: &str) {
    let transfers = engine.transfers().unwrap_or_default();
    let is_left = |transfer: &&ImageTransfer| {
        transfer.phase.is_paused() && transfer.direction == Direction::Upload.word()
    };
    for transfer in transfers.iter().filter(is_left) {
        if engine.disk(&transfer.image.id).is_ok_and(|disk| disk.name == name) {
            log::warn!(
                "disk {} of the same name waits for the rest of an upload: if nobody goes on with {transfer}, cancel it in the engine (Storage, Disks, the disk, Upload, Cancel)",
                transfer.image.id
            );
        }
    }
}

fn make_disk(engine: &Engine, new: &NewDiskSettings) -> Result<Disk, Error> {
    let domain = engine.find_storage_domain(&new.storage_domain)?;
    tell_of_left_uploads(engine, &new.name);
    let disk = engine.create_disk(&request(new, &domain))?;
    log::info!("disk {} is being made", disk.id);
    engine.wait_for_disk(&disk.id).inspect_err(|_| ending::remove(engine, &disk.id)).map_err(Error::from)
}

/// Returns the disk that the engine is asked for: block storage has no sparse raw disks, and has to
/// be told how much of a sparse one is to be written before a guest could extend it.
fn request(new: &NewDiskSettings, domain: &StorageDomain) -> NewDisk {
    let mut disk = NewDisk::new(&new.name, new.size, &domain.id);
    disk.id = new.id.clone().unwrap_or(disk.id);
    disk.description.clone_from(&new.description);
    disk.format = if new.tracks_changes { DiskFormat::Cow } else { new.format.clone() };
    disk.sparse = new.sparse.unwrap_or(disk.format == DiskFormat::Cow || !domain.is_block());
    disk.content_type = new.content_type.clone();
    disk.tracks_changes = new.tracks_changes;
    let needs_initial_size = disk.sparse && disk.format == DiskFormat::Cow && domain.is_block();
    disk.initial_size = new.initial_size.or(needs_initial_size.then_some(new.size));
    disk
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(kind: &str) -> StorageDomain {
        let text = format!(r#"{{"id": "s", "name": "data", "storage": {{"type": "{kind}"}}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_disk_suits_its_storage() {
        let mut new = NewDiskSettings::new("x", "data", 5);
        let asked = |new: &NewDiskSettings, kind| {
            let disk = request(new, &domain(kind));
            (disk.format.word().to_owned(), disk.sparse, disk.initial_size)
        };
        assert_eq!(asked(&new, "nfs"), ("raw".into(), true, None));
        assert_eq!(asked(&new, "iscsi"), ("raw".into(), false, None));
        new.tracks_changes = true;
        assert_eq!(asked(&new, "nfs"), ("cow".into(), true, None));
        assert_eq!(asked(&new, "fcp"), ("cow".into(), true, Some(5)));
        new.initial_size = Some(7);
        assert_eq!(asked(&new, "fcp"), ("cow".into(), true, Some(7)));
    }
}
