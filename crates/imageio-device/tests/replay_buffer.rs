// SPDX-License-Identifier: MIT OR Apache-2.0
//! The amount of unflushed content that is kept, and the flushes where that becomes much.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use block_device_traits::BlockDevice;
use common::{
    PATIENCE, READ, await_waiting, changes, close_after_loss, close_idle, settings, start, status, write,
};
use fake_imageio::{FakeServer, Fault, Gate, Op, What};
use imageio_device::Settings;

const BLOCK: u64 = 4096;

fn server() -> FakeServer {
    FakeServer::builder().start().unwrap()
}

/// One connection, which is soon given up in a write, and in a flush not before the test is.
fn impatient_with_data(server: &FakeServer) -> Settings {
    let settings = settings(server);
    let short = Duration::from_millis(200);
    let timeouts = settings.timeouts.with(|timeouts| {
        timeouts.data = short;
        timeouts.operation = 100 * PATIENCE;
    });
    settings.with(|settings| {
        settings.connections = Some(1);
        settings.reconnect_timeout = PATIENCE;
        settings.timeouts = timeouts;
    })
}

#[test]
fn a_replay_buffer_that_fills_is_drained_in_the_background() {
    let server = server();
    let device = start(settings(&server).with(|settings| {
        settings.connections = Some(2);
        settings.replay_buffer = Some(4 * BLOCK);
    }));
    let gate = Gate::new();
    server.fault(Fault::on(Op::Flush).then(What::Block(gate.clone())));
    let fill = |blocks: Range<u64>| {
        blocks.for_each(|block| write(&device, block * BLOCK, &[1; BLOCK as usize]).unwrap());
        server.log().of(Op::Put).map(|put| put.flush).collect::<Vec<_>>()
    };
    fill(0..4);
    // Should the keeper not have begun its work by then, it has the connection after the next
    // request.
    let deadline = Instant::now() + PATIENCE;
    while !gate.wait_reached(1, Duration::ZERO) {
        assert!(Instant::now() < deadline, "nobody flushes");
        READ(&device).unwrap();
    }
    // The other connection is not waited for, but there is no room.
    assert_eq!(fill(4..5), [false, false, false, false, true]);
    gate.open();
    device.flush().unwrap();
    assert_eq!(fill(5..8)[5..], [false, false, false]);
    close_idle(&server);
    device.flush().unwrap();
    assert_eq!(changes(&server, 8).len(), 3);
    close_after_loss(&server, &device);
}

#[test]
fn a_write_that_waits_for_a_connection_which_keeps_the_most_flushes_it() {
    let server = server();
    let device = start(settings(&server).with(|settings| {
        settings.connections = Some(1);
        settings.replay_buffer = Some(8 * BLOCK);
    }));
    let block = |n: u64| write(&device, n * BLOCK, &[1; BLOCK as usize]);
    (0..6).for_each(|n| block(n).unwrap());
    let gate = Gate::new();
    server.fault(Fault::on(Op::Put).then(What::Block(gate.clone())));
    thread::scope(|scope| {
        let last = scope.spawn(|| block(6));
        assert!(gate.wait_reached(1, PATIENCE));
        // Not a neighbour, so it isn't merged; and there is room for it.
        let waiting = scope.spawn(|| block(9));
        await_waiting(&device, 1);
        gate.open();
        assert_eq!((last.join().unwrap(), waiting.join().unwrap()), (Ok(()), Ok(())));
    });
    let durable: Vec<_> = server.log().of(Op::Put).map(|put| put.flush).collect();
    assert_eq!(durable, [false, false, false, false, false, false, false, true]);
    assert_eq!(server.log().of(Op::Flush).count(), 0);
    close_after_loss(&server, &device);
}

#[test]
fn an_idle_connection_that_keeps_the_most_is_drained_too() {
    let server = server();
    let device = start(settings(&server).with(|settings| {
        settings.connections = Some(2);
        settings.replay_buffer = Some(4 * BLOCK);
    }));
    (0..3).for_each(|block| write(&device, block * BLOCK, &[1; BLOCK as usize]).unwrap());
    let idle = server.log().of(Op::Put).next().unwrap().connection;
    // The other is used later than this one, and so it is used again.
    let gate = Gate::new();
    server.fault(Fault::on(Op::Get).every().then(What::Block(gate.clone())));
    thread::scope(|scope| {
        let reads = [1, 2].map(|n| {
            let read = scope.spawn(|| READ(&device));
            assert!(gate.wait_reached(n, PATIENCE));
            read
        });
        gate.open();
        assert!(reads.into_iter().all(|read| read.join().unwrap() == Ok(())));
    });
    server.clear_faults();
    write(&device, 8 * BLOCK, b"little").unwrap();
    assert_ne!(server.log().of(Op::Put).last().unwrap().connection, idle);
    let is_drained = server.wait_for(PATIENCE, |log| log.on(idle).any(|request| request.op == Op::Flush));
    assert!(is_drained, "{:?}", server.log().requests);
    close_after_loss(&server, &device);
}

#[test]
fn a_flush_in_the_background_is_given_up_as_soon_as_a_write() {
    let server = server();
    let device =
        start(impatient_with_data(&server).with(|settings| settings.replay_buffer = Some(4 * BLOCK)));
    server.fault(Fault::on(Op::Flush).then(What::NoAnswer));
    (0..4).for_each(|block| write(&device, block * BLOCK, &[1; BLOCK as usize]).unwrap());
    assert!(server.wait_for(PATIENCE, |log| log.of(Op::Flush).count() > 0), "nobody flushes");
    device.flush().unwrap();
    assert_eq!(server.read(0, 4 * BLOCK as usize).unwrap(), [1; 4 * BLOCK as usize]);
    close_after_loss(&server, &device);
}

#[test]
fn room_is_given_back_by_failures_too() {
    let server = server();
    let settings = settings(&server).with(|settings| {
        settings.connections = Some(1);
        settings.replay_buffer = Some(4 * BLOCK);
    });
    let device = start(settings.with(|settings| settings.reconnect_timeout = PATIENCE));
    let block = |n: u64| write(&device, n * BLOCK, &[1; BLOCK as usize]);
    for what in
        [status(400), What::Reset { after: 1 }, status(500), What::LoseAnswer].into_iter().cycle().take(12)
    {
        server.fault(Fault::on(Op::Put).then(what));
        let _ = block(0);
        block(0).unwrap();
        close_idle(&server);
        device.flush().unwrap();
    }
    server.clear_faults();
    let before = server.log().of(Op::Put).count();
    (0..3).for_each(|n| block(n).unwrap());
    assert!(server.log().of(Op::Put).skip(before).all(|put| !put.flush));
    close_after_loss(&server, &device);
}

#[test]
fn a_write_that_is_flushed_for_want_of_room_is_given_up_as_soon_as_others() {
    let server = server();
    let device = start(impatient_with_data(&server).with(|settings| settings.replay_buffer = Some(BLOCK)));
    write(&device, 0, b"kept").unwrap();
    server.fault(Fault::on(Op::Put).then(What::NoAnswer));
    write(&device, BLOCK, &[1; BLOCK as usize + 1]).unwrap();
    let durable: Vec<_> = server.log().of(Op::Put).map(|put| put.flush).collect();
    assert_eq!(durable[..2], [false, true]);
    close_after_loss(&server, &device);
}
