// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ending a connection that another thread waits on.

use std::net::Shutdown;
use std::sync::{Arc, Weak};

use crate::stream::Readiness;

/// Ends a [`Connection`](crate::Connection) from another thread. It doesn't keep the connection
/// open.
#[derive(Debug, Clone)]
pub struct Canceller(Weak<Readiness>);

impl Canceller {
    pub(crate) fn new(readiness: Option<&Arc<Readiness>>) -> Self {
        Self(readiness.map(Arc::downgrade).unwrap_or_default())
    }

    /// Ends it: the request that is under way fails at once as one whose connection was lost, and
    /// so do those to come. It does nothing where the connection is gone.
    pub fn cancel(&self) {
        if let Some(readiness) = self.0.upgrade() {
            // It fails where the server has closed, which is as good.
            let _ = readiness.socket.shutdown(Shutdown::Both);
        }
    }
}
