// SPDX-License-Identifier: MIT OR Apache-2.0
//! A raw HTTP/1.1 client over plain sockets. It shares no code with the project's own client, shows
//! answers as they are, and can stop in the middle of a request.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// The time for which the other side may be silent.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server's address, and the way to connect to it.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// HTTP.
    Http(SocketAddr),
    /// HTTPS; trusts this CA (PEM).
    Https(SocketAddr, String),
    /// HTTP on a unix socket; an abstract one starts with NUL.
    Unix(String),
}

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The server said that it closes the connection.
    #[must_use]
    pub fn says_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order (FIN).
    Closed,
    /// By a reset (RST).
    Reset,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    /// Read, but not yet used.
    buffer: Vec<u8>,
}

impl Client {
    /// Connects, and does the TLS handshake.
    ///
    /// # Errors
    /// If either fails.
    pub fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        let socket = match endpoint {
            Endpoint::Http(addr) => Socket::Tcp(connect_tcp(addr)?),
            Endpoint::Https(addr, ca) => {
                let mut tcp = connect_tcp(addr)?;
                let name = ServerName::from(addr.ip());
                let mut tls = ClientConnection::new(tls_config(ca)?, name).map_err(io::Error::other)?;
                while tls.is_handshaking() {
                    tls.complete_io(&mut tcp)?;
                }
                Socket::Tls(Box::new(tls), tcp)
            }
            Endpoint::Unix(path) => {
                let unix = match path.strip_prefix('\0') {
                    Some(name) => UnixStream::connect_addr(&UnixAddr::from_abstract_name(name)?)?,
                    None => UnixStream::connect(path)?,
                };
                unix.set_read_timeout(Some(PATIENCE))?;
                unix.set_write_timeout(Some(PATIENCE))?;
                Socket::Unix(unix)
            }
        };
        Ok(Self { socket, buffer: Vec::new() })
    }

    /// Sends a request and reads the answer. Unless it is among the headers, `content-length` is
    /// that of the body if it has one.
    ///
    /// # Errors
    /// If no whole answer comes. That the request could not be sent to its end is no error if there
    /// is an answer.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        let given = headers.iter().any(|(name, _)| matches!(*name, "content-length" | "transfer-encoding"));
        if !given && (!body.is_empty() || matches!(method, "PUT" | "PATCH")) {
            headers.push(("content-length", &length));
        }
        let sent = self.send_head(method, target, &headers).and_then(|()| self.send(body));
        match (self.read_answer(), sent) {
            (Err(_), Err(error)) => Err(error),
            (result, _) => result,
        }
    }

    /// Sends a request's head only.
    ///
    /// # Errors
    /// If the connection has ended.
    pub fn send_head(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> io::Result<()> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send(head.as_bytes())
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// If the connection has ended, or the other side does not read.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(tcp) => tcp.write_all(bytes),
            Socket::Unix(unix) => unix.write_all(bytes),
            Socket::Tls(tls, tcp) => {
                for piece in bytes.chunks(16 << 10) {
                    tls.writer().write_all(piece)?;
                    while tls.wants_write() {
                        tls.write_tls(tcp)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Reads an answer, whose end must be told by its `content-length`.
    ///
    /// # Errors
    /// If the connection ends before the answer does, or it is not HTTP.
    pub fn read_answer(&mut self) -> io::Result<Answer> {
        let (mut answer, length) = self.read_head()?;
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body ends early"));
            }
        }
        answer.body = self.buffer.drain(..length).collect();
        Ok(answer)
    }

    fn read_head(&mut self) -> io::Result<(Answer, usize)> {
        loop {
            if let Some((length, answer)) = parse_head(&self.buffer)? {
                self.buffer.drain(..length);
                let announced = answer.header("content-length").and_then(|value| value.parse().ok());
                return Ok((answer, announced.unwrap_or(0)));
            }
            if self.fill()? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no answer"));
            }
        }
    }

    /// Waits for the end of the connection, which must come without another byte.
    ///
    /// # Errors
    /// If bytes come, or nothing does for a while.
    pub fn read_end(&mut self) -> io::Result<End> {
        match self.fill() {
            _ if !self.buffer.is_empty() => {
                Err(io::Error::other(format!("unexpected {:?}", String::from_utf8_lossy(&self.buffer))))
            }
            Ok(_) => Ok(End::Closed),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(End::Reset),
            Err(error) => Err(error),
        }
    }

    /// Reads what there is; 0 at the end.
    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = vec![0; 64 << 10];
        let count = self.socket.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

fn connect_tcp(addr: &SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect_timeout(addr, PATIENCE)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    Ok(tcp)
}

fn tls_config(ca: &str) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(cert.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

fn parse_head(buffer: &[u8]) -> io::Result<Option<(usize, Answer)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(buffer).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let status = response.code.unwrap_or(0);
    let headers = response
        .headers
        .iter()
        .map(|header| (header.name.to_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
        .collect();
    Ok(Some((length, Answer { status, headers, body: Vec::new() })))
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    // By hand, and not a rustls Stream: that one would write before it reads, and so never see why
    // writing failed.
    Tls(Box<ClientConnection>, TcpStream),
}

impl Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(buf),
            Self::Unix(unix) => unix.read(buf),
            Self::Tls(tls, tcp) => loop {
                match tls.reader().read(buf) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    // The real server closes without a close_notify.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                    result => return result,
                }
                if tls.read_tls(tcp)? == 0 {
                    // Only now does the reader know of the end.
                    continue;
                }
                tls.process_new_packets().map_err(io::Error::other)?;
            },
        }
    }
}
