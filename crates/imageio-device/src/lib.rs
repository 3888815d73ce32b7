// SPDX-License-Identifier: MIT OR Apache-2.0
//! An oVirt disk transfer as a block device.
//!
//! # What is safe
//! The server makes a connection's writes durable by a flush on that connection, and promises nothing across
//! connections. So:
//! - each connection remembers whether it has unflushed writes;
//! - a flush of the device flushes each connection that has some;
//! - the content of unflushed writes is kept (`tracker`). When their connection is lost, it is written again on a new one,
//!   and flushed (`connection`, `connection::replay`);
//! - if that can't be done, data may be lost: from then on every request fails. So it is at once where nothing is kept
//!   ([`Settings::replay_buffer`]), also with a write on its way: the server may still carry it out, after a later write
//!   to the same place.
//!
//! What is done after an attempt that failed is one table: `recovery`.
//!
//! Requests that wait for a connection and are adjacent on the disk go out as one: see `request`. How long they become, and how
//! many connections are used, follows what is measured: see `link`.
//!
//! What the server tells of the disk's ranges is asked for once, and kept true under changes: see `extents`, `inquiry`.
//!
//! What is asked of the server is counted: see [`statistics`].
//!
//! A server that can't flush gets each write with `flush=y`, its own default, so that nothing is ever unflushed.

mod change;
mod checksum;
mod connection;
mod counters;
mod device;
mod error;
mod extents;
mod inquiry;
mod link;
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
