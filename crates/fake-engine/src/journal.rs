// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of what the engine was asked.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The number of requests that are remembered.
const MAX_RECORDS: usize = 10_000;

/// One request. It has no secret in it: neither header nor body are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestRecord {
    /// The HTTP method.
    pub method: String,
    /// The path after `/ovirt-engine/`, without the query.
    pub path: String,
    /// The query, as it was sent.
    pub query: String,
    /// The status of the answer; `None` if there was none (yet).
    pub status: Option<u16>,
}

/// The requests, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    requests: Mutex<(u64, Vec<RequestRecord>)>,
    changed: Condvar,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, (u64, Vec<RequestRecord>)> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a request, and gives the number by which its answer is told.
    pub(crate) fn begin(&self, method: &str, path: &str, query: &str) -> u64 {
        let record = RequestRecord {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            status: None,
        };
        let mut requests = self.lock();
        if requests.1.len() == MAX_RECORDS {
            requests.1.remove(0);
            requests.0 += 1;
        }
        requests.1.push(record);
        self.changed.notify_all();
        requests.0 + requests.1.len() as u64 - 1
    }

    /// A request is answered.
    pub(crate) fn end(&self, number: u64, status: u16) {
        let mut requests = self.lock();
        let at = number.checked_sub(requests.0).and_then(|at| usize::try_from(at).ok());
        if let Some(record) = at.and_then(|at| requests.1.get_mut(at)) {
            record.status = Some(status);
        }
        self.changed.notify_all();
    }

    /// Something else has changed.
    pub(crate) fn notify(&self) {
        let _requests = self.lock();
        self.changed.notify_all();
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        self.lock().1.clone()
    }

    /// Waits for a change; false if there is none until then.
    pub(crate) fn wait(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        // Not longer than this: what changes as time passes tells nobody.
        let left = left.min(Duration::from_millis(20));
        let guard = self.lock();
        drop(self.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner));
        true
    }
}
