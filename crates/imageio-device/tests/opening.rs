// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening a transfer: by which way, and what is wrong with it.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use block_device::BlockDevice;
use common::{abstract_socket, close_well, line, settings, start};
use fake_imageio::{Builder, Certificate, FakeServer, Fault, Op, Transport, What};
use imageio_device::{OpenError, Settings, Transfer, UrlSource};
use tempfile::TempDir;

/// Why a transfer can't be opened.
#[track_caller]
fn refused(settings: Settings) -> (OpenError, String) {
    let error = Transfer::open(settings).unwrap_err();
    let text = line(&error);
    (error, text)
}

fn socket_in(dir: &TempDir) -> String {
    dir.path().join("sock").to_str().unwrap().to_owned()
}

/// By which way a read of the device comes to the server.
fn way(server: &FakeServer, settings: Settings) -> Transport {
    let device = start(settings);
    device.read(0, &mut [0; 4]).unwrap();
    let way = server.log().of(Op::Get).last().unwrap().transport;
    close_well(server, &device);
    way
}

/// A server whose address is not the one that its clients have, so that it seems to be on another host.
fn elsewhere() -> Builder {
    FakeServer::builder().host("127.0.0.2")
}

#[test]
fn the_unix_socket_is_used_on_the_same_host() {
    let dir = tempfile::tempdir().unwrap();
    for builder in [FakeServer::builder(), FakeServer::builder().tls(Certificate::default())] {
        for socket in [socket_in(&dir), abstract_socket("same-host")] {
            let server = builder.clone().unix_socket(socket).start().unwrap();
            assert_eq!(way(&server, settings(&server)), Transport::Unix);
        }
    }
}

#[test]
fn the_unix_socket_is_used_on_an_ovirt_host_only() {
    let dir = tempfile::tempdir().unwrap();
    let server = elsewhere().unix_socket(socket_in(&dir)).start().unwrap();
    assert_eq!(way(&server, settings(&server)), Transport::Tcp);
    assert_eq!(way(&server, Settings { is_ovirt_host: true, ..settings(&server) }), Transport::Unix);
}

#[test]
fn the_unix_socket_is_not_used_where_that_is_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().unix_socket(socket_in(&dir)).start().unwrap();
    let settings = Settings { unix_socket: false, is_ovirt_host: true, ..settings(&server) };
    assert_eq!(way(&server, settings), Transport::Tcp);
}

#[test]
fn a_unix_socket_that_can_not_be_connected_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    for is_ovirt_host in [false, true] {
        let builder = FakeServer::builder().advertise_unix_socket(Some(socket_in(&dir)));
        let server = builder.start().unwrap();
        assert_eq!(way(&server, Settings { is_ovirt_host, ..settings(&server) }), Transport::Tcp);
    }
}

#[test]
fn a_unix_socket_of_a_server_that_does_not_know_the_ticket_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let other = FakeServer::builder().ticket("another").unix_socket(socket_in(&dir)).start().unwrap();
    let server = FakeServer::builder().advertise_unix_socket(Some(socket_in(&dir))).start().unwrap();
    assert_eq!(way(&server, settings(&server)), Transport::Tcp);
    // It was asked, and nothing but that.
    let log = other.log();
    let asked: Vec<_> = log.requests.iter().map(|request| (request.op, request.status)).collect();
    assert_eq!(asked, [(Op::Options, Some(403))]);
}

#[test]
fn the_url_may_come_from_a_file() {
    let server = FakeServer::builder().start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("url");
    std::fs::write(&path, format!(" {} \nsomething else\n", server.url())).unwrap();
    let from = |path| Settings { url: UrlSource::File(path), ..settings(&server) };
    assert_eq!(Transfer::open(from(path)).unwrap().size(), 1 << 20);

    let missing = dir.path().join("missing");
    let (error, text) = refused(from(missing.clone()));
    assert!(matches!(error, OpenError::UrlFile { .. }), "{error:?}");
    assert!(text.starts_with(&format!("url=+{}: No such file", missing.display())), "{text}");
}

#[test]
fn neither_settings_nor_a_transfer_show_the_ticket() {
    let server = FakeServer::builder().start().unwrap();
    let settings = settings(&server);
    let transfer = Transfer::open(settings.clone()).unwrap();
    let debug = format!("{settings:?} {transfer:?}");
    assert!(!debug.contains(fake_imageio::DEFAULT_TICKET), "{debug}");
}

#[test]
fn a_size_larger_than_the_disk_is_refused() {
    let server = FakeServer::builder().size(1000).start().unwrap();
    let with = |size| Settings { size: Some(size), ..settings(&server) };
    let (error, text) = refused(with(1001));
    assert!(matches!(error, OpenError::TooLarge { size: 1001, actual: 1000 }), "{error:?}");
    assert_eq!(text, "size=1001 is larger than the disk of this transfer, which has 1000 bytes");
    assert_eq!(Transfer::open(with(1000)).unwrap().size(), 1000);
    assert_eq!(Transfer::open(with(512)).unwrap().size(), 512);
}

#[test]
fn an_unknown_size_must_be_given() {
    for status in [405, 416, 501] {
        let what = What::Status { status, text: "not here".to_owned() };
        let server = FakeServer::builder().fault(Fault::on(Op::Get).every().then(what)).start().unwrap();
        let (error, text) = refused(settings(&server));
        assert!(matches!(error, OpenError::UnknownSize), "{error:?}");
        assert_eq!(text, "the server doesn't tell the size of the disk: give it with size=BYTES");
        let transfer = Transfer::open(Settings { size: Some(1 << 20), ..settings(&server) }).unwrap();
        assert_eq!(transfer.size(), 1 << 20);
    }
}

#[test]
fn a_read_only_ticket_is_not_opened_for_writing() {
    let server = FakeServer::builder().read_only(true).start().unwrap();
    let (error, text) = refused(settings(&server));
    assert!(matches!(error, OpenError::ReadOnlyTicket), "{error:?}");
    assert!(text.contains("open it read-only (-r)"), "{text}");
    assert!(Transfer::open(Settings { read_only: true, ..settings(&server) }).unwrap().is_read_only());
}

#[test]
fn what_the_client_finds_wrong_is_told() {
    let server = FakeServer::builder().tls(Certificate::wrong_host()).start().unwrap();
    let good = settings(&server);
    let url = |url: String| Settings { url: UrlSource::Inline(url), insecure: true, ..good.clone() };
    let cases = [
        (good.clone(), "use in the URL the name that the certificate holds"),
        (Settings { cafile: Some("/dev/null".into()), ..good.clone() }, "no certificate in it"),
        (Settings { cafile: Some("missing.pem".into()), ..good.clone() }, "cafile missing.pem: No such file"),
        (url(server.url().replace(fake_imageio::DEFAULT_TICKET, "unknown")), "403 Forbidden: No such ticket"),
        (url("ftp://host/images/ticket".to_owned()), "bad transfer URL: the scheme must be https or http"),
        (url(String::new()), "bad transfer URL: "),
    ];
    for (settings, words) in cases {
        let (error, text) = refused(settings);
        assert!(matches!(error, OpenError::Client(_)), "{error:?}");
        assert!(text.contains(words), "{text}");
    }
    // And what `insecure` is for.
    Transfer::open(Settings { insecure: true, cafile: Some("/dev/null".into()), ..good }).unwrap();
}

#[test]
fn a_connection_that_breaks_is_tried_again_but_not_for_ever() {
    let server = FakeServer::builder().start().unwrap();
    (0..2).for_each(|_| server.fault(Fault::on(Op::Options).then(What::LoseAnswer)));
    assert!(Transfer::open(settings(&server)).is_ok());
    server.fault(Fault::on(Op::Options).every().then(What::LoseAnswer));
    let before = server.accepted();
    let (_, text) = refused(settings(&server));
    assert!(text.contains("connection to the server lost"), "{text}");
    assert_eq!(server.accepted(), before + 3);
}

#[test]
fn a_transfer_holds_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().unix_socket(socket_in(&dir)).start().unwrap();
    let transfer = Transfer::open(settings(&server)).unwrap();
    assert!(server.wait_for(common::PATIENCE, |log| log.open().count() == 0));
    let accepted = server.accepted();
    let device = transfer.start().unwrap();
    assert_eq!(server.accepted(), accepted);
    device.close().unwrap();
}
