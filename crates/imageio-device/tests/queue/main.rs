// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that nobody waits for.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod setup;
mod zeroes;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use block_device_traits::{BlockDevice, Errno, QueuedDevice, Request, ZeroFlags, write_pieces};
use bytes::Bytes;
use fake_imageio::{Fault, Gate, Op, What};

use crate::common::{NO_FUA, PATIENCE, await_waiting, close_well, within_a_minute};
use crate::setup::{BLOCK, BLOCKS, Setup, Tell, Told, contents, write};

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
        // Nobody waits where the connection is busy.
        let gate = setup.hold_up();
        setup.queue.carry_out(write(4), setup.completion(1, 0));
        assert_eq!(setup.device.waiting(), 1);
        setup.let_go(&gate);
        assert_eq!(setup.next().result, Ok(()));
        setup.device.close().unwrap();
        assert_eq!(done_by_the_return(write(5), 0).unwrap_err().errno(), Errno::Shutdown);
    });
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
fn writes_in_the_middle_of_blocks_become_requests_of_whole_blocks() {
    const HALF: u64 = 512 << 10;
    let setup = Setup::with_connections(1);
    let data = contents();
    let gate = setup.hold_up();
    let shifted = [512..HALF + 512, HALF + 512..2 * HALF - 512];
    let pieces = shifted.into_iter().flat_map(|range| write_pieces(range, HALF));
    for (name, piece) in (0..).zip(pieces) {
        let data = data[piece.start as usize..piece.end as usize].to_vec();
        setup.submit(name, Request::Write { offset: piece.start, data: data.into(), fua: false }, 0);
    }
    setup.let_go(&gate);
    assert!(setup.all(0..6).iter().all(|told| told.result.is_ok()));
    let (last_block, end) = (2 * HALF - BLOCK, 2 * HALF - 512);
    // The two parts of the block in the middle have met, and gone with the blocks behind it.
    let first = [(512, BLOCK - 512), (BLOCK, HALF - BLOCK), (HALF, HALF - BLOCK)];
    assert_eq!(setup.log(Op::Put), [&first[..], &[(last_block, end - last_block)]].concat());
    assert!(setup.server.contents().unwrap()[512..end as usize] == data[512..end as usize]);
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

    let setup = Setup::new(|settings| settings.with(|settings| settings.read_only = true));
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
