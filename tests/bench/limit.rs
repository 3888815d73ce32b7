// SPDX-License-Identifier: MIT OR Apache-2.0
//! The limit: plain sockets that send ready-made requests, with no NBD at all.

use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};

/// The address of the server.
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// The load.
pub(crate) struct Load<'a> {
    pub(crate) address: Address,
    pub(crate) path: &'a str,
    /// The bytes that are written; its length is that of the disk.
    pub(crate) source: &'a [u8],
    pub(crate) read: bool,
    /// Here and there instead of one after another.
    pub(crate) random: bool,
    /// Bytes of one request.
    pub(crate) request: usize,
    pub(crate) requests: u64,
    pub(crate) connections: usize,
}

impl Load<'_> {
    /// Does all of it, over all connections at once, and flushes each.
    pub(crate) fn run(&self) -> Result<()> {
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.connections).map(|_| scope.spawn(|| self.work(&next))).collect();
            workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("panic"))?)
        })
    }

    fn work(&self, next: &AtomicU64) -> Result<()> {
        let mut stream = self.connect()?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= self.requests {
                break;
            }
            let (head, body) = self.request(self.offset(n));
            send(&mut *stream, head.as_bytes(), body)?;
            receive(&mut *stream, &mut buffer)?;
        }
        if !self.read {
            let body = b"{\"op\":\"flush\"}";
            let length = body.len();
            let head = format!("PATCH {} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n", self.path);
            send(&mut *stream, head.as_bytes(), body)?;
            receive(&mut *stream, &mut buffer)?;
        }
        Ok(())
    }

    fn connect(&self) -> Result<Box<dyn Stream>> {
        Ok(match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path)?),
        })
    }

    /// Returns the offset of the n-th request.
    fn offset(&self, n: u64) -> usize {
        let places = (self.source.len() / self.request) as u64;
        // A prime that is larger than any count of places here, so that all are visited.
        let place = if self.random { n.wrapping_mul(0x9E37_79B1) % places } else { n % places };
        place as usize * self.request
    }

    fn request(&self, first: usize) -> (String, &[u8]) {
        let (path, length) = (self.path, self.request);
        let last = first + length - 1;
        if self.read {
            return (format!("GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={first}-{last}\r\n\r\n"), &[]);
        }
        let head = format!(
            "PUT {path}?flush=n HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\
             Content-Range: bytes {first}-{last}/*\r\n\r\n"
        );
        (head, &self.source[first..=last])
    }
}

fn send(stream: &mut dyn Stream, head: &[u8], body: &[u8]) -> Result<()> {
    let sent = stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)])?;
    stream.write_all(head.get(sent..).unwrap_or_default())?;
    stream.write_all(body.get(sent.saturating_sub(head.len())..).unwrap_or_default())?;
    Ok(())
}

/// Reads an answer to its end, and forgets it.
fn receive(stream: &mut dyn Stream, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    let (head, length) = loop {
        let count = stream.read(&mut buffer[filled..])?;
        ensure!(count > 0, "the server closed the connection");
        filled += count;
        if let Some(found) = parse(&buffer[..filled])? {
            break found;
        }
    };
    let mut left = (head + length).checked_sub(filled).context("more than the answer")?;
    while left > 0 {
        let part = left.min(buffer.len());
        let count = stream.read(&mut buffer[..part])?;
        ensure!(count > 0, "the answer ends early");
        left -= count;
    }
    Ok(())
}

/// The lengths of head and body, once the head is there.
fn parse(buffer: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(buffer)? else { return Ok(None) };
    let code = answer.code.unwrap_or_default();
    ensure!(matches!(code, 200 | 206), "the server answered {code}");
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.map_or(Ok("0"), |header| std::str::from_utf8(header.value))?.trim();
    Ok(Some((head, length.parse()?)))
}
