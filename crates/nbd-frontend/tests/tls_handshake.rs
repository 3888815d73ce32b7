// SPDX-License-Identifier: MIT OR Apache-2.0
//! From STARTTLS to the choice of an export, and who does not get that far.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use block_device_traits::MemoryDevice;
use common::tls::{Pki, STARTTLS, VERSIONS, start_tls};
use common::*;
use nbd_frontend::{Config, ExportInfo, Server, Tls};
use rustls::version::TLS13;

const ACK: u32 = 1;
const UNSUP: u32 = 0x8000_0001;
const POLICY: u32 = 0x8000_0002;
const INVALID: u32 = 0x8000_0003;
const TLS_REQD: u32 = 0x8000_0005;

const EXPORT_NAME: u32 = 1;
const ABORT: u32 = 2;
const LIST: u32 = 3;
const INFO: u32 = 6;
const GO: u32 = 7;
const STRUCTURED_REPLY: u32 = 8;
const SET_META_CONTEXT: u32 = 10;

fn with(config: Config) -> Running {
    Running::with(&Arc::new(MemoryDevice::new(4096)), &ExportInfo::default(), config)
}

fn assert_plain_is_served(server: &Running) {
    let mut client = server.client();
    assert_eq!(client.read(0, 512), [0; 512]);
    client.disconnect();
}

fn assert_served(pki: &Pki, server: &Running) {
    let mut client = pki.client(server);
    assert_eq!(client.read(0, 512), [0; 512]);
    client.leave();
}

/// Reads what still comes.
fn rest(client: &mut Client) -> Vec<u8> {
    let mut rest = Vec::new();
    match client.0.read_to_end(&mut rest) {
        Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("expected the end of the connection: {e}"),
        _ => rest,
    }
}

/// The beginning of a handshake.
fn client_hello(pki: &Pki) -> Vec<u8> {
    let mut hello = Vec::new();
    pki.connection(&TLS13).write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn without_tls_starttls_is_refused_and_the_negotiation_goes_on() {
    for (tls, refusal) in [(Tls::Unsupported, UNSUP), (Tls::Off, POLICY)] {
        let server = with(Config::default().with(|config| config.tls = tls));
        let mut client = server.connect();
        client.greet(3);
        client.option(STARTTLS, b"");
        assert_eq!(client.option_reply(STARTTLS).0, refusal);
        client.go_on();
        assert_eq!(client.read(0, 512), [0; 512]);
        client.disconnect();
    }
}

#[test]
fn where_tls_is_offered_the_client_decides() {
    let pki = Pki::new();
    let server = with(pki.offered());
    assert_plain_is_served(&server);
    assert_served(&pki, &server);
}

#[test]
fn where_tls_is_required_nothing_else_is_answered_before() {
    let pki = Pki::new();
    let server = with(pki.required());
    let mut client = server.connect();
    client.greet(3);
    for option in [LIST, INFO, GO, STRUCTURED_REPLY, SET_META_CONTEXT, 0x0765_4321] {
        client.option(option, &[0; 6]);
        assert_eq!(client.option_reply(option).0, TLS_REQD, "{option}");
    }
    client.option(STARTTLS, b"1");
    assert_eq!(client.option_reply(STARTTLS).0, INVALID);
    client.option(ABORT, b"");
    assert_eq!(client.option_reply(ABORT).0, ACK);
    client.assert_closed();
    // These can't be told why.
    let mut client = server.connect();
    client.greet(3);
    client.option(EXPORT_NAME, b"");
    client.assert_closed();
    let mut client = server.connect();
    client.greet(0);
    client.assert_closed();
    assert_served(&pki, &server);
}

#[test]
fn what_was_said_before_tls_is_forgotten_and_tls_starts_once() {
    let pki = Pki::new();
    let server = with(pki.offered());
    let mut client = server.connect();
    client.greet(3);
    client.option(STRUCTURED_REPLY, b"");
    assert_eq!(client.option_reply(STRUCTURED_REPLY).0, ACK);
    client.option(STARTTLS, b"");
    assert_eq!(client.option_reply(STARTTLS).0, ACK);
    let mut client = Client(rustls::StreamOwned::new(pki.connection(&TLS13), client.0));
    client.option(STARTTLS, b"");
    assert_eq!(client.option_reply(STARTTLS).0, INVALID);
    client.go_on();
    // A simple reply.
    assert_eq!(client.read(0, 512), [0; 512]);
    client.leave();
}

#[test]
fn each_of_several_exports_is_there_through_tls_alone() {
    let pki = Pki::new();
    let disk = |byte| threaded(&Arc::new(MemoryDevice::from_bytes(vec![byte; 512])));
    let named = |name: &str| ExportInfo::new(name);
    let mut server = Server::new(disk(1), &named("a"), pki.required()).unwrap();
    server.add_export(disk(2), &named("b")).unwrap();
    let server = Running::serving(server);
    let mut plain = server.connect();
    plain.greet(3);
    assert_eq!(plain.choose(b"b"), TLS_REQD);
    for (name, byte) in [("b", 2), ("a", 1), ("", 1)] {
        let mut client = pki.secured(&server, &TLS13);
        client.option(LIST, b"");
        assert_eq!(client.option_reply(LIST), (2, b"\0\0\0\x01a".to_vec()));
        assert_eq!(client.option_reply(LIST), (2, b"\0\0\0\x01b".to_vec()));
        assert_eq!(client.option_reply(LIST).0, ACK);
        assert_eq!(client.choose(name.as_bytes()), ACK);
        assert_eq!(client.read(0, 512), [byte; 512]);
        client.leave();
    }
}

#[test]
fn options_longer_than_a_record_are_read_and_refused() {
    let pki = Pki::new();
    for version in VERSIONS {
        let server = with(pki.required());
        let mut client = pki.secured(&server, version);
        for length in [40_000, 200_000, 2_000_000] {
            client.option(INFO, &vec![0xff; length]);
            assert_ne!(client.option_reply(INFO).0, ACK);
        }
        client.option(ABORT, b"");
        assert_eq!(client.option_reply(ABORT).0, ACK);
        client.assert_ended();
    }
}

#[test]
fn what_is_sent_in_the_clear_behind_starttls_is_never_taken_for_an_option() {
    let pki = Pki::new();
    let server = with(pki.offered());
    let mut client = server.connect();
    client.greet(3);
    let go = [b"IHAVEOPT".as_slice(), &[0, 0, 0, 7, 0, 0, 0, 6], &[0; 6]].concat();
    client.send(&[b"IHAVEOPT", &[0, 0, 0, 5, 0, 0, 0, 0], &go]);
    assert_eq!(client.option_reply(STARTTLS).0, ACK);
    assert_alert(&rest(&mut client));
    assert_served(&pki, &server);
}

/// At most the alert of a server that has met something else than TLS.
fn assert_alert(said: &[u8]) {
    const ALERT: u8 = 21;
    assert!(said.len() == 7 && said[0] == ALERT || said.is_empty(), "{said:?}");
}

#[test]
fn garbage_in_place_of_a_handshake_ends_the_connection() {
    let pki = Pki::new();
    let server = with(pki.required());
    let mut other = pki.client(&server);
    let mut broken = client_hello(&pki);
    broken[9..60].fill(0xff);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 70_000], &[22, 3, 1, 0xff, 0xff], &broken] {
        let mut client = start_tls(&server);
        // The server need not read all of it.
        let _ = client.0.write_all(garbage);
        assert_alert(&rest(&mut client));
        assert_eq!(other.read(0, 512), [0; 512]);
    }
    other.leave();
}

#[test]
fn who_leaves_during_the_handshake_harms_nobody() {
    let pki = Pki::new();
    let server = with(pki.required().with(|config| config.sessions = 1));
    let hello = client_hello(&pki);
    for said in [0, 3, 100, hello.len()] {
        let mut client = start_tls(&server);
        client.send(&[&hello[..said]]);
        drop(client);
        assert_served(&pki, &server);
    }
    // TLS is there, and no export was chosen.
    drop(pki.secured(&server, &TLS13));
    assert_served(&pki, &server);
}

#[test]
fn who_idles_during_the_handshake_gives_way_to_the_next_client() {
    let pki = Pki::new();
    let server = with(pki.required().with(|config| config.sessions = 1));
    let hello = client_hello(&pki);
    for said in [0, 3, hello.len()] {
        let mut idle = start_tls(&server);
        idle.send(&[&hello[..said]]);
        assert_served(&pki, &server);
        rest(&mut idle);
    }
    let mut idle = pki.secured(&server, &TLS13);
    idle.option(LIST, b"");
    assert_eq!(idle.option_reply(LIST).0, 2);
    assert_eq!(idle.option_reply(LIST).0, ACK);
    assert_served(&pki, &server);
    assert!(!matches!(idle.0.read(&mut [0]), Ok(1..)));
}

#[test]
fn who_takes_too_long_is_dropped_also_if_something_comes_all_the_time() {
    let pki = Pki::new();
    let server = with(pki.required().with(|config| config.negotiation_timeout = Duration::from_millis(200)));
    let mut served = pki.client(&server);
    let mut silent = start_tls(&server);
    rest(&mut silent);
    let mut slow = start_tls(&server);
    slow.0.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    // A handshake of a length that is never reached.
    let head = [22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc];
    let mut bytes = head.into_iter().chain(std::iter::repeat_n(0, 16_000));
    let is_dropped = bytes.any(|byte| {
        let is_sent = slow.0.write_all(&[byte]).is_ok();
        let read = slow.0.read(&mut [0; 64]);
        !is_sent || read.is_ok_and(|n| n == 0)
    });
    assert!(is_dropped);
    // The deadline does not concern those who have finished.
    assert_eq!(served.read(0, 512), [0; 512]);
    served.leave();
}
