// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes of parts of a block, on storage that writes whole blocks: it reads, modifies and writes
//! them without a lock.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::thread;

use block_device_traits::BlockDevice;
use bytes::Bytes;
use common::{
    NO_FUA, PATIENCE, await_waiting, close_well, error, settings, start, status, within_a_minute, write,
};
use fake_imageio::{Done, FakeServer, Fault, Gate, Op, What};

const BLOCK: u64 = 4096;

#[test]
fn changes_that_share_a_block_are_never_under_way_together() {
    for block_size in [512, BLOCK] {
        for second_is_zero in [false, true] {
            let server = FakeServer::builder().block_device(block_size).start().unwrap();
            server.write(0, &[b'-'; 512]).unwrap();
            let device = start(settings(&server).with(|settings| settings.connections = Some(3)));
            let gate = Gate::new();
            server.fault(Fault::on(Op::Put).then(What::HoldBlock(gate.clone())));
            thread::scope(|scope| {
                scope.spawn(|| write(&device, 0, b"first").unwrap());
                assert!(gate.wait_reached(1, PATIENCE));
                let second = scope.spawn(|| match second_is_zero {
                    true => device.zero(300, 5, NO_FUA).unwrap(),
                    false => write(&device, 300, b"\0\0\0\0\0").unwrap(),
                });
                // Requests for another block go on.
                let goes_on = (0..50).all(|_| device.read(BLOCK, &mut [0]).is_ok());
                assert!(goes_on);
                assert!(!second.is_finished());
                gate.open();
            });
            device.flush().unwrap();
            let (start, end) = (server.read(0, 6).unwrap(), server.read(299, 7).unwrap());
            assert_eq!((&*start, &*end), (&b"first-"[..], &b"-\0\0\0\0\0-"[..]));
            close_well(&server, &device);
        }
    }
}

#[test]
fn aligned_neighbours_are_under_way_together() {
    let server = FakeServer::builder().block_device(BLOCK).start().unwrap();
    let device = start(settings(&server).with(|settings| settings.connections = Some(2)));
    let gate = Gate::new();
    server.fault(Fault::on(Op::Put).every().then(What::Block(gate.clone())));
    thread::scope(|scope| {
        for block in 0..2 {
            let device = &device;
            scope.spawn(move || write(device, block * BLOCK, &[1; BLOCK as usize]).unwrap());
        }
        assert!(gate.wait_reached(2, PATIENCE));
        gate.open();
    });
    close_well(&server, &device);
}

#[test]
fn small_writes_of_every_part_of_every_block_are_all_there() {
    const PART: u64 = 128;
    within_a_minute(|| {
        let server = FakeServer::builder().block_device(512).size(64 * BLOCK).start().unwrap();
        let device = start(settings(&server).with(|settings| settings.connections = Some(4)));
        thread::scope(|scope| {
            for part in 0..4u64 {
                let device = &device;
                scope.spawn(move || {
                    for block in 0..512 {
                        let data = vec![1 + part as u8; PART as usize];
                        device.write(block * 4 * PART + part * PART, data.into(), false).unwrap();
                    }
                });
            }
        });
        device.flush().unwrap();
        let contents = server.contents().unwrap();
        let missing = contents.chunks(PART as usize).zip([1, 2, 3, 4].into_iter().cycle());
        let missing = missing.filter(|(found, part)| found.iter().any(|byte| byte != part)).count();
        assert_eq!(missing, 0, "of 2048 acknowledged writes");
        close_well(&server, &device);
    });
}

#[test]
fn what_another_connections_late_write_may_undo_is_told_to_be_lost() {
    let server = FakeServer::builder().block_device(512).start().unwrap();
    let device = start(settings(&server).with(|settings| {
        settings.connections = Some(2);
        settings.reconnect_timeout = PATIENCE;
    }));
    write(&device, 0, b"acknowledged").unwrap();
    let first = server.log().of(Op::Put).next().unwrap().connection;
    // While the first connection is busy.
    let gate = Gate::new();
    server.fault(Fault::on(Op::Get).then(What::Block(gate.clone())));
    thread::scope(|scope| {
        scope.spawn(|| device.read(BLOCK, &mut [0]).unwrap());
        assert!(gate.wait_reached(1, PATIENCE));
        server.fault(Fault::on(Op::Put).then(What::LoseAnswer));
        write(&device, 128, b"in doubt").unwrap();
        gate.open();
    });
    assert!(server.log().of(Op::Put).skip(1).all(|put| put.connection != first));
    server.close_connection(first);
    let error = device.flush().unwrap_err().to_string();
    assert!(error.contains("data may be lost") && error.contains("may be undone"), "{error}");
    assert_eq!(device.close().unwrap_err().to_string(), error);
}

#[test]
fn two_parts_of_a_block_that_went_together_are_written_again_together() {
    let server = FakeServer::builder().block_device(512).start().unwrap();
    let device = start(settings(&server).with(|settings| {
        settings.connections = Some(1);
        settings.reconnect_timeout = PATIENCE;
    }));
    let gate = Gate::new();
    server.fault(Fault::on(Op::Get).then(What::Block(gate.clone())));
    thread::scope(|scope| {
        scope.spawn(|| device.read(0, &mut [0]).unwrap());
        assert!(gate.wait_reached(1, PATIENCE));
        for (part, waiting) in [(0, 1), (1, 2)] {
            let device = &device;
            scope.spawn(move || device.write(part * 1024, vec![part as u8 + 1; 1024].into(), false).unwrap());
            await_waiting(device, waiting);
        }
        gate.open();
    });
    // The first attempt to write them again is in doubt, which is no reason to give up.
    server.fault(Fault::on(Op::Put).then(status(503)));
    server.close_connection(server.log().of(Op::Put).next().unwrap().connection);
    device.flush().unwrap();
    let sizes: Vec<_> = server.log().of(Op::Put).map(|put| (put.offset, put.size)).collect();
    assert_eq!(sizes, [(0, 2048); 3]);
    assert_eq!(server.read(0, 2048).unwrap(), [[1; 1024], [2; 1024]].concat());
    device.close().unwrap();
}

#[test]
fn what_a_lost_way_took_along_is_not_undone_by_a_neighbour_that_came_on_the_same_connection() {
    let gate = Gate::new();
    let server = FakeServer::builder().block_device(512).volatile(true).start().unwrap();
    let device = start(settings(&server).with(|settings| {
        settings.connections = Some(1);
        settings.reconnect_timeout = PATIENCE;
    }));
    device.write(256, Bytes::from_static(&[1; 128]), false).unwrap();
    // The host reads the block after the first write is gone, and writes it back late.
    let what = What::LoseWay { status: 502, all: true, done: Done::Late(gate.clone()) };
    server.fault(Fault::on(Op::Put).then(what));
    let write = device.write(0, Bytes::from_static(&[2; 128]), false);
    let flush = device.flush();
    gate.open();
    let closed = device.close();
    assert!(write.is_err() || flush.is_err(), "it can't be known what stays");
    assert!(error(closed).to_string().contains("may be undone"));
}
