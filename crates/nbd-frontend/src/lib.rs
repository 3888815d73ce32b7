// SPDX-License-Identifier: MIT OR Apache-2.0
//! A parallel NBD server for any [`QueuedDevice`](block_device::QueuedDevice); with
//! [`Threaded`](block_device::Threaded), for any [`BlockDevice`](block_device::BlockDevice).
//!
//! Each connection is a session with a thread that reads requests and hands them to the device. Replies go out as they
//! become ready, those of a batch together. [`Config::requests`] and [`Config::memory`] bound what a session may have in
//! flight, so that a client that sends fast or reads slowly only waits for itself. [`Config::sessions`] and
//! [`Config::sessions_per_address`] bound how many there are; a client that connects and does not negotiate gives way to
//! others, and one that has negotiated is never dropped.
//!
//! A client may negotiate structured replies or extended headers. It is told then which parts of a READ are zero
//! ([`Completion::fill_zeroes`](block_device::Completion::fill_zeroes)), why a request has failed, and, by BLOCK_STATUS,
//! what the [contexts](block_device::QueuedDevice::contexts) of the device say of a range.
//!
//! With the feature `rustls`, [`Config::tls`] lets clients start TLS, or wants them to. All that is said here is true of
//! them, too: a client that idles in TLS's handshake still negotiates, and gives way.
//!
//! ```no_run
//! use std::sync::Arc;
//! use block_device::{MemoryDevice, Threaded};
//! use nbd_frontend::{Config, ExportInfo, Server, bind_unix};
//!
//! let disk = Arc::new(Threaded::start(Arc::new(MemoryDevice::new(1 << 20)), 4)?);
//! let mut server = Server::new(disk, &ExportInfo::default(), Config::default())?;
//! server.listen(bind_unix("/tmp/nbd.sock")?);
//! let handle = server.handle(); // For a thread that waits for signals: it calls handle.shutdown().
//! let outcome = server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accept;
mod admission;
mod bind;
mod connection;
mod error;
mod export;
mod exports;
mod negotiate;
mod registry;
mod server;
mod session;
mod stats;
mod tls;
mod transport;

pub use bind::{Listener, bind_loopback, bind_tcp, bind_unix};
pub use error::Error;
pub use export::{ExportInfo, MAX_PAYLOAD};
pub use nbd_wire::InvalidExport;
pub use server::{Config, Server, ShutdownHandle};
pub use stats::Outcome;
pub use tls::Tls;

use std::any::Any;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose data is sound between any two statements, so that a panic elsewhere does not spread.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a panic said.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
