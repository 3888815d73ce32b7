// SPDX-License-Identifier: MIT OR Apache-2.0
//! Extents by the door that blocks nobody.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use block_device_traits::{Batch, Completion, Errno, Extent, QueuedDevice, Request, Result};
use fake_imageio::{FakeServer, Op};
use imageio_device::{Device, Queue};

use crate::common::{PATIENCE, close_well, settings, start, within_a_minute};
use crate::setup::{BLOCK, SIZE, SPARSE, hold_extents, pairs, reads, sparse};

struct Tell {
    buffer: Vec<u8>,
    extents: Option<Vec<Extent>>,
    tell: Sender<Told>,
}

type Told = (Result<()>, Vec<u8>, Option<Vec<Extent>>);

impl Completion for Tell {
    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn extents(&mut self, extents: Vec<Extent>) {
        self.extents = Some(extents);
    }

    fn complete(self: Box<Self>, result: Result<()>, _: &mut Batch) {
        let Self { buffer, extents, tell } = *self;
        tell.send((result, buffer, extents)).unwrap();
    }
}

const ALL: Request = Request::Extents { context: 0, offset: 0, len: SIZE, limit: 100 };

struct Setup {
    server: FakeServer,
    device: Arc<Device>,
    queue: Queue,
    tell: Sender<Told>,
    told: Receiver<Told>,
}

impl Setup {
    fn new() -> Self {
        let server = sparse().start().unwrap();
        let device = Arc::new(start(settings(&server).with(|settings| settings.connections = Some(1))));
        let queue = Queue::start(Arc::clone(&device)).unwrap();
        let (tell, told) = channel();
        Self { server, device, queue, tell, told }
    }

    fn submit(&self, request: Request, room: usize) {
        let tell = self.tell.clone();
        self.queue.submit(request, Box::new(Tell { buffer: vec![0xee; room], extents: None, tell }));
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).unwrap()
    }
}

#[test]
fn those_who_ask_are_told_when_the_answer_is_there_and_keep_nobody_from_anything() {
    let setup = Setup::new();
    assert_eq!(setup.queue.contexts().len(), 4);
    let gate = hold_extents(&setup.server);
    (0..3).for_each(|_| setup.submit(ALL, 0));
    assert!(gate.wait_reached(1, PATIENCE));
    setup.submit(Request::Read { offset: 2 * BLOCK }, 4);
    assert_eq!(setup.next().1, [7; 4]);
    assert!(setup.told.try_recv().is_err());
    gate.open();
    for _ in 0..3 {
        let (result, _, extents) = setup.next();
        assert_eq!((result, pairs(extents.unwrap())), (Ok(()), SPARSE.to_vec()));
    }
    setup.submit(ALL, 0);
    assert_eq!(pairs(setup.next().2.unwrap()), SPARSE);
    setup.submit(Request::Extents { context: 7, offset: 0, len: 1, limit: 1 }, 0);
    assert_eq!(setup.next().0.unwrap_err().errno(), Errno::Inval);
    drop(setup.queue);
    close_well(&setup.server, &setup.device);
}

#[test]
fn zeroes_are_filled_in_and_not_read() {
    let setup = Setup::new();
    setup.submit(ALL, 0);
    setup.next().0.unwrap();
    setup.submit(Request::Read { offset: 0 }, 10);
    assert_eq!(setup.next().1, [0; 10]);
    setup.submit(Request::Read { offset: 2 * BLOCK - 2 }, 4);
    assert_eq!(setup.next().1, [0, 0, 7, 7]);
    setup.submit(Request::Read { offset: 4 * BLOCK - 2 }, 4);
    assert_eq!(setup.next().1, [7, 7, 0, 0]);
    assert_eq!(reads(&setup.server), [(2 * BLOCK, 2), (4 * BLOCK - 2, 2)]);
    drop(setup.queue);
    close_well(&setup.server, &setup.device);
}

#[test]
fn dropping_the_queue_ends_those_who_wait() {
    within_a_minute(|| {
        let setup = Setup::new();
        let gate = hold_extents(&setup.server);
        (0..3).for_each(|_| setup.submit(ALL, 0));
        assert!(gate.wait_reached(1, PATIENCE));
        let Setup { server, device, queue, told, .. } = setup;
        drop(queue);
        let told: Vec<_> = told.try_iter().map(|(result, ..)| result.unwrap_err().errno()).collect();
        assert_eq!(told, [Errno::Shutdown; 3]);
        close_well(&server, &device);
        assert_eq!(server.log().of(Op::Extents).count(), 1);
    });
}
