// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each fault as a client sees it, and what the log says of it.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, PATIENCE, closed_by, server};
use fake_imageio::{ClosedBy, FakeServer, Fault, Gate, Op, OptionsMode, What};

#[test]
fn close_after_answer_says_nothing() {
    let server = server([Fault::on(Op::Put).nth(2).then(What::CloseAfterAnswer)]);
    let mut client = Client::new(&server);
    for _ in 0..2 {
        let answer = client.put(0, b"data").unwrap();
        assert_eq!((answer.status, answer.head.contains("connection:")), (200, false));
    }
    assert_eq!(client.end(), (None, vec![]));
    assert_eq!(closed_by(&server, 1), Some(ClosedBy::Fault));
    assert_eq!(server.log().lost_unflushed(), 8);
}

#[test]
fn close_after_a_large_answer_sends_all_of_it() {
    let server =
        FakeServer::builder().size(32 << 20).fault(Fault::any().then(What::CloseAfterAnswer)).start();
    let server = server.unwrap();
    let mut client = Client::new(&server);
    assert_eq!(client.get(0, (32 << 20) - 1).unwrap().body.len(), 32 << 20);
    assert_eq!(client.end(), (None, vec![]));
}

#[test]
fn idle_connections_are_closed_now() {
    let server = server([]);
    let mut clients = [Client::new(&server), Client::new(&server)];
    clients[0].put(0, b"data").unwrap();
    assert!(server.wait_for(PATIENCE, |log| log.connections.len() == 2));
    server.close_idle();
    for client in &mut clients {
        assert_eq!(client.end(), (None, vec![]));
    }
    assert_eq!((server.connections(), server.accepted()), (0, 2));
}

#[test]
fn a_busy_connection_is_not_idle() {
    let gate = Gate::new();
    let server = server([Fault::any().then(What::Block(gate.clone()))]);
    let mut client = Client::new(&server);
    client.send("OPTIONS", "", "", b"");
    assert!(gate.wait_reached(1, PATIENCE));
    server.close_idle();
    gate.open();
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(client.options().unwrap().status, 200);
}

#[test]
fn lost_answer_of_a_write_that_was_done() {
    let server = server([Fault::on(Op::Put).then(What::LoseAnswer)]);
    let mut client = Client::new(&server);
    assert_eq!(client.put(0, b"data").err().map(|e| e.kind()), Some(ErrorKind::UnexpectedEof));
    assert_eq!(server.read(0, 4).unwrap(), b"data");
    assert_eq!(closed_by(&server, 1), Some(ClosedBy::Fault));
    let log = server.log();
    assert_eq!((log.requests[0].status, log.requests[0].end), (None, None));
    assert_eq!(log.connections[0].unflushed_at_close(), Some(4));
}

#[test]
fn reset_in_a_written_body() {
    let server = server([Fault::on(Op::Put).offset(4).then(What::Reset { after: 2 })]);
    let mut client = Client::new(&server);
    assert_eq!(client.put(0, b"abcd").unwrap().status, 200);
    assert_eq!(client.put(4, b"efgh").err().map(|e| e.kind()), Some(ErrorKind::ConnectionReset));
    assert_eq!(server.read(0, 8).unwrap(), b"abcdef\0\0");
    assert_eq!(closed_by(&server, 1), Some(ClosedBy::Fault));
    assert_eq!(server.log().lost_unflushed(), 6);
}

#[test]
fn reset_and_close_in_a_read_body() {
    let server = server([
        Fault::on(Op::Get).then(What::Reset { after: 5000 }),
        Fault::on(Op::Get).then(What::Close { after: 5 }),
        Fault::on(Op::Get).then(What::Close { after: 0 }),
    ]);
    let cases = [(5000, Some(ErrorKind::ConnectionReset)), (5, None), (0, None)];
    for (after, end) in cases {
        let mut client = Client::new(&server);
        client.send("GET", "", "range: bytes=0-499999\r\n", b"");
        assert_eq!(client.head().unwrap().1, 500_000);
        let (error, rest) = client.end();
        assert_eq!((error, rest.len()), (end, after));
    }
}

#[test]
fn a_cut_flush_is_not_carried_out() {
    let server = server([Fault::on(Op::Flush).then(What::Reset { after: 0 })]);
    let mut client = Client::new(&server);
    client.put(0, b"data").unwrap();
    assert_eq!(client.flush().err().map(|e| e.kind()), Some(ErrorKind::ConnectionReset));
    assert_eq!(closed_by(&server, 1), Some(ClosedBy::Fault));
    assert_eq!(server.log().lost_unflushed(), 4);
}

#[test]
fn an_early_answer_comes_before_the_body() {
    let what = What::AnswerEarly { status: 500, text: "no space".to_owned() };
    let server = server([Fault::on(Op::Put).then(what)]);
    let mut client = Client::new(&server);
    // The body never comes.
    client.send("PUT", "", "content-length: 4096\r\n", b"");
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (500, b"no space\n".as_slice()));
    assert!(answer.head.contains("connection: close"));
    assert_eq!(client.end().1, b"");
    assert_eq!(closed_by(&server, 1), Some(ClosedBy::Server));
}

#[test]
fn a_status_keeps_the_connection_unless_it_is_403() {
    let status = |status| What::Status { status, text: "because".to_owned() };
    let server = server([Fault::on(Op::Put).then(status(500)), Fault::on(Op::Put).then(status(403))]);
    let mut client = Client::new(&server);
    assert_eq!(client.put(0, &[1; 1 << 20]).unwrap().status, 500);
    assert_eq!(client.put(0, b"data").unwrap().status, 403);
    assert_eq!(client.end(), (None, vec![]));
    assert_eq!(server.read(0, 4).unwrap(), [0; 4]);
    assert_eq!(server.log().lost_unflushed(), 0);
}

#[test]
fn a_gate_holds_the_answer_of_what_is_done() {
    let gate = Gate::new();
    let server = server([Fault::on(Op::Put).nth(2).then(What::Block(gate.clone()))]);
    let (mut one, mut two) = (Client::new(&server), Client::new(&server));
    one.put(0, b"one").unwrap();
    let length = "content-range: bytes 8-*/*\r\ncontent-length: 3\r\n";
    one.send("PUT", "?flush=n", length, b"two");
    assert!(gate.wait_reached(1, PATIENCE));
    // The other connection goes on meanwhile, and sees what was written.
    assert_eq!(two.get(8, 10).unwrap().body, b"two");
    two.flush().unwrap();
    gate.open();
    assert_eq!(one.answer().unwrap().status, 200);
    one.flush().unwrap();
    let log = server.log();
    let held = log.of(Op::Put).nth(1).unwrap();
    let flushes: Vec<_> = log.of(Op::Flush).collect();
    assert!(flushes[0].end < held.end && held.end.unwrap() < flushes[1].start);
    assert_eq!((flushes[0].connection, flushes[1].connection), (2, 1));
}

#[test]
fn delay_and_wrong_length() {
    let server = server([
        Fault::on(Op::Get).then(What::Delay(Duration::from_millis(1))),
        Fault::on(Op::Get).nth(2).then(What::WrongLength(7)),
    ]);
    let mut client = Client::new(&server);
    assert_eq!(client.get(0, 9).unwrap().body.len(), 10);
    assert_eq!(client.get(0, 9).unwrap().body.len(), 7);
    assert_eq!(client.get(0, 9).unwrap().body.len(), 10);
}

#[test]
fn no_answer_leaves_the_connection_open() {
    let server = server([Fault::on(Op::Put).then(What::NoAnswer)]);
    let mut client = Client::new(&server);
    client.send("PUT", "", "content-length: 4\r\n", b"data");
    assert!(server.wait_for(PATIENCE, |log| log.requests.len() == 1));
    assert_eq!(server.connections(), 1);
    server.reset_connection(1);
    assert_eq!(client.end().0, Some(ErrorKind::ConnectionReset));
}

#[test]
fn faults_of_accepting() {
    let server = server([
        Fault::on(Op::Accept).then(What::Reset { after: 0 }),
        Fault::on(Op::Accept).nth(3).then(What::CloseAfterAnswer),
    ]);
    assert_eq!(Client::new(&server).end().0, Some(ErrorKind::ConnectionReset));
    assert!(server.wait_for(PATIENCE, |log| log.connections.len() == 1));
    assert_eq!(Client::new(&server).options().unwrap().status, 200);
    assert_eq!(Client::new(&server).end(), (None, vec![]));
}

#[test]
fn inactivity_is_noticed_only_while_idle() {
    let gate = Gate::new();
    let timeout = Duration::from_millis(200);
    let server = FakeServer::builder().inactivity_timeout(Some(timeout));
    let server = server.fault(Fault::any().then(What::Block(gate.clone()))).start().unwrap();
    let (mut busy, mut idle) = (Client::new(&server), Client::new(&server));
    busy.send("OPTIONS", "", "", b"");
    assert!(gate.wait_reached(1, PATIENCE));
    // The other one times out from its accepting on, while the busy one has to stay.
    assert_eq!(idle.end(), (None, vec![]));
    assert_eq!(closed_by(&server, 2), Some(ClosedBy::Inactivity));
    assert_eq!(server.connections(), 1);
    gate.open();
    assert_eq!(busy.answer().unwrap().status, 200);
    assert_eq!(busy.end(), (None, vec![]));
    assert_eq!(closed_by(&server, 1), Some(ClosedBy::Inactivity));
}

#[test]
fn a_body_that_stops_is_a_500() {
    let timeout = Duration::from_millis(100);
    let server = FakeServer::builder().inactivity_timeout(Some(timeout)).start().unwrap();
    let mut client = Client::new(&server);
    client.send("PUT", "", "content-length: 100\r\n", b"only this");
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.head.contains("connection: close")), (500, true));
}

#[test]
fn one_connection_at_a_time() {
    let server = FakeServer::builder().one_at_a_time(true).start().unwrap();
    let mut first = Client::new(&server);
    first.options().unwrap();
    let mut second = Client::new(&server);
    second.send("OPTIONS", "", "", b"");
    first.options().unwrap();
    assert_eq!(server.accepted(), 1);
    drop(first);
    assert_eq!(second.answer().unwrap().status, 200);
    assert_eq!(server.accepted(), 2);
}

#[test]
fn odd_options() {
    let modes = [
        (OptionsMode::MethodNotAllowed, 405, None, 405),
        (OptionsMode::NoContent, 204, Some(""), 405),
        (OptionsMode::Malformed, 200, Some("{\"features\": [\n"), 405),
        (OptionsMode::MissingKeys, 200, Some("{}\n"), 405),
    ];
    for (mode, status, body, patch) in modes {
        let server = FakeServer::builder().options(mode).start().unwrap();
        let answer = Client::new(&server).options().unwrap();
        assert_eq!(answer.status, status, "{mode:?}");
        assert!(body.is_none_or(|body| body.as_bytes() == answer.body), "{mode:?}");
        assert_eq!(Client::new(&server).flush().unwrap().status, patch, "{mode:?}");
        assert_eq!(Client::new(&server).put(0, b"data").unwrap().status, 200, "{mode:?}");
    }
}

#[test]
fn features_can_be_missing() {
    let server = FakeServer::builder().zero(false).flush(false).extents(false).checksum(false);
    let server = server.max_readers(None).max_writers(None).start().unwrap();
    let answer = Client::new(&server).options().unwrap();
    assert_eq!(answer.body, b"{\"features\":[]}\n");
    assert_eq!(Client::new(&server).flush().unwrap().status, 400);
    assert_eq!(Client::new(&server).patch(r#"{"op":"zero","size":1}"#).unwrap().status, 400);
    let mut client = Client::new(&server);
    client.send("GET", "/extents", "", b"");
    assert_eq!(client.answer().unwrap().status, 403);
}

#[test]
fn dirty_extents_are_as_told_and_checksums_are_computed() {
    // By sha256sum, of the sum of 100 zeroes.
    let of_zeroes = "71816df128b17c145e672468b8cce64a3529b8cffd22fe7871968f74149d1ca1";
    let builder = FakeServer::builder().size(100).dirty(std::iter::once(10..20).collect());
    let server = builder.start().unwrap();
    let mut client = Client::new(&server);
    client.send("GET", "/extents?context=dirty", "", b"");
    let body = String::from_utf8(client.answer().unwrap().body).unwrap();
    assert!(body.contains(r#"{"start":10,"length":10,"dirty":true,"zero":true}"#), "{body}");
    client.send("GET", "/checksum?algorithm=sha256", "", b"");
    let body = String::from_utf8(client.answer().unwrap().body).unwrap();
    assert!(body.contains(r#""algorithm":"sha256""#) && body.contains(of_zeroes), "{body}");
}

#[test]
fn shutdown_closes_everything_and_keeps_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let mut server = FakeServer::builder().unix_socket(socket.to_str().unwrap()).threads(2).start().unwrap();
    let mut client = Client::new(&server);
    client.put(0, b"data").unwrap();
    assert!(socket.exists());
    server.shutdown();
    assert_eq!(client.end(), (None, vec![]));
    assert_eq!(server.log().connections[0].closed_by, Some(ClosedBy::Shutdown));
    assert_eq!(server.read(0, 4).unwrap(), b"data");
    assert!(!socket.exists());
}

#[test]
fn the_null_backend_moves_nothing() {
    let builder = FakeServer::builder().backend(fake_imageio::Backend::Null).size(1 << 40);
    let server = builder.log_requests(false).start().unwrap();
    let mut client = Client::new(&server);
    client.put(1 << 39, &[1; 1 << 20]).unwrap();
    assert_eq!(client.get(1 << 39, (1 << 39) + 99_999_999).unwrap().body.len(), 100_000_000);
    assert_eq!((server.log().requests.len(), server.log().connections[0].requests), (0, 2));
}

#[test]
fn contents_set_the_size() {
    let server = FakeServer::builder().contents(b"0123456789".to_vec()).start().unwrap();
    assert_eq!(Client::new(&server).get(3, 5).unwrap().body, b"345");
    server.write(0, b"x").unwrap();
    assert!(server.write(10, b"x").is_err());
    assert_eq!(server.contents().unwrap(), b"x123456789");
    assert!(FakeServer::builder().contents(vec![0; 2]).size(1).start().is_err());
}

#[test]
fn a_power_cut_leaves_what_was_flushed_on_its_own_connection() {
    let contents = b"........".to_vec();
    let server = FakeServer::builder().contents(contents).volatile(true).start().unwrap();
    let (mut one, mut other) = (Client::new(&server), Client::new(&server));
    assert_eq!(one.put(0, b"one").unwrap().status, 200);
    assert_eq!(other.put(4, b"two").unwrap().status, 200);
    assert_eq!(one.flush().unwrap().status, 200);
    assert_eq!(server.contents().unwrap(), b"one.two.");
    server.cut_power().unwrap();
    assert_eq!(server.contents().unwrap(), b"one.....");
    assert_eq!(other.end(), (Some(ErrorKind::ConnectionReset), vec![]));
    assert_eq!(Client::new(&server).put(4, b"new").unwrap().status, 200);
}

#[test]
fn what_is_carried_out_late_comes_over_what_was_written_meanwhile() {
    for status in [None, Some(500)] {
        let gate = Gate::new();
        let late = gate.clone();
        let what = match status {
            None => What::CarryOutLate(late),
            Some(status) => What::FailAndCarryOutLate { status, gate: late },
        };
        let server = server([Fault::on(Op::Put).then(what)]);
        let mut first = Client::new(&server);
        assert_eq!(first.put(0, b"late").ok().map(|answer| answer.status), status);
        assert!(gate.wait_reached(1, PATIENCE));
        let mut other = Client::new(&server);
        assert_eq!(other.put(0, b"meanwhile").unwrap().status, 200);
        gate.open();
        // Nothing tells of it: that is the point.
        let deadline = Instant::now() + PATIENCE;
        while server.read(0, 9).unwrap() != b"latewhile" {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
    }
}
