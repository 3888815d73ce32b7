// SPDX-License-Identifier: MIT OR Apache-2.0
//! The effects of faults on both sides of a connection.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::{PATIENCE, assert_passes};
use fault_proxy::{Drip, Fault, Point, Proxy, Way};

/// Long enough to see that nothing comes.
const NOTHING: Duration = Duration::from_millis(100);

struct Ends {
    proxy: Proxy,
    listener: TcpListener,
}

impl Ends {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { proxy: Proxy::start(listener.local_addr().unwrap()).unwrap(), listener }
    }

    fn with(point: Point, fault: Fault) -> Self {
        let ends = Self::new();
        ends.proxy.fault(point, fault);
        ends
    }

    /// The client's end and the server's.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.proxy.addr()).unwrap();
        let server = self.listener.accept().unwrap().0;
        for end in [&client, &server] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        (client, server)
    }
}

/// Returns the bytes that arrive until the end, and the error that ends them, if any.
fn read_to_end(mut end: &TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut data = Vec::new();
    let error = end.read_to_end(&mut data).err().map(|error| error.kind());
    (data, error)
}

#[track_caller]
fn assert_silent(end: &TcpStream) {
    end.set_read_timeout(Some(NOTHING)).unwrap();
    assert_eq!(read_to_end(end), (Vec::new(), Some(ErrorKind::WouldBlock)));
}

#[test]
fn without_a_fault_all_is_carried() {
    let ends = Ends::new();
    let (client, server) = ends.connect();
    assert_passes(&client, &server, b"question");
    assert_passes(&server, &client, b"answer");
    assert_eq!((ends.proxy.carried(), ends.proxy.faults()), (8, 0));
    drop(client);
    assert_eq!(read_to_end(&server), (Vec::new(), None));
    assert!(ends.proxy.is_deserted(PATIENCE));
}

#[test]
fn a_killed_connection_is_closed_on_both_sides_at_the_byte_that_was_set() {
    for way in [Way::ToServer, Way::ToClient] {
        let ends = Ends::with(Point::Byte(way, 3), Fault::Kill);
        let (client, server) = ends.connect();
        let (mut from, to) = if way == Way::ToServer { (&client, &server) } else { (&server, &client) };
        from.write_all(b"abc").unwrap();
        assert_eq!(read_to_end(to), (b"abc".to_vec(), None));
        assert_eq!(read_to_end(from), (Vec::new(), None));
        assert_eq!(ends.proxy.faults(), 1);
        // It was for once.
        let (client, server) = ends.connect();
        assert_passes(&client, &server, b"abcdef");
    }
}

#[test]
fn a_connection_that_is_reset_is_so_on_both_sides() {
    for point in [Point::Connect, Point::Byte(Way::ToServer, 1), Point::Byte(Way::ToClient, 1)] {
        let ends = Ends::with(point, Fault::Reset);
        let (mut client, mut server) = ends.connect();
        let written = [client.write(b"a"), server.write(b"a")];
        for (end, written) in [&client, &server].into_iter().zip(written) {
            // It is told once: to whoever asks first.
            let error = written.err().map(|error| error.kind()).or_else(|| read_to_end(end).1);
            assert_eq!(error, Some(ErrorKind::ConnectionReset), "{point:?}");
        }
    }
}

#[test]
fn half_a_connection_goes_on() {
    let ends = Ends::with(Point::Byte(Way::ToServer, 1), Fault::HalfClose(Way::ToServer));
    let (mut client, server) = ends.connect();
    client.write_all(b"ab").unwrap();
    assert_eq!(read_to_end(&server), (b"a".to_vec(), None));
    assert_passes(&server, &client, b"answer");

    let ends = Ends::with(Point::Byte(Way::ToServer, 1), Fault::HalfClose(Way::ToClient));
    let (client, server) = ends.connect();
    assert_passes(&client, &server, b"ab");
    assert_eq!(read_to_end(&client), (Vec::new(), None));
    assert_passes(&client, &server, b"cd");
}

#[test]
fn a_black_hole_tells_nobody() {
    for point in [Point::Connect, Point::Byte(Way::ToServer, 1)] {
        let ends = Ends::with(point, Fault::BlackHole);
        let (mut client, mut server) = ends.connect();
        if point != Point::Connect {
            assert_passes(&client, &server, b"a");
        }
        assert!(ends.proxy.has_met(1, PATIENCE));
        client.write_all(b"question").unwrap();
        server.write_all(b"answer").unwrap();
        assert_silent(&server);
        assert_silent(&client);
        drop(client);
        assert_silent(&server);
    }
}

#[test]
fn what_is_late_or_drips_comes_whole() {
    let pause = Duration::from_millis(20);
    let drip = Drip::new(1, pause, 4);
    for fault in [Fault::Delay(4 * pause), Fault::Drip(drip)] {
        for point in [Point::Connect, Point::Byte(Way::ToServer, 2)] {
            let ends = Ends::with(point, fault);
            let start = Instant::now();
            let (client, server) = ends.connect();
            assert_passes(&client, &server, b"abcdefgh");
            assert!(start.elapsed() >= 4 * pause);
            assert_passes(&server, &client, b"answer");
            assert_eq!(ends.proxy.faults(), 1);
        }
    }
}

#[test]
fn what_happens_again_does_so_on_any_connection() {
    let ends = Ends::new();
    ends.proxy.fault_again(Point::Body(Way::ToServer, 2), Fault::Kill);
    for _ in 0..3 {
        let (mut client, server) = ends.connect();
        client.write_all(b"PUT /\r\n\r\nbo").unwrap();
        assert_eq!(read_to_end(&server), (b"PUT /\r\n\r\nbo".to_vec(), None));
    }
    assert_eq!(ends.proxy.faults(), 3);
    ends.proxy.no_fault();
    let (client, server) = ends.connect();
    assert_passes(&client, &server, b"PUT /\r\n\r\nbody");
}

#[test]
fn new_connections_can_be_led_elsewhere_or_nowhere() {
    let (ends, elsewhere) = (Ends::new(), Ends::new());
    let (client, server) = ends.connect();
    ends.proxy.lead_to(elsewhere.listener.local_addr().unwrap());
    let moved = TcpStream::connect(ends.proxy.addr()).unwrap();
    assert_passes(&moved, &elsewhere.listener.accept().unwrap().0, b"moved");
    assert_passes(&client, &server, b"stays");
    // Nobody listens there.
    ends.proxy.lead_to(([127, 0, 0, 1], 1).into());
    let refused = TcpStream::connect(ends.proxy.addr()).unwrap();
    assert_eq!(read_to_end(&refused), (Vec::new(), None));
}

#[test]
fn its_end_closes_what_is_open_also_what_is_silent() {
    let ends = Ends::with(Point::Connect, Fault::BlackHole);
    let (silent, _server) = ends.connect();
    let (open, _other) = ends.connect();
    drop(ends);
    for end in [silent, open] {
        assert_eq!(read_to_end(&end), (Vec::new(), None));
    }
}

#[test]
fn a_proxy_that_has_lost_the_server_answers_itself() {
    let ends = Ends::with(Point::Byte(Way::ToServer, 4), Fault::Answer(502));
    let (client, server) = ends.connect();
    (&client).write_all(b"request").unwrap();
    assert_eq!(read_to_end(&server), (b"requ".to_vec(), None));
    let (answer, error) = read_to_end(&client);
    assert!(answer.starts_with(b"HTTP/1.1 502 "), "{answer:?}");
    assert!(answer.ends_with(b"\r\n\r\n") && error.is_none(), "{answer:?} {error:?}");
    drop((client, server));
    assert!(ends.proxy.is_deserted(PATIENCE));
}
