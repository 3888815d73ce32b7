// SPDX-License-Identifier: MIT OR Apache-2.0
//! Proxies that lose their way to the host, and servers that close connections.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::thread;

use block_device_traits::{BlockDevice, Errno};
use common::{
    ALL, PATIENCE, assert_fails_for_good, close_after_loss, fragile, settings, start, start_with,
    within_a_minute, write,
};
use fake_imageio::{FakeServer, Op};

const BLOCK: u64 = 4096;

#[test]
fn what_was_unflushed_behind_a_lost_way_is_written_again_whatever_is_asked_next() {
    for status in [500, 502] {
        for request in ALL {
            let server = FakeServer::builder().volatile(true).start().unwrap();
            let settings = settings(&server).with(|settings| settings.reconnect_timeout = PATIENCE);
            let device = start_with(settings, b"data");
            server.lose_way(status).unwrap();
            request(&device).unwrap();
            device.flush().unwrap();
            write(&device, BLOCK, b"behind").unwrap();
            device.close().unwrap();
            server.cut_power().unwrap();
            let durable = server.read(0, 4).unwrap();
            assert!([*b"data", *b"more", [0; 4]].iter().any(|right| *durable == *right), "{durable:?}");
            let is_zeroed = std::ptr::fn_addr_eq(request, common::ZERO);
            assert!(durable != [0; 4] || is_zeroed, "it is lost");
            assert_eq!(server.read(BLOCK, 6).unwrap(), b"behind");
        }
    }
}

#[test]
fn a_lost_way_ends_everything_where_nothing_is_kept() {
    for request in ALL {
        let server = FakeServer::builder().volatile(true).start().unwrap();
        let device = start_with(fragile(&server), b"data");
        server.lose_way(500).unwrap();
        request(&device).unwrap_err();
        assert_fails_for_good(&device, Errno::Io);
    }
}

#[test]
fn servers_that_close_after_some_answers_get_all() {
    within_a_minute(|| {
        // Most of the time they wait.
        thread::scope(|scope| {
            for (answers, connections) in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (4, 2)] {
                for announced in [true, false] {
                    scope.spawn(move || upload_to_closing_server(answers, announced, connections));
                }
            }
        });
    });
}

fn upload_to_closing_server(answers: u64, announced: bool, connections: u32) {
    let server = FakeServer::builder().volatile(true).close_after(answers, announced).start().unwrap();
    let settings = settings(&server).with(|settings| {
        settings.connections = Some(connections);
        settings.reconnect_timeout = PATIENCE;
    });
    let device = start(settings);
    for block in 0..12 {
        let data = vec![1 + block as u8; BLOCK as usize];
        device.write(block * BLOCK, data.into(), false).unwrap();
    }
    device.read(0, &mut [0; 4096]).unwrap();
    device.flush().unwrap();
    server.cut_power().unwrap();
    let expected: Vec<u8> = (0..12u8).flat_map(|block| [block + 1; BLOCK as usize]).collect();
    assert!(server.read(0, expected.len()).unwrap() == expected, "after {answers} answers");
    close_after_loss(&server, &device);
}

#[test]
fn writing_again_gets_further_with_each_connection_that_is_closed() {
    const PIECES: u64 = 16;
    within_a_minute(|| {
        let server = FakeServer::builder().volatile(true).start().unwrap();
        let settings = settings(&server).with(|settings| {
            settings.connections = Some(1);
            settings.reconnect_timeout = PATIENCE;
        });
        let device = start(settings);
        for piece in 0..PIECES {
            write(&device, 2 * piece * BLOCK, &[7; BLOCK as usize]).unwrap();
        }
        server.cut_power().unwrap();
        let before = server.log().of(Op::Put).count() as u64;
        // From now on, after each.
        for connection in 0..100 {
            let id = server.accepted() as u64 + 1 + connection;
            let close = fake_imageio::What::CloseAfterAnswer;
            server.fault(fake_imageio::Fault::on(Op::Put).connection(id).then(close));
        }
        device.flush().unwrap();
        server.clear_faults();
        server.cut_power().unwrap();
        for piece in 0..PIECES {
            assert_eq!(server.read(2 * piece * BLOCK, 1).unwrap(), [7], "piece {piece}");
        }
        let again = server.log().of(Op::Put).count() as u64 - before;
        assert!(again <= 2 * PIECES, "{again} writes for {PIECES}");
        close_after_loss(&server, &device);
    });
}

#[test]
fn a_server_that_closes_after_each_answer_gets_each_write_once_or_twice() {
    const WRITES: u64 = 12;
    let server = FakeServer::builder().close_after(1, true).start().unwrap();
    let device = start(settings(&server).with(|settings| {
        settings.connections = Some(1);
        settings.reconnect_timeout = PATIENCE;
    }));
    for block in 0..WRITES {
        write(&device, block * BLOCK, &[7; BLOCK as usize]).unwrap();
    }
    // The first is written again. From then on, each is flushed as it is written.
    let durable: Vec<_> = server.log().of(Op::Put).map(|put| put.flush).collect();
    assert_eq!(durable.len() as u64, WRITES + 1);
    assert_eq!(durable.iter().filter(|flush| !**flush).count(), 1, "{durable:?}");
    close_after_loss(&server, &device);
}

#[test]
fn writing_again_may_take_longer_than_the_timeout_if_each_connection_gets_further() {
    const PIECES: u64 = 12;
    // A piece of this size is flushed at once when it is written again.
    const PIECE: u64 = 1 << 20;
    let server = FakeServer::builder().size(2 * PIECES * PIECE).volatile(true).start().unwrap();
    // There is no time for more than one other attempt.
    let device = start(settings(&server).with(|settings| settings.connections = Some(1)));
    for piece in 0..PIECES {
        write(&device, 2 * piece * PIECE, &[7; PIECE as usize]).unwrap();
    }
    server.cut_power().unwrap();
    // Each connection loses its second write.
    for connection in 0..100 {
        let id = server.accepted() as u64 + 1 + connection;
        let close = fake_imageio::What::Close { after: 0 };
        server.fault(fake_imageio::Fault::on(Op::Put).connection(id).nth(2).then(close));
    }
    device.flush().unwrap();
    server.clear_faults();
    server.cut_power().unwrap();
    for piece in 0..PIECES {
        assert_eq!(server.read(2 * piece * PIECE, 1).unwrap(), [7], "piece {piece}");
    }
    close_after_loss(&server, &device);
}
