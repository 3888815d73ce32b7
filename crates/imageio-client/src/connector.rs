// SPDX-License-Identifier: MIT OR Apache-2.0
//! All that is needed to open a connection to a transfer, again and again.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use socket2::Socket;
use url::Host;

use crate::address::{self, UnixAddress};
use crate::byte_counter::ByteCounter;
use crate::connection::Connection;
use crate::operation::Heads;
use crate::stream::Stream;
use crate::timeouts::Timeouts;
use crate::tls::{self, TlsConfig};
use crate::trust::TrustedUsers;
use crate::url::{Scheme, TransferUrl};
use crate::{Error, Result, TlsError};

/// Opens connections to one transfer.
#[derive(Clone)]
pub struct Connector {
    url: Arc<TransferUrl>,
    heads: Arc<Heads>,
    tls: Option<TlsConfig>,
    unix_socket: Option<(UnixAddress, TrustedUsers)>,
    timeouts: Timeouts,
}

impl Connector {
    /// Connections to `url`, verified with `tls` where the URL is https. Without `tls`, the
    /// system's roots are loaded for an https URL.
    ///
    /// # Errors
    /// [`Error::NoRoots`] where the system's roots are needed and missing; [`Error::Url`] where
    /// the URL doesn't fit into a request.
    pub fn new(url: TransferUrl, tls: Option<TlsConfig>, timeouts: Timeouts) -> Result<Self> {
        let tls = match (url.scheme(), tls) {
            (Scheme::Http, _) => None,
            (Scheme::Https, Some(tls)) => Some(tls),
            (Scheme::Https, None) => Some(TlsConfig::with_system_roots()?),
        };
        let heads = Arc::new(Heads::new(&url)?);
        Ok(Self { url: Arc::new(url), heads, tls, unix_socket: None, timeouts })
    }

    /// Leads to the transfer through a unix socket of this host, where plain HTTP is spoken. Each
    /// connection is refused, before a byte is sent, if none of `users` listens there.
    #[must_use]
    pub fn through(&self, unix_socket: UnixAddress, users: TrustedUsers) -> Self {
        Self { unix_socket: Some((unix_socket, users)), ..self.clone() }
    }

    /// The transfer.
    #[must_use]
    pub fn url(&self) -> &TransferUrl {
        &self.url
    }

    /// Opens a connection. Nothing is asked of the server yet.
    ///
    /// # Errors
    /// [`Error::Resolve`], [`Error::Connect`] or [`Error::Tls`].
    pub fn connect(&self) -> Result<Connection> {
        self.connect_counted(&ByteCounter::default())
    }

    /// Opens a connection that counts in `moved` the bytes that it moves.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_counted(&self, moved: &ByteCounter) -> Result<Connection> {
        let socket = match &self.unix_socket {
            Some((address, users)) => self.connect_unix(address, users)?,
            None => address::connect_tcp(&self.url, self.timeouts.connect)?,
        };
        let stream = match &self.tls {
            Some(tls) if self.unix_socket.is_none() => {
                Stream::tls(self.secured(tls, &socket)?, socket, moved.clone())
            }
            _ => Stream::plain(socket, moved.clone()),
        };
        let stream = stream.map_err(|source| Error::Connect { peer: self.url.authority(), source })?;
        Connection::new(stream, Arc::clone(&self.url), Arc::clone(&self.heads), self.timeouts)
    }

    fn connect_unix(&self, address: &UnixAddress, users: &TrustedUsers) -> Result<Socket> {
        address::connect_unix(address, users, self.timeouts.connect).map_err(|source| {
            // The server chose the name.
            Error::Connect { peer: self.url.redact(&format!("unix socket {address}")), source }
        })
    }

    fn secured(&self, TlsConfig(config): &TlsConfig, socket: &Socket) -> Result<ClientConnection> {
        let fail = |source| Error::Tls { peer: self.url.authority(), source };
        let mut tls = ClientConnection::new(Arc::clone(config), self.server_name()?)
            .map_err(|e| fail(TlsError::Refused(e.to_string())))?;
        self.shake_hands(socket, &mut tls).map_err(|e| fail(self.explain(&e)))?;
        Ok(tls)
    }

    /// All of the handshake has one limit, also where a byte comes now and then.
    fn shake_hands(&self, socket: &Socket, tls: &mut ClientConnection) -> io::Result<()> {
        let deadline = Instant::now() + self.timeouts.connect;
        while tls.is_handshaking() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            socket.set_read_timeout(Some(left))?;
            socket.set_write_timeout(Some(left))?;
            let has_ended = match tls.wants_write() {
                true => tls.write_tls(&mut &*socket).map(|_| false),
                false => tls.read_tls(&mut &*socket).map(|n| n == 0),
            };
            match has_ended {
                Ok(false) => {}
                Ok(true) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // With a timeout, the system doesn't begin again by itself after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if let Err(error) = tls.process_new_packets() {
                // The alert that tells the server why; if it can't be sent, that's no further news.
                let _ = tls.write_tls(&mut &*socket);
                return Err(io::Error::other(error));
            }
        }
        Ok(())
    }

    fn explain(&self, error: &io::Error) -> TlsError {
        if let Some(cause) = cause(error) {
            return tls::explain(cause);
        }
        TlsError::Broken(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("no answer for {} s", self.timeouts.connect.as_secs_f32())
            }
            io::ErrorKind::UnexpectedEof => "the server closed the connection in the handshake".into(),
            _ => error.to_string(),
        })
    }

    fn server_name(&self) -> Result<ServerName<'static>> {
        match self.url.host() {
            Host::Domain(name) => {
                ServerName::try_from(name.clone()).map_err(|e| Error::Url(format!("{name}: {e}")))
            }
            Host::Ipv4(ip) => Ok(ServerName::from(std::net::IpAddr::from(*ip))),
            Host::Ipv6(ip) => Ok(ServerName::from(std::net::IpAddr::from(*ip))),
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("url", &self.url)
            .field("unix_socket", &self.unix_socket)
            .finish_non_exhaustive()
    }
}

/// Returns the reason why one side refused the other.
fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use error_reporter::Report;

    use super::*;

    #[test]
    fn a_socket_of_somebody_else_gets_not_a_byte_on_any_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let url = TransferUrl::parse("https://h/images/t").unwrap();
        let connector = Connector::new(url, Some(TlsConfig::insecure()), Timeouts::default()).unwrap();
        let through = |users| connector.through(UnixAddress::new(path.to_str().unwrap()), users);
        let strange = through(TrustedUsers::nobody());
        for _ in 0..2 {
            let error = strange.connect().unwrap_err();
            assert!(error.is_unsent() && error.is_transient(), "{error:?}");
            let reason = Report::new(&error).to_string();
            assert!(reason.contains("who is not trusted with the ticket"), "{reason}");
            assert_eq!(listener.accept().unwrap().0.read(&mut [0]).unwrap(), 0);
        }
        assert!(through(TrustedUsers::new(None)).connect().is_ok());
    }
}
