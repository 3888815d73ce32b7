// SPDX-License-Identifier: MIT OR Apache-2.0
//! An oVirt disk transfer as a block device.
//!
//! # What is safe
//! The server makes a connection's writes durable by a flush on that connection, and promises nothing across
//! connections. So:
//! - each connection remembers whether it has unflushed writes;
//! - a flush of the device flushes each connection that has some;
//! - a connection that is lost with none is opened again when it is needed, and what had not been sent is sent there;
//! - a connection that is lost with some, or with a write on its way, may have lost data: from then on every request
//!   fails. A write on its way counts, because the server may still carry it out, after a later write to the same place.
//!
//! Requests that wait for a connection and are adjacent on the disk go out as one, and share its outcome: see `request`.
//!
//! A server that can't flush gets each write with `flush=y`, its own default, so that nothing is ever unflushed.

mod device;
mod error;
mod ledger;
mod link;
mod queue;
mod request;
mod retry;
mod settings;
mod transfer;

pub use device::Device;
pub use error::OpenError;
pub use queue::Queue;
pub use settings::{Settings, UrlSource};
pub use transfer::Transfer;
