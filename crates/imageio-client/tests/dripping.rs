// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers that send a byte now and then: not for ever.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use imageio_client::{Connector, Error, ExtentsContext, Timeouts, TlsConfig, TlsError, TransferUrl};

const PATIENCE: Duration = Duration::from_millis(300);

/// Once the client has said something, sends `bytes` one at a time, each well within the client's
/// patience, until the test is over.
fn drip(listener: &TcpListener, bytes: &[u8], over: &Receiver<()>) {
    let (mut socket, _) = listener.accept().unwrap();
    // An answer before the request would be another fault.
    socket.read_exact(&mut [0]).unwrap();
    for byte in bytes {
        // The client may have had enough.
        if socket.write_all(&[*byte]).is_err()
            || over.recv_timeout(PATIENCE / 6) != Err(RecvTimeoutError::Timeout)
        {
            return;
        }
    }
}

fn with_dripping_server(bytes: &[u8], test: impl FnOnce(SocketAddr)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (end, over) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || drip(&listener, bytes, &over));
        test(address);
        drop(end);
    });
}

fn connector(scheme: &str, address: SocketAddr) -> Connector {
    let url = TransferUrl::parse(&format!("{scheme}://{address}/images/ticket")).unwrap();
    let timeouts = Timeouts::new(PATIENCE, PATIENCE, PATIENCE);
    Connector::new(url, Some(TlsConfig::insecure()), timeouts).unwrap()
}

#[test]
fn the_head_of_an_answer_may_not_drip() {
    let head = [&b"HTTP/1.1 200 OK\r\nx-more: "[..], &[b'x'; 200]].concat();
    with_dripping_server(&head, |address| {
        let mut connection = connector("http", address).connect().unwrap();
        let result = connection.options();
        assert!(matches!(result, Err(Error::Timeout { .. })), "{result:?}");
        assert!(!connection.is_open());
    });
}

#[test]
fn the_body_of_an_answer_may() {
    let answer = b"HTTP/1.1 206 Partial Content\r\ncontent-length: 12\r\n\r\nabcdefghijkl";
    let body = answer.len() - 12;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (end, over) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            socket.read_exact(&mut [0]).unwrap();
            socket.write_all(&answer[..body]).unwrap();
            for byte in &answer[body..] {
                let _ = over.recv_timeout(PATIENCE / 6);
                socket.write_all(&[*byte]).unwrap();
            }
        });
        let mut buf = [0; 12];
        connector("http", address).connect().unwrap().read(0, &mut buf).unwrap();
        assert_eq!(&buf, b"abcdefghijkl");
        drop(end);
    });
}

#[test]
fn a_tls_handshake_may_not_drip() {
    // A handshake record of 16 KiB, which never gets whole.
    let record = [&[0x16, 3, 3, 0x40, 0][..], &[0; 200]].concat();
    with_dripping_server(&record, |address| match connector("https", address).connect() {
        Err(Error::Tls { source: TlsError::Broken(reason), .. }) => {
            assert!(reason.starts_with("no answer for"), "{reason}");
        }
        other => panic!("{other:?}"),
    });
}

/// Answers a request for extents with a head after `before`, and its body byte by byte.
fn answer_slowly(listener: &TcpListener, before: Duration, between: Duration, over: &Receiver<()>) {
    let (mut socket, _) = listener.accept().unwrap();
    socket.read_exact(&mut [0]).unwrap();
    let body = br#"[{"start":0,"length":5}]"#;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let _ = over.recv_timeout(before);
    for piece in std::iter::once(head.as_bytes()).chain(body.chunks(6)) {
        // The client may have had enough.
        if socket.write_all(piece).is_err() {
            return;
        }
        let _ = over.recv_timeout(between);
    }
}

/// Asks for extents with more patience for the first byte than for the others, and returns the
/// outcome.
fn slow_extents(before: Duration, between: Duration) -> imageio_client::Result<Vec<imageio_client::Extent>> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url =
        TransferUrl::parse(&format!("http://{}/images/ticket", listener.local_addr().unwrap())).unwrap();
    let timeouts = Timeouts::new(PATIENCE, PATIENCE, PATIENCE * 10);
    let connector = Connector::new(url, None, timeouts).unwrap();
    let (end, over) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || answer_slowly(&listener, before, between, &over));
        let extents = connector.connect().unwrap().extents(ExtentsContext::Zero);
        drop(end);
        extents
    })
}

#[test]
fn extents_may_take_long_to_come_but_not_to_go_on() {
    let extents = slow_extents(PATIENCE * 2, PATIENCE / 2).unwrap();
    assert_eq!(extents.len(), 1);
    let error = slow_extents(Duration::ZERO, PATIENCE * 3).unwrap_err();
    assert!(matches!(error, Error::Timeout { after, .. } if after == PATIENCE), "{error:?}");
}

#[test]
fn another_thread_can_end_a_connection_that_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url =
        TransferUrl::parse(&format!("http://{}/images/ticket", listener.local_addr().unwrap())).unwrap();
    let connector = Connector::new(url, None, Timeouts::default()).unwrap();
    let mut connection = connector.connect().unwrap();
    let canceller = connection.canceller();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| connection.extents(ExtentsContext::Zero));
        let (mut socket, _) = listener.accept().unwrap();
        socket.read_exact(&mut [0]).unwrap();
        canceller.cancel();
        assert!(waiting.join().unwrap().unwrap_err().is_lost());
    });
    assert!(!connection.is_open());
    connection.canceller().cancel();
    drop(connection);
    canceller.cancel();
}
