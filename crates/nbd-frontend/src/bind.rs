// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets to listen on.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
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
    /// A socket that already listens: a `UnixListener`, a `TcpListener`, or one that was inherited. Its path, if it
    /// has one, is left alone when the listener is dropped.
    #[must_use]
    pub fn new(socket: impl Into<OwnedFd>) -> Self {
        Self { socket: socket.into().into(), path: None }
    }

    /// The TCP address, with the port that the system chose if it was asked for port 0; `None` on a unix socket.
    #[must_use]
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// Leaves the file of the unix socket in place when the listener is dropped, as a process must that hands the
    /// socket on to its child.
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

/// Listens on a new unix socket, whose file is removed when the [`Listener`] is dropped. Only its owner may connect:
/// whoever connects can read and write the disk.
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
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before there is a file: Linux makes it with the mode of the socket, so that there is no moment to slip in.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn file_id(path: &Path) -> io::Result<FileId> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens on every address of `host`: a name, a numeric address, or nothing for all interfaces. Port 0 is a free
/// port, the same one for all addresses; [`Listener::tcp_addr`] tells it.
///
/// # Errors
/// [`Error::Bind`] if the host is unknown, if an address is in use, or if none exists on this machine.
pub fn bind_tcp(host: &str, port: u16) -> Result<Vec<Listener>, Error> {
    let failed = |source| Error::Bind { address: format!("{host}:{port}"), source };
    let addresses = resolve(host, port).map_err(failed)?;
    let mut listeners = Vec::<Listener>::new();
    let mut missing = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for mut address in addresses {
        let chosen = listeners.first().and_then(Listener::tcp_addr);
        address.set_port(chosen.map_or(port, |first| first.port()));
        match bind_address(address) {
            Ok(socket) => listeners.push(Listener { socket, path: None }),
            // localhost may have an IPv6 address in the hosts file of a machine without IPv6.
            Err(e) if is_missing(&e) => missing = e,
            Err(e) => return Err(failed(e)),
        }
    }
    if listeners.is_empty() { Err(failed(missing)) } else { Ok(listeners) }
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host.is_empty() {
        return Ok(vec![
            (std::net::Ipv4Addr::UNSPECIFIED, port).into(),
            (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
        ]);
    }
    let mut addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
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

    #[test]
    fn an_unknown_host_is_named() {
        let error = bind_tcp("300.300.300.300", 10809).unwrap_err();
        assert!(error.to_string().starts_with("cannot listen on 300.300.300.300:10809: "), "{error}");
    }
}
