// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that nobody uses: kept alive, or lost.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::time::Duration;

use block_device_traits::{BlockDevice, Errno};
use bytes::Bytes;
use common::{
    FLUSH, PATIENCE, Request, WRITE, assert_fails_for_good, await_failure, close_after_loss, close_idle,
    close_well, error, fragile, line, start, use_connections,
};
use fake_imageio::{Builder, ClosedBy, FakeServer, Fault, Log, Op, What};
use imageio_device::{Device, Settings};

/// After this the server closes an idle connection.
const INACTIVITY: Duration = Duration::from_millis(600);

/// After this an idle connection is used.
const KEEP_ALIVE: Duration = INACTIVITY.checked_div(4).expect("not by zero");

fn server(builder: Builder) -> FakeServer {
    builder.inactivity_timeout(Some(INACTIVITY)).start().unwrap()
}

fn kept(server: &FakeServer, connections: u32) -> Settings {
    fragile(server).with(|settings| {
        settings.keep_alive = Some(KEEP_ALIVE);
        settings.connections = Some(connections);
    })
}

/// Waits for three times the inactivity timeout, as told by what keeps each connection alive.
fn idle(server: &FakeServer, connections: u64, keeps_alive: Op) {
    let already: Vec<_> = (0..=connections).map(|id| uses(&server.log(), id + 1, keeps_alive)).collect();
    // The first one comes early.
    let enough = 1 + 3 * INACTIVITY.as_millis().div_ceil(KEEP_ALIVE.as_millis()) as usize;
    let kept = server.wait_for(PATIENCE, |log| {
        (1..=connections).all(|i| uses(log, i + 1, keeps_alive) >= already[i as usize] + enough)
    });
    assert!(kept, "{:?}", server.log().connections);
}

fn uses(log: &Log, connection: u64, op: Op) -> usize {
    log.on(connection).filter(|request| request.op == op).count()
}

#[test]
fn idle_connections_are_kept_alive_and_lose_nothing() {
    let server = server(FakeServer::builder());
    let device = start(kept(&server, 4));
    use_connections(&server, &device, 4, 1);
    idle(&server, 4, Op::Flush);
    use_connections(&server, &device, 4, 2);
    device.write(8 * 4096, vec![3; 4096].into(), false).unwrap();
    device.flush().unwrap();
    assert_eq!(server.accepted(), 5);
    close_well(&server, &device);
    let written = [[[2; 4096], [0; 4096]].concat().repeat(4), vec![3; 4096]].concat();
    assert!(server.read(0, 9 * 4096).unwrap() == written);
    let log = server.log();
    assert!(log.connections[1..].iter().all(|c| c.closed_by == Some(ClosedBy::Client)));
}

/// Without a keeper, the server closes what is idle, and the next request finds that out.
fn idle_without_a_keeper(next: Request) {
    let server = server(FakeServer::builder());
    let device = start(fragile(&server));
    use_connections(&server, &device, 4, 1);
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    let closed: Vec<_> = server.log().connections[1..].iter().map(|c| c.closed_by).collect();
    assert_eq!(closed, [Some(ClosedBy::Inactivity); 4]);
    assert_eq!(server.log().lost_unflushed(), 4 * 4096);
    assert_eq!(error(next(&device)).errno(), Errno::Io);
    assert_eq!(server.accepted(), 5);
    assert_fails_for_good(&device, Errno::Io);
}

#[test]
fn without_a_keeper_the_next_write_fails() {
    idle_without_a_keeper(WRITE);
}

#[test]
fn without_a_keeper_the_next_flush_fails() {
    idle_without_a_keeper(FLUSH);
}

#[test]
fn without_a_keeper_closing_fails() {
    idle_without_a_keeper(Device::close);
}

/// Without flushes, a byte is read to keep a connection alive.
fn kept_alive_by_reading(server: &FakeServer, device: &Device) {
    device.read(0, &mut [0; 4]).unwrap();
    idle(server, 1, Op::Get);
    device.read(0, &mut [0; 4]).unwrap();
    device.flush().unwrap();
    let log = server.log();
    assert_eq!((log.connections.len(), log.of(Op::Flush).count(), log.of(Op::Other).count()), (2, 0, 0));
}

#[test]
fn a_server_without_flush_is_kept_alive_by_reading() {
    let server = server(FakeServer::builder().flush(false));
    let device = start(kept(&server, 1));
    device.write(0, Bytes::from_static(b"data"), false).unwrap();
    kept_alive_by_reading(&server, &device);
    device.write(4, Bytes::from_static(b"more"), false).unwrap();
    close_well(&server, &device);
    assert_eq!(server.read(0, 8).unwrap(), b"datamore");
}

#[test]
fn a_read_only_ticket_is_kept_alive_by_reading() {
    let server = server(FakeServer::builder().read_only(true));
    let device = start(kept(&server, 1).with(|settings| settings.read_only = true));
    kept_alive_by_reading(&server, &device);
    close_well(&server, &device);
}

#[test]
fn a_server_that_can_only_be_written_to_is_no_failure() {
    for status in [405, 501, 416, 503] {
        let server = server(FakeServer::builder().flush(false));
        let what = What::Status { status, text: "no".to_owned() };
        let device = start(kept(&server, 1));
        server.fault(Fault::on(Op::Get).every().then(what));
        device.write(0, Bytes::from_static(b"data"), false).unwrap();
        // The first one asked for the size.
        assert!(server.wait_for(PATIENCE, |log| log.of(Op::Get).count() >= 3));
        device.write(4, Bytes::from_static(b"more"), false).unwrap();
        close_well(&server, &device);
    }
}

#[test]
fn a_failed_keep_alive_ends_everything() {
    let server = server(FakeServer::builder());
    let device = start(kept(&server, 1));
    let what = What::Status { status: 500, text: "storage is gone".to_owned() };
    server.fault(Fault::on(Op::Flush).then(what));
    device.write(0, Bytes::from_static(b"data"), false).unwrap();
    let failure = await_failure(&device);
    let text = line(&failure);
    assert!(text.contains("storage is gone"), "{text}");
    assert_fails_for_good(&device, Errno::Io);
}

#[test]
fn a_ticket_that_is_cancelled_when_all_is_flushed_loses_nothing() {
    for (read_only, op) in [(false, Op::Flush), (true, Op::Get)] {
        let server = server(FakeServer::builder());
        let device = start(kept(&server, 1).with(|settings| settings.read_only = read_only));
        if !read_only {
            device.write(0, Bytes::from_static(b"data"), true).unwrap();
        }
        device.read(0, &mut [0; 4]).unwrap();
        server.cancel_ticket();
        let is_refused = |log: &Log| log.of(op).any(|request| request.status == Some(403));
        assert!(server.wait_for(PATIENCE, is_refused));
        let error = error(device.read(0, &mut [0; 4]));
        assert_eq!(error.errno(), Errno::Perm);
        assert!(line(&error).contains("was canceled") && !line(&error).contains("lost"), "{error}");
        device.flush().unwrap();
        assert_eq!(device.failure(), None);
        device.close().unwrap();
    }
}

#[test]
fn a_ticket_that_is_cancelled_while_something_is_unflushed_loses_it() {
    let server = server(FakeServer::builder());
    let device = start(kept(&server, 1));
    device.write(0, Bytes::from_static(b"data"), false).unwrap();
    server.cancel_ticket();
    let failure = await_failure(&device);
    assert_eq!(failure.errno(), Errno::Perm);
    assert!(line(&failure).contains("data may be lost") && line(&failure).contains("was canceled"));
    assert_fails_for_good(&device, Errno::Perm);
}

#[test]
fn one_connection_is_used_before_the_first_client_comes_and_while_nobody_writes() {
    for connections in [1, 4] {
        let server = server(FakeServer::builder());
        let device = start(kept(&server, connections));
        // Opening the transfer used the first connection.
        idle(&server, 1, Op::Flush);
        assert_eq!(server.accepted(), 2);
        // It is clean when it is lost, and another takes its place.
        server.close_connection(2);
        let is_used_again = |log: &Log| uses(log, 3, Op::Flush) >= 2;
        assert!(server.wait_for(PATIENCE, is_used_again), "{:?}", server.log().connections);
        close_well(&server, &device);
    }
}

#[test]
fn a_ticket_that_comes_back_after_a_loss_is_waited_for_while_idle_too() {
    let server = FakeServer::builder().start().unwrap();
    let kept = kept(&server, 1).with(|settings| {
        settings.replay_buffer = Some(32 << 20);
        settings.reconnect_timeout = PATIENCE;
    });
    let device = start(kept);
    WRITE(&device).unwrap();
    close_idle(&server);
    device.flush().unwrap();
    server.fault(Fault::on(Op::Flush).then(What::Status { status: 403, text: "no ticket".to_owned() }));
    assert!(server.wait_for(PATIENCE, |log| log.of(Op::Flush).any(|flush| flush.status == Some(403))));
    WRITE(&device).unwrap();
    close_after_loss(&server, &device);
}

#[test]
fn a_connection_lost_while_idle_and_clean_is_opened_again() {
    let server = server(FakeServer::builder());
    let device = start(kept(&server, 1));
    device.write(0, Bytes::from_static(b"data"), true).unwrap();
    server.fault(Fault::on(Op::Flush).then(What::Reset { after: 0 }));
    assert!(server.wait_for(PATIENCE, |log| log.of(Op::Flush).count() == 2));
    device.write(4, Bytes::from_static(b"more"), false).unwrap();
    assert_eq!(server.accepted(), 3);
    close_well(&server, &device);
    assert_eq!(server.read(0, 8).unwrap(), b"datamore");
}

#[test]
fn a_connection_lost_while_idle_and_dirty_ends_everything() {
    let server = server(FakeServer::builder());
    server.fault(Fault::on(Op::Flush).then(What::Reset { after: 0 }));
    let device = start(kept(&server, 1));
    device.write(0, Bytes::from_static(b"data"), false).unwrap();
    assert_eq!(await_failure(&device).errno(), Errno::Io);
    assert_fails_for_good(&device, Errno::Io);
}
