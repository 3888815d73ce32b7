// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers to reads that are not of the plainest kind: servers and proxies of all ages.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use imageio_client::{Connection, Connector, Timeouts, TransferUrl};

const PATIENCE: Duration = Duration::from_secs(20);
/// More than is read ahead with the head.
const LEN: usize = 300_000;

fn data() -> Vec<u8> {
    (0..LEN).map(|i| (i % 251) as u8).collect()
}

/// Reads through a server that answers so, byte by byte as it is, and keeps the connection.
fn read(answer: &[u8]) -> (Connection, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/images/ticket", listener.local_addr().unwrap());
    let timeouts = Timeouts::new(PATIENCE, PATIENCE, PATIENCE);
    let connector = Connector::new(TransferUrl::parse(&url).unwrap(), None, timeouts).unwrap();
    let mut connection = connector.connect().unwrap();
    let mut buf = vec![0; LEN];
    let (first, rest) = buf.split_at_mut(100_000);
    let socket = thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut socket, _) = listener.accept().unwrap();
            // The whole head of the request, which has no body.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            socket.write_all(answer).unwrap();
            socket
        });
        connection.read_vectored(0, &mut [first, rest]).unwrap();
        server.join().unwrap()
    });
    drop(socket);
    (connection, buf)
}

fn plain(head: &str) -> Vec<u8> {
    [head.as_bytes(), format!("\r\ncontent-length: {LEN}\r\n\r\n").as_bytes(), &data()].concat()
}

#[test]
fn a_plain_answer_leaves_the_connection_open() {
    for head in ["HTTP/1.1 206 x", "HTTP/1.1 206 x\r\nconnection: Keep-Alive"] {
        let (connection, buf) = read(&plain(head));
        assert!(buf == data(), "{head}");
        assert!(connection.is_open(), "{head}");
    }
}

#[test]
fn an_answer_that_announces_to_close_does_so() {
    for head in [
        "HTTP/1.0 206 x",
        "HTTP/1.1 206 x\r\nconnection: close",
        "HTTP/1.1 206 x\r\nconnection: keep-alive, close",
        "HTTP/1.1 206 x\r\nconnection: keep-alive\r\nconnection: close",
    ] {
        let (connection, buf) = read(&plain(head));
        assert!(buf == data(), "{head}");
        assert!(!connection.is_open(), "{head}");
    }
}

#[test]
fn chunks_are_decoded_also_where_a_length_is_told() {
    for length in [String::new(), format!("content-length: {LEN}\r\n")] {
        let head = format!("HTTP/1.1 206 x\r\n{length}transfer-encoding: chunked\r\n\r\n");
        let mut answer = head.into_bytes();
        for chunk in data().chunks(65_536) {
            answer.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            answer.extend(chunk);
            answer.extend(b"\r\n");
        }
        answer.extend(b"0\r\n\r\n");
        assert!(read(&answer).1 == data(), "{length}");
    }
}
