// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device for servers that don't spend a thread on each request.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use block_device_traits::{
    Batch, BlockDevice, Capabilities, Completion, Errno, Error, Extent, QueuedDevice, Request, Result,
};
use conn_pool::Workers;

use crate::connection::ReplayingConnection;
use crate::device::Device;
use crate::error::pool_error;
use crate::request::DeviceRequest;
use crate::zero::InPieces;

/// A [`Device`] with a thread for each connection, and one for flushes. Dropping it closes the
/// device, whose [`close`](Device::close) then still tells the outcome.
pub struct Queue {
    device: Arc<Device>,
    workers: Workers<ReplayingConnection>,
    is_stopping: Arc<AtomicBool>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Queue {
    /// Starts the threads. A device has one queue at most.
    ///
    /// # Errors
    /// No threads can be had.
    pub fn start(device: Arc<Device>) -> io::Result<Self> {
        let workers = Workers::start(device.pool.clone())?;
        Ok(Self { device, workers, is_stopping: Arc::default() })
    }

    /// Returns the request that is to be carried out on a connection, if it is possible and needs
    /// one.
    fn accept(&self, request: Request, mut completion: Box<dyn Completion>) -> Option<DeviceRequest> {
        let (device, room) = (&*self.device, completion.buffer().len());
        if let Err(error) = check(device, &request, room as u64) {
            completion.complete(Err(error), &mut Batch::default());
            return None;
        }
        match request {
            Request::Read { offset } => {
                match device.needed(offset, room, |zeroes| completion.fill_zeroes(zeroes)) {
                    Some((place, part)) => Some(DeviceRequest::read(place, part, completion)),
                    None => {
                        completion.complete(Ok(()), &mut Batch::default());
                        None
                    }
                }
            }
            Request::Write { offset, data, fua } => {
                let place = device.place(offset, data.len() as u64);
                Some(DeviceRequest::write(place, data, fua, Some(completion)))
            }
            Request::Zero { offset, len, flags } => {
                let mut zeroing = device.zeroing(offset, len, flags);
                let piece = zeroing.take_piece();
                zeroing.note_rest(device.tracker());
                if !zeroing.is_done() {
                    completion = Box::new(InPieces {
                        zeroing,
                        submitter: self.workers.submitter(),
                        is_stopping: Arc::clone(&self.is_stopping),
                        whole: completion,
                    });
                }
                Some(piece.request(Some(completion)))
            }
            Request::Flush => {
                self.workers.flush(move |outcome| {
                    completion.complete(outcome.map_err(pool_error), &mut Batch::default());
                });
                None
            }
            Request::Extents { context, offset, len, limit } => {
                match device.check_extents(context, offset, len, limit) {
                    Ok(question) => self.device.when_extents_are_known(question, move |known, batch| {
                        let told = known.map(|extents| completion.extents(extents));
                        completion.complete(told, batch);
                    }),
                    Err(error) => completion.complete(Err(error), &mut Batch::default()),
                }
                None
            }
            // All others are refused above.
            _ => None,
        }
    }
}

/// Checks that a request is possible. `room` is how much a read is for, in bytes.
fn check(device: &Device, request: &Request, room: u64) -> Result<()> {
    match request {
        Request::Read { offset } => device.check_read(*offset, room),
        Request::Write { offset, data, .. } => device.check_write(*offset, data.len() as u64),
        Request::Zero { offset, len, flags } => device.check_zero(*offset, *len, *flags),
        Request::Trim { .. } => Err(Error::new(Errno::Inval, "imageio has no trim")),
        // Requests for extents are checked where they are taken apart.
        Request::Flush | Request::Extents { .. } => Ok(()),
        _ => Err(Error::new(Errno::NotSup, "the device does not know this request")),
    }
}

impl Drop for Queue {
    /// Dropping the workers closes the pool, and waits for them: nobody is to wait for extents by
    /// then.
    fn drop(&mut self) {
        self.device.end_extents();
    }
}

impl QueuedDevice for Queue {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn contexts(&self) -> &[String] {
        self.device.contexts()
    }

    fn is_tentative(&self, context: usize) -> bool {
        self.device.is_tentative(context)
    }

    fn has_context(&self, context: usize) -> bool {
        self.device.has_context(context)
    }

    fn submit(&self, request: Request, completion: Box<dyn Completion>) {
        if let Some(request) = self.accept(request, completion) {
            self.workers.submit(request);
        }
    }

    fn carry_out(&self, request: Request, completion: Box<dyn Completion>) {
        let Some(request) = self.accept(request, completion) else { return };
        // The caller is not to wait for a server that may not answer.
        if self.device.had_outage_lately() {
            self.workers.submit(request);
        } else {
            self.workers.carry_out(request);
        }
    }

    /// The server may take minutes to tell the extents, and hours to zero a disk.
    fn stopping(&self) {
        self.is_stopping.store(true, Relaxed);
        self.device.end_extents();
    }

    fn longest_write(&self) -> u64 {
        self.device.link().longest_request()
    }

    fn longest_read(&self) -> u64 {
        self.device.link().longest_request()
    }

    fn in_flight(&self) -> u64 {
        self.device.link().in_flight()
    }

    /// A transfer is for one client of the server, so nobody else is supposed to write to the disk.
    fn read_ahead(&self) -> u64 {
        self.device.read_ahead
    }

    /// Nobody is asked: what is not known by now is data.
    fn extent_ahead(&self, offset: u64) -> Option<Extent> {
        self.device.extent_ahead(offset)
    }
}
