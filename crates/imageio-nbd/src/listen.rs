// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sockets on which clients connect.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nbd_frontend::{Listener, bind_loopback, bind_tcp, bind_unix};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;

use crate::cli::{Options, TlsMode};
use crate::selinux;

/// NBD's registered port.
const NBD_PORT: u16 = 10809;

/// Sockets that listen, and how clients find them.
pub(crate) struct Listening {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) address: Address,
    /// Of a private socket; goes after the listeners.
    pub(crate) private: Option<TempDir>,
}

/// The address by which clients find the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) place: Place,
    /// Clients have to use TLS.
    needs_tls: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

impl Listening {
    /// A unix socket, a TCP port, or for `--run` alone a private unix socket.
    pub(crate) fn bind(options: &Options) -> Result<Self> {
        let mut listening =
            selinux::with_label(options.selinux_label.as_deref(), || Self::bind_as_told(options))?;
        listening.address.needs_tls = options.tls == Some(TlsMode::Require);
        Ok(listening)
    }

    fn bind_as_told(options: &Options) -> Result<Self> {
        match (&options.unix, &options.ipaddr, options.port) {
            (Some(path), ..) if path == Path::new("-") => Self::private(),
            (Some(path), ..) => Self::unix(path, None),
            (None, None, None) => Self::private(),
            (None, host, port) => Self::tcp(host.as_deref(), port.unwrap_or(NBD_PORT), Family::of(options)),
        }
    }

    /// A unix socket in a directory that other users have no access to.
    pub(crate) fn private() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("imageio-nbd-")
            .tempdir()
            .context("cannot make a directory for the socket")?;
        let path = dir.path().join("socket");
        Self::unix(&path, Some(dir))
    }

    fn unix(path: &Path, private: Option<TempDir>) -> Result<Self> {
        // Absolute: a daemon changes its directory, and the file is to be removed at the end.
        let path = std::path::absolute(path).context("-U: the name of a socket is expected")?;
        let listeners = vec![bind_unix(&path)?];
        Ok(Self { listeners, address: Address::from(Place::Unix(path)), private })
    }

    /// Without a host, on this host alone.
    fn tcp(host: Option<&str>, port: u16, family: Family) -> Result<Self> {
        let listeners = match (host, family) {
            (None, Family::Any) => bind_loopback(port),
            (Some("any"), Family::Any) => bind_tcp("", port),
            (Some(host), Family::Any) => bind_tcp(host, port),
            (None, Family::V4) => bind_tcp("127.0.0.1", port),
            (None, Family::V6) => bind_tcp("::1", port),
            (Some("any"), Family::V4) => bind_tcp("0.0.0.0", port),
            (Some("any"), Family::V6) => bind_tcp("::", port),
            (Some(host), family) => bind_tcp(&family.address_of(host)?.to_string(), port),
        }?;
        let chosen = listeners.first().and_then(Listener::tcp_addr).map_or(port, |address| address.port());
        let host = host.filter(|host| *host != "any").unwrap_or("localhost").to_owned();
        let address = Address::from(Place::Tcp { host, port: chosen });
        Ok(Self { listeners, address, private: None })
    }
}

/// Which addresses are listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    fn of(options: &Options) -> Self {
        match (options.ipv4_only, options.ipv6_only) {
            (true, _) => Self::V4,
            (_, true) => Self::V6,
            _ => Self::Any,
        }
    }

    fn has(self, address: IpAddr) -> bool {
        self == Self::Any || (self == Self::V4) == address.is_ipv4()
    }

    /// The first one that a host has of this family.
    fn address_of(self, host: &str) -> Result<IpAddr> {
        let addresses = (host, 0).to_socket_addrs().with_context(|| format!("-i {host}"))?;
        let mut addresses = addresses.map(|address| address.ip()).filter(|address| self.has(*address));
        addresses.next().with_context(|| format!("-i {host}: it has no address for {}", self.option()))
    }

    fn option(self) -> &'static str {
        match self {
            Self::Any => "-p",
            Self::V4 => "--ipv4-only",
            Self::V6 => "--ipv6-only",
        }
    }
}

impl From<Place> for Address {
    fn from(place: Place) -> Self {
        Self { place, needs_tls: false }
    }
}

impl Address {
    /// The NBD URI (`doc/uri.md` of the NBD project). As nbdkit's, it does not tell where a client
    /// has its certificates.
    pub(crate) fn uri(&self, export_name: &str) -> String {
        /// The characters that are escaped: all but those that RFC 3986 leaves alone in a path or
        /// query.
        const ESCAPED: &AsciiSet =
            &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
        let name = utf8_percent_encode(export_name, ESCAPED);
        let scheme = if self.needs_tls { "nbds" } else { "nbd" };
        match &self.place {
            Place::Unix(path) => {
                let path = path.to_string_lossy();
                format!("{scheme}+unix:///{name}?socket={}", utf8_percent_encode(&path, ESCAPED))
            }
            Place::Tcp { host, port } if host.contains(':') => format!("{scheme}://[{host}]:{port}/{name}"),
            Place::Tcp { host, port } => format!("{scheme}://{host}:{port}/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_the_addresses_of_its_kind() {
        for (family, host, found) in [
            (Family::V4, "127.0.0.1", true),
            (Family::V6, "127.0.0.1", false),
            (Family::V6, "::1", true),
            (Family::V4, "::1", false),
            (Family::Any, "::1", true),
        ] {
            assert_eq!(family.address_of(host).is_ok(), found, "{family:?} {host}");
        }
        let error = Family::V4.address_of("::1").unwrap_err().to_string();
        assert_eq!(error, "-i ::1: it has no address for --ipv4-only");
    }

    #[test]
    fn uris() {
        let unix = Address::from(Place::Unix("/tmp/a b/s&t".into()));
        assert_eq!(unix.uri(""), "nbd+unix:///?socket=/tmp/a%20b/s%26t");
        assert_eq!(unix.uri("é"), "nbd+unix:///%C3%A9?socket=/tmp/a%20b/s%26t");
        let tcp = |host: &str| Address::from(Place::Tcp { host: host.into(), port: 1 });
        assert_eq!(tcp("::1").uri("x"), "nbd://[::1]:1/x");
        assert_eq!(tcp("localhost").uri(""), "nbd://localhost:1/");
        for (address, uri) in [
            (unix, "nbds+unix:///?socket=/tmp/a%20b/s%26t"),
            (tcp("::1"), "nbds://[::1]:1/"),
            (tcp("localhost"), "nbds://localhost:1/"),
        ] {
            assert_eq!(Address { needs_tls: true, ..address }.uri(""), uri);
        }
    }
}
