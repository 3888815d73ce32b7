// SPDX-License-Identifier: MIT OR Apache-2.0
//! A blocking client for one transfer of oVirt's imageio server, over http, https or a unix socket.
//!
//! A [`Connector`] opens [`Connection`]s; each is driven by the thread that calls it. Nothing is retried and nothing is
//! reopened here: whoever keeps several connections knows what is safe.

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
pub use crate::error::{Error, Fault, Result};
pub use crate::extents::{Extent, ExtentsContext};
pub use crate::timeouts::Timeouts;
pub use crate::tls::TlsConfig;
pub use crate::trust::TrustedUsers;
pub use crate::url::{Scheme, TransferUrl};
pub use hyper::StatusCode;
