// SPDX-License-Identifier: MIT OR Apache-2.0
//! An oVirt disk transfer as a block device.
//!
//! [`Transfer::open`] checks all that can be checked: the URL, the certificates, the ticket, the
//! size. [`Transfer::start`] makes a [`Device`] of it, a
//! [`BlockDevice`](block_device_traits::BlockDevice) over a pool of connections. A [`Queue`] makes
//! that a [`QueuedDevice`](block_device_traits::QueuedDevice).
//!
//! ```
//! use block_device_traits::BlockDevice;
//! use bytes::Bytes;
//! use imageio_device::{Settings, Transfer, UrlSource};
//!
//! // A server for tests. A real one gets its URL from the engine.
//! let server = fake_imageio::FakeServer::builder().size(1 << 20).start()?;
//!
//! let mut settings = Settings::new(UrlSource::Inline(server.url()));
//! settings.connections = Some(2);
//! let device = Transfer::open(settings)?.start()?;
//! device.write(4096, Bytes::from_static(b"data"), false)?;
//! device.flush()?;
//! let mut read = [0; 4];
//! device.read(4096, &mut read)?;
//! assert_eq!(&read, b"data");
//! device.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is safe
//! The server makes a connection's writes durable by a flush on that connection, and promises
//! nothing across connections. So:
//! - Each connection remembers whether it has unflushed writes.
//! - A flush of the device flushes each connection that has some.
//! - The content of unflushed writes is kept (`tracker`). If their connection is lost, it is
//!   written again on a new one, and flushed (`connection`, `connection::replay`).
//! - If that can't be done, data may be lost, and from then on every request fails. Where nothing
//!   is kept ([`Settings::replay_buffer`]), every lost connection with unflushed writes has this
//!   effect. A lost connection with a write on its way has it, too: the server may still carry out
//!   this write after a later one to the same place.
//!
//! One table says what is done after an attempt that failed: `recovery`.
//!
//! A server that can't flush gets each write with `flush=y`, its own default, so that nothing is
//! ever unflushed.
//!
//! # What is quick
//! Requests that wait for a connection and are adjacent on the disk go out as one: see `request`.
//! The length of requests and the number of connections follow what is measured: see `link`. The
//! server is asked once for what it knows of the disk's ranges, and the answer is kept true under
//! changes: see `extents`, `inquiry`. [`statistics`] counts what the server was asked for.
//!
//! # Why this way
//! There is no cache of writes: no write is acknowledged before the server has answered it. That
//! costs a round trip for each request, which parallel requests hide. In return, all that a client
//! was told is true.
//!
//! # Threads and lifecycle
//! [`Transfer::open`] starts no thread and leaves no connection open, so a process may fork after
//! it. A device has threads that keep its connections alive, and a [`Queue`] has those that carry
//! out requests; connections open when they are needed. All methods may be called from any thread.
//! [`Device::close`] waits for what is under way, flushes, and closes the connections. Its result
//! says whether all is safe.
//!
//! # Errors
//! [`OpenError`] says why there is no device. A request fails with a
//! [`block_device_traits::Error`], whose text is one line without the ticket. [`Device::failure`]
//! tells the error that made the device fail for good.

mod change;
mod checksum;
mod connection;
mod counters;
mod device;
mod error;
mod extents;
mod inquiry;
mod link;
mod notice;
mod outage;
mod overlay;
mod queue;
mod recovery;
mod replay_buffer;
mod request;
mod settings;
pub mod statistics;
mod summary;
mod ticket;
mod tracker;
mod transfer;
mod write;
mod zero;

pub use device::Device;
pub use error::OpenError;
pub use imageio_client::{Error as ClientError, StatusCode};
pub use queue::Queue;
pub use settings::{NoHole, Settings, UrlSource};
pub use statistics::Statistics;
pub use summary::{DirtySummary, ExtentsSummary};
pub use ticket::TicketKeeper;
pub use transfer::Transfer;

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Transfer>();
    is_send_and_sync::<Device>();
    is_send_and_sync::<Queue>();
    is_send_and_sync::<Settings>();
    is_send_and_sync::<Statistics>();
    is_send_and_sync::<OpenError>();
};
