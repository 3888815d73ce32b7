// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that send one request at a time.

/// The number of requests in a row that have to come alone, until the next is expected to do so.
const SURE: u32 = 8;

/// Counts the requests in a row each of which came when all before it were answered.
///
/// While one such request is carried out, there is nothing to read: the session's thread may do the
/// work itself, which saves two changes of threads. It is wrong about a client once, and then waits
/// for `SURE` more requests.
#[derive(Debug, Default)]
pub(super) struct QueueDepth {
    alone: u32,
}

impl QueueDepth {
    /// A request has come, while others were in flight.
    pub(super) fn note_request(&mut self, others: usize) {
        self.alone = if others == 0 { self.alone.saturating_add(1) } else { 0 };
    }

    /// Returns true if the client is expected to wait for the answer to its last request.
    pub(super) fn is_one(&self) -> bool {
        self.alone > SURE
    }

    /// The client has not waited.
    pub(super) fn was_more(&mut self) {
        self.alone = 0;
    }
}
