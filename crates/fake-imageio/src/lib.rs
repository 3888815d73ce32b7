// SPDX-License-Identifier: MIT OR Apache-2.0
//! A faithful fake of oVirt's imageio server, for tests and benchmarks of its clients.
//!
//! It serves one ticket over HTTP, HTTPS and a unix socket, keeps the bytes, and writes down what
//! it saw. A script of faults makes it go wrong.
//!
//! ```
//! use std::time::Duration;
//! use fake_imageio::{Fault, FakeServer, Op, What};
//!
//! let server = FakeServer::builder().size(1 << 30).start()?;
//! server.fault(Fault::on(Op::Put).nth(2).then(What::Reset { after: 1000 }));
//! // … a client uses server.url() …
//! let all_closed = server.wait_for(Duration::from_secs(10), |log| log.open().count() == 0);
//! assert!(all_closed);
//! assert_eq!(server.log().lost_unflushed(), 0);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! **Invariant:** it uses none of this workspace's other crates, so that a misreading of the
//! protocol in them cannot hide in their tests.
//!
//! # Why this way
//!
//! The real daemon is in Python and needs an installation; it can't be told to close a connection
//! at a certain byte, and doesn't tell which connection a request came on. This fake does both. Its
//! answers are compared with those of the real daemon by the workspace's own tests. It serves one
//! ticket, and tickets don't expire by themselves.
//!
//! # Threads and lifecycle
//!
//! [`Builder::start`] starts a server with its own threads on a free port, and dropping the
//! [`FakeServer`] stops it. All methods may be called from any thread while clients are connected.
//! [`FakeServer::wait_for`] waits for an event, and a [`Gate`] holds a request until the test opens
//! it, so no test has to sleep.
//!
//! # Errors
//!
//! A call that the fake itself can't carry out returns an [`std::io::Error`]. A client's mistake is
//! answered as the daemon answers it, and is in the [log](FakeServer::log).
//!
//! # Features
//!
//! `cli`, on by default, has the binary and what it needs. Tests that use the library leave it out.

mod answer;
mod backend;
mod bitmap;
mod block;
mod checksum;
mod config;
mod connection;
mod extents;
mod fault;
mod gate;
mod journal;
mod ops;
mod request;
mod script;
mod server;
mod service;
mod shared;
mod stream;
mod tls;
mod volatile_cache;
mod words;

pub use backend::Backend;
pub use config::{Builder, DEFAULT_TICKET, OptionsMode};
pub use fault::{Done, Fault, Op, What, When};
pub use gate::Gate;
pub use journal::{ClosedBy, ConnectionRecord, Log, RequestRecord, Transport};
pub use server::FakeServer;
pub use tls::{Certificate, Pki};

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<FakeServer>();
    is_send_and_sync::<Builder>();
    is_send_and_sync::<Fault>();
    is_send_and_sync::<Gate>();
    is_send_and_sync::<Log>();
    is_send_and_sync::<Pki>();
};
