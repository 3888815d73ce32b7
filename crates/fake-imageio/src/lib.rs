// SPDX-License-Identifier: MIT OR Apache-2.0
//! A faithful fake of oVirt's imageio server, for tests and benchmarks of its clients.
//!
//! It serves one ticket over HTTP, HTTPS and a unix socket, keeps the bytes, writes down what it saw, and goes wrong
//! where a script of faults says so.
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
//! **Invariant:** it uses none of this workspace's other crates, so that a misreading of the protocol in them cannot
//! hide in their tests.

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
