// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that does what it is told, and servers that do, too.
#![allow(dead_code, unreachable_pub, reason = "no test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot tell")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use fake_imageio::{ClosedBy, FakeServer, Fault};

/// Longer than anything here takes; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that speaks just enough HTTP.
pub struct Client(BufReader<TcpStream>, String);

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Client {
    pub fn new(server: &FakeServer) -> Self {
        let socket = TcpStream::connect(server.addr()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(socket), server.path())
    }

    pub fn send(&mut self, method: &str, query: &str, headers: &str, body: &[u8]) {
        let head = format!("{method} {}{query} HTTP/1.1\r\nhost: x\r\n{headers}\r\n", self.1);
        self.0.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
    }

    pub fn head(&mut self) -> std::io::Result<(String, usize)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        Ok((head, length))
    }

    pub fn answer(&mut self) -> std::io::Result<Answer> {
        let (head, length) = self.head()?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(Answer { status: head[9..12].parse().unwrap(), head, body })
    }

    pub fn put(&mut self, offset: u64, data: &[u8]) -> std::io::Result<Answer> {
        let headers = format!("content-range: bytes {offset}-*/*\r\ncontent-length: {}\r\n", data.len());
        self.send("PUT", "?flush=n", &headers, data);
        self.answer()
    }

    pub fn patch(&mut self, body: &str) -> std::io::Result<Answer> {
        self.send("PATCH", "", &format!("content-length: {}\r\n", body.len()), body.as_bytes());
        self.answer()
    }

    pub fn flush(&mut self) -> std::io::Result<Answer> {
        self.patch(r#"{"op":"flush"}"#)
    }

    pub fn get(&mut self, first: u64, last: u64) -> std::io::Result<Answer> {
        self.send("GET", "", &format!("range: bytes={first}-{last}\r\n"), b"");
        self.answer()
    }

    pub fn options(&mut self) -> std::io::Result<Answer> {
        self.send("OPTIONS", "", "", b"");
        self.answer()
    }

    /// Reads to the end, and returns how it ended, with what else came.
    pub fn end(&mut self) -> (Option<ErrorKind>, Vec<u8>) {
        let mut rest = Vec::new();
        (self.0.read_to_end(&mut rest).err().map(|error| error.kind()), rest)
    }
}

pub fn server(faults: impl IntoIterator<Item = Fault>) -> FakeServer {
    faults.into_iter().fold(FakeServer::builder(), |builder, fault| builder.fault(fault)).start().unwrap()
}

pub fn closed_by(server: &FakeServer, connection: usize) -> Option<ClosedBy> {
    assert!(server.wait_for(PATIENCE, |log| log.connections[connection - 1].closed.is_some()));
    server.log().connections[connection - 1].closed_by
}
