// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that wait for a connection and go out as one.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::Mutex;
use std::thread::{self, Scope};

use block_device_traits::{BlockDevice, Errno, Result, ZeroFlags};
use common::{
    FUA, NO_FUA, PATIENCE, assert_fails_for_good, await_waiting, close_well, fragile, read_into, settings,
    start, within_a_minute,
};
use fake_imageio::{FakeServer, Fault, Gate, Op, What};
use imageio_device::{Device, Settings};

const BLOCK: u64 = 4096;

/// A device of one connection, on which the server holds back the answer to a write of the last
/// block.
struct Held {
    server: FakeServer,
    device: Device,
    gate: Gate,
}

impl Held {
    /// Nothing is kept to be written again.
    fn new(max_request: u64) -> Self {
        Self::with(|server| fragile(server).with(|settings| settings.max_request = Some(max_request)))
    }

    fn with(settings: impl FnOnce(&FakeServer) -> Settings) -> Self {
        let server = FakeServer::builder().size(256 * BLOCK).start().unwrap();
        let device = start(settings(&server).with(|settings| settings.connections = Some(1)));
        Self { server, device, gate: Gate::new() }
    }

    /// Lets the requests line up in this order, then lets the server go on, and waits until all are
    /// done.
    fn run(&self, line: &[&(dyn Fn(&Device) + Sync)]) {
        self.server.fault(Fault::on(Op::Put).then(What::Block(self.gate.clone())));
        thread::scope(|scope| {
            scope.spawn(|| self.device.write(255 * BLOCK, vec![9; 4096].into(), false).unwrap());
            assert!(self.gate.wait_reached(1, PATIENCE));
            for (i, request) in line.iter().enumerate() {
                self.line_up(scope, *request, i + 1);
            }
            self.gate.open();
        });
    }

    fn line_up<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        request: &'scope (dyn Fn(&Device) + Sync),
        place: usize,
    ) {
        scope.spawn(move || request(&self.device));
        await_waiting(&self.device, place);
    }

    /// Returns the requests that the server got after the write that was held back: operation,
    /// first block, blocks, flush.
    fn log(&self) -> Vec<(Op, u64, u64, bool)> {
        let log = self.server.log();
        let held = log.requests.iter().position(|request| request.offset == 255 * BLOCK).unwrap();
        let after = log.requests[held + 1..].iter().filter(|request| request.op != Op::Get);
        after
            .map(|request| (request.op, request.offset / BLOCK, request.size / BLOCK, request.flush))
            .collect()
    }
}

fn write(block: u64, fua: bool) -> impl Fn(&Device) + Sync {
    move |device| device.write(block * BLOCK, vec![block as u8 + 1; 4096].into(), fua).unwrap()
}

fn zero(block: u64, flags: ZeroFlags) -> impl Fn(&Device) + Sync {
    move |device| device.zero(block * BLOCK, BLOCK, flags).unwrap()
}

const ORDER: [u64; 16] = [7, 8, 6, 15, 14, 13, 0, 1, 2, 12, 3, 11, 4, 10, 5, 9];

#[test]
fn neighbours_in_any_order_are_one_request() {
    let held = Held::new(1 << 20);
    let writes = ORDER.map(|block| write(block, false));
    held.run(&writes.each_ref().map(|write| write as _));
    assert_eq!(held.log(), [(Op::Put, 0, 16, false)]);
    let expected: Vec<u8> = (0..16u8).flat_map(|block| [block + 1; 4096]).collect();
    assert_eq!(held.server.read(0, expected.len()).unwrap(), expected);
    close_well(&held.server, &held.device);
}

#[test]
fn a_request_grows_up_to_max_request_and_not_at_all_without_it() {
    let held = Held::new(6 * BLOCK);
    let writes: Vec<_> = (0..16).map(|block| write(block, false)).collect();
    held.run(&writes.iter().map(|write| write as _).collect::<Vec<_>>());
    assert_eq!(held.log(), [(Op::Put, 0, 6, false), (Op::Put, 6, 6, false), (Op::Put, 12, 4, false)]);

    let held = Held::new(0);
    held.run(&writes[..3].iter().map(|write| write as _).collect::<Vec<_>>());
    assert_eq!(held.log().len(), 3);
}

#[test]
fn only_the_same_kind_of_request_is_merged() {
    let held = Held::new(1 << 20);
    held.run(&[
        &write(0, false),
        &write(1, true),
        &write(2, true),
        &zero(3, NO_FUA),
        &zero(4, NO_FUA),
        &zero(5, FUA),
        &write(6, false),
        &write(8, false),
    ]);
    assert_eq!(
        held.log(),
        [
            (Op::Put, 0, 1, false),
            (Op::Put, 1, 2, true),
            (Op::Zero, 3, 2, false),
            (Op::Zero, 5, 1, true),
            (Op::Put, 6, 1, false),
            (Op::Put, 8, 1, false),
        ]
    );
    close_well(&held.server, &held.device);
}

#[test]
fn each_reader_gets_its_own_part() {
    let held = Held::new(1 << 20);
    let contents: Vec<u8> = (0..64 * BLOCK).map(|i| (i / 7) as u8).collect();
    held.server.write(0, &contents).unwrap();
    let read = |offset: usize, len: usize| {
        let contents = &contents;
        move |device: &Device| {
            let data = read_into(device, offset as u64, len).unwrap();
            assert!(data == contents[offset..offset + len], "{len} bytes at {offset}");
        }
    };
    let reads = [read(10_000, 5_000), read(15_000, 1), read(15_001, 99_999), read(9_999, 1), read(3, 9_996)];
    held.run(&reads.each_ref().map(|read| read as _));
    let gets: Vec<_> = held.server.log().of(Op::Get).map(|get| (get.offset, get.size)).collect();
    // The first asked for the size.
    assert_eq!(gets, [(0, 1), (3, 114_997)]);
}

#[test]
fn a_read_into_borrowed_memory_goes_with_others() {
    let held = Held::new(1 << 20);
    let read = |block: u64| move |device: &Device| device.read(block * BLOCK, &mut [0; 4096]).unwrap();
    held.run(&[&read(0), &|device| drop(read_into(device, BLOCK, 4096).unwrap()), &read(2)]);
    let gets: Vec<_> = held.server.log().of(Op::Get).map(|get| (get.offset, get.size)).collect();
    assert_eq!(gets[1..], [(0, 3 * BLOCK)]);
}

#[test]
fn a_flush_is_never_passed() {
    let held = Held::new(1 << 20);
    // The write gives the flush something to do.
    held.device.write(100 * BLOCK, vec![1; 4096].into(), false).unwrap();
    held.run(&[&write(0, false), &|device| device.flush().unwrap(), &write(1, false), &write(2, false)]);
    assert_eq!(held.log(), [(Op::Put, 0, 1, false), (Op::Flush, 0, 0, true), (Op::Put, 1, 2, false)]);
}

#[test]
fn a_refusal_of_one_is_not_shared_by_those_that_were_merged_with_it() {
    for status in [416, 400, 413, 500] {
        let held = Held::with(settings);
        // The first of them all together; then block 5 alone, as often as it is sent.
        let refused = || What::Status { status, text: "for a reason".into() };
        held.server.fault(Fault::on(Op::Put).offset(4 * BLOCK).then(refused()));
        if status == 500 {
            held.server.fault(Fault::on(Op::Put).offset(4 * BLOCK).then(refused()));
        }
        held.server.fault(Fault::on(Op::Put).offset(5 * BLOCK).every().then(refused()));
        let results: Mutex<Vec<(u64, Result<()>)>> = Mutex::default();
        let attempt = |block: u64| {
            let results = &results;
            move |device: &Device| {
                let result = device.write(block * BLOCK, vec![1; 4096].into(), false);
                results.lock().unwrap().push((block, result));
            }
        };
        let writes = [5, 6, 4, 7].map(attempt);
        held.run(&writes.each_ref().map(|write| write as _));
        for (block, result) in results.into_inner().unwrap() {
            assert_eq!(result.is_err(), block == 5, "block {block}, status {status}: {result:?}");
        }
        let told = held.device.close().unwrap_err().to_string();
        assert!(told.starts_with("4096 bytes were not written, the first at 20480: "), "{told}");
    }
}

#[test]
fn a_zero_that_can_not_be_done_is_not_shared_by_those_that_were_merged_with_it() {
    for status in [400, 413, 500] {
        let held = Held::with(settings);
        let refused = || What::Status { status, text: "for a reason".into() };
        held.server.fault(Fault::on(Op::Zero).offset(4 * BLOCK).then(refused()));
        if status == 500 {
            held.server.fault(Fault::on(Op::Zero).offset(4 * BLOCK).then(refused()));
        }
        held.server.fault(Fault::on(Op::Zero).offset(5 * BLOCK).every().then(refused()));
        let zero = |block: u64| {
            move |device: &Device| {
                let result = device.zero(block * BLOCK, BLOCK, NO_FUA);
                assert_eq!(result.is_err(), block == 5, "block {block}, status {status}: {result:?}");
            }
        };
        let zeroes = [5, 6, 4, 7].map(zero);
        held.run(&zeroes.each_ref().map(|zero| zero as _));
        let told = held.device.close().unwrap_err().to_string();
        assert!(told.starts_with("4096 bytes were not written, the first at 20480: "), "{told}");
    }
}

#[test]
fn a_loss_fails_all_that_were_merged_and_all_that_wait() {
    within_a_minute(|| {
        let held = Held::new(2 * BLOCK);
        held.server.fault(Fault::on(Op::Put).nth(2).then(What::LoseAnswer));
        let failed = |block: u64| {
            move |device: &Device| {
                let error = device.write(block * BLOCK, vec![1; 4096].into(), false).unwrap_err();
                assert_eq!(error.errno(), Errno::Io);
            }
        };
        let writes = [1, 2, 3, 4, 5].map(failed);
        held.run(&writes.each_ref().map(|write| write as _));
        assert_eq!(held.log().len(), 1, "nothing is sent after it");
        assert_fails_for_good(&held.device, Errno::Io);
    });
}

#[test]
fn nothing_waits_for_company() {
    let server = FakeServer::builder().start().unwrap();
    let device = start(fragile(&server).with(|settings| settings.connections = Some(2)));
    let gate = Gate::new();
    server.fault(Fault::on(Op::Put).then(What::Block(gate.clone())));
    thread::scope(|scope| {
        scope.spawn(|| write(0, false)(&device));
        assert!(gate.wait_reached(1, PATIENCE));
        // Its neighbour is under way, and the other connection is free.
        write(1, false)(&device);
        gate.open();
    });
    assert_eq!(server.log().of(Op::Put).map(|put| put.size).collect::<Vec<_>>(), [BLOCK, BLOCK]);
}
