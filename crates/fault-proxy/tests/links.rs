// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes come out of a link unchanged, and not too early.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, assert_passes};
use fault_proxy::{Link, Relay};

/// Long enough to see that nothing goes on.
const NOTHING: Duration = Duration::from_millis(100);

const DELAY: Duration = Duration::from_millis(20);

const LOCAL: Link = Link::new(Duration::ZERO, None);
const LONG: Link = Link::new(DELAY, None);

struct Ends {
    relay: Relay,
    listener: TcpListener,
}

impl Ends {
    fn new(link: Link) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { relay: Relay::start(listener.local_addr().unwrap(), link).unwrap(), listener }
    }

    /// The client's end and the server's.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.relay.addr()).unwrap();
        let server = self.listener.accept().unwrap().0;
        for end in [&client, &server] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
            end.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        (client, server)
    }
}

fn read_to_end(mut end: &TcpStream) -> Vec<u8> {
    let mut data = Vec::new();
    end.read_to_end(&mut data).unwrap();
    data
}

/// Bytes of which no two neighbours in a file are the same.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

#[test]
fn each_way_takes_the_delay_and_the_first_the_handshake_too() {
    let ends = Ends::new(LONG);
    let start = Instant::now();
    let (client, server) = ends.connect();
    assert_passes(&client, &server, b"question");
    assert!(start.elapsed() >= 3 * DELAY);
    assert_passes(&server, &client, b"answer");
    assert!(start.elapsed() >= 4 * DELAY);
    let start = Instant::now();
    assert_passes(&client, &server, b"question");
    assert_passes(&server, &client, b"answer");
    assert!(start.elapsed() >= 2 * DELAY);
}

#[test]
fn all_bytes_arrive_in_order_in_both_directions_at_once() {
    let narrow = Link::new(DELAY, NonZeroU64::new(64 << 20));
    let data = pattern(5_000_000);
    for link in [LOCAL, LONG, narrow] {
        let ends = Ends::new(link);
        let (client, server) = ends.connect();
        thread::scope(|scope| {
            for mut end in [&client, &server] {
                let data = &data;
                scope.spawn(move || {
                    end.write_all(data).unwrap();
                    end.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || assert!(read_to_end(end) == *data, "{link:?}"));
            }
        });
    }
}

#[test]
fn nothing_stays_behind_whenever_it_comes() {
    let ends = Ends::new(Link::new(Duration::from_micros(30), None));
    let (mut client, server) = ends.connect();
    for pause in 0..4000 {
        client.write_all(b"a").unwrap();
        // The other one comes while this one is on its way, or has just arrived.
        (0..pause % 500).for_each(|_| std::hint::spin_loop());
        client.write_all(b"b").unwrap();
        (&server).read_exact(&mut [0; 2]).unwrap();
    }
}

#[test]
fn half_a_connection_goes_on() {
    for link in [LOCAL, LONG] {
        let ends = Ends::new(link);
        let (mut client, server) = ends.connect();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&server), b"question");
        assert_passes(&server, &client, b"first answer");
        assert_passes(&server, &client, b"second answer");
        drop(server);
        assert_eq!(read_to_end(&client), b"");
    }
}

#[test]
fn what_was_sent_before_the_end_still_arrives() {
    let ends = Ends::new(LONG);
    let (mut client, server) = ends.connect();
    let data = pattern(1_000_000);
    client.write_all(&data).unwrap();
    drop(client);
    assert!(read_to_end(&server) == data);
}

#[test]
fn a_rate_is_that_of_all_connections_together() {
    const RATE: usize = 16 << 20;
    let ends = Ends::new(Link::new(Duration::ZERO, NonZeroU64::new(RATE as u64)));
    let pairs = [ends.connect(), ends.connect()];
    let data = pattern(RATE / 10);
    let start = Instant::now();
    thread::scope(|scope| {
        for (client, server) in &pairs {
            scope.spawn(|| assert_passes(client, server, &data));
            // The other direction has a rate of its own.
            scope.spawn(|| assert_passes(server, client, &data));
        }
    });
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_sender_whose_receiver_has_enough_waits() {
    let ends = Ends::new(LOCAL);
    let (mut client, mut server) = ends.connect();
    client.set_write_timeout(Some(NOTHING)).unwrap();
    let piece = pattern(1 << 20);
    let mut sent = 0;
    while let Ok(length) = client.write(&piece) {
        sent += length;
        // 128 MiB in the relay, and what the sockets' buffers take.
        assert!(sent < 512 << 20);
    }
    drop(client);
    let mut received = 0;
    let mut piece = vec![0; 1 << 20];
    loop {
        match server.read(&mut piece).unwrap() {
            0 => break,
            length => received += length,
        }
    }
    assert_eq!(received, sent);
}

#[test]
fn a_client_without_a_server_finds_its_connection_closed() {
    let ends = Ends::new(LONG);
    let addr = ends.relay.addr();
    drop(ends.listener);
    let client = TcpStream::connect(addr).unwrap();
    assert_eq!(read_to_end(&client), b"");
    // The next one, too.
    assert_eq!(read_to_end(&TcpStream::connect(addr).unwrap()), b"");
}

#[test]
fn what_was_sent_before_a_reset_still_arrives() {
    for link in [LOCAL, LONG] {
        let ends = Ends::new(link);
        let (mut client, mut server) = ends.connect();
        client.write_all(b"what nobody reads").unwrap();
        assert_eq!(server.peek(&mut [0]).unwrap(), 1);
        server.write_all(b"answer").unwrap();
        // With something unread, it is reset.
        drop(server);
        assert_eq!(read_to_end(&client), b"answer");
    }
}

#[test]
fn who_sends_to_nobody_finds_the_connection_closed() {
    let ends = Ends::new(LONG);
    let (mut client, server) = ends.connect();
    drop(server);
    let deadline = Instant::now() + PATIENCE;
    // This takes some turns: the first bytes are answered by a reset.
    while client.write_all(b"what nobody reads").is_ok() {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
    let (client, server) = ends.connect();
    assert_passes(&client, &server, b"others go on");
}

#[test]
fn its_end_closes_what_is_open_also_what_is_on_its_way() {
    let ends = Ends::new(Link::new(PATIENCE, None));
    let (mut client, server) = ends.connect();
    client.write_all(b"too late").unwrap();
    drop(ends.relay);
    assert_eq!(read_to_end(&server), b"");
    let mut answer = Vec::new();
    // Closed, or reset where it hadn't read all.
    let _ = client.read_to_end(&mut answer);
    assert_eq!(answer, b"");
}
