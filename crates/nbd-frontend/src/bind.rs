// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets to listen on.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::Error;
use crate::admission::Peer;

const BACKLOG: i32 = 128;

/// A socket that listens for clients, unix or TCP.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// The file to remove when the listener goes, and its identity.
    path: Option<(PathBuf, FileId)>,
}

/// Device and inode.
type FileId = (u64, u64);

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((path, id)) = self.path.take() {
            // Somebody else may have removed it, and put another server's socket in its place.
            if file_id(&path).is_ok_and(|now| now == id) {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Listener {
    /// A socket that already listens: a `UnixListener`, a `TcpListener`, or one that was inherited.
    /// Its path, if it has one, is left alone when the listener is dropped.
    #[must_use]
    pub fn new(socket: impl Into<OwnedFd>) -> Self {
        Self { socket: socket.into().into(), path: None }
    }

    /// The TCP address, with the port that the system chose if it was asked for port 0; `None` on a
    /// unix socket.
    #[must_use]
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// Leaves the file of the unix socket in place when the listener is dropped, as a process must
    /// that hands the socket on to its child.
    #[must_use]
    pub fn keep_path(mut self) -> Self {
        self.path = None;
        self
    }

    /// A client that waits and where it comes from, or `None` if it has gone already.
    pub(crate) fn accept(&self) -> io::Result<Option<(Socket, Peer)>> {
        match self.socket.accept() {
            Ok((client, address)) => {
                client.set_nonblocking(false)?;
                Ok(Some((client, Peer::from(&address))))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {
                Ok(None)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes sure that `accept` returns even if the client that was announced has gone.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Listens on a new unix socket, whose file is removed when the [`Listener`] is dropped. Only its
/// owner may connect: whoever connects can read and write the disk.
///
/// # Errors
/// [`Error::PathTaken`] if anything exists at `path`; [`Error::Bind`].
pub fn bind_unix(path: impl AsRef<Path>) -> Result<Listener, Error> {
    let path = path.as_ref();
    match bind_private(path).and_then(|socket| Ok((socket, file_id(path)?))) {
        Ok((socket, id)) => Ok(Listener { socket, path: Some((path.to_owned(), id)) }),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(Error::PathTaken(path.to_owned())),
        Err(source) => Err(Error::Bind { address: path.display().to_string(), source }),
    }
}

fn bind_private(path: &Path) -> io::Result<Socket> {
    // The system's own words name a macro of C.
    let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a socket's path has 107 bytes at most");
    let address = SockAddr::unix(path).map_err(too_long)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before there is a file: Linux makes it with the mode of the socket, so that there is no
    // moment to slip in.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&address)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn file_id(path: &Path) -> io::Result<FileId> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens on every address of `host`: a name, a numeric address, or nothing for all interfaces.
/// Port 0 is a free port, the same one for all addresses; [`Listener::tcp_addr`] tells it.
///
/// # Errors
/// [`Error::Bind`] if the host is unknown, if an address is in use, or if none exists on this
/// machine.
pub fn bind_tcp(host: &str, port: u16) -> Result<Vec<Listener>, Error> {
    let listeners = resolve(host, port).and_then(|addresses| bind_all(&addresses, bind_address));
    listeners.map_err(|source| Error::Bind { address: format!("{host}:{port}"), source })
}

/// Listens on 127.0.0.1 and, where this machine has IPv6, on ::1: for clients of this machine
/// alone, whatever its hosts file says of localhost. Port 0 is a free port, the same one for both;
/// [`Listener::tcp_addr`] tells it.
///
/// # Errors
/// [`Error::Bind`] if the port is in use.
pub fn bind_loopback(port: u16) -> Result<Vec<Listener>, Error> {
    let addresses = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    let listeners = bind_all(&addresses, bind_address);
    listeners.map_err(|source| Error::Bind { address: format!("localhost:{port}"), source })
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host.is_empty() {
        return Ok(vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]);
    }
    let mut addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// Binds to those of the addresses that exist on this machine.
fn bind_all(
    addresses: &[SocketAddr],
    bind: impl Fn(SocketAddr) -> io::Result<Socket>,
) -> io::Result<Vec<Listener>> {
    /// A port that is free at one address may be in use at another: then the system is asked for
    /// another port.
    const ATTEMPTS: usize = 16;
    let is_any_port = addresses.iter().all(|address| address.port() == 0);
    let mut attempts = if is_any_port { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        match bind_all_once(addresses, &bind) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            bound => return bound,
        }
    }
}

fn bind_all_once(
    addresses: &[SocketAddr],
    bind: impl Fn(SocketAddr) -> io::Result<Socket>,
) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::<Listener>::new();
    let mut missing = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for mut address in addresses.iter().copied() {
        if let Some(chosen) = listeners.first().and_then(Listener::tcp_addr) {
            address.set_port(chosen.port());
        }
        match bind(address) {
            Ok(socket) => listeners.push(Listener { socket, path: None }),
            // A machine without IPv6 has no such address.
            Err(e) if is_missing(&e) => {
                log::info!("not listening on {}: {e}", address.ip());
                missing = e;
            }
            Err(e) => return Err(e),
        }
    }
    if listeners.is_empty() { Err(missing) } else { Ok(listeners) }
}

fn bind_address(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_taken_path_is_an_error_and_a_free_one_is_tidied_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = bind_unix(&path).unwrap();
        assert!(path.exists() && listener.tcp_addr().is_none());
        assert!(matches!(bind_unix(&path), Err(Error::PathTaken(taken)) if taken == path));
        drop(listener);
        drop(bind_unix(&path).unwrap().keep_path());
        assert!(path.exists());
    }

    #[test]
    fn a_path_that_is_too_long_is_told_with_the_limit() {
        let error = bind_unix("s".repeat(108)).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {}", "s".repeat(108)));
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.to_string(), "a socket's path has 107 bytes at most");
    }

    #[test]
    fn only_the_owner_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let _listener = bind_unix(&path).unwrap();
        assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn the_socket_of_a_successor_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let first = bind_unix(&path).unwrap();
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        let _second = bind_unix(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn port_zero_is_one_free_port() {
        let listeners = bind_tcp("localhost", 0).unwrap();
        let ports: Vec<_> = listeners.iter().map(|listener| listener.tcp_addr().unwrap().port()).collect();
        assert_ne!(ports[0], 0);
        assert!(ports.iter().all(|port| *port == ports[0]));
        assert!(matches!(bind_tcp("localhost", ports[0]), Err(Error::Bind { .. })));
    }

    fn is_taken(ip: IpAddr) -> impl Fn(SocketAddr) -> io::Result<Socket> {
        move |address| match address.ip() == ip {
            true => Err(io::ErrorKind::AddrInUse.into()),
            false => bind_address(address),
        }
    }

    #[test]
    fn loopback_is_both_of_its_addresses_on_one_port() {
        let listeners = bind_loopback(0).unwrap();
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.tcp_addr().unwrap()).collect();
        let port = addresses[0].port();
        assert_ne!(port, 0);
        let expected = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
        // On a machine without IPv6, only the first is there.
        let count = if bind_address(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))).is_ok() { 2 } else { 1 };
        assert_eq!(addresses, expected[..count]);
        assert!(matches!(bind_loopback(port), Err(Error::Bind { .. })));
    }

    #[test]
    fn an_address_that_this_machine_has_not_is_left_out() {
        let addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()];
        for missing in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            let bind = |address: SocketAddr| match address.is_ipv6() {
                true => Err(missing.into()),
                false => bind_address(address),
            };
            assert_eq!(bind_all(&addresses, bind).unwrap().len(), 1);
            assert!(bind_all(&addresses[1..], bind).is_err());
        }
    }

    #[test]
    fn another_free_port_is_taken_where_one_is_in_use_at_the_second_address() {
        let second = Ipv4Addr::new(127, 0, 0, 2);
        let addresses = |port| [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (second, port).into()];
        let calls = Cell::new(0);
        let bind = |address: SocketAddr| {
            calls.set(calls.get() + 1);
            if calls.get() == 2 { Err(io::ErrorKind::AddrInUse.into()) } else { bind_address(address) }
        };
        let listeners = bind_all(&addresses(0), bind).unwrap();
        let ports: Vec<_> = listeners.iter().map(|listener| listener.tcp_addr().unwrap().port()).collect();
        assert!(calls.get() == 4 && ports[0] == ports[1], "{ports:?}");
        // Not for ever, and not where a port was asked for.
        assert!(bind_all(&addresses(0), is_taken(second.into())).is_err());
        calls.set(0);
        drop(listeners);
        assert!(bind_all(&addresses(ports[0]), bind).is_err());
        assert_eq!(calls.get(), 2);
    }

    #[test]
    fn an_unknown_host_is_named() {
        let error = bind_tcp("300.300.300.300", 10809).unwrap_err();
        assert_eq!(error.to_string(), "cannot listen on 300.300.300.300:10809");
        assert!(std::error::Error::source(&error).is_some(), "the resolver's reason is kept");
    }
}
