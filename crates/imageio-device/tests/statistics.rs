// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device's figures agree with its server's log: each request and each byte counts, also after
//! faults.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use block_device_traits::BlockDevice;
use bytes::Bytes;
use common::{NO_FUA, PATIENCE, close_after_loss, close_idle, device, settings, start, status, write};
use fake_imageio::{ClosedBy, FakeServer, Fault, Gate, Log, Op, RequestRecord, What};
use imageio_device::statistics::{Amount, Awaited, Initiator, Operations, Traffic, Wait};
use imageio_device::{Device, Statistics};

const MIB: u64 = 1 << 20;

fn server() -> FakeServer {
    FakeServer::builder().size(64 * MIB).start().unwrap()
}

/// The part of the log from a moment on, when the device was opened.
struct Since {
    requests: usize,
    connections: usize,
}

impl Since {
    fn now(log: &Log) -> Self {
        Self { requests: log.requests.len(), connections: log.connections.len() }
    }

    fn amount(&self, log: &Log, op: Op, is_counted: impl Fn(&RequestRecord) -> bool) -> (u64, u64) {
        let counted = log.requests[self.requests..].iter().filter(|r| r.op == op && is_counted(r));
        counted.fold((0, 0), |(requests, bytes), request| (requests + 1, bytes + request.size))
    }

    /// The device has closed, and nothing is under way.
    #[track_caller]
    fn assert_agrees(&self, log: &Log, told: &Statistics) {
        let Operations { reads, writes, zeroes, flushes, .. } = told.operations();
        let kinds = [(Op::Get, reads), (Op::Put, writes), (Op::Zero, zeroes), (Op::Flush, flushes)];
        for (op, traffic) in kinds.into_iter().chain([(Op::Extents, told.extents)]) {
            let is_answered = |request: &RequestRecord| {
                request.end.is_some() && matches!(request.status, Some(200..=299)) && !is_cut(request)
            };
            assert_eq!(pair(traffic.sent), self.amount(log, op, |_| true), "sent: {op:?} {log:#?}");
            assert_eq!(
                pair(traffic.answered),
                self.amount(log, op, is_answered),
                "answered: {op:?} {log:#?}"
            );
        }
        let connections = &log.connections[self.connections..];
        assert_eq!(told.connections.opened, connections.len() as u64);
        let by_client = connections.iter().filter(|c| c.closed_by == Some(ClosedBy::Client)).count() as u64;
        assert!(told.connections.lost >= connections.len() as u64 - by_client, "{told:?} {log:#?}");
    }
}

/// The answer was not whole.
fn is_cut(request: &RequestRecord) -> bool {
    matches!(request.fault, Some("lose answer" | "close" | "reset"))
}

fn pair(Amount { requests, bytes, .. }: Amount) -> (u64, u64) {
    (requests, bytes)
}

fn answered(Traffic { sent, answered, .. }: Traffic) -> (u64, u64) {
    assert_eq!(sent, answered);
    pair(answered)
}

/// Data, zeroes, reads, and a flush.
fn use_it(device: &Device) {
    for at in 0..8 {
        device.write(at * MIB, vec![7; 3 << 18].into(), at == 3).unwrap();
    }
    device.zero(20 * MIB, 5 * MIB, NO_FUA).unwrap();
    device.read(MIB, &mut [0; 5000]).unwrap();
    device.flush().unwrap();
    device.read(2 * MIB, &mut [0; 1]).unwrap();
}

#[test]
fn without_faults_all_that_is_sent_is_answered() {
    let server = server();
    let device = device(&server);
    let since = Since::now(&server.log());
    use_it(&device);
    // Requests without bytes are not sent.
    device.read(0, &mut []).unwrap();
    device.write(0, Bytes::new(), false).unwrap();
    close_after_loss(&server, &device);
    let told = device.statistics();
    since.assert_agrees(&server.log(), &told);
    let Operations { reads, writes, zeroes, .. } = told.for_clients;
    assert_eq!((answered(reads), answered(writes)), ((2, 5001), (8, 8 * (3 << 18))));
    assert_eq!(answered(zeroes), (1, 5 * MIB));
    assert_eq!((told.connections.lost, told.retries), (0, 0));
    assert_eq!(told.operations(), told.for_clients, "nobody else has asked for anything");
    assert!(told.waited > Duration::ZERO);
}

#[test]
fn after_each_fault_it_agrees_with_the_server_s_log() {
    // Not `CloseAfterAnswer`: what is sent a moment later is sent, and the server does not see it.
    let faults = [
        What::LoseAnswer,
        What::Reset { after: 70_000 },
        What::Close { after: 70_000 },
        What::NoAnswer,
        status(500),
        status(503),
        status(403),
    ];
    for what in faults {
        for (op, nth) in [(Op::Put, 1), (Op::Put, 5), (Op::Zero, 1), (Op::Get, 1), (Op::Flush, 1)] {
            let server = server();
            let short = Duration::from_millis(200);
            let timeouts = settings(&server).timeouts.with(|timeouts| {
                timeouts.data = short;
                timeouts.operation = short;
            });
            let device = start(settings(&server).with(|settings| {
                settings.timeouts = timeouts;
                settings.reconnect_timeout = PATIENCE;
                settings.connections = Some(1);
            }));
            let since = Since::now(&server.log());
            // Such as 403, which is answered at once.
            server.fault(Fault::on(op).nth(nth).then(what.clone()));
            for at in 0..6 {
                let _ = device.write(at * MIB, vec![7; 3 << 18].into(), false);
            }
            let _ = device.zero(20 * MIB, 5 * MIB, NO_FUA);
            let _ = device.read(MIB, &mut [0; 100_000]);
            let _ = device.flush();
            let _ = device.close();
            assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
            let log = server.log();
            assert!(log.requests.iter().any(|request| request.fault.is_some()), "{op:?} {what:?}");
            since.assert_agrees(&log, &device.statistics());
        }
    }
}

#[test]
fn what_is_written_again_is_told_apart() {
    let server = server();
    let device = start(settings(&server).with(|settings| {
        settings.connections = Some(1);
        settings.reconnect_timeout = PATIENCE;
    }));
    let since = Since::now(&server.log());
    write(&device, 0, b"data").unwrap();
    write(&device, MIB, b"more").unwrap();
    device.zero(2 * MIB, 4096, NO_FUA).unwrap();
    close_idle(&server);
    device.flush().unwrap();
    close_after_loss(&server, &device);
    let told = device.statistics();
    let Operations { writes, zeroes, flushes, .. } = told.written_again;
    assert_eq!((answered(writes), answered(zeroes), answered(flushes)), ((2, 8), (1, 4096), (1, 0)));
    assert_eq!(answered(told.for_clients.writes), (2, 8));
    assert_eq!((told.connections.opened, told.connections.lost, told.retries), (2, 1, 1));
    // The test has a connection of its own there, which asks for something.
    let mut log = server.log();
    log.connections
        .retain(|connection| log.requests.iter().any(|r| r.connection == connection.id && r.op != Op::Get));
    log.requests.retain(|request| request.op != Op::Get || request.size == 1);
    let ours = Since { connections: log.connections.len() - 2, ..since };
    assert_eq!(ours.amount(&log, Op::Put, |_| true), (4, 16));
    assert_eq!(ours.amount(&log, Op::Zero, |_| true), (2, 8192));
}

#[test]
fn keep_alives_and_flushes_in_the_background_are_told_apart() {
    let server = server();
    let keep_alive = Some(Duration::from_millis(20));
    let device = start(settings(&server).with(|settings| {
        settings.keep_alive = keep_alive;
        settings.connections = Some(1);
    }));
    let since = Since::now(&server.log());
    let kept_alive = |log: &Log| log.of(Op::Flush).filter(|flush| flush.end.is_some()).count() >= 2;
    assert!(server.wait_for(PATIENCE, kept_alive));
    device.close().unwrap();
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    let told = device.statistics();
    since.assert_agrees(&server.log(), &told);
    assert!(told.keep_alives.flushes.answered.requests >= 2);
    assert_eq!(told.keep_alives, told.operations());

    // A replay buffer that is soon full.
    let device = start(settings(&server).with(|settings| {
        settings.replay_buffer = Some(MIB);
        settings.connections = Some(1);
    }));
    let since = Since::now(&server.log());
    for at in 0..64 {
        device.write(at << 16, vec![1; 1 << 16].into(), false).unwrap();
    }
    close_after_loss(&server, &device);
    let told = device.statistics();
    since.assert_agrees(&server.log(), &told);
    let Operations { reads, writes, zeroes, .. } = told.in_background;
    assert_eq!([reads, writes, zeroes], [Traffic::default(); 3]);
    assert_eq!(answered(told.for_clients.writes), (64, 4 * MIB));
}

#[test]
fn a_server_that_can_t_zero_is_sent_writes_and_questions_for_extents_count() {
    let server = FakeServer::builder().size(16 * MIB).zero(false).start().unwrap();
    let device = device(&server);
    let since = Since::now(&server.log());
    device.zero(0, MIB, NO_FUA).unwrap();
    device.extents_while(0, 0, MIB, 9, &|| true).unwrap();
    close_after_loss(&server, &device);
    let told = device.statistics();
    since.assert_agrees(&server.log(), &told);
    assert_eq!(answered(told.for_clients.writes), (1, MIB));
    assert_eq!(answered(told.extents), (1, 0));
}

#[test]
fn what_is_waited_for_is_told_while_it_is() {
    let server = server();
    let device = start(settings(&server).with(|settings| settings.connections = Some(2)));
    write(&device, 0, &[7; 4096]).unwrap();
    assert!(device.waits().is_empty());
    let mut moved = 4096;
    for (op, awaited) in [(Op::Flush, Awaited::Flush), (Op::Get, Awaited::Read), (Op::Put, Awaited::Write)] {
        let (gate, before) = (Gate::new(), Instant::now());
        server.fault(Fault::on(op).then(What::Block(gate.clone())));
        thread::scope(|scope| {
            let request = scope.spawn(|| match op {
                Op::Flush => device.flush(),
                Op::Get => device.read(0, &mut [0; 4]),
                _ => write(&device, 0, b"more"),
            });
            assert!(gate.wait_reached(1, PATIENCE));
            // The server may have all of the request before its sender has counted that.
            let is_counted = |waits: &[Wait]| waits.first().is_some_and(|wait| wait.moved > moved);
            let waits = std::iter::repeat_with(|| device.waits())
                .find(|waits| is_counted(waits) || before.elapsed() > PATIENCE)
                .unwrap();
            assert_eq!(waits.len(), 1, "{waits:?}");
            assert_eq!((waits[0].connection, waits[0].awaited), (1, awaited));
            assert!(waits[0].since + Duration::from_millis(1) >= before);
            assert_eq!(waits[0].initiator, Initiator::Client);
            assert!(waits[0].moved > moved, "the content, and each request that was sent: {waits:?}");
            moved = waits[0].moved;
            gate.open();
            request.join().unwrap().unwrap();
        });
        assert!(device.waits().is_empty());
    }
    close_after_loss(&server, &device);
}
