// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server's address, and the way to a socket that is connected to it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use url::Host;

use crate::trust::TrustedUsers;
use crate::url::TransferUrl;
use crate::{Error, Result};

/// A unix socket's name as imageio gives it: a path, or an abstract name, which starts with NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixAddress(String);

impl UnixAddress {
    /// `name` is a path, or NUL and an abstract name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for UnixAddress {
    /// A path as it is, an abstract name after `@`, as `ss` and systemd show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_prefix('\0') {
            Some(name) => write!(f, "@{}", name.replace('\0', "@")),
            None => f.write_str(&self.0),
        }
    }
}

/// Connects to the URL's host, trying each of its addresses in the resolver's order.
pub(crate) fn connect_tcp(url: &TransferUrl, timeout: Duration) -> Result<Socket> {
    let mut last = io::Error::other("the name has no address");
    for address in resolve(url)? {
        match connect_one(address, timeout) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                log::debug!("cannot connect to {address}: {error}");
                last = error;
            }
        }
    }
    Err(Error::Connect { peer: url.authority(), source: last })
}

fn resolve(url: &TransferUrl) -> Result<Vec<SocketAddr>> {
    let port = url.port();
    match url.host() {
        Host::Ipv4(ip) => Ok(vec![(*ip, port).into()]),
        Host::Ipv6(ip) => Ok(vec![(*ip, port).into()]),
        Host::Domain(name) => match (name.as_str(), port).to_socket_addrs() {
            Ok(found) => Ok(found.collect()),
            Err(source) => Err(Error::Resolve { host: name.clone(), source }),
        },
    }
}

fn connect_one(address: SocketAddr, timeout: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.connect_timeout(&address.into(), timeout)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    Ok(socket)
}

/// The bytes that a unix socket should take at once. TCP finds its own size.
const SEND_BUFFER: usize = 4 << 20;

/// Connects to a unix socket of one of the trusted users. Nothing is sent to others.
///
/// A connect to a unix socket waits where the listen queue is full; the send timeout bounds that
/// wait, and the kernel does the queueing (a non-blocking connect would fail with EAGAIN and have
/// to be tried again).
pub(crate) fn connect_unix(
    address: &UnixAddress,
    users: &TrustedUsers,
    timeout: Duration,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(timeout))?;
    // The system gives what it allows. Its default is less than one request, and each time it is
    // full costs a change of threads.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    connect_uninterrupted(&socket, &SockAddr::unix(&address.0)?, timeout)?;
    users.check(&socket)?;
    Ok(socket)
}

/// Connects a unix socket, also where signals come. With a send timeout, the system doesn't try
/// again by itself.
fn connect_uninterrupted(socket: &Socket, address: &SockAddr, timeout: Duration) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match socket.connect(address) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && start.elapsed() < timeout => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abstract_names_are_shown_without_nul() {
        assert_eq!(UnixAddress::new("\0/org/ovirt/imageio").to_string(), "@/org/ovirt/imageio");
        assert_eq!(UnixAddress::new("/run/sock").to_string(), "/run/sock");
    }
}
