// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counting the bytes that connections move, for whoever wants to see from another thread that they
//! go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter of the bytes that connections have moved. Clones are the same counter.
///
/// It counts what the system has taken for the server, and what has come of answers' bodies, both
/// as they are on the wire. An answer's head doesn't count, with what comes together with it, nor
/// does opening a connection. What the system has taken may wait in its buffers for a while.
#[derive(Debug, Clone, Default)]
pub struct ByteCounter(Arc<AtomicU64>);

impl ByteCounter {
    /// The bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Relaxed);
    }
}
