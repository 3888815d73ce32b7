// SPDX-License-Identifier: MIT OR Apache-2.0
//! `fake-imageio` in the place of a daemon: a server for each ticket, for disks that are plain
//! files.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fake_imageio::{Backend, FakeServer, Pki};

use super::{Host, Removal, Ticket};
use crate::state::{TicketId, TicketStatus};

/// Fake imageio servers, one for each ticket. Clones are the same.
#[derive(Clone, Default)]
pub struct FakeImageio {
    pki: Option<Pki>,
    served: Arc<Mutex<HashMap<String, Served>>>,
}

#[derive(Debug)]
struct Served {
    server: FakeServer,
    /// The number of requests when it was last looked at, and when that number changed.
    requests: usize,
    changed: Instant,
}

impl fmt::Debug for FakeImageio {
    // The tickets are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeImageio").field("served", &self.lock().len()).finish_non_exhaustive()
    }
}

impl FakeImageio {
    /// Servers that speak HTTP, or HTTPS with these certificates.
    #[must_use]
    pub fn new(pki: Option<Pki>) -> Self {
        Self { pki, served: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the server of a ticket, such as adding a fault to its script; `None` if
    /// there is none.
    pub fn with_server<T>(&self, id: &TicketId, action: impl FnOnce(&FakeServer) -> T) -> Option<T> {
        self.lock().get(id.secret()).map(|served| action(&served.server))
    }
}

impl Served {
    /// A request is being carried out, on a connection that is still there.
    fn is_active(&self) -> bool {
        let log = self.server.log();
        let is_open = |id| log.open().any(|connection| connection.id == id);
        log.requests.iter().any(|request| request.end.is_none() && is_open(request.connection))
    }
}

impl Host for FakeImageio {
    fn wants_plain_files(&self) -> bool {
        true
    }

    fn add_ticket(&self, ticket: &Ticket) -> io::Result<()> {
        let mut builder = FakeServer::builder()
            .backend(Backend::File(ticket.file.clone()))
            .size(ticket.size)
            .ticket(ticket.id.secret())
            .read_only(!ticket.writable);
        if ticket.dirty {
            builder = builder.dirty(ticket.dirty_ranges.clone());
        }
        if let Some(pki) = &self.pki {
            builder = builder.pki(pki.clone());
        }
        let served = Served { server: builder.start()?, requests: 0, changed: Instant::now() };
        self.lock().insert(ticket.id.secret().to_owned(), served);
        Ok(())
    }

    fn ticket(&self, id: &TicketId) -> io::Result<Option<TicketStatus>> {
        let mut all = self.lock();
        let Some(served) = all.get_mut(id.secret()) else { return Ok(None) };
        let requests = served.server.log().requests.len();
        let active = served.is_active();
        if active || requests != served.requests {
            (served.requests, served.changed) = (requests, Instant::now());
        }
        Ok(Some(TicketStatus { active, idle: served.changed.elapsed(), transferred: None }))
    }

    fn extend_ticket(&self, id: &TicketId) -> io::Result<()> {
        // They don't expire.
        let is_known = self.lock().contains_key(id.secret());
        is_known.then_some(()).ok_or_else(|| io::Error::other("there is no such ticket"))
    }

    fn remove_ticket(&self, id: &TicketId) -> io::Result<Removal> {
        let mut all = self.lock();
        if let Some(served) = all.get(id.secret()) {
            served.server.cancel_ticket();
            if served.is_active() {
                return Ok(Removal::InUse);
            }
        }
        all.remove(id.secret());
        Ok(Removal::Done)
    }

    fn urls(&self, id: &TicketId) -> Option<(String, String)> {
        let url = self.with_server(id, FakeServer::url)?;
        Some((url.clone(), url))
    }
}
