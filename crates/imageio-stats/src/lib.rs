// SPDX-License-Identifier: MIT OR Apache-2.0
//! Statistics of oVirt disk transfers, for people and for programs, and the reason why a transfer
//! stalls.
//!
//! Whoever serves devices makes an [`Observer`] of them. It learns from
//! [`Device::statistics`](imageio_device::Device::statistics) what was asked of the servers, and it
//! asks its [`Export`]s for [`ClientStatistics`], which tell what clients have asked for. From that
//! come
//! - a line of text: [`Observer::summaries`];
//! - a JSON document, in a file that is always whole: [`Observer::write`], [`Output`];
//! - messages when a transfer stalls, and when it goes on: [`Watch`].
//!
//! ```
//! use std::sync::Arc;
//!
//! use block_device_traits::BlockDevice;
//! use imageio_device::{Settings, Transfer, UrlSource};
//! use imageio_stats::{ClientStatistics, Export, Observer, Requests};
//!
//! let server = fake_imageio::FakeServer::builder().size(1 << 20).start()?;
//! let device = Arc::new(Transfer::open(Settings::new(UrlSource::Inline(server.url())))?.start()?);
//! device.read(0, &mut [0; 4096])?;
//!
//! // A server counts what its clients ask for.
//! let clients = || {
//!     let mut clients = ClientStatistics::default();
//!     clients.reads = Requests::new(1, 4096, 0);
//!     clients
//! };
//! let observer = Observer::new("example 1.0", vec![Export::new("disk", device, clients)], None);
//! assert_eq!(observer.progress().from_clients, 4096);
//! assert_eq!(observer.summaries().len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Why this way
//!
//! Both sides are counted, because a transfer may be slow on either: figures of the clients alone
//! don't tell whether they wait for the server. This crate knows neither NBD nor nbdkit: whoever
//! serves says what clients have asked for.
//!
//! # Threads and lifecycle
//!
//! An [`Observer`] has no thread and may be shared. A [`Watch`] has one thread, which looks at the
//! observer every second. Dropping the watch ends it. An observer keeps its devices
//! alive.
//!
//! # Errors
//!
//! Only the document can fail: [`OutputError`] names its file. The file is replaced as a whole, so
//! a failure leaves the one that was there before.

mod clients;
mod observer;
mod output;
mod report;
mod stall;
mod summary;
mod watch;

pub use clients::{ClientStatistics, Requests};
pub use observer::{Export, Observer, Progress};
pub use output::{Output, OutputError};
pub use report::State;
pub use summary::size;
pub use watch::Watch;

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Observer>();
    is_send_and_sync::<Export>();
    is_send_and_sync::<ClientStatistics>();
    is_send_and_sync::<Progress>();
    is_send_and_sync::<Output>();
    is_send_and_sync::<OutputError>();
};
