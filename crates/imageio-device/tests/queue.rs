// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that nobody waits for.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use block_device::{
    Batch, BatchEnd, BlockDevice, Completion, Errno, QueuedDevice, Request, Result, ZeroFlags,
};
use bytes::Bytes;
use common::{
    NO_FUA, PATIENCE, assert_fails_for_good, await_waiting, close_well, settings, start, within_a_minute,
};
use fake_imageio::{FakeServer, Fault, Gate, Op, What};
use imageio_device::{Device, Queue, Settings};

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 256;

/// What a completion was told, and what is in its buffer.
struct Told {
    name: u64,
    result: Result<()>,
    buffer: Vec<u8>,
}

struct Tell {
    name: u64,
    buffer: Vec<u8>,
    told: Sender<Told>,
    batches: Arc<Batches>,
}

/// Counts batches of completions.
struct Batches(Sender<()>);

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
struct Setup {
    server: FakeServer,
    device: Arc<Device>,
    queue: Queue,
    tell: Sender<Told>,
    told: Receiver<Told>,
    batches: Arc<Batches>,
    batch_ends: Receiver<()>,
}

impl Setup {
    fn new(change: impl FnOnce(Settings) -> Settings) -> Self {
        let server = FakeServer::builder().size(BLOCKS * BLOCK).start().unwrap();
        let device = Arc::new(start(change(settings(&server))));
        let queue = Queue::start(Arc::clone(&device)).unwrap();
        let (tell, told) = channel();
        let (ended, batch_ends) = channel();
        Self { server, device, queue, tell, told, batches: Arc::new(Batches(ended)), batch_ends }
    }

    fn with_connections(connections: u32) -> Self {
        Self::new(|settings| Settings { connections, ..settings })
    }

    /// One connection, and nothing is kept to be written again.
    fn fragile() -> Self {
        Self::new(|settings| Settings { connections: 1, replay_buffer: 0, ..settings })
    }

    fn submit(&self, name: u64, request: Request, room: usize) {
        self.queue.submit(request, self.completion(name, room));
    }

    fn completion(&self, name: u64, room: usize) -> Box<dyn Completion> {
        let (told, batches) = (self.tell.clone(), Arc::clone(&self.batches));
        Box::new(Tell { name, buffer: vec![0xee; room], told, batches })
    }

    /// The next that is told.
    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    /// A request that ends before the next is submitted.
    fn ask(&self, request: Request, room: usize) -> Result<Vec<u8>> {
        self.submit(0, request, room);
        let Told { result, buffer, .. } = self.next();
        result.map(|()| buffer)
    }

    /// What these were told, in the order of their names.
    #[track_caller]
    fn all(&self, names: impl IntoIterator<Item = u64>) -> Vec<Told> {
        let names: Vec<_> = names.into_iter().collect();
        let mut told: Vec<_> = names.iter().map(|_| self.next()).collect();
        told.sort_by_key(|told| told.name);
        assert!(told.iter().map(|told| told.name).eq(names));
        told
    }

    /// Holds up the one connection by a write of the last block.
    fn hold_up(&self) -> Gate {
        let gate = Gate::new();
        self.server.fault(Fault::on(Op::Put).then(What::Block(gate.clone())));
        self.submit(u64::MAX, write(BLOCKS - 1), 0);
        assert!(gate.wait_reached(1, PATIENCE));
        gate
    }

    /// Lets it go on.
    fn let_go(&self, gate: &Gate) {
        gate.open();
        let held = self.next();
        assert_eq!((held.name, held.result), (u64::MAX, Ok(())));
    }

    /// What the server got after the write that was held up: first byte and length.
    fn log(&self, op: Op) -> Vec<(u64, u64)> {
        let log = self.server.log();
        let held = log.requests.iter().position(|request| request.offset == (BLOCKS - 1) * BLOCK).unwrap();
        let after = log.requests[held + 1..].iter().filter(|request| request.op == op);
        after.map(|request| (request.offset, request.size)).collect()
    }
}

#[test]
fn who_waits_anyway_does_the_work() {
    within_a_minute(|| {
        let setup = Setup::with_connections(1);
        let done_by_the_return = |request, room| {
            setup.queue.carry_out(request, setup.completion(7, room));
            let Told { name, result, buffer } = setup.told.try_recv().unwrap();
            setup.batch_ends.try_recv().unwrap();
            assert_eq!(name, 7);
            result.map(|()| buffer)
        };
        assert_eq!(done_by_the_return(write(3), 0), Ok(vec![]));
        let zero = Request::Zero { offset: 3 * BLOCK, len: 1, flags: NO_FUA };
        assert_eq!(done_by_the_return(zero, 0), Ok(vec![]));
        assert_eq!(done_by_the_return(Request::Read { offset: 3 * BLOCK }, 3), Ok(vec![0, 4, 4]));
        let outside = done_by_the_return(Request::Read { offset: BLOCKS * BLOCK }, 3);
        assert_eq!(outside.unwrap_err().errno(), Errno::Inval);
        // Where the connection is busy, nobody waits.
        let gate = setup.hold_up();
        setup.queue.carry_out(write(4), setup.completion(1, 0));
        assert_eq!(setup.device.waiting(), 1);
        setup.let_go(&gate);
        assert_eq!(setup.next().result, Ok(()));
        setup.device.close().unwrap();
        assert_eq!(done_by_the_return(write(5), 0).unwrap_err().errno(), Errno::Shutdown);
    });
}

fn contents() -> Vec<u8> {
    (0..BLOCKS * BLOCK).map(|i| (i / 7) as u8).collect()
}

/// A write of a block that holds its number, counted from 1.
fn write(block: u64) -> Request {
    Request::Write { offset: block * BLOCK, data: vec![(block + 1) as u8; BLOCK as usize].into(), fua: false }
}

#[test]
fn what_is_written_is_read_back() {
    let setup = Setup::with_connections(4);
    assert_eq!(
        (setup.queue.size(), setup.queue.capabilities()),
        (setup.device.size(), setup.device.capabilities())
    );
    let data = contents();
    let text = Bytes::from_static(b"durable");
    setup.ask(Request::Write { offset: 5, data: data[5..200_000].to_vec().into(), fua: false }, 0).unwrap();
    setup.ask(Request::Write { offset: 300_000, data: text, fua: true }, 0).unwrap();
    setup.ask(Request::Zero { offset: 1000, len: 3000, flags: NO_FUA }, 0).unwrap();
    setup.ask(Request::Flush, 0).unwrap();
    let mut expected = vec![0; data.len()];
    expected[5..200_000].copy_from_slice(&data[5..200_000]);
    expected[300_000..300_007].copy_from_slice(b"durable");
    expected[1000..4000].fill(0);
    assert!(setup.ask(Request::Read { offset: 0 }, expected.len()).unwrap() == expected);
    assert!(setup.server.contents().unwrap() == expected);
    let of_device: Vec<_> =
        setup.server.log().requests.iter().filter(|r| r.connection > 1).map(|r| (r.op, r.flush)).collect();
    let all = [(Op::Put, false), (Op::Put, true), (Op::Zero, false), (Op::Flush, true), (Op::Get, false)];
    assert_eq!(of_device, all);
    drop(setup.queue);
    close_well(&setup.server, &setup.device);
}

#[test]
fn nothing_is_a_request_too() {
    let setup = Setup::with_connections(1);
    assert_eq!(setup.ask(Request::Read { offset: 3 }, 0), Ok(vec![]));
    assert_eq!(setup.ask(Request::Write { offset: 3, data: Bytes::new(), fua: false }, 0), Ok(vec![]));
    assert_eq!(setup.ask(Request::Zero { offset: 3, len: 0, flags: NO_FUA }, 0), Ok(vec![]));
}

#[test]
fn writes_that_wait_and_are_neighbours_are_one_and_told_in_one_batch() {
    let setup = Setup::with_connections(1);
    let gate = setup.hold_up();
    for block in [7, 8, 6, 15, 14, 13, 0, 1, 2, 12, 3, 11, 4, 10, 5, 9] {
        setup.submit(block, write(block), 0);
    }
    setup.let_go(&gate);
    assert!(setup.all(0..16).iter().all(|told| told.result.is_ok()));
    assert_eq!(setup.log(Op::Put), [(0, 16 * BLOCK)]);
    let expected: Vec<u8> = (0..16u8).flat_map(|block| [block + 1; BLOCK as usize]).collect();
    assert!(setup.server.read(0, expected.len()).unwrap() == expected);
    drop(setup.queue);
    assert_eq!(setup.batch_ends.try_iter().count(), 2, "one was held up");
    close_well(&setup.server, &setup.device);
}

#[test]
fn reads_that_wait_and_are_neighbours_fill_each_its_own_buffer() {
    let setup = Setup::with_connections(1);
    let contents = contents();
    setup.server.write(0, &contents).unwrap();
    let gate = setup.hold_up();
    let reads = [(10_000, 5_000), (15_000, 1), (15_001, 99_999), (9_999, 1), (3, 9_996)];
    for (name, (offset, len)) in (0..).zip(reads) {
        setup.submit(name, Request::Read { offset }, len);
    }
    setup.let_go(&gate);
    for (told, (offset, len)) in setup.all(0..5).into_iter().zip(reads) {
        assert_eq!(told.result, Ok(()));
        assert!(told.buffer == contents[offset as usize..][..len], "{len} bytes at {offset}");
    }
    assert_eq!(setup.log(Op::Get), [(3, 114_997)]);
}

#[test]
fn a_thread_that_waits_is_merged_with_what_was_submitted() {
    let setup = Setup::with_connections(1);
    let device = &*setup.device;
    let gate = setup.hold_up();
    thread::scope(|scope| {
        setup.submit(1, write(1), 0);
        scope.spawn(|| device.write(2 * BLOCK, vec![3; BLOCK as usize].into(), false).unwrap());
        await_waiting(device, 2);
        setup.submit(3, write(3), 0);
        setup.let_go(&gate);
    });
    assert!(setup.all([1, 3]).iter().all(|told| told.result.is_ok()));
    assert_eq!(setup.log(Op::Put), [(BLOCK, 3 * BLOCK)]);
}

#[test]
fn a_refusal_is_told_to_nobody_else_though_they_were_merged() {
    for (op, errno) in [(Op::Put, Errno::NoSpc), (Op::Get, Errno::Inval)] {
        let setup = Setup::with_connections(1);
        let request =
            |block| if op == Op::Put { write(block) } else { Request::Read { offset: block * BLOCK } };
        let room = if op == Op::Put { 0 } else { BLOCK as usize };
        let gate = setup.hold_up();
        let refused = || What::Status { status: 416, text: "past the end".into() };
        setup.server.fault(Fault::on(op).offset(4 * BLOCK).then(refused()));
        setup.server.fault(Fault::on(op).offset(5 * BLOCK).every().then(refused()));
        for block in [5, 6, 4, 9] {
            setup.submit(block, request(block), room);
        }
        setup.let_go(&gate);
        for Told { name, result, .. } in setup.all([4, 5, 6, 9]) {
            let expected = if name == 5 { Err(errno) } else { Ok(()) };
            assert_eq!(result.map_err(|error| error.errno()), expected, "block {name}");
        }
        let together = (4 * BLOCK, 3 * BLOCK);
        let alone = [4, 5, 6, 9].map(|block| (block * BLOCK, BLOCK));
        let sent = setup.log(op);
        assert_eq!(sent.iter().filter(|sent| **sent == together).count(), 1, "{sent:?}");
        assert!(alone.iter().all(|alone| sent.contains(alone)), "{sent:?}");
        drop(setup.queue);
        assert_eq!(setup.device.close().is_err(), op == Op::Put, "what was not written is told");
    }
}

#[test]
fn a_connection_lost_with_a_write_on_its_way_fails_all_for_good() {
    within_a_minute(|| {
        let setup = Setup::fragile();
        let gate = setup.hold_up();
        setup.server.fault(Fault::on(Op::Put).then(What::LoseAnswer));
        // Three go together, the others wait.
        for block in [1, 2, 3, 10, 20] {
            setup.submit(block, write(block), 0);
        }
        setup.submit(30, Request::Read { offset: 30 * BLOCK }, BLOCK as usize);
        setup.let_go(&gate);
        for told in setup.all([1, 2, 3, 10, 20, 30]) {
            let error = told.result.unwrap_err();
            assert_eq!(error.errno(), Errno::Io);
            assert!(error.to_string().contains("data may be lost"), "{error}");
        }
        assert_eq!(setup.log(Op::Put).len(), 1, "nothing is sent after it");
        for request in [write(1), Request::Read { offset: 0 }, Request::Flush] {
            assert_eq!(setup.ask(request, 0).unwrap_err().errno(), Errno::Io);
        }
        assert_fails_for_good(&setup.device, Errno::Io);
    });
}

#[test]
fn what_is_impossible_is_told_at_once_without_asking_the_server() {
    let zero = |offset, len, fast| Request::Zero { offset, len, flags: ZeroFlags { fast, ..NO_FUA } };
    let data = || Bytes::from_static(b"data");
    let end = BLOCKS * BLOCK;
    let impossible = |setup: &Setup, request, room, errno| {
        setup.submit(1, request, room);
        let told = setup.told.try_recv().expect("it is told from within the call");
        assert_eq!(told.result.unwrap_err().errno(), errno);
        assert_eq!(setup.batch_ends.try_recv(), Ok(()));
    };
    let setup = Setup::with_connections(4);
    impossible(&setup, Request::Read { offset: end - 1 }, 2, Errno::Inval);
    impossible(&setup, Request::Read { offset: u64::MAX }, 2, Errno::Inval);
    impossible(&setup, Request::Write { offset: end - 3, data: data(), fua: false }, 0, Errno::NoSpc);
    impossible(&setup, zero(1, end, false), 0, Errno::NoSpc);
    impossible(&setup, zero(1, u64::MAX, false), 0, Errno::NoSpc);
    impossible(&setup, zero(0, 1, true), 0, Errno::NotSup);
    assert_eq!(setup.server.accepted(), 1);

    let setup = Setup::new(|settings| Settings { read_only: true, ..settings });
    impossible(&setup, Request::Write { offset: 0, data: data(), fua: false }, 0, Errno::Perm);
    impossible(&setup, zero(0, 1, false), 0, Errno::Perm);
    assert_eq!(setup.ask(Request::Read { offset: 0 }, 2), Ok(vec![0, 0]));
    assert_eq!(setup.ask(Request::Flush, 0), Ok(vec![]));
}

#[test]
fn a_flush_covers_what_was_completed_before_it() {
    let setup = Setup::with_connections(4);
    for round in 0..10 {
        let gate = Gate::new();
        setup.server.fault(Fault::on(Op::Put).every().then(What::Block(gate.clone())));
        // Not neighbours, on a connection each.
        let blocks = [1, 3, 5, 7].map(|block| round * 8 + block);
        blocks.iter().for_each(|block| setup.submit(*block, write(*block), 0));
        assert!(gate.wait_reached(4, PATIENCE));
        setup.server.clear_faults();
        gate.open();
        assert!(setup.all(blocks).iter().all(|told| told.result.is_ok()));
        setup.ask(Request::Flush, 0).unwrap();
        let log = setup.server.log();
        assert!(log.connections.iter().all(|connection| connection.unflushed == 0));
        assert_eq!(log.of(Op::Flush).count() as u64, (round + 1) * 4);
    }
}

#[test]
fn flushes_that_wait_share_the_next_one() {
    let setup = Setup::with_connections(2);
    setup.ask(write(1), 0).unwrap();
    let gate = Gate::new();
    setup.server.fault(Fault::on(Op::Flush).then(What::Block(gate.clone())));
    setup.submit(0, Request::Flush, 0);
    assert!(gate.wait_reached(1, PATIENCE));
    // On the other connection, for the next flush.
    setup.ask(write(3), 0).unwrap();
    (0..2).for_each(|_| setup.batch_ends.recv_timeout(PATIENCE).unwrap());
    (1..=10).for_each(|name| setup.submit(name, Request::Flush, 0));
    gate.open();
    assert!(setup.all(0..=10).iter().all(|told| told.result.is_ok()));
    let mut flushed: Vec<_> = setup.server.log().of(Op::Flush).map(|flush| flush.connection).collect();
    flushed.sort_unstable();
    assert_eq!(flushed, [2, 3]);
    drop(setup.queue);
    assert_eq!(setup.batch_ends.try_iter().count(), 11, "each is told");
    close_well(&setup.server, &setup.device);
}

#[test]
fn a_failed_flush_is_told_to_all_that_waited() {
    let setup = Setup::fragile();
    setup.ask(write(1), 0).unwrap();
    let gate = Gate::new();
    setup.server.fault(Fault::on(Op::Flush).then(What::Block(gate.clone())));
    setup.server.fault(Fault::on(Op::Flush).then(What::Status { status: 500, text: "broken".into() }));
    (0..10).for_each(|name| setup.submit(name, Request::Flush, 0));
    assert!(gate.wait_reached(1, PATIENCE));
    gate.open();
    for told in setup.all(0..10) {
        assert_eq!(told.result.unwrap_err().errno(), Errno::Io);
    }
    assert_eq!(setup.server.log().of(Op::Flush).count(), 1);
    assert_fails_for_good(&setup.device, Errno::Io);
}

#[test]
fn a_completion_that_panics_harms_no_other() {
    let setup = Setup::with_connections(1);
    let (nobody, _) = channel();
    for request in [write(1), Request::Flush, Request::Read { offset: 0 }] {
        let (told, batches) = (nobody.clone(), Arc::clone(&setup.batches));
        setup.queue.submit(request, Box::new(Tell { name: 0, buffer: vec![0], told, batches }));
    }
    setup.ask(write(3), 0).unwrap();
    setup.ask(Request::Flush, 0).unwrap();
    drop(setup.queue);
    close_well(&setup.server, &setup.device);
}

#[test]
fn dropping_the_queue_waits_for_what_was_submitted_and_closes_the_device() {
    within_a_minute(|| {
        let setup = Setup::with_connections(1);
        let gate = setup.hold_up();
        [1, 3, 5].into_iter().for_each(|block| setup.submit(block, write(block), 0));
        setup.submit(7, Request::Read { offset: 0 }, 1);
        let Setup { server, device, queue, told, .. } = setup;
        thread::scope(|scope| {
            scope.spawn(move || drop(queue));
            await_waiting(&device, 5);
            assert_eq!(device.read(0, &mut [0]).unwrap_err().errno(), Errno::Shutdown);
            gate.open();
        });
        let told: Vec<_> = told.try_iter().collect();
        assert_eq!(told.len(), 5);
        assert!(told.iter().all(|told| told.result.is_ok()));
        close_well(&server, &device);
        assert_eq!(server.log().of(Op::Flush).count(), 1);
    });
}

#[test]
fn the_outcome_of_a_queue_that_was_dropped_is_that_of_closing() {
    let setup = Setup::fragile();
    setup.ask(write(1), 0).unwrap();
    setup.server.fault(Fault::on(Op::Flush).then(What::Status { status: 500, text: "broken".into() }));
    drop(setup.queue);
    assert!(setup.device.close().unwrap_err().to_string().contains("data may be lost"));
}

/// Memory that is lent once, when the request is submitted.
struct LendOnce(Vec<u8>, bool, Sender<Result<()>>);

impl Completion for LendOnce {
    fn buffer(&mut self) -> &mut [u8] {
        assert!(!std::mem::replace(&mut self.1, true), "this panic is part of the test");
        &mut self.0
    }

    fn complete(self: Box<Self>, result: Result<()>, _batch: &mut Batch) {
        self.2.send(result).unwrap();
    }
}

#[test]
fn a_panic_while_a_request_is_carried_out_fails_the_transfer_and_says_so() {
    let setup = Setup::with_connections(2);
    setup.ask(write(1), 0).unwrap();
    let (tell, told) = channel();
    setup.queue.submit(Request::Read { offset: 0 }, Box::new(LendOnce(vec![0; 4], false, tell)));
    let error = told.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(error.to_string().contains("data may be lost: bug: "), "{error}");
    assert_fails_for_good(&setup.device, Errno::Io);
}
