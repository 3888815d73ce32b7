// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many requests at a time: order, memory, and ends that come while requests are in flight.

mod common;

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use block_device_traits::MemoryDevice;
use common::*;
use nbd_frontend::{Config, ExportInfo};

fn with(device: &Arc<Hooked>, config: Config) -> Running {
    Running::with(device, &ExportInfo::default(), config)
}

#[test]
fn a_slow_request_does_not_hold_up_others() {
    let gate = Gate::new();
    let server = Running::start(&Hooked::gated(MIB, &gate, 0));
    let mut client = server.client();
    client.request(READ, 0, 1, 0, 512);
    gate.wait_entered(1);
    for cookie in 2..50 {
        client.request(READ, 0, cookie, 4096, 512);
        assert_eq!(client.reply(), (0, cookie));
        client.receive(512);
    }
    gate.open();
    assert_eq!(client.reply(), (0, 1));
    client.receive(512);
    client.disconnect();
}

#[test]
fn cookies_need_not_be_unique() {
    let gate = Gate::new();
    let server = Running::start(&Hooked::gated(MIB, &gate, 0));
    let mut client = server.client();
    for _ in 0..8 {
        client.request(READ, 0, u64::MAX, 0, 512);
    }
    gate.wait_entered(8);
    gate.open();
    for _ in 0..8 {
        assert_eq!(client.reply(), (0, u64::MAX));
        client.receive(512);
    }
}

#[test]
fn no_more_requests_than_configured_are_in_flight() {
    let gate = Gate::new();
    let (busy, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (door, peak) = (Arc::clone(&gate), Arc::clone(&most));
    let device = Hooked::new(MIB, move |_| {
        peak.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        door.pass();
        busy.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    });
    let server = with(&device, Config::default().with(|config| config.requests = 3));
    let mut client = server.client();
    for cookie in 0..20 {
        client.request(READ, 0, cookie, 0, 512);
    }
    gate.wait_entered(3);
    gate.open();
    for _ in 0..20 {
        assert_eq!(client.reply().0, 0);
        client.receive(512);
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[test]
fn payloads_in_flight_are_bounded() {
    const PAYLOAD: usize = 4 * MIB;
    const BUDGET: usize = 16 * MIB;
    let gate = Gate::new();
    let (held, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (door, peak) = (Arc::clone(&gate), Arc::clone(&most));
    let device = Hooked::new(PAYLOAD, move |(_, _, length, _)| {
        let length = length as usize;
        peak.fetch_max(held.fetch_add(length, Ordering::SeqCst) + length, Ordering::SeqCst);
        door.pass();
        held.fetch_sub(length, Ordering::SeqCst);
        Ok(())
    });
    let server = with(
        &device,
        Config::default().with(|config| {
            config.requests = 64;
            config.memory = BUDGET;
        }),
    );
    let mut client = server.client();
    let data = [header(WRITE, 0, 7, 0, PAYLOAD), vec![5; PAYLOAD]].concat().repeat(64);

    // While nothing is answered, the server takes in what the budget allows, and the rest waits in
    // the socket.
    client.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    let stuck = loop {
        match client.0.write(&data[sent..]) {
            Ok(taken) => sent += taken,
            Err(e) => break e,
        }
    };
    assert_eq!(stuck.kind(), ErrorKind::WouldBlock);
    gate.wait_entered(BUDGET / PAYLOAD);
    assert!((BUDGET..BUDGET + 2 * MIB).contains(&sent), "{sent}");

    gate.open();
    client.0.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut reader = Client::new(client.0.try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| client.0.write_all(&data[sent..]).unwrap());
        for _ in 0..64 {
            assert_eq!(reader.reply(), (0, 7));
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), BUDGET);
}

#[test]
fn a_durable_write_of_64_mib_is_let_in_alone_where_the_session_has_less_memory() {
    const LONG: usize = 64 * MIB;
    let gate = Gate::new();
    let (door, busy, company) = (Arc::clone(&gate), AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let others = Arc::clone(&company);
    let device = Hooked::new(LONG + MIB, move |(_, offset, length, _)| {
        let before = busy.fetch_add(1, Ordering::SeqCst);
        if offset == 0 {
            door.pass();
        }
        let after = busy.fetch_sub(1, Ordering::SeqCst) - 1;
        if length == LONG as u64 {
            others.fetch_add(before + after, Ordering::SeqCst);
        }
        Ok(())
    });
    let server = with(&device, Config::default().with(|config| config.memory = MIB));
    let mut client = server.client();
    let mut reader = Client::new(client.0.try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            (0..4).for_each(|cookie| client.request(READ, 0, cookie, 0, 512));
            client.request(WRITE, 1, 4, MIB as u64, LONG);
            client.send(&[&vec![9; LONG]]);
            (5..9).for_each(|cookie| client.request(READ, 0, cookie, MIB as u64, 512));
        });
        gate.wait_entered(4);
        gate.open();
        let mut cookies: Vec<_> = (0..9)
            .map(|_| {
                let (error, cookie) = reader.reply();
                assert_eq!(error, 0);
                let read = if cookie == 4 { vec![] } else { reader.receive(512) };
                assert!(read.iter().all(|byte| *byte == if cookie > 4 { 9 } else { 0 }));
                cookie
            })
            .collect();
        cookies.sort_unstable();
        assert!(cookies.into_iter().eq(0..9));
    });
    assert_eq!(company.load(Ordering::SeqCst), 0);
    assert!(device.disk.contents()[MIB..].iter().all(|byte| *byte == 9));
}

#[test]
fn who_does_not_read_replies_harms_nobody_else() {
    let server = Running::start(&Arc::new(MemoryDevice::new(MIB)));
    let (mut lazy, mut other) = (server.client(), server.client());
    for cookie in 0..200 {
        lazy.request(READ, 0, cookie, 0, MIB);
    }
    for _ in 0..20 {
        other.write(1, 0, &vec![0; MIB]);
        assert_eq!(other.reply(), (0, 1));
    }
    other.disconnect();
    let mut cookies: Vec<_> = (0..200)
        .map(|_| {
            let (error, cookie) = lazy.reply();
            assert_eq!(error, 0);
            lazy.receive(MIB);
            cookie
        })
        .collect();
    cookies.sort_unstable();
    assert!(cookies.into_iter().eq(0..200));
    // And neither does one that leaves without reading.
    for cookie in 0..200 {
        lazy.request(READ, 0, cookie, 0, MIB);
    }
    drop(lazy);
    assert_eq!(server.stop().cut_off, 0);
}

#[test]
fn disc_is_obeyed_when_requests_in_flight_are_answered() {
    let gate = Gate::new();
    let device = Hooked::gated(MIB, &gate, 0);
    let server = Running::start(&device);
    let mut client = server.client();
    for cookie in 0..4 {
        client.write(cookie, 0, &[8; 512]);
    }
    client.request(DISC, 0, 9, 0, 0);
    gate.wait_entered(4);
    gate.open();
    let mut cookies: Vec<_> = (0..4).map(|_| client.reply().1).collect();
    cookies.sort_unstable();
    assert_eq!(cookies, [0, 1, 2, 3]);
    client.assert_closed();
    assert_eq!(device.disk.contents()[..512], [8; 512]);
}

#[test]
fn a_client_that_has_said_everything_still_gets_its_replies() {
    let server = Running::start(&Arc::new(MemoryDevice::new(MIB)));
    let mut client = server.client();
    client.request(READ, 0, 1, 0, MIB);
    client.half_close();
    assert_eq!(client.reply(), (0, 1));
    client.receive(MIB);
    client.assert_closed();
}

#[test]
fn a_write_that_was_cut_short_is_not_executed() {
    let disk = Arc::new(MemoryDevice::new(MIB));
    // One session at a time: the second one proves that the first has ended.
    let server =
        Running::with(&disk, &ExportInfo::default(), Config::default().with(|config| config.sessions = 1));
    let mut client = server.client();
    client.request(WRITE, 0, 1, 0, 4096);
    client.send(&[&[9; 1000]]);
    drop(client);
    let mut client = server.client();
    assert_eq!(client.read(0, 4096), [0; 4096]);
    client.send(&[&header(READ, 0, 1, 0, 4096)[..11]]);
    drop(client);
    server.client().disconnect();
}

#[test]
fn a_client_that_vanishes_leaves_its_requests_to_be_finished() {
    let gate = Gate::new();
    let device = Hooked::gated(MIB, &gate, 0);
    let server = with(&device, Config::default().with(|config| config.sessions = 1));
    let mut client = server.client();
    for cookie in 0..4 {
        client.write(cookie, 0, &[8; 512]);
        client.request(READ, 0, cookie, 0, 512);
    }
    gate.wait_entered(8);
    drop(client);
    gate.open();
    assert_eq!(server.client().read(4096, 512), [0; 512]);
    assert_eq!(device.disk.contents()[..512], [8; 512]);
}

#[test]
fn shutdown_finishes_what_is_in_flight() {
    let gate = Gate::new();
    let device = Hooked::gated(MIB, &gate, 0);
    let server = Running::start(&device);
    let (mut client, mut idle, mut silent) = (server.client(), server.client(), server.connect());
    silent.receive(18);
    client.write(1, 0, &[6; 512]);
    client.request(READ, 0, 2, 0, 512);
    gate.wait_entered(2);
    server.handle.shutdown();
    // These are closed while the other waits for its replies.
    idle.assert_closed();
    silent.assert_closed();
    gate.open();
    let mut cookies: Vec<_> = (0..2)
        .map(|_| {
            let (error, cookie) = client.reply();
            assert_eq!(error, 0);
            if cookie == 2 {
                client.receive(512);
            }
            cookie
        })
        .collect();
    cookies.sort_unstable();
    assert_eq!(cookies, [1, 2]);
    client.assert_closed();
    let outcome = server.join();
    assert_eq!((outcome.sessions, outcome.requests, outcome.cut_off), (3, 2, 0));
    assert_eq!(device.disk.contents()[..512], [6; 512]);
}

#[test]
fn shutdown_cuts_off_who_takes_longer_than_the_grace_period() {
    let gate = Gate::new();
    let device = Hooked::gated(MIB, &gate, 0);
    let server = with(&device, Config::default().with(|config| config.grace = Duration::from_millis(10)));
    let mut client = server.client();
    client.request(READ, 0, 1, 0, 512);
    gate.wait_entered(1);
    server.handle.shutdown();
    client.assert_closed();
    gate.open();
    assert_eq!(server.join().cut_off, 1);
}

#[test]
fn shutdown_does_not_wait_for_a_client_that_does_not_read() {
    let config = Config::default().with(|config| config.grace = Duration::from_millis(10));
    let server = with(&Hooked::new(32 * MIB, |_| Ok(())), config);
    let mut client = server.client();
    client.request(READ, 0, 1, 0, 32 * MIB);
    // The first bytes show that the reply is on its way. It is more than fits into the socket: its
    // buffer has a few MiB.
    client.receive(16);
    assert_eq!(server.stop().cut_off, 1);
}
