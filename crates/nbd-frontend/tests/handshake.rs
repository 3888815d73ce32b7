// SPDX-License-Identifier: MIT OR Apache-2.0
//! The negotiation as a client on a socket sees it; its finer points are tested in `nbd-wire`.

mod common;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use block_device_traits::{BlockDevice, MemoryDevice};
use common::{Client, Running, threaded};
use nbd_frontend::{Config, ExportInfo, Server, bind_tcp};

const ACK: u32 = 1;
const UNSUP: u32 = 0x8000_0001;
const INVALID: u32 = 0x8000_0003;
const UNKNOWN: u32 = 0x8000_0006;

fn named() -> Running {
    let info = ExportInfo::new("disk").with_description("a disk");
    Running::with(&Arc::new(MemoryDevice::new(4096)), &info, Config::default())
}

#[test]
fn every_option_is_answered_and_transmission_follows() {
    let server = named();
    let mut client = server.connect();
    client.greet(3);
    for (option, data, kind) in
        [(0x0765_4321, &b"1234"[..], UNSUP), (5, b"", UNSUP), (9, b"", INVALID), (10, b"", INVALID)]
    {
        client.option(option, data);
        assert_eq!(client.option_reply(option).0, kind);
    }
    client.option(3, b"");
    assert_eq!(client.option_reply(3), (2, b"\0\0\0\x04diska disk".to_vec()));
    assert_eq!(client.option_reply(3), (ACK, vec![]));
    client.option(7, b"\0\0\0\x05other\0\0");
    assert_eq!(client.option_reply(7).0, UNKNOWN);
    let data = b"\0\0\0\x04disk\0\x03\0\x01\0\x02\0\x03";
    for option in [6, 7] {
        client.option(option, data);
        let infos: Vec<_> = (0..4).map(|_| client.option_reply(option)).collect();
        let export = [0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0b1101, 0b0110_1101].to_vec();
        assert_eq!(infos[0], (3, export));
        assert_eq!(infos[1], (3, b"\0\x01disk".to_vec()));
        assert_eq!(infos[2], (3, b"\0\x02a disk".to_vec()));
        assert_eq!(infos[3], (3, [0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 4, 0, 0, 0].to_vec()));
        assert_eq!(client.option_reply(option), (ACK, vec![]));
    }
    assert_eq!(client.read(0, 4096), [0; 4096]);
    client.disconnect();
    assert_eq!(server.stop().requests, 1);
}

#[test]
fn export_name_works_with_and_without_zeroes() {
    let server = named();
    for (flags, zeroes) in [(0, 124), (1, 124), (3, 0)] {
        for name in ["", "disk"] {
            let mut client = server.connect();
            client.greet(flags);
            client.option(1, name.as_bytes());
            let answer = client.receive(10 + zeroes);
            assert_eq!(answer[..8], 4096u64.to_be_bytes());
            assert!(answer[10..].iter().all(|byte| *byte == 0));
            assert_eq!(client.read(512, 512), [0; 512]);
            client.disconnect();
        }
    }
}

#[test]
fn a_request_may_follow_export_name_in_one_piece() {
    let server = named();
    let mut client = server.connect();
    client.greet(2);
    let option = [b"IHAVEOPT".as_slice(), &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    client.send(&[&option, &common::header(common::READ, 0, 5, 0, 512)]);
    client.receive(10);
    assert_eq!(client.reply(), (0, 5));
}

#[test]
fn abort_is_acknowledged_and_the_connection_closed() {
    let server = named();
    let mut client = server.connect();
    client.greet(1);
    client.option(2, b"bye");
    assert_eq!(client.option_reply(2), (ACK, vec![]));
    client.assert_closed();
}

#[test]
fn unknown_client_flags_unknown_exports_and_other_protocols_are_dropped() {
    let server = named();
    let mut client = server.connect();
    client.greet(7);
    client.assert_closed();

    let mut client = server.connect();
    client.greet(3);
    client.option(1, b"other");
    client.assert_closed();

    let mut client = server.connect();
    client.greet(3);
    client.send(&[b"GET / HTTP/1.1\r\n"]);
    client.assert_closed();

    server.client().disconnect();
}

#[test]
fn who_does_not_negotiate_in_time_is_dropped() {
    let config = Config::default().with(|config| config.negotiation_timeout = Duration::from_millis(50));
    let server = Running::with(&Arc::new(MemoryDevice::new(4096)), &ExportInfo::default(), config);
    let mut working = server.client();
    let mut silent = server.connect();
    silent.receive(18);
    silent.assert_closed();
    // The deadline does not concern those who have finished.
    assert_eq!(working.read(0, 512), [0; 512]);
}

#[test]
fn further_clients_wait_until_one_has_gone() {
    let config = Config::default().with(|config| config.sessions = 1);
    let server = Running::with(&Arc::new(MemoryDevice::new(4096)), &ExportInfo::default(), config);
    let first = server.client();
    let mut second = server.connect();
    second.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(second.0.read(&mut [0]).is_err());
    assert_eq!(server.handle.sessions(), 1);
    second.0.set_read_timeout(Some(common::PATIENCE)).unwrap();
    first.disconnect();
    second.go();
    second.disconnect();
    assert_eq!(server.stop().sessions, 2);
}

#[test]
fn an_adopted_client_is_served_to_its_end() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let info = ExportInfo::default();
    let mut server =
        Server::new(threaded(&Arc::new(MemoryDevice::new(512))), &info, Config::default()).unwrap();
    server.adopt(theirs);
    let thread = std::thread::Builder::new().spawn(|| server.run().unwrap()).unwrap();
    let mut client = Client::new(ours);
    client.go();
    assert_eq!(client.read(0, 512), [0; 512]);
    client.disconnect();
    let outcome = thread.join().unwrap();
    assert_eq!((outcome.sessions, outcome.requests, outcome.bytes_read), (1, 1, 512));
}

#[test]
fn another_implementation_agrees() {
    use nbd::client::{NbdClient, handshake};
    use std::io::{Seek, SeekFrom, Write};

    let disk = Arc::new(MemoryDevice::new(1 << 20));
    let info = ExportInfo::new("disk");
    let mut server = Server::new(threaded(&disk), &info, Config::default()).unwrap();
    let listeners = bind_tcp("127.0.0.1", 0).unwrap();
    let address = listeners[0].tcp_addr().unwrap();
    listeners.into_iter().for_each(|listener| server.listen(listener));
    let handle = server.handle();
    let thread = std::thread::Builder::new().spawn(|| server.run().unwrap()).unwrap();

    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let export = handshake(&mut stream, b"disk").unwrap();
    assert_eq!((export.size, export.readonly, export.send_flush), (disk.size(), false, true));
    let mut client = NbdClient::new(stream, &export);
    client.seek(SeekFrom::Start(4096)).unwrap();
    client.write_all(&[7; 8192]).unwrap();
    client.flush().unwrap();
    client.seek(SeekFrom::Start(4095)).unwrap();
    let mut read = [0; 3];
    client.read_exact(&mut read).unwrap();
    assert_eq!(read, [0, 7, 7]);
    drop(client);

    handle.shutdown();
    assert_eq!(thread.join().unwrap().bytes_written, 8192);
    assert_eq!(disk.contents()[4096..12288], [7; 8192]);
}
