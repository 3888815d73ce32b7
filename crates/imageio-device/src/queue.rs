// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device for servers that don't spend a thread on each request.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use block_device::{Batch, BlockDevice, Capabilities, Completion, Errno, Error, QueuedDevice, Request};
use conn_pool::Workers;
use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::device::Device;
use crate::link::Link;
use crate::request::Target;

/// A [`Device`] with a thread for each connection, and one for flushes. Dropping it closes the device, whose
/// [`close`](Device::close) then still tells the outcome.
pub struct Queue {
    device: Arc<Device>,
    // Before the flusher, whose last flush would do nothing more than closing does.
    workers: Workers<Link>,
    flusher: Flusher,
}

impl Queue {
    /// Starts the threads. A device has one queue at most.
    ///
    /// # Errors
    /// No threads can be had.
    pub fn start(device: Arc<Device>) -> io::Result<Self> {
        let workers = Workers::start(device.pool.clone())?;
        let flusher = Flusher::start(Arc::clone(&device))?;
        Ok(Self { device, workers, flusher })
    }
}

impl QueuedDevice for Queue {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn submit(&self, request: Request, completion: Box<dyn Completion>) {
        if let Some(request) = self.accept(request, completion) {
            self.workers.submit(request);
        }
    }

    fn carry_out(&self, request: Request, completion: Box<dyn Completion>) {
        let Some(request) = self.accept(request, completion) else { return };
        // The caller is not to wait for a server that may not answer.
        if self.device.is_calm() {
            self.workers.carry_out(request);
        } else {
            self.workers.submit(request);
        }
    }

    fn longest_write(&self) -> u64 {
        self.device.longest_write
    }
}

impl Queue {
    /// What is to be done on a connection, if it is possible, and anything is.
    fn accept(
        &self,
        request: Request,
        mut completion: Box<dyn Completion>,
    ) -> Option<crate::request::Request> {
        let (device, room) = (&*self.device, completion.buffer().len() as u64);
        let checked = match &request {
            Request::Read { offset } => device.check_read(*offset, room),
            Request::Write { offset, data, .. } => device.check_write(*offset, data.len() as u64),
            Request::Zero { offset, len, flags } => device.check_zero(*offset, *len, *flags),
            Request::Flush => Ok(()),
        };
        if let Err(error) = checked {
            completion.complete(Err(error), &mut Batch::default());
            return None;
        }
        Some(match request {
            Request::Read { offset } => device.read_request(offset, room, Target::Submitted(completion)),
            Request::Write { offset, data, fua } => {
                device.write_request(offset, data, false, fua).with(completion)
            }
            Request::Zero { offset, len, flags } => device.zero_request(offset, len, flags).with(completion),
            Request::Flush => {
                self.flusher.flush(completion);
                return None;
            }
        })
    }
}

/// The thread that flushes. A flush covers all that waited for it when it began.
struct Flusher {
    asked: Option<Sender<Box<dyn Completion>>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    fn start(device: Arc<Device>) -> io::Result<Self> {
        let (asked, asking) = unbounded();
        let thread = thread::Builder::new().name("flusher".into());
        let thread = thread.spawn(move || flush_for(&device, &asking))?;
        Ok(Self { asked: Some(asked), thread: Some(thread) })
    }

    fn flush(&self, completion: Box<dyn Completion>) {
        let asked = self.asked.as_ref().expect("the thread lives until it is dropped");
        if let Err(error) = asked.send(completion) {
            let gone = Error::new(Errno::Io, "bug: the thread that flushes has panicked");
            error.into_inner().complete(Err(gone), &mut Batch::default());
        }
    }
}

fn flush_for(device: &Device, asking: &Receiver<Box<dyn Completion>>) {
    while let Ok(first) = asking.recv() {
        let waiting: Vec<_> = std::iter::once(first).chain(asking.try_iter()).collect();
        let outcome = device.flush();
        let mut batch = Batch::default();
        for completion in waiting {
            // The thread lives on for the others, also if this one panics.
            let complete = AssertUnwindSafe(|| completion.complete(outcome.clone(), &mut batch));
            if catch_unwind(complete).is_err() {
                log::error!("the completion of a flush panicked");
            }
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        drop(self.asked.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that flushes panicked");
        }
    }
}
