// SPDX-License-Identifier: MIT OR Apache-2.0
//! More clients than there are places: who is served, who gives way, who waits, and who is refused.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use block_device_traits::MemoryDevice;
use common::*;
use nbd_frontend::{Config, ExportInfo, bind_tcp};
use socket2::{Domain, Socket, Type};

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A server on a unix socket and on TCP.
struct Both {
    server: Running,
    address: SocketAddr,
}

impl Both {
    fn start(device: &Arc<Hooked>, config: Config) -> Self {
        let listeners = bind_tcp("127.0.0.1", 0).unwrap();
        let address = listeners[0].tcp_addr().unwrap();
        let server = Running::listening(threaded(device), &ExportInfo::default(), config, listeners);
        Self { server, address }
    }

    fn idle(config: Config) -> Self {
        Self::start(&Hooked::new(4096, |_| Ok(())), config)
    }

    /// A client that has not said anything yet.
    fn connect_from(&self, address: Ipv4Addr) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        Client::new(socket)
    }

    /// A client in the transmission phase.
    fn client_from(&self, address: Ipv4Addr) -> Client {
        let mut client = self.connect_from(address);
        client.go();
        client
    }
}

/// Says nothing, and has a place.
fn silent(mut client: Client) -> Client {
    client.receive(18);
    client
}

fn assert_served(mut client: Client) {
    assert_eq!(client.read(0, 512), [0; 512]);
    client.disconnect();
}

#[test]
fn who_says_nothing_gives_way_to_the_next_client_and_the_longest_first() {
    let config = Config::default().with(|config| config.sessions = 4);
    let server = Running::with(&Arc::new(MemoryDevice::new(4096)), &ExportInfo::default(), config);
    let mut silent: Vec<_> = (0..4).map(|_| silent(server.connect())).collect();
    let client = server.client();
    silent.remove(0).assert_closed();
    assert_eq!(server.handle.sessions(), 4);
    // Clients that were not in the way may still go on.
    for mut late in silent {
        late.send(&[&3u32.to_be_bytes()]);
        late.option(7, &[0; 6]);
        assert_eq!(late.option_reply(7).1.len(), 12);
        assert_eq!(late.option_reply(7).0, 1);
        assert_served(late);
    }
    assert_served(client);
    assert_eq!(server.stop().sessions, 5);
}

#[test]
fn as_many_silent_clients_as_the_server_takes_keep_nobody_out() {
    for address in [ONE, OTHER] {
        let both = Both::idle(Config::default());
        let _silent: Vec<_> = (0..64).map(|_| silent(both.connect_from(ONE))).collect();
        assert_served(both.client_from(address));
        assert_served(both.server.client());
        assert_eq!(both.server.stop().refused, 0);
    }
}

#[test]
fn one_address_leaves_places_for_others_and_is_refused_beyond_its_share() {
    let both = Both::idle(Config::default().with(|config| {
        config.sessions = 4;
        config.sessions_per_address = 2;
    }));
    let (first, second) = (both.client_from(ONE), both.client_from(ONE));
    both.connect_from(ONE).assert_closed();
    let mut idle = both.client_from(OTHER);
    assert_served(both.server.client());
    // If one of its own still negotiates, that gives way.
    let mut silent = silent(both.connect_from(OTHER));
    let third = both.client_from(OTHER);
    silent.assert_closed();
    both.connect_from(OTHER).assert_closed();
    assert_eq!(idle.read(0, 512), [0; 512]);
    // A place that its address has given back is taken again.
    assert_served(first);
    idle.disconnect();
    [second, third].into_iter().for_each(assert_served);
    assert_served(both.client_from(ONE));
    assert_eq!(both.server.stop().refused, 2);
}

#[test]
fn who_comes_back_before_its_old_place_is_free_is_not_refused() {
    let gate = Gate::new();
    let device = Hooked::gated(MIB, &gate, 4096);
    let both = Both::start(
        &device,
        Config::default().with(|config| {
            config.sessions = 2;
            config.sessions_per_address = 1;
        }),
    );
    for _ in 0..200 {
        drop(both.client_from(ONE));
    }
    // While its last request keeps the place, others pass.
    let mut client = both.client_from(ONE);
    client.request(READ, 0, 1, 4096, 512);
    gate.wait_entered(1);
    drop(client);
    let mut back = both.connect_from(ONE);
    both.connect_from(ONE).assert_closed();
    assert_served(both.client_from(OTHER));
    gate.open();
    back.go();
    assert_served(back);
    assert_eq!(both.server.stop().refused, 1);
}

#[test]
fn neither_who_is_idle_nor_who_is_at_work_is_ever_dropped() {
    let gate = Gate::new();
    let device = Hooked::gated(MIB, &gate, 4096);
    let both = Both::start(
        &device,
        Config::default().with(|config| {
            config.sessions = 4;
            config.sessions_per_address = 3;
        }),
    );
    let (mut idle, mut idle_elsewhere) = (both.server.client(), both.client_from(ONE));
    let mut at_work = both.client_from(OTHER);
    at_work.write(1, 4096, &[5; 512]);
    gate.wait_entered(1);
    // There is one place left, which each of these takes from the one before.
    let flood: Vec<_> = (0..60)
        .map(|n| silent(if n % 2 == 0 { both.server.connect() } else { both.connect_from(OTHER) }))
        .collect();
    let mut last = both.client_from(OTHER);
    flood.into_iter().for_each(|mut client| client.assert_closed());
    assert_eq!(both.server.handle.sessions(), 4);
    // Now all have negotiated. Further clients wait.
    let mut waiting = both.server.connect();
    waiting.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(waiting.0.read(&mut [0]).is_err());
    waiting.0.set_read_timeout(Some(PATIENCE)).unwrap();
    for client in [&mut idle, &mut idle_elsewhere, &mut last] {
        assert_eq!(client.read(0, 512), [0; 512]);
    }
    gate.open();
    assert_eq!(at_work.reply(), (0, 1));
    at_work.disconnect();
    waiting.go();
    [idle, idle_elsewhere, last, waiting].into_iter().for_each(assert_served);
    assert_eq!(both.server.stop().errors, 0);
}

#[test]
fn who_is_told_that_it_has_negotiated_is_served() {
    let config = Config::default().with(|config| config.sessions = 1);
    let server = Running::with(&Arc::new(MemoryDevice::new(4096)), &ExportInfo::default(), config);
    for _ in 0..200 {
        // The newcomer comes while the server decides about the first client, which is lucky or
        // not.
        let mut first = silent(server.connect());
        first.send(&[&3u32.to_be_bytes(), b"IHAVEOPT", &7u32.to_be_bytes(), &6u32.to_be_bytes(), &[0; 6]]);
        let mut second = server.connect();
        match first.0.read(&mut [0]) {
            Ok(1) => {
                first.receive(20 + 12 + 20 - 1);
                assert_served(first);
            }
            gone => assert!(matches!(gone, Ok(0) | Err(_)), "{gone:?}"),
        }
        second.go();
        assert_served(second);
    }
}

#[test]
fn who_waits_for_a_place_is_let_go_at_the_end() {
    let config = Config::default().with(|config| config.sessions = 1);
    let server = Running::with(&Arc::new(MemoryDevice::new(4096)), &ExportInfo::default(), config);
    let (mut first, mut waiting) = (server.client(), server.connect());
    assert_eq!(server.stop().sessions, 1);
    first.assert_closed();
    waiting.assert_closed();
}
