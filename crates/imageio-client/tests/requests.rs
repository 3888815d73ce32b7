// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every kind of request to a server that does as it should, by every way that leads there.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::net::ToSocketAddrs;

use bytes::Bytes;
use common::{MIB, TIMEOUTS, abstract_socket, connect, connector, connector_to, each_way, error, pattern};
use fake_imageio::{Backend, FakeServer, Fault, Op, OptionsMode, Transport, What};
use imageio_client::{
    ByteCounter, Capabilities, Error, ExtentsContext, Flush, StatusCode, TrustedUsers, UnixAddress,
};

fn server() -> FakeServer {
    FakeServer::builder().start().unwrap()
}

/// Writing, zero, flush, extents and checksum; readers and writers; the unix socket.
fn offered(by: &Capabilities) -> ([bool; 5], [u32; 2], Option<UnixAddress>) {
    let can = [by.can_write, by.zero, by.flush, by.extents, by.checksum];
    (can, [by.max_readers, by.max_writers], by.unix_socket.clone())
}

#[test]
fn options_tell_what_the_server_offers() {
    let name = abstract_socket("options");
    let server = FakeServer::builder().max_writers(Some(3)).unix_socket(&name);
    let server = server.start().unwrap();
    let unix_socket = Some(UnixAddress::new(name));
    assert_eq!(offered(&connect(&server).options().unwrap()), ([true; 5], [8, 3], unix_socket));
}

#[test]
fn old_servers_offer_reading_and_writing_on_one_connection() {
    for mode in [OptionsMode::MethodNotAllowed, OptionsMode::NoContent, OptionsMode::MissingKeys] {
        let server = FakeServer::builder().options(mode).start().unwrap();
        let mut connection = connect(&server);
        let told = offered(&connection.options().unwrap());
        assert_eq!(told, ([true, false, false, false, false], [1, 1], None), "{mode:?}");
        connection.write(0, [Bytes::from_static(b"data")], Flush::Yes).unwrap();
        assert_eq!(server.read(0, 4).unwrap(), b"data");
        assert_eq!(server.accepted(), 1);
    }
}

#[test]
fn malformed_options_are_a_protocol_error() {
    let server = FakeServer::builder().options(OptionsMode::Malformed).start().unwrap();
    let mut connection = connect(&server);
    let error = error(connection.options());
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    assert!(error.to_string().starts_with("OPTIONS: "), "{error}");
    assert!(!connection.is_open());
}

#[test]
fn a_read_only_ticket_can_not_write() {
    let server = FakeServer::builder().read_only(true).start().unwrap();
    let mut connection = connect(&server);
    let capabilities = connection.options().unwrap();
    assert!(!capabilities.can_write && !capabilities.zero && !capabilities.flush && capabilities.extents);
    let error = error(connection.write(0, [Bytes::from_static(b"data")], Flush::No));
    assert_eq!(error.status(), Some(StatusCode::FORBIDDEN));
}

#[test]
fn a_disk_is_written_and_read_by_every_way() {
    each_way(&FakeServer::builder().size(MIB as u64), |way, server, connector| {
        let mut connection = connector.connect().unwrap();
        let data = pattern(300_000);
        connection.write(1000, [Bytes::from(data.clone())], Flush::No).unwrap();
        let mut back = vec![0; data.len() + 1];
        connection.read(999, &mut back).unwrap();
        assert!(back[0] == 0 && back[1..] == data, "{way}");
        connection.zero(1000, 10, Flush::Yes).unwrap();
        connection.flush().unwrap();
        assert_eq!(server.read(1000, 11).unwrap(), [&[0; 10], &data[10..11]].concat(), "{way}");

        let log = server.log();
        let seen: Vec<_> = log.requests.iter().map(|r| (r.op, r.offset, r.size, r.flush)).collect();
        let expected = [
            (Op::Put, 1000, 300_000, false),
            (Op::Get, 999, 300_001, false),
            (Op::Zero, 1000, 10, true),
            (Op::Flush, 0, 0, true),
        ];
        assert_eq!(seen, expected, "{way}");
        let transport = if way == "unix" { Transport::Unix } else { Transport::Tcp };
        assert_eq!((log.connections.len(), log.connections[0].transport), (1, transport), "{way}");
    });
}

#[test]
fn several_chunks_are_one_write() {
    let server = server();
    let data = pattern(100_000);
    let chunks = [&data[..1], &data[1..70_000], &[], &data[70_000..]].map(Bytes::copy_from_slice);
    connect(&server).write(5, chunks, Flush::Yes).unwrap();
    assert_eq!(server.read(5, data.len()).unwrap(), data);
    let log = server.log();
    let writes: Vec<_> = log.of(Op::Put).map(|r| (r.offset, r.size, r.flush)).collect();
    assert_eq!(writes, [(5, 100_000, true)]);
}

#[test]
fn requests_larger_than_any_buffer_pass_by_every_way() {
    let size = 20 * MIB + 4097;
    each_way(&FakeServer::builder().size(size as u64), |way, server, connector| {
        let mut connection = connector.connect().unwrap();
        let data = Bytes::from(pattern(size));
        connection.write(0, [data.slice(..9 * MIB), data.slice(9 * MIB..)], Flush::No).unwrap();
        assert!(server.contents().unwrap() == data, "{way}");
        let mut back = vec![0; size];
        connection.read(0, &mut back).unwrap();
        assert!(back == data, "{way}");
        connection.write_zeroes(1, size as u64 - 2, Flush::No).unwrap();
        let contents = server.contents().unwrap();
        let zeroes = contents[1..size - 1].iter().all(|&byte| byte == 0);
        assert!(zeroes && contents[0] == data[0] && contents[size - 1] == data[size - 1], "{way}");
        assert_eq!(server.accepted(), 1);
    });
}

#[test]
fn a_very_large_write_of_zeroes_is_streamed() {
    let server = FakeServer::builder().backend(Backend::Null).size(1 << 40).start().unwrap();
    connect(&server).write_zeroes(1 << 33, 256 << 20, Flush::Yes).unwrap();
    let log = server.log();
    let writes: Vec<_> = log.of(Op::Put).map(|r| (r.offset, r.size, r.flush)).collect();
    assert_eq!(writes, [(1 << 33, 256 << 20, true)]);
}

#[test]
fn nothing_is_sent_for_nothing() {
    let server = server();
    let mut connection = connect(&server);
    connection.read(0, &mut []).unwrap();
    connection.write(0, [Bytes::new()], Flush::Yes).unwrap();
    connection.write_zeroes(0, 0, Flush::Yes).unwrap();
    assert_eq!(server.log().requests, []);
}

#[test]
fn extents_come_in_order() {
    let block = 64 << 10;
    let contents = [vec![0; block], vec![1; 2 * block], vec![0; block]].concat();
    let server = FakeServer::builder().contents(contents).start().unwrap();
    let mut connection = connect(&server);
    let extents = connection.extents(ExtentsContext::Zero).unwrap();
    let seen: Vec<_> = extents.iter().map(|e| (e.start, e.length, e.zero)).collect();
    let block = block as u64;
    assert_eq!(seen, [(0, block, true), (block, 2 * block, false), (3 * block, block, true)]);

    let error = error(connection.extents(ExtentsContext::Dirty));
    assert_eq!(error.status(), Some(StatusCode::NOT_FOUND));
    assert!(connection.is_open());
    assert_eq!(connection.extents(ExtentsContext::Zero).unwrap().len(), 3);
    assert_eq!(server.accepted(), 1);
}

#[test]
fn dirty_extents_of_an_incremental_backup() {
    let builder = FakeServer::builder().size(100).dirty(std::iter::once(10..20).collect());
    let extents = connect(&builder.start().unwrap()).extents(ExtentsContext::Dirty).unwrap();
    let seen: Vec<_> = extents.iter().map(|e| (e.start, e.length, e.dirty)).collect();
    assert_eq!(seen, [(0, 10, false), (10, 10, true), (20, 80, false)]);
}

#[test]
fn the_size_is_that_of_the_ticket() {
    for size in [0, 1, 12_345, 1 << 42] {
        let server = FakeServer::builder().size(size).start().unwrap();
        let mut connection = connect(&server);
        assert_eq!(connection.size().unwrap(), Some(size));
        assert!(connection.is_open());
    }
}

#[test]
fn the_size_is_unknown_where_a_416_does_not_tell_it() {
    let server = server();
    server.fault(Fault::on(Op::Get).then(What::Status { status: 416, text: "no".to_owned() }));
    let mut connection = connect(&server);
    assert_eq!(connection.size().unwrap(), None);
    assert_eq!(connection.size().unwrap(), Some(1 << 20));
}

#[test]
fn one_connection_serves_many_requests() {
    let server = FakeServer::builder().size(4 * MIB as u64).start().unwrap();
    let mut connection = connect(&server);
    for i in 0..100 {
        let data = pattern(4096 + i as usize);
        connection.write(i * 5000, [Bytes::from(data.clone())], Flush::No).unwrap();
        let mut back = vec![0; data.len()];
        connection.read(i * 5000, &mut back).unwrap();
        assert!(back == data);
        if i % 10 == 0 {
            connection.flush().unwrap();
            connection.options().unwrap();
        }
    }
    assert_eq!(server.accepted(), 1);
    assert_eq!(server.log().connections[0].requests, 220);
}

#[test]
fn an_abstract_unix_socket_is_connected() {
    let name = abstract_socket("connected");
    let server = FakeServer::builder().unix_socket(&name).start().unwrap();
    let mut connection =
        connector(&server).through(UnixAddress::new(name), TrustedUsers::new(None)).connect().unwrap();
    connection.options().unwrap();
    assert_eq!(server.log().requests[0].transport, Transport::Unix);
}

#[test]
fn an_ipv6_literal_is_connected() {
    let server = FakeServer::builder().host("::1").start().unwrap();
    assert!(server.url().starts_with("http://[::1]:"), "{}", server.url());
    let mut connection = connect(&server);
    assert_eq!(connection.size().unwrap(), Some(1 << 20));
}

#[test]
fn localhost_is_tried_by_all_its_addresses() {
    // Not every system has both.
    for address in ("localhost", 0).to_socket_addrs().unwrap() {
        let host = address.ip().to_string();
        let server = FakeServer::builder().host(&host).start().unwrap();
        let connector = connector_to(&server.url_for_host("localhost"), None, TIMEOUTS);
        assert_eq!(connector.connect().unwrap().size().unwrap(), Some(1 << 20), "{host}");
    }
}

#[test]
fn a_ticket_may_be_percent_encoded() {
    let server = FakeServer::builder().ticket("a b/c").start().unwrap();
    let url = server.url().replace("a b/c", "a%20b%2Fc");
    let mut connection = connector_to(&url, None, TIMEOUTS).connect().unwrap();
    assert_eq!(connection.size().unwrap(), Some(1 << 20));
}

#[test]
fn checksums_are_asked_for_by_algorithm_and_block_size() {
    let server = FakeServer::builder().contents(pattern(3 * MIB + 5)).start().unwrap();
    let mut connection = connect(&server);
    let mut sums: Vec<_> =
        [("blake2b", 1 << 20), ("blake2b", 4 << 20), ("sha1", 1 << 20), ("sha3_256", 1 << 20)]
            .map(|(algorithm, block_size)| connection.checksum(algorithm, block_size).unwrap())
            .into();
    assert_eq!(sums.iter().map(String::len).collect::<Vec<_>>(), [64, 64, 40, 64]);
    sums.sort();
    sums.dedup();
    assert_eq!(sums.len(), 4);
    for (algorithm, block_size) in [("crc32", 1 << 20), ("a&block_size=4096", 1 << 20), ("blake2b", 4096)] {
        let error = connection.checksum(algorithm, block_size).unwrap_err();
        assert_eq!(error.status(), Some(StatusCode::BAD_REQUEST), "{error}");
        assert!(error.to_string().starts_with("checksum: 400 Bad Request: "), "{error}");
    }
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_server_without_checksums_says_so() {
    let server = FakeServer::builder().checksum(false).start().unwrap();
    let error = connect(&server).checksum("blake2b", 4 << 20).unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::NOT_FOUND), "{error}");
}

#[test]
fn a_checksum_of_something_else_is_nonsense() {
    let right = r#"{"algorithm": "blake2b", "block_size": 4194304, "checksum": "AB"}"#;
    let answer = |text: &str| {
        let server = FakeServer::builder().start().unwrap();
        let text = text.to_owned();
        server.fault(Fault::on(Op::Checksum).then(What::Status { status: 200, text }));
        connect(&server).checksum("blake2b", 4 << 20)
    };
    assert_eq!(answer(right).unwrap(), "ab");
    for (from, to) in
        [("blake2b", "sha1"), ("4194304", "1"), ("AB", "xy"), ("AB", ""), ("\"AB\"", "3"), ("{", "[")]
    {
        let error = answer(&right.replace(from, to)).unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{from} {to}: {error}");
    }
}

#[test]
fn bytes_are_counted_while_they_move() {
    each_way(&FakeServer::builder().size(8 << 20), |way, _server, connector| {
        let (moved, mut before) = (ByteCounter::default(), 0);
        let mut has_moved = |about: usize, what: &str| {
            let by = moved.bytes() - before;
            before = moved.bytes();
            // Bytes that come together with a head don't count, but a head that is sent does, and
            // so does what TLS adds.
            let expected = (about - about / 20) as u64..(about + about / 20 + 4096) as u64;
            assert!(expected.contains(&by), "{way}, {what}: {by}");
        };
        let mut connection = connector.connect_counted(&moved).unwrap();
        has_moved(0, "connect");
        connection.write(0, [Bytes::from(vec![1; 4 * MIB])], Flush::No).unwrap();
        has_moved(4 * MIB, "write");
        connection.read(0, &mut vec![0; 4 * MIB]).unwrap();
        has_moved(4 * MIB, "read");
        let mut another = connector.connect_counted(&moved).unwrap();
        another.read(0, &mut vec![0; MIB]).unwrap();
        has_moved(MIB, "read on another connection");
    });
}
