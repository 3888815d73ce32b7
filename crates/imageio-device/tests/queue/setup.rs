// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device with a queue, and completions that tell what they were told.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use block_device_traits::{Batch, BatchEnd, Completion, QueuedDevice, Request, Result};
use fake_imageio::{FakeServer, Fault, Gate, Op, What};
use imageio_device::{Device, Queue, Settings};

use crate::common::{PATIENCE, settings, start};

pub(crate) const BLOCK: u64 = 4096;
pub(crate) const BLOCKS: u64 = 256;

/// The result that a completion was told, and the content of its buffer.
pub(crate) struct Told {
    pub(crate) name: u64,
    pub(crate) result: Result<()>,
    pub(crate) buffer: Vec<u8>,
}

pub(crate) struct Tell {
    pub(crate) name: u64,
    pub(crate) buffer: Vec<u8>,
    pub(crate) told: Sender<Told>,
    pub(crate) batches: Arc<Batches>,
}

/// Counts batches of completions.
pub(crate) struct Batches(Sender<()>);

impl Completion for Tell {
    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn complete(self: Box<Self>, result: Result<()>, batch: &mut Batch) {
        let Self { name, buffer, told, batches } = *self;
        batch.at_end(&batches);
        told.send(Told { name, result, buffer }).unwrap();
    }
}

impl BatchEnd for Batches {
    fn batch_ended(self: Arc<Self>) {
        self.0.send(()).unwrap();
    }
}

/// A device with a queue.
pub(crate) struct Setup {
    pub(crate) server: FakeServer,
    pub(crate) device: Arc<Device>,
    pub(crate) queue: Queue,
    pub(crate) tell: Sender<Told>,
    pub(crate) told: Receiver<Told>,
    pub(crate) batches: Arc<Batches>,
    pub(crate) batch_ends: Receiver<()>,
}

impl Setup {
    pub(crate) fn new(change: impl FnOnce(Settings) -> Settings) -> Self {
        Self::of_size(BLOCKS * BLOCK, change)
    }

    pub(crate) fn of_size(size: u64, change: impl FnOnce(Settings) -> Settings) -> Self {
        let server = FakeServer::builder().size(size).start().unwrap();
        let device = Arc::new(start(change(settings(&server))));
        let queue = Queue::start(Arc::clone(&device)).unwrap();
        let (tell, told) = channel();
        let (ended, batch_ends) = channel();
        Self { server, device, queue, tell, told, batches: Arc::new(Batches(ended)), batch_ends }
    }

    pub(crate) fn with_connections(connections: u32) -> Self {
        Self::new(|settings| settings.with(|settings| settings.connections = Some(connections)))
    }

    /// One connection, and nothing is kept to be written again.
    pub(crate) fn fragile() -> Self {
        Self::new(|settings| {
            settings.with(|settings| {
                settings.connections = Some(1);
                settings.replay_buffer = Some(0);
            })
        })
    }

    pub(crate) fn submit(&self, name: u64, request: Request, room: usize) {
        self.queue.submit(request, self.completion(name, room));
    }

    pub(crate) fn completion(&self, name: u64, room: usize) -> Box<dyn Completion> {
        let (told, batches) = (self.tell.clone(), Arc::clone(&self.batches));
        Box::new(Tell { name, buffer: vec![0xee; room], told, batches })
    }

    /// The next that is told.
    pub(crate) fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    /// A request that ends before the next is submitted.
    pub(crate) fn ask(&self, request: Request, room: usize) -> Result<Vec<u8>> {
        self.submit(0, request, room);
        let Told { result, buffer, .. } = self.next();
        result.map(|()| buffer)
    }

    /// Returns the results that these were told, in the order of their names.
    #[track_caller]
    pub(crate) fn all(&self, names: impl IntoIterator<Item = u64>) -> Vec<Told> {
        let names: Vec<_> = names.into_iter().collect();
        let mut told: Vec<_> = names.iter().map(|_| self.next()).collect();
        told.sort_by_key(|told| told.name);
        assert!(told.iter().map(|told| told.name).eq(names));
        told
    }

    /// Holds up the one connection by a write of the last block.
    pub(crate) fn hold_up(&self) -> Gate {
        let gate = Gate::new();
        self.server.fault(Fault::on(Op::Put).then(What::Block(gate.clone())));
        self.submit(u64::MAX, write(BLOCKS - 1), 0);
        assert!(gate.wait_reached(1, PATIENCE));
        gate
    }

    /// Lets it go on.
    pub(crate) fn let_go(&self, gate: &Gate) {
        gate.open();
        let held = self.next();
        assert_eq!((held.name, held.result), (u64::MAX, Ok(())));
    }

    /// Returns the requests that the server got after the write that was held up: first byte and
    /// length.
    pub(crate) fn log(&self, op: Op) -> Vec<(u64, u64)> {
        let log = self.server.log();
        let held = log.requests.iter().position(|request| request.offset == (BLOCKS - 1) * BLOCK).unwrap();
        let after = log.requests[held + 1..].iter().filter(|request| request.op == op);
        after.map(|request| (request.offset, request.size)).collect()
    }
}

pub(crate) fn contents() -> Vec<u8> {
    (0..BLOCKS * BLOCK).map(|i| (i / 7) as u8).collect()
}

/// A write of a block that holds its number, counted from 1.
pub(crate) fn write(block: u64) -> Request {
    Request::Write { offset: block * BLOCK, data: vec![(block + 1) as u8; BLOCK as usize].into(), fua: false }
}
