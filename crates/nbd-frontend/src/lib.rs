// SPDX-License-Identifier: MIT OR Apache-2.0
//! A parallel NBD server for any [`QueuedDevice`](block_device_traits::QueuedDevice); with
//! [`Threaded`](block_device_traits::Threaded), for any
//! [`BlockDevice`](block_device_traits::BlockDevice).
//!
//! # A first server
//!
//! A [`Server`] is made of a device, of what clients call it, and of limits. It listens wherever it
//! is told to, and then runs in the thread that calls it, until somebody stops it by its handle:
//!
//! ```
//! use std::sync::Arc;
//! use std::thread;
//!
//! use block_device_traits::{MemoryDevice, Threaded};
//! use nbd_frontend::{Config, ExportInfo, Server, bind_tcp};
//!
//! // A disk in memory, and four threads that are called for its requests.
//! let disk = Arc::new(Threaded::start(Arc::new(MemoryDevice::new(1 << 20)), 4)?);
//! let mut server = Server::new(disk, &ExportInfo::default(), Config::default())?;
//! // A free port. `bind_unix` makes a unix socket, and `Listener::new` takes what listens already.
//! bind_tcp("localhost", 0)?.into_iter().for_each(|listener| server.listen(listener));
//!
//! let handle = server.handle();
//! let running = thread::Builder::new().name("nbd".into()).spawn(move || server.run())?;
//! // Usually in a thread that waits for signals.
//! handle.shutdown();
//! let outcome = running.join().expect("it does not panic")?;
//! assert_eq!(outcome.sessions, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Devices
//!
//! A [`BlockDevice`](block_device_traits::BlockDevice) has calls that return when they are done:
//! the simple way, and as quick as its threads. A
//! [`QueuedDevice`](block_device_traits::QueuedDevice) takes requests and tells later how they
//! ended. Neither has to know anything of its ranges. One that does names its metadata
//! [contexts](block_device_traits::QueuedDevice::contexts), such as `base:allocation`, and is asked
//! for [extents](block_device_traits::Request::Extents); its reads may leave out what is
//! [zero](block_device_traits::Completion::fill_zeroes).
//!
//! # Several exports
//!
//! [`Server::add_export`] serves more devices on the same sockets. Clients see all of them, and
//! each chooses one by its name:
//!
//! ```
//! # use std::sync::Arc;
//! # use block_device_traits::{MemoryDevice, Threaded};
//! # use nbd_frontend::{Config, Error, ExportInfo, Server};
//! let disk = |size| Threaded::start(Arc::new(MemoryDevice::new(size)), 4).map(Arc::new);
//! let mut server = Server::new(disk(1 << 20)?, &ExportInfo::new("system"), Config::default())?;
//! server.add_export(disk(1 << 24)?, &ExportInfo::new("data"))?;
//! let again = server.add_export(disk(1)?, &ExportInfo::new("data"));
//! assert!(matches!(again, Err(Error::NameTaken(_))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a client meets
//!
//! A client may negotiate structured replies or extended headers. It is told then which parts of a
//! READ are zero, why a request has failed, and, by BLOCK_STATUS, what the contexts of the device
//! say of a range. What it asks for and may not have gets the error that the protocol names, and
//! the connection goes on where the protocol says so.
//!
//! Each connection is a session with a thread that reads requests and hands them to the device.
//! Replies go out as they become ready, those of a batch together.
//!
//! # Limits
//!
//! [`Config::requests`] and [`Config::memory`] bound what a session may have in flight, so that a
//! client that sends fast or reads slowly only waits for itself. [`Config::sessions`] and
//! [`Config::sessions_per_address`] bound how many there are; a client that connects and does not
//! negotiate gives way to others, and one that has negotiated is never dropped.
//!
//! # TLS
//!
//! With the feature `rustls`, [`Config::tls`] lets clients start TLS, or wants them to. All that is
//! said here is true of them, too: a client that idles in TLS's handshake still negotiates, and
//! gives way.
//!
//! # The end
//!
//! [`ShutdownHandle::shutdown`] may be called from any thread. Requests in flight are finished and
//! answered; who does not read its replies for [`Config::grace`] is cut off. [`Server::run`]
//! returns when all of that is done, with an [`Outcome`] to log. What is written is then where the
//! device has put it: a server flushes nothing by itself. [`Server::statistics`] tells meanwhile
//! what clients ask for.

mod accept;
mod admission;
mod bind;
mod changes;
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
pub use stats::{ExportSnapshot, Outcome, Requests, Snapshot, Statistics};
pub use tls::Tls;

use std::any::Any;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose data is sound between any two statements, so that a panic elsewhere does not
/// spread.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Config>();
    is_send_and_sync::<ExportInfo>();
    is_send_and_sync::<ShutdownHandle>();
    is_send_and_sync::<Statistics>();
    is_send_and_sync::<Listener>();
    is_send_and_sync::<Error>();
    is_send_and_sync::<Server<block_device_traits::Threaded<block_device_traits::MemoryDevice>>>();
};
