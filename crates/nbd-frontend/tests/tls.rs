// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests and replies through TLS: the same as in the clear, whatever the client does.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use block_device_traits::MemoryDevice;
use common::tls::{Pki, TlsClient, VERSIONS};
use common::*;
use nbd_frontend::{Config, ExportInfo};
use rustls::version::TLS13;

fn with(device: &Arc<Hooked>, config: Config) -> Running {
    Running::with(device, &ExportInfo::default(), config)
}

/// Bytes that tell where they belong.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 512 * 31 + at) as u8).collect()
}

fn assert_served(mut client: TlsClient) {
    assert_eq!(client.ask(FLUSH, 0, 0, 0), 0);
    client.leave();
}

#[test]
fn what_is_written_is_there_and_is_read_back() {
    let (pki, disk) = (Pki::new(), Arc::new(MemoryDevice::new(32 * MIB)));
    let data = pattern(20 * MIB);
    for version in VERSIONS {
        let server = Running::with(&disk, &ExportInfo::default(), pki.required());
        let mut client = pki.client_of(&server, version);
        for (offset, length) in [(512, 20 * MIB), (MIB, 512), (8 * MIB, 300 * 1024)] {
            client.write(7, offset as u64, &data[..length]);
            assert_eq!(client.reply(), (0, 7));
            assert!(disk.contents()[offset..offset + length] == data[..length]);
            assert!(client.read(offset as u64, length) == data[..length]);
        }
        assert_eq!(client.ask(ZERO, 0, 512, 20 * MIB), 0);
        assert!(client.read(0, 21 * MIB).iter().all(|byte| *byte == 0));
        assert_eq!(client.ask(READ, 0, 32 << 20, 512), EINVAL);
        assert_served(client);
        let outcome = server.stop();
        assert_eq!((outcome.sessions, outcome.requests, outcome.errors), (1, 10, 1));
    }
}

#[test]
fn replies_of_many_workers_stay_whole() {
    let (pki, data) = (Pki::new(), pattern(16 * MIB));
    let device = Hooked::over(MemoryDevice::from_bytes(data.clone()), |_| Ok(()));
    let server = with(&device, pki.required());
    let mut client = pki.client(&server);
    let length = |cookie: u64| [512, 4096, 70_144, 1_000_448][cookie as usize % 4];
    for round in 0..4 {
        for cookie in 0..64 {
            client.request(READ, 0, cookie, (cookie + round) * 512, length(cookie));
        }
        let mut cookies: Vec<_> = (0..64)
            .map(|_| {
                let (error, cookie) = client.reply();
                assert_eq!(error, 0);
                let at = ((cookie + round) * 512) as usize;
                assert!(client.receive(length(cookie)) == data[at..at + length(cookie)], "{cookie}");
                cookie
            })
            .collect();
        cookies.sort_unstable();
        assert!(cookies.into_iter().eq(0..64));
    }
    assert_served(client);
}

#[test]
fn clients_with_and_without_tls_go_side_by_side() {
    let (pki, disk) = (Pki::new(), Arc::new(MemoryDevice::new(8 * MIB)));
    let server = Running::with(&disk, &ExportInfo::default(), pki.offered());
    let (mut secured, mut plain) = (pki.client(&server), server.client());
    std::thread::scope(|scope| {
        scope.spawn(|| fill(&mut secured, 0, 1));
        scope.spawn(|| fill(&mut plain, 4 << 20, 2));
    });
    assert!(plain.read(0, 4 * MIB).iter().all(|byte| *byte == 1));
    assert!(secured.read(4 << 20, 4 * MIB).iter().all(|byte| *byte == 2));
    plain.disconnect();
    secured.leave();
}

/// Writes 4 MiB in small pieces.
fn fill<S: Read + Write>(client: &mut Client<S>, start: u64, byte: u8) {
    for cookie in 0..256 {
        client.write(cookie, start + cookie * 16_384, &[byte; 16_384]);
        assert_eq!(client.reply(), (0, cookie));
    }
}

#[test]
fn who_does_not_read_replies_is_still_listened_to_and_harms_nobody_else() {
    let (pki, gate) = (Pki::new(), Gate::new());
    gate.open();
    let passed = Arc::clone(&gate);
    let device = Hooked::new(4 * MIB, move |call| {
        if call.0 == WRITE && call.2 == 512 {
            passed.pass();
        }
        Ok(())
    });
    let server = with(&device, pki.required().with(|config| config.memory = 64 * MIB));
    let (mut lazy, mut other) = (pki.client(&server), pki.client(&server));
    for cookie in 0..16 {
        lazy.request(READ, 0, cookie, 0, MIB);
    }
    // By now, somebody waits until the client takes more.
    for cookie in 16..56 {
        lazy.write(cookie, 0, &[0; 512]);
        gate.wait_entered(cookie as usize - 15);
    }
    fill(&mut Client(&mut other.0), 0, 0);
    other.leave();
    let mut cookies: Vec<_> = (0..56)
        .map(|_| {
            let (error, cookie) = lazy.reply();
            assert_eq!(error, 0);
            if cookie < 16 {
                assert!(lazy.receive(MIB).iter().all(|byte| *byte == 0));
            }
            cookie
        })
        .collect();
    cookies.sort_unstable();
    assert!(cookies.into_iter().eq(0..56));
    // And neither does one that leaves without reading.
    for cookie in 0..16 {
        lazy.request(READ, 0, cookie, 0, MIB);
    }
    drop(lazy);
    assert_eq!(server.stop().cut_off, 0);
}

#[test]
fn shutdown_does_not_wait_for_a_client_that_does_not_read() {
    let pki = Pki::new();
    let config = pki.required().with(|config| config.grace = Duration::from_millis(10));
    let server = with(&Hooked::new(32 * MIB, |_| Ok(())), config);
    let mut client = pki.client(&server);
    client.request(READ, 0, 1, 0, 32 * MIB);
    client.receive(16);
    assert_eq!(server.stop().cut_off, 1);
}

#[test]
fn shutdown_finishes_what_is_in_flight_and_ends_tls() {
    let (pki, gate) = (Pki::new(), Gate::new());
    let server = with(&Hooked::gated(MIB, &gate, 0), pki.required());
    let (mut client, mut idle) = (pki.client(&server), pki.client(&server));
    client.request(READ, 0, 2, 0, MIB);
    gate.wait_entered(1);
    server.handle.shutdown();
    idle.assert_ended();
    gate.open();
    assert_eq!(client.reply(), (0, 2));
    client.receive(MIB);
    client.assert_ended();
    let outcome = server.join();
    assert_eq!((outcome.sessions, outcome.requests, outcome.cut_off), (2, 1, 0));
}

#[test]
fn who_has_ended_its_own_direction_still_gets_its_replies() {
    let pki = Pki::new();
    for version in VERSIONS {
        let server = with(&Hooked::new(MIB, |_| Ok(())), pki.required());
        let mut client = pki.client_of(&server, version);
        client.request(READ, 0, 1, 0, MIB);
        client.0.conn.send_close_notify();
        client.0.flush().unwrap();
        assert_eq!(client.reply(), (0, 1));
        client.receive(MIB);
        client.assert_ended();
    }
}

#[test]
fn a_client_that_renews_its_keys_goes_on() {
    let pki = Pki::new();
    let server = with(&Hooked::new(MIB, |_| Ok(())), pki.required());
    let mut client = pki.client(&server);
    for round in 0..100 {
        client.0.conn.refresh_traffic_keys().unwrap();
        client.write(round, round * 512, &[round as u8; 512]);
        assert_eq!(client.reply(), (0, round));
        assert_eq!(client.read(round * 512, 512), [round as u8; 512]);
    }
    assert_served(client);
}

#[test]
fn who_renews_its_keys_and_does_nothing_else_is_dropped() {
    let pki = Pki::new();
    let server = with(&Hooked::new(MIB, |_| Ok(())), pki.required());
    let (mut client, other) = (pki.client(&server), pki.client(&server));
    for _ in 0..1000 {
        client.0.conn.refresh_traffic_keys().unwrap();
        if client.0.flush().is_err() {
            break;
        }
    }
    assert!(client.0.read(&mut [0]).is_err(), "an alert, or the end of the connection");
    assert_served(other);
}

#[test]
fn a_request_that_was_cut_short_is_not_executed() {
    let (pki, disk) = (Pki::new(), Arc::new(MemoryDevice::new(MIB)));
    // One session at a time: the second one proves that the first has ended.
    let server =
        Running::with(&disk, &ExportInfo::default(), pki.required().with(|config| config.sessions = 1));
    let request = [&header(WRITE, 0, 1, 0, 4096)[..], &[9; 4096]].concat();
    // Between two records, and within one.
    for said in [1000, request.len()] {
        let mut client = pki.client(&server);
        client.0.conn.writer().write_all(&request[..said]).unwrap();
        let mut records = Vec::new();
        while client.0.conn.wants_write() {
            client.0.conn.write_tls(&mut records).unwrap();
        }
        let cut = if said < request.len() { records.len() } else { records.len() - 1 };
        client.0.sock.write_all(&records[..cut]).unwrap();
        drop(client);
        let mut client = pki.client(&server);
        assert_eq!(client.read(0, 4096), [0; 4096]);
        client.leave();
    }
}

#[test]
fn a_record_that_somebody_has_changed_ends_the_connection() {
    let (pki, disk) = (Pki::new(), Arc::new(MemoryDevice::new(MIB)));
    let server = Running::with(&disk, &ExportInfo::default(), pki.required());
    let (mut client, other) = (pki.client(&server), pki.client(&server));
    client.0.conn.writer().write_all(&header(ZERO, 0, 1, 0, 4096)).unwrap();
    let mut record = Vec::new();
    client.0.conn.write_tls(&mut record).unwrap();
    record[20] ^= 1;
    client.0.sock.write_all(&record).unwrap();
    let error = client.0.read(&mut [0]).unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    assert_served(other);
    assert_eq!(server.stop().requests, 1, "that of the other client");
}

#[test]
fn one_request_at_a_time_in_one_record_and_in_many() {
    let pki = Pki::new();
    let server = with(&Hooked::new(MIB, |_| Ok(())), pki.required());
    let mut client = pki.secured(&server, &TLS13);
    client.go_on();
    // Long enough for the session's own thread to do the work.
    for cookie in 0..40 {
        client.write(cookie, 512, &[cookie as u8; 512]);
        assert_eq!(client.reply(), (0, cookie));
    }
    // Then several in one record, and one in as many records as it has bytes.
    let requests: Vec<_> = (0..40).flat_map(|cookie| header(READ, 0, cookie, 512, 512)).collect();
    client.send(&[&requests]);
    for _ in 0..40 {
        assert_eq!(client.reply().0, 0);
        assert_eq!(client.receive(512), [39; 512]);
    }
    for byte in header(FLUSH, 0, 3, 0, 0) {
        client.send(&[&[byte]]);
    }
    assert_eq!(client.reply(), (0, 3));
    client.leave();
}
