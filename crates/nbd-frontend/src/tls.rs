// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS: what the server's user decides.

#[cfg(feature = "rustls")]
mod connection;

use std::io;
#[cfg(feature = "rustls")]
use std::sync::Arc;

#[cfg(feature = "rustls")]
use rustls::ServerConfig;

use crate::negotiate::Timed;
use crate::transport::Transport;

#[cfg(feature = "rustls")]
pub(crate) use connection::{Decrypted, TlsConnection};

/// The server's TLS mode ('Server-side requirements'). With TLS, a session takes some 200 KiB more.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Tls {
    /// The server has no TLS. STARTTLS is answered by UNSUP.
    #[default]
    Unsupported,
    /// The server's user wants no TLS. STARTTLS is answered by POLICY.
    Off,
    /// The client decides. Who can change what is sent can make the client believe that there is no
    /// TLS.
    #[cfg(feature = "rustls")]
    Offered(Arc<ServerConfig>),
    /// Before TLS has started, a client gets no answer but TLS_REQD.
    ///
    /// The configuration says whether clients have to show a certificate. A connection of TLS 1.2
    /// can't renew its keys, and is ended by rustls after 256 GiB in one direction, if its cipher
    /// is AES: a disk may be larger.
    #[cfg(feature = "rustls")]
    Required(Arc<ServerConfig>),
}

impl Tls {
    /// Tells the negotiation whether TLS is offered or required.
    pub(crate) fn mode(&self) -> nbd_wire::Tls {
        match self {
            Self::Unsupported => nbd_wire::Tls::Unsupported,
            Self::Off => nbd_wire::Tls::Off,
            #[cfg(feature = "rustls")]
            Self::Offered(_) => nbd_wire::Tls::Offered,
            #[cfg(feature = "rustls")]
            Self::Required(_) => nbd_wire::Tls::Required,
        }
    }

    /// Makes TLS's handshake. `InvalidData` is an error of TLS itself.
    #[cfg_attr(
        not(feature = "rustls"),
        expect(unused_variables, reason = "there is no handshake to be made")
    )]
    pub(crate) fn start(&self, stream: &mut Timed<'_>) -> io::Result<Transport> {
        match self {
            // STARTTLS was refused, so nobody comes here.
            Self::Unsupported | Self::Off => Err(io::ErrorKind::Unsupported.into()),
            #[cfg(feature = "rustls")]
            Self::Offered(config) | Self::Required(config) => {
                Ok(Transport::Tls(Arc::new(TlsConnection::accept(config, stream)?)))
            }
        }
    }
}
