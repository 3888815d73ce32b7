// SPDX-License-Identifier: MIT OR Apache-2.0
//! The harm that real servers and proxies do to those who trust them.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::io::ErrorKind;
use std::thread;
use std::time::Instant;

use common::{Client, PATIENCE, closed_by, server};
use fake_imageio::{Backend, ClosedBy, Done, FakeServer, Fault, Gate, Op, What};

fn block_device(block_size: u64) -> FakeServer {
    FakeServer::builder().size(8192).block_device(block_size).volatile(true).start().unwrap()
}

#[track_caller]
fn assert_becomes(server: &FakeServer, offset: u64, expected: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    while server.read(offset, expected.len()).unwrap() != expected {
        assert!(Instant::now() < deadline, "{:?}", server.read(offset, expected.len()));
        thread::yield_now();
    }
}

#[test]
fn a_block_device_loses_what_others_write_to_a_block_while_it_is_changed() {
    for block_size in [512, 4096] {
        let server = block_device(block_size);
        let gate = Gate::new();
        server.fault(Fault::on(Op::Put).then(What::HoldBlock(gate.clone())));
        let (mut one, mut other) = (Client::new(&server), Client::new(&server));
        one.send("PUT", "?flush=n", "content-range: bytes 0-*/*\r\ncontent-length: 3\r\n", b"one");
        assert!(gate.wait_reached(1, PATIENCE));
        assert_eq!(other.put(block_size - 5, b"other").unwrap().status, 200);
        assert_eq!(server.read(block_size - 5, 5).unwrap(), b"other");
        gate.open();
        assert_eq!(one.answer().unwrap().status, 200);
        assert_eq!(server.read(0, 3).unwrap(), b"one");
        assert_eq!(server.read(block_size - 5, 5).unwrap(), [0; 5]);
    }
}

#[test]
fn on_a_block_device_other_connections_get_turns_by_themselves() {
    let server = block_device(512);
    let lost = |round: u8| {
        let write =
            |offset: u64| assert_eq!(Client::new(&server).put(offset, &[round; 8]).unwrap().status, 200);
        thread::scope(|scope| (0..8).for_each(|writer| drop(scope.spawn(move || write(writer * 8)))));
        server.read(0, 64).unwrap() != [round; 64]
    };
    assert!((1..=255).any(lost), "nothing is ever lost");
}

#[test]
fn a_block_device_writes_aligned_changes_directly() {
    let server = block_device(512);
    let gate = Gate::new();
    server.fault(Fault::any().every().then(What::HoldBlock(gate.clone())));
    let mut client = Client::new(&server);
    assert_eq!(client.put(512, &[1; 4096]).unwrap().status, 200);
    assert_eq!(client.patch(r#"{"op":"zero","offset":1024,"size":1024}"#).unwrap().status, 200);
    assert!(!gate.wait_reached(1, std::time::Duration::ZERO));
    gate.open();
    // Two edges, and a middle.
    assert_eq!(client.put(1000, &[2; 2000]).unwrap().status, 200);
    assert!(gate.wait_reached(2, PATIENCE) && !gate.wait_reached(3, std::time::Duration::ZERO));
    assert_eq!(client.patch(r#"{"op":"zero","offset":1100,"size":10}"#).unwrap().status, 200);
    let expected = [vec![1; 488], vec![2; 100], vec![0; 10], vec![2; 1890], vec![1; 1608]].concat();
    assert_eq!(server.read(512, 4096).unwrap(), expected);
}

#[test]
fn a_block_device_can_be_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::File(dir.path().join("disk"));
    let server = FakeServer::builder().size(1 << 20).backend(backend).block_device(4096).start().unwrap();
    let mut client = Client::new(&server);
    let data: Vec<u8> = (0..300_000).map(|at| (at / 3) as u8).collect();
    assert_eq!(client.put(12_345, &data).unwrap().status, 200);
    assert_eq!(client.patch(r#"{"op":"zero","offset":20000,"size":100000}"#).unwrap().status, 200);
    let mut expected = data;
    expected[20_000 - 12_345..120_000 - 12_345].fill(0);
    assert_eq!(server.read(12_345, 300_000).unwrap(), expected);
    assert!(FakeServer::builder().block_device(1000).start().is_err());
}

#[test]
fn a_late_change_of_a_block_device_brings_back_what_was_beside_it() {
    for what in [What::CarryOutLate as fn(Gate) -> What, |gate| What::answer(502, Done::Late(gate))] {
        let server = block_device(512);
        let gate = Gate::new();
        let mut client = Client::new(&server);
        assert_eq!(client.put(0, b"before").unwrap().status, 200);
        server.fault(Fault::on(Op::Put).then(what(gate.clone())));
        // Without an answer, or refused.
        let _ = client.put(2, b"la");
        assert!(gate.wait_reached(1, PATIENCE));
        let mut other = Client::new(&server);
        assert_eq!(other.put(0, b"AFTER!").unwrap().status, 200);
        assert_eq!(other.flush().unwrap().status, 200);
        gate.open();
        assert_becomes(&server, 0, b"belare");
    }
}

#[test]
fn a_power_cut_takes_whole_blocks_of_a_block_device() {
    let server = block_device(512);
    let (mut one, mut other) = (Client::new(&server), Client::new(&server));
    assert_eq!(one.put(0, b"one").unwrap().status, 200);
    assert_eq!(other.put(3, b"two").unwrap().status, 200);
    // It has written the block with what was there.
    assert_eq!(other.flush().unwrap().status, 200);
    assert_eq!(one.put(6, b"three").unwrap().status, 200);
    server.cut_power().unwrap();
    assert_eq!(server.read(0, 11).unwrap(), b"onetwo\0\0\0\0\0");
}

#[test]
fn a_lost_way_takes_what_was_not_flushed_and_the_next_request() {
    for status in [500, 502] {
        let server = FakeServer::builder().size(8).volatile(true).start().unwrap();
        let (mut one, mut other) = (Client::new(&server), Client::new(&server));
        one.put(0, b"flushed.").unwrap();
        one.flush().unwrap();
        one.put(0, b"one").unwrap();
        other.put(4, b"two").unwrap();
        server.lose_way(status).unwrap();
        assert_eq!(server.contents().unwrap(), b"flushed.");
        assert_eq!(one.put(0, b"no").unwrap().status, status);
        assert_eq!(other.options().unwrap().status, status);
        assert_eq!(server.contents().unwrap(), b"flushed.");
        for client in [&mut one, &mut other] {
            assert_eq!(client.put(0, b"new").unwrap().status, 200);
            assert_eq!(client.flush().unwrap().status, 200);
        }
        server.cut_power().unwrap();
        assert_eq!(server.contents().unwrap(), b"newshed.");
        assert_eq!(server.accepted(), 2);
    }
}

#[test]
fn the_way_of_one_connection_can_be_lost() {
    let server = FakeServer::builder().size(8).volatile(true).start().unwrap();
    let (mut one, mut other) = (Client::new(&server), Client::new(&server));
    one.put(0, b"one").unwrap();
    other.put(4, b"two").unwrap();
    server.lose_way_of(1, 502).unwrap();
    assert_eq!(server.contents().unwrap(), b"\0\0\0\0two\0");
    assert_eq!(one.get(0, 3).unwrap().status, 502);
    assert_eq!(one.get(0, 3).unwrap().status, 206);
    assert_eq!(other.flush().unwrap().status, 200);
}

#[test]
fn a_way_is_lost_at_a_request() {
    for all in [false, true] {
        let server = FakeServer::builder().size(8).volatile(true).start().unwrap();
        server.fault(Fault::on(Op::Flush).nth(2).then(What::LoseWay { status: 502, all, done: Done::Not }));
        let (mut one, mut other) = (Client::new(&server), Client::new(&server));
        other.put(4, b"two").unwrap();
        one.put(0, b"one").unwrap();
        assert_eq!(one.flush().unwrap().status, 200);
        one.put(0, b"new").unwrap();
        assert_eq!(one.flush().unwrap().status, 502);
        assert_eq!(one.flush().unwrap().status, 200);
        assert_eq!(other.flush().unwrap().status, if all { 502 } else { 200 });
        let expected = if all { b"one\0\0\0\0\0" } else { b"one\0two\0" };
        assert_eq!(server.contents().unwrap(), expected);
        let log = server.log();
        let faults: Vec<_> = log.of(Op::Flush).map(|flush| flush.fault).collect();
        assert_eq!(faults, [None, Some("lose way"), None, None]);
    }
}

#[test]
fn a_request_under_way_learns_that_the_way_is_lost() {
    let server = FakeServer::builder().size(8).volatile(true).start().unwrap();
    let gate = Gate::new();
    server.fault(Fault::on(Op::Put).then(What::Block(gate.clone())));
    let mut client = Client::new(&server);
    client.send("PUT", "?flush=n", "content-range: bytes 0-*/*\r\ncontent-length: 3\r\n", b"one");
    assert!(gate.wait_reached(1, PATIENCE));
    server.lose_way(502).unwrap();
    gate.open();
    assert_eq!(client.answer().unwrap().status, 502);
    assert_eq!(server.read(0, 3).unwrap(), [0; 3]);
    assert_eq!(client.put(0, b"new").unwrap().status, 200);
}

#[test]
fn connections_are_closed_after_so_many_answers() {
    for answers in [1, 3] {
        for announced in [false, true] {
            let server = FakeServer::builder().close_after(answers, announced).start().unwrap();
            for connection in 1..=2 {
                let mut client = Client::new(&server);
                for n in 1..=answers {
                    let answer = client.put(0, b"data").unwrap();
                    let says_so = answer.head.contains("connection: close");
                    assert_eq!((answer.status, says_so), (200, announced && n == answers));
                }
                assert_eq!(client.end(), (None, vec![]));
                let by = if announced { ClosedBy::Server } else { ClosedBy::Fault };
                assert_eq!(closed_by(&server, connection), Some(by));
            }
            assert_eq!(server.log().lost_unflushed(), 8 * answers);
        }
    }
}

#[test]
fn what_a_closed_connection_did_not_flush_can_be_lost() {
    let server = FakeServer::builder().size(4).volatile(true).close_after(1, false).start().unwrap();
    assert_eq!(Client::new(&server).put(0, b"data").unwrap().status, 200);
    assert_eq!(Client::new(&server).flush().unwrap().status, 200);
    assert_eq!(server.contents().unwrap(), b"data");
    server.lose_way(502).unwrap();
    assert_eq!(server.contents().unwrap(), [0; 4]);
}

const STATUSES: [u16; 16] = [202, 204, 302, 304, 400, 401, 403, 404, 408, 411, 413, 416, 429, 500, 502, 503];

#[test]
fn any_status_can_be_given_whether_or_not_it_is_done() {
    for status in STATUSES {
        for (done, close) in [(false, false), (false, true), (true, false), (true, true)] {
            let text = "for a reason".to_owned();
            let how = if done { Done::Yes } else { Done::Not };
            let server = server([Fault::on(Op::Put).then(What::Answer { status, text, done: how, close })]);
            let mut client = Client::new(&server);
            let answer = client.put(0, b"data").unwrap();
            assert_eq!((answer.status, answer.head.contains("connection: close")), (status, close));
            assert_eq!(server.read(0, 4).unwrap() == b"data", done);
            match close {
                true => assert_eq!(client.end(), (None, vec![])),
                false => assert_eq!(client.put(0, b"more").unwrap().status, 200),
            }
        }
    }
}

#[test]
fn other_requests_can_be_done_and_refused_too() {
    let faults = [Op::Zero, Op::Flush, Op::Get, Op::Options]
        .map(|op| Fault::on(op).then(What::answer(503, Done::Yes)));
    let server = server(faults);
    let mut client = Client::new(&server);
    client.put(0, b"data").unwrap();
    assert_eq!(client.patch(r#"{"op":"zero","offset":0,"size":2}"#).unwrap().status, 503);
    assert_eq!(server.read(0, 4).unwrap(), b"\0\0ta");
    assert_eq!(client.flush().unwrap().status, 503);
    assert_eq!(server.log().connections[0].unflushed, 0);
    assert_eq!(client.get(0, 3).unwrap().body, b"for a reason\n");
    assert_eq!(client.options().unwrap().status, 503);
    assert_eq!(client.get(0, 3).unwrap().body, b"\0\0ta");
}

#[test]
fn a_part_can_be_done() {
    let part = |op| Fault::on(op).then(What::answer(400, Done::Part(3)));
    let server = server([part(Op::Put), part(Op::Zero), part(Op::Flush)]);
    let mut client = Client::new(&server);
    assert_eq!(client.put(0, b"abcdef").unwrap().status, 400);
    assert_eq!(server.read(0, 6).unwrap(), b"abc\0\0\0");
    assert_eq!(client.put(0, b"abcdef").unwrap().status, 200);
    assert_eq!(client.patch(r#"{"op":"zero","offset":1,"size":5}"#).unwrap().status, 400);
    assert_eq!(server.read(0, 6).unwrap(), b"a\0\0\0ef");
    assert_eq!(client.flush().unwrap().status, 400);
    assert!(server.log().connections[0].unflushed > 0);
}

#[test]
fn a_lost_way_leaves_nothing_to_be_carried_out_late() {
    let server = FakeServer::builder().size(4).volatile(true).start().unwrap();
    let (gate, next) = (Gate::new(), Gate::new());
    server.fault(Fault::on(Op::Put).then(What::answer(502, Done::Late(gate.clone()))));
    let mut client = Client::new(&server);
    assert_eq!(client.put(0, b"late").unwrap().status, 502);
    assert!(gate.wait_reached(1, PATIENCE));
    server.lose_way(502).unwrap();
    gate.open();
    assert_eq!(client.flush().unwrap().status, 502);
    // The server has one thread, so what waited at the gate has had its turn before this one's.
    server.fault(Fault::on(Op::Get).then(What::Block(next.clone())));
    client.send("GET", "", "range: bytes=0-3\r\n", b"");
    assert!(next.wait_reached(1, PATIENCE));
    next.open();
    assert_eq!(client.answer().unwrap().body, [0; 4]);
    server.cut_power().unwrap();
    assert_eq!(client.end().0, Some(ErrorKind::ConnectionReset));
}
