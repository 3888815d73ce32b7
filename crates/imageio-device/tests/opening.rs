// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening a transfer: by which way, and what is wrong with it.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use block_device_traits::BlockDevice;
use common::{abstract_socket, close_well, line, settings, start};
use fake_imageio::{Certificate, FakeServer, Fault, Op, Transport, What};
use imageio_device::{OpenError, Settings, Transfer, UrlSource};
use tempfile::TempDir;

/// Returns the error of a transfer that can't be opened, and its text.
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

/// Settings for an oVirt host.
fn on_an_ovirt_host(server: &FakeServer) -> Settings {
    settings(server).with(|settings| settings.is_ovirt_host = true)
}

/// Returns the requests that a server got, each with its answer.
fn asked(server: &FakeServer) -> Vec<(Op, Option<u16>)> {
    server.log().requests.iter().map(|request| (request.op, request.status)).collect()
}

#[test]
fn the_unix_socket_is_used_on_an_ovirt_host() {
    let dir = tempfile::tempdir().unwrap();
    for builder in [FakeServer::builder(), FakeServer::builder().tls(Certificate::default())] {
        for socket in [socket_in(&dir), abstract_socket("ovirt-host")] {
            let server = builder.clone().unix_socket(socket).start().unwrap();
            assert_eq!(way(&server, on_an_ovirt_host(&server)), Transport::Unix);
        }
    }
}

#[test]
fn the_unix_socket_is_not_even_connected_on_another_host_or_where_that_is_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    // Its address is this host's, as that of a tunnel's end is.
    let server = FakeServer::builder().unix_socket(socket_in(&dir)).start().unwrap();
    let switched_off = on_an_ovirt_host(&server).with(|settings| settings.unix_socket = false);
    for settings in [settings(&server), switched_off] {
        assert_eq!(way(&server, settings), Transport::Tcp);
    }
    assert!(server.log().connections.iter().all(|connection| connection.transport == Transport::Tcp));
}

#[test]
fn a_unix_socket_that_can_not_be_connected_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().advertise_unix_socket(Some(socket_in(&dir))).start().unwrap();
    assert_eq!(way(&server, on_an_ovirt_host(&server)), Transport::Tcp);
}

#[test]
fn a_unix_socket_of_a_server_that_does_not_know_the_ticket_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let other = FakeServer::builder().ticket("another").unix_socket(socket_in(&dir)).start().unwrap();
    let server = FakeServer::builder().advertise_unix_socket(Some(socket_in(&dir))).start().unwrap();
    assert_eq!(way(&server, on_an_ovirt_host(&server)), Transport::Tcp);
    assert_eq!(asked(&other), [(Op::Options, Some(403))]);
}

#[test]
fn a_unix_socket_where_options_tells_nothing_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    for status in [405, 204] {
        let silent = What::Status { status, text: String::new() };
        let builder = FakeServer::builder().unix_socket(socket_in(&dir));
        let other = builder.fault(Fault::on(Op::Options).every().then(silent)).start().unwrap();
        let server = FakeServer::builder().advertise_unix_socket(Some(socket_in(&dir))).start().unwrap();
        assert_eq!(way(&server, on_an_ovirt_host(&server)), Transport::Tcp);
        assert_eq!(asked(&other), [(Op::Options, Some(status))]);
    }
}

#[test]
fn a_unix_socket_where_something_else_is_offered_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let here = || FakeServer::builder().unix_socket(socket_in(&dir));
    let different = [
        here().read_only(true),
        here().max_writers(Some(3)),
        here().max_readers(Some(3)),
        here().checksum(false),
    ];
    for other in different {
        let other = other.start().unwrap();
        let server = FakeServer::builder().advertise_unix_socket(Some(socket_in(&dir))).start().unwrap();
        assert_eq!(way(&server, on_an_ovirt_host(&server)), Transport::Tcp);
        assert_eq!(asked(&other), [(Op::Options, Some(200))]);
    }
}

#[test]
fn the_url_may_come_from_a_file() {
    let server = FakeServer::builder().start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("url");
    std::fs::write(&path, format!(" {} \nsomething else\n", server.url())).unwrap();
    let from = |path| settings(&server).with(|settings| settings.url = UrlSource::File(path));
    assert_eq!(Transfer::open(from(path.clone())).unwrap().size(), 1 << 20);

    std::fs::write(&path, "x".repeat(64 << 10)).unwrap();
    assert!(refused(from(path)).1.ends_with("the first line is too long for a URL"));

    let missing = dir.path().join("missing");
    let (error, text) = refused(from(missing.clone()));
    assert!(matches!(error, OpenError::UrlFile { .. }), "{error:?}");
    let words = format!("cannot read the transfer URL from {}: No such file", missing.display());
    assert!(text.starts_with(&words), "{text}");
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
fn with_a_given_size_nothing_is_read() {
    let broken = What::Status { status: 500, text: "can't be read".to_owned() };
    let server =
        FakeServer::builder().size(1000).fault(Fault::on(Op::Get).every().then(broken)).start().unwrap();
    assert!(refused(settings(&server)).1.contains("500 Internal Server Error: can't be read"));
    for size in [512, 1000, 1001] {
        let asked_before = server.log().of(Op::Get).count();
        let device = start(settings(&server).with(|settings| settings.size = Some(size)));
        assert_eq!(device.size(), size);
        device.write(0, bytes::Bytes::from_static(b"data"), false).unwrap();
        device.flush().unwrap();
        assert_eq!(server.log().of(Op::Get).count(), asked_before);
        close_well(&server, &device);
    }
    assert_eq!(server.read(0, 4).unwrap(), b"data");
}

#[test]
fn past_the_end_of_the_transfer_there_is_no_space() {
    let server = FakeServer::builder().size(1000).start().unwrap();
    let device = start(settings(&server).with(|settings| settings.size = Some(2000)));
    let error = device.write(999, bytes::Bytes::from_static(b"data"), false).unwrap_err();
    assert_eq!(error.errno(), block_device_traits::Errno::NoSpc, "{error}");
}

#[test]
fn an_unknown_size_must_be_given() {
    for status in [405, 416, 501] {
        let what = What::Status { status, text: "not here".to_owned() };
        let server = FakeServer::builder().fault(Fault::on(Op::Get).every().then(what)).start().unwrap();
        let (error, text) = refused(settings(&server));
        assert!(matches!(error, OpenError::UnknownSize), "{error:?}");
        assert_eq!(text, "the server doesn't tell the size of the disk");
        let transfer =
            Transfer::open(settings(&server).with(|settings| settings.size = Some(1 << 20))).unwrap();
        assert_eq!(transfer.size(), 1 << 20);
    }
}

#[test]
fn a_read_only_ticket_is_not_opened_for_writing() {
    let server = FakeServer::builder().read_only(true).start().unwrap();
    let (error, text) = refused(settings(&server));
    assert!(matches!(error, OpenError::ReadOnlyTicket), "{error:?}");
    assert_eq!(text, "the ticket allows reading only");
    assert!(
        Transfer::open(settings(&server).with(|settings| settings.read_only = true)).unwrap().is_read_only()
    );
    let transfer = Transfer::open_as_allowed(settings(&server)).unwrap();
    assert!(transfer.is_read_only() && !transfer.can_flush());
    let writable = FakeServer::builder().start().unwrap();
    assert!(!Transfer::open_as_allowed(settings(&writable)).unwrap().is_read_only());
}

#[test]
fn a_pipe_with_the_url_is_read_once() {
    let server = FakeServer::builder().read_only(true).start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("url");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let url = server.url();
    std::thread::scope(|scope| {
        scope.spawn(|| std::fs::write(&path, format!("{url}\n")).unwrap());
        let from = settings(&server).with(|settings| settings.url = UrlSource::File(path.clone()));
        assert!(Transfer::open_as_allowed(from).unwrap().is_read_only());
    });
}

#[test]
fn what_the_client_finds_wrong_is_told() {
    let server = FakeServer::builder().tls(Certificate::wrong_host()).start().unwrap();
    let good = settings(&server);
    let url = |url: String| {
        good.clone().with(|settings| {
            settings.url = UrlSource::Inline(url);
            settings.insecure = true;
        })
    };
    let cases = [
        (good.clone(), "use in the URL the name that the certificate holds"),
        (good.clone().with(|settings| settings.cafile = Some("/dev/null".into())), "no certificate in it"),
        (
            good.clone().with(|settings| settings.cafile = Some("missing.pem".into())),
            "the CA file missing.pem can't be used: No such file",
        ),
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
    Transfer::open(good.with(|settings| {
        settings.insecure = true;
        settings.cafile = Some("/dev/null".into());
    }))
    .unwrap();
}

#[test]
fn a_connection_that_breaks_is_tried_again_but_not_for_ever() {
    let server = FakeServer::builder().start().unwrap();
    (0..2).for_each(|_| server.fault(Fault::on(Op::Options).then(What::LoseAnswer)));
    assert!(Transfer::open(settings(&server)).is_ok());
    server.fault(Fault::on(Op::Options).every().then(What::LoseAnswer));
    let before = server.accepted();
    let (_, text) = refused(settings(&server));
    assert!(text.contains("the connection to the server was lost"), "{text}");
    assert_eq!(server.accepted(), before + 3);
}

#[test]
fn a_transfer_holds_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().unix_socket(socket_in(&dir)).start().unwrap();
    let transfer = Transfer::open(on_an_ovirt_host(&server)).unwrap();
    assert!(server.wait_for(common::PATIENCE, |log| log.open().count() == 0));
    let accepted = server.accepted();
    let device = transfer.start().unwrap();
    assert_eq!(server.accepted(), accepted);
    device.close().unwrap();
}
