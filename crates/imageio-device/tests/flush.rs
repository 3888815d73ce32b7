// SPDX-License-Identifier: MIT OR Apache-2.0
//! A flush covers what was acknowledged before it, also while everything else goes on; and so does
//! the flush at the end.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use block_device_traits::{BlockDevice, Errno};
use bytes::Bytes;
use common::{ALL, PATIENCE, close_well, device, error, settings, start, use_connections, within_a_minute};
use fake_imageio::{FakeServer, Fault, Gate, Log, Op, What};
use imageio_device::Device;

fn flushed_connections(log: &Log) -> Vec<u64> {
    let mut connections: Vec<_> = log.of(Op::Flush).map(|flush| flush.connection).collect();
    connections.sort_unstable();
    connections
}

#[test]
fn a_flush_is_one_request_on_each_connection_with_unflushed_writes() {
    let server = FakeServer::builder().start().unwrap();
    let device = device(&server);
    device.flush().unwrap();
    assert_eq!(server.log().of(Op::Flush).count(), 0);

    use_connections(&server, &device, 4, 7);
    device.flush().unwrap();
    assert_eq!(flushed_connections(&server.log()), [2, 3, 4, 5]);
    device.flush().unwrap();
    assert_eq!(flushed_connections(&server.log()).len(), 4);

    // A read makes nothing dirty, and a durable write cleans its connection.
    device.read(0, &mut [0; 4]).unwrap();
    device.write(0, Bytes::from_static(b"data"), false).unwrap();
    device.write(4, Bytes::from_static(b"data"), true).unwrap();
    device.flush().unwrap();
    assert_eq!(flushed_connections(&server.log()).len(), 4);

    device.write(0, Bytes::from_static(b"data"), false).unwrap();
    let used = server.log().requests.last().unwrap().connection;
    device.flush().unwrap();
    assert_eq!(server.log().of(Op::Flush).nth(4).unwrap().connection, used);
    close_well(&server, &device);
    assert_eq!(flushed_connections(&server.log()).len(), 5);
}

#[test]
fn close_flushes_what_is_unflushed() {
    let server = FakeServer::builder().start().unwrap();
    let device = device(&server);
    use_connections(&server, &device, 3, 7);
    close_well(&server, &device);
    assert_eq!(flushed_connections(&server.log()), [2, 3, 4]);
    device.close().unwrap();
    for request in ALL {
        assert_eq!(error(request(&device)).errno(), Errno::Shutdown);
    }
    assert_eq!(server.accepted(), 4);
}

#[test]
fn close_waits_for_the_request_in_flight() {
    let server = FakeServer::builder().start().unwrap();
    let device = &device(&server);
    let gate = Gate::new();
    server.fault(Fault::on(Op::Put).then(What::Block(gate.clone())));
    let (closed, closing) = mpsc::channel();
    thread::scope(|scope| {
        let write = scope.spawn(|| device.write(0, Bytes::from_static(b"data"), false));
        assert!(gate.wait_reached(1, PATIENCE));
        scope.spawn(move || closed.send(device.close()).unwrap());
        // Newcomers are refused as soon as it has begun.
        while device.read(8, &mut [0; 4]).is_ok() {}
        assert_eq!(error(device.read(8, &mut [0; 4])).errno(), Errno::Shutdown);
        assert_eq!(closing.try_recv().ok(), None);
        gate.open();
        closing.recv_timeout(PATIENCE).unwrap().unwrap();
        write.join().unwrap().unwrap();
    });
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    assert_eq!((server.log().lost_unflushed(), server.log().of(Op::Flush).count()), (0, 1));
    assert_eq!(server.read(0, 4).unwrap(), b"data");
}

#[test]
fn writes_go_on_behind_a_slow_flush() {
    let server = FakeServer::builder().start().unwrap();
    let device = &start(settings(&server).with(|settings| settings.connections = Some(2)));
    device.write(0, Bytes::from_static(b"one"), false).unwrap();
    let gate = Gate::new();
    server.fault(Fault::on(Op::Flush).then(What::Block(gate.clone())));
    thread::scope(|scope| {
        let flush = scope.spawn(|| device.flush());
        assert!(gate.wait_reached(1, PATIENCE));
        device.write(8, Bytes::from_static(b"two"), true).unwrap();
        gate.open();
        flush.join().unwrap().unwrap();
    });
    close_well(&server, device);
}

#[test]
fn parallel_durable_writes_end() {
    within_a_minute(|| {
        let server = FakeServer::builder().start().unwrap();
        let device = device(&server);
        thread::scope(|scope| {
            for worker in 0..8 {
                let device = &device;
                scope.spawn(move || {
                    for i in 0..100 {
                        let data = Bytes::from(vec![worker as u8; 512]);
                        device.write((worker * 100 + i) * 512, data, true).unwrap();
                    }
                });
            }
        });
        let log = server.log();
        assert_eq!((log.of(Op::Put).count(), log.of(Op::Flush).count()), (800, 0));
        assert!(log.of(Op::Put).all(|put| put.flush));
        close_well(&server, &device);
    });
}

/// A flush as its caller saw it.
struct Flushed {
    /// The number of writes that were acknowledged before it was asked for.
    covers: usize,
    /// The server's clock when it had ended.
    end: u64,
}

const WRITERS: u64 = 8;
const WRITES: u64 = 100;
const FLUSHERS: u64 = 16;
const LEN: u64 = 1024;

/// The latest tick in the log.
fn now(server: &FakeServer) -> u64 {
    let mut now = 0;
    let _ = server.wait_for(Duration::ZERO, |log| {
        now = log.requests.iter().filter_map(|request| request.end).max().unwrap_or_default();
        true
    });
    now
}

fn write_and_flush(server: &FakeServer, device: &Device) -> (Vec<u64>, Vec<Flushed>) {
    let acknowledged = Mutex::new(Vec::new());
    let flushes = Mutex::new(Vec::new());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..FLUSHERS {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    let covers = acknowledged.lock().unwrap().len();
                    device.flush().unwrap();
                    let end = now(server);
                    flushes.lock().unwrap().push(Flushed { covers, end });
                }
            });
        }
        let write = |writer: u64| {
            for i in 0..WRITES {
                let offset = (writer * WRITES + i) * LEN;
                device.write(offset, vec![1 + writer as u8; LEN as usize].into(), false).unwrap();
                acknowledged.lock().unwrap().push(offset);
            }
        };
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        let outcomes: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, SeqCst);
        outcomes.into_iter().for_each(Result::unwrap);
    });
    (acknowledged.into_inner().unwrap(), flushes.into_inner().unwrap())
}

/// The end of the first flush on the write's own connection that started when the write had ended,
/// for each offset.
fn safe_since(log: &Log) -> BTreeMap<u64, u64> {
    let safe = |put: &fake_imageio::RequestRecord| {
        let mut later = log.on(put.connection).filter(|request| request.op == Op::Flush);
        let flush = later.find(|flush| put.end.is_some_and(|end| end < flush.start))?;
        assert_eq!(flush.status, Some(200));
        Some((put.offset, flush.end?))
    };
    log.of(Op::Put).filter_map(safe).collect()
}

#[test]
fn a_flush_covers_all_that_was_acknowledged_before_it_while_writes_go_on() {
    within_a_minute(|| {
        let server = FakeServer::builder().size(WRITERS * WRITES * LEN).start().unwrap();
        let device = device(&server);
        let (acknowledged, flushes) = write_and_flush(&server, &device);
        assert_eq!(acknowledged.len() as u64, WRITERS * WRITES);
        let safe = safe_since(&server.log());
        for flush in &flushes {
            for offset in &acknowledged[..flush.covers] {
                let since = safe.get(offset);
                assert!(since.is_some_and(|since| *since <= flush.end), "{offset} is not safe");
            }
        }
        // Flushes that wait share one: fewer went out than were asked for. And it was a test of
        // something.
        assert!(server.log().of(Op::Flush).count() < 4 * flushes.len());
        assert!(flushes.iter().any(|flush| 0 < flush.covers && flush.covers < acknowledged.len()));
        close_well(&server, &device);
        assert_eq!(safe_since(&server.log()).len(), acknowledged.len());
        let contents = server.contents().unwrap();
        let expected = |i: usize| 1 + (i as u64 / (WRITES * LEN)) as u8;
        assert!(contents.iter().enumerate().all(|(i, byte)| *byte == expected(i)));
    });
}
