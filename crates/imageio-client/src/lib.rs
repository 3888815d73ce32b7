// SPDX-License-Identifier: MIT OR Apache-2.0
//! A blocking client for one transfer of oVirt's imageio server, over http, https or a unix socket.
//!
//! A [`Connector`] knows a transfer's URL, whom to trust, and how long to wait. It opens
//! [`Connection`]s, each of which asks the server one thing at a time: what it offers, to read, to
//! write, to zero, to flush, for extents and for a checksum.
//!
//! ```no_run
//! use bytes::Bytes;
//! use imageio_client::{Connector, Flush, Timeouts, TlsConfig, TransferUrl};
//!
//! let url = TransferUrl::parse("https://host.example.com:54322/images/ticket")?;
//! let tls = TlsConfig::with_cafile("ca.pem".as_ref())?;
//! let mut connection = Connector::new(url, Some(tls), Timeouts::default())?.connect()?;
//! if connection.options()?.flush {
//!     connection.write(0, [Bytes::from_static(b"data")], Flush::No)?;
//!     connection.flush()?;
//! }
//! # Ok::<(), imageio_client::Error>(())
//! ```
//!
//! # Why this way
//!
//! hyper's state machine for HTTP/1 is driven by the thread that calls, over a socket that doesn't
//! block and `poll(2)`: there is no runtime, and no thread. A runtime would bring an event queue
//! and timers for one socket with one request at a time.
//!
//! Nothing is retried, and no connection reopens by itself. Whether a write may be sent again
//! depends on what other connections have done meanwhile, which only their owner knows:
//! `imageio-device` has such rules.
//!
//! # Threads and lifecycle
//!
//! A [`Connection`] belongs to one thread at a time, and may be moved to another. A [`Canceller`]
//! ends its wait from any thread. After an error that leaves doubt about a connection it is closed,
//! and [`Connection::is_open`] says so. A [`Connector`] may be shared.
//!
//! # Errors
//!
//! Every wait has a limit ([`Timeouts`]). An [`Error`] is one line, and what caused it is its
//! [source](std::error::Error::source): print both. [`Error::fault`] tells who has to act. No error
//! and no `Debug` output shows the ticket, which is the last part of the URL and the key to the
//! disk.

mod address;
mod answer;
mod body;
mod byte_counter;
mod canceller;
mod capabilities;
mod connection;
mod connector;
mod driver;
mod error;
mod extents;
mod failure;
mod operation;
mod redact;
mod scatter_buffer;
mod sending;
mod stream;
mod timeouts;
mod tls;
mod trust;
mod url;

pub use crate::address::UnixAddress;
pub use crate::byte_counter::ByteCounter;
pub use crate::canceller::Canceller;
pub use crate::capabilities::Capabilities;
pub use crate::connection::{Connection, Flush};
pub use crate::connector::Connector;
pub use crate::error::{Error, Fault, Result, TlsError};
pub use crate::extents::{Extent, ExtentsContext};
pub use crate::timeouts::Timeouts;
pub use crate::tls::TlsConfig;
pub use crate::trust::TrustedUsers;
pub use crate::url::{Scheme, TransferUrl};
pub use hyper::StatusCode;

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    const fn is_send<T: Send>() {}
    is_send_and_sync::<Connector>();
    is_send_and_sync::<TransferUrl>();
    is_send_and_sync::<TlsConfig>();
    is_send_and_sync::<Timeouts>();
    is_send_and_sync::<Capabilities>();
    is_send_and_sync::<Canceller>();
    is_send_and_sync::<ByteCounter>();
    is_send_and_sync::<Error>();
    is_send::<Connection>();
};
