// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device, by one of its doors.

use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use block_device_traits::{
    ALLOCATION, Batch, BlockDevice, Completion, Extent, QueuedDevice, Request, Result, ZERO, ZeroFlags,
};
use bytes::Bytes;
use fake_imageio::FakeServer;
use imageio_device::{Device, Queue, Transfer};

use crate::common::{self, PATIENCE, settings};
use crate::scenario::{BLOCK, Door, Scenario};

const DIRTY: &str = "imageio:dirty";

pub(crate) struct Disk {
    // Before the device, which it uses.
    queue: Option<Queue>,
    pub(crate) device: Arc<Device>,
}

impl Disk {
    pub(crate) fn open(server: &FakeServer, scenario: &Scenario) -> Self {
        let setup = &scenario.setup;
        let is_closing = scenario.server.close_after.is_some();
        // A client that gets nowhere with a server that closes needs no more time to find out.
        let reconnect_timeout = if is_closing { Duration::from_millis(500) } else { PATIENCE };
        let timeouts = settings(server).timeouts.with(|timeouts| {
            timeouts.data = SILENCE;
            timeouts.operation = SILENCE;
        });
        let settings = settings(server).with(|settings| {
            settings.connections = Some(setup.connections);
            settings.replay_buffer = Some(setup.replay_buffer);
            settings.max_request = Some(setup.max_request);
            settings.keep_alive = setup.keep_alive;
            settings.reconnect_timeout = reconnect_timeout;
            settings.timeouts = timeouts;
        });
        // The machine may be so busy that a server seems to be silent.
        let transfer = (0..50).find_map(|_| Transfer::open(settings.clone()).ok());
        let device = Arc::new(transfer.expect("the server answers").start().unwrap());
        let queue = (setup.door == Door::Queued).then(|| Queue::start(Arc::clone(&device)).unwrap());
        Self { queue, device }
    }

    pub(crate) fn read(&self, offset: usize, len: usize) -> Result<Vec<u8>> {
        match &self.queue {
            Some(queue) => submit(queue, Request::Read { offset: offset as u64 }, len),
            None => common::read_into(&self.device, offset as u64, len),
        }
    }

    pub(crate) fn write(&self, offset: usize, data: Vec<u8>, fua: bool) -> Result<()> {
        let (offset, data) = (offset as u64, Bytes::from(data));
        match &self.queue {
            Some(queue) => submit(queue, Request::Write { offset, data, fua }, 0).map(drop),
            None => self.device.write(offset, data, fua),
        }
    }

    pub(crate) fn zero(&self, offset: usize, len: usize, fua: bool) -> Result<()> {
        let (offset, len, flags) = (offset as u64, len as u64, ZeroFlags { fua, ..ZeroFlags::default() });
        match &self.queue {
            Some(queue) => submit(queue, Request::Zero { offset, len, flags }, 0).map(drop),
            None => self.device.zero(offset, len, flags),
        }
    }

    /// The parts of a range that are said to be zero.
    pub(crate) fn zeroes(&self, offset: usize, len: usize) -> Result<Vec<Range<usize>>> {
        self.ranges(ALLOCATION, ZERO, offset, len)
    }

    /// The parts of a range that are said to be dirty.
    pub(crate) fn dirty(&self, offset: usize, len: usize) -> Result<Vec<Range<usize>>> {
        self.ranges(DIRTY, 1, offset, len)
    }

    /// The parts of a range that have this status in a context.
    fn ranges(&self, name: &str, wanted: u64, offset: usize, len: usize) -> Result<Vec<Range<usize>>> {
        let (start, limit) = (offset as u64, 1000);
        let context = self.device.contexts().iter().position(|context| context == name).unwrap();
        let extents = match &self.queue {
            Some(queue) => {
                ask(queue, Request::Extents { context, offset: start, len: len as u64, limit }, 0)?.1
            }
            None => self.device.extents(context, start, len as u64, limit)?,
        };
        let mut end = offset;
        let ranges = extents.into_iter().map(|extent| {
            let start = end;
            end += extent.length as usize;
            (start..end, extent.status)
        });
        let wanted = ranges.filter(|(_, status)| *status == wanted).map(|(range, _)| range).collect();
        assert_eq!(end, offset + len, "they are all of the range");
        Ok(wanted)
    }

    pub(crate) fn flush(&self) -> Result<()> {
        match &self.queue {
            Some(queue) => submit(queue, Request::Flush, 0).map(drop),
            None => self.device.flush(),
        }
    }
}

/// Only a server that doesn't answer takes this long.
const SILENCE: Duration = Duration::from_millis(250);

/// Tells a thread that waits.
struct Waiting {
    buffer: Vec<u8>,
    extents: Vec<Extent>,
    tell: mpsc::Sender<Result<(Vec<u8>, Vec<Extent>)>>,
}

impl Completion for Waiting {
    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn extents(&mut self, extents: Vec<Extent>) {
        self.extents = extents;
    }

    fn complete(self: Box<Self>, result: Result<()>, _batch: &mut Batch) {
        let Self { buffer, extents, tell } = *self;
        tell.send(result.map(|()| (buffer, extents))).unwrap();
    }
}

fn submit(queue: &Queue, request: Request, len: usize) -> Result<Vec<u8>> {
    ask(queue, request, len).map(|(buffer, _)| buffer)
}

fn ask(queue: &Queue, request: Request, len: usize) -> Result<(Vec<u8>, Vec<Extent>)> {
    let (tell, told) = mpsc::channel();
    // Zeroes need not be read, and are filled in.
    let waiting = Box::new(Waiting { buffer: vec![0xee; len], extents: Vec::new(), tell });
    match &request {
        // This thread waits anyway, so it may do the work.
        Request::Read { offset } | Request::Write { offset, .. } | Request::Zero { offset, .. }
            if (offset / BLOCK as u64) % 2 == 1 =>
        {
            queue.carry_out(request, waiting);
        }
        _ => queue.submit(request, waiting),
    }
    told.recv().unwrap()
}
