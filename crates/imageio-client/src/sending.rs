// SPDX-License-Identifier: MIT OR Apache-2.0
//! The progress of a request that is sent: its head and its body are counted apart, though the
//! system takes them together.

use hyper::Request;

use crate::body::RequestBody;
use crate::operation::head_length;
use crate::stream::Readiness;

/// The progress of a request that is sent.
pub(crate) struct Sending<'a> {
    readiness: &'a Readiness,
    /// The number of bytes that had been sent before it.
    start: u64,
    head: u64,
    body: u64,
}

impl<'a> Sending<'a> {
    /// Before anything of the request was sent.
    pub(crate) fn new(readiness: &'a Readiness, request: &Request<RequestBody>) -> Self {
        let (head, body) = (head_length(request), request.body().len());
        debug_assert_eq!(readiness.sent(), readiness.handed(), "the request before is out");
        Self { readiness, start: readiness.sent(), head, body }
    }

    /// The system has taken all of it.
    pub(crate) fn is_done(&self) -> bool {
        self.readiness.sent() >= self.start + self.head + self.body
    }

    /// The system may have taken something of its body.
    pub(crate) fn has_reached_body(&self) -> bool {
        self.body > 0 && self.readiness.handed() > self.start + self.head
    }
}
