// SPDX-License-Identifier: MIT OR Apache-2.0
//! What transfers have done, for people and for programs; and why they stall.
//!
//! Whoever serves devices makes an [`Observer`] of them. It knows by [`Device::statistics`](imageio_device::Device::statistics)
//! what was asked of the servers, and by [`ClientStatistics`], which it asks for, what clients have asked for. From that come
//! - a line of text: [`Observer::summaries`];
//! - a JSON document, in a file that is always whole: [`Observer::write`], [`Output`];
//! - messages when a transfer stalls, and when it goes on: [`Watch`].

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
