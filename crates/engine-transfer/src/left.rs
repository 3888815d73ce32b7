// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk that an upload has made, whose process was killed before it wrote anything. Nobody knows
//! who has used the disk since then: it is used for the upload only if nothing is on it, and else
//! it is left as it is.

use imageio_device::Transfer;
use ovirt_engine_client::{Direction, Disk, DiskStatus, Engine, ImageTransfer};

use crate::Error;
use crate::open::{ItsDisk, Origin};
use crate::settings::NewDiskSettings;

/// The parts of the upload that are there.
pub(crate) enum Left {
    /// The disk, of which there is no transfer.
    Disk(Disk),
    /// The id of a transfer into the disk.
    Transfer(String, ItsDisk),
}

/// Looks for the disk by its id.
pub(crate) fn find(engine: &Engine, new: &NewDiskSettings) -> Result<Option<Left>, Error> {
    let Some(id) = &new.id else { return Ok(None) };
    let disk = match engine.disk(id) {
        Err(error) if error.is_missing() => return Ok(None),
        disk => disk?,
    };
    let unusable = |reason: String| Error::Left { disk: id.clone(), reason };
    if disk.provisioned_size != Some(new.size) {
        return Err(unusable(format!("its size isn't {} bytes", new.size)));
    }
    let is_of_disk = |transfer: &ImageTransfer| transfer.image.id == *id && !transfer.phase.is_finished();
    match engine.transfers()?.into_iter().find(is_of_disk) {
        Some(transfer) if is_upload_under_way(&transfer) => {
            log::warn!("{transfer} into disk {id} was begun before, and goes on");
            Ok(Some(Left::Transfer(transfer.id, ItsDisk { id: id.clone(), origin: Origin::Left })))
        }
        Some(transfer) => Err(unusable(format!("{transfer} has it"))),
        None => match disk.status {
            Some(DiskStatus::Ok | DiskStatus::Locked) => {
                log::warn!("disk {id} was made before, and is used now");
                Ok(Some(Left::Disk(engine.wait_for_disk(id)?)))
            }
            Some(status) => Err(unusable(format!("it is {status}"))),
            None => Err(unusable("it has no status".to_owned())),
        },
    }
}

fn is_upload_under_way(transfer: &ImageTransfer) -> bool {
    use ovirt_engine_client::TransferPhase::{Initializing, Resuming, Transferring};
    let may_go_on =
        matches!(transfer.phase, Initializing | Resuming | Transferring) || transfer.phase.is_paused();
    may_go_on && transfer.direction == Direction::Upload.word()
}

/// Fails unless the server knows that the disk reads as zeroes.
pub(crate) fn check_empty(disk: &str, transfer: &Transfer) -> Result<(), Error> {
    match transfer.sum_extents()? {
        Some(sum) if sum.data == 0 => Ok(()),
        _ => Err(Error::Left { disk: disk.to_owned(), reason: "there may be data on it".to_owned() }),
    }
}
