// SPDX-License-Identifier: MIT OR Apache-2.0
//! The transmission phase of one connection.
//!
//! The threads of a session take turns at its read side: whoever holds it reads one request, releases it, executes
//! the request and sends the reply. A thread more is started when a request has been read and nobody waits for the
//! read side, so an idle connection has one thread and a busy one as many as it has requests in flight.
//!
//! Lock order: read side, then the pool. A thread may wait for the pool while it holds the read side: then later
//! requests wait in the socket, and those in flight, which need neither lock to finish, return their buffers. The
//! write side is taken with no other lock held.

mod execute;
mod receive;

use std::io::{self, IoSlice, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Scope};

use block_device::BlockDevice;
use nbd_wire::{Errno, Export, simple_reply};
use socket2::Socket;

use crate::connection::Service;
use crate::lock;
use crate::pool::{Buffer, Pool};
use crate::registry::Control;
use crate::stats::count;
use receive::Job;

/// One connection that has chosen its export.
pub(crate) struct Session<'a, D> {
    service: &'a Service<'a, D>,
    export: &'a Export,
    control: &'a Control,
    pool: Arc<Pool>,
    read_side: Mutex<ReadSide>,
    /// Threads that are about to take the read side.
    waiting: AtomicUsize,
    write_side: Mutex<()>,
}

struct ReadSide {
    threads: usize,
    ended: bool,
}

impl<'a, D: BlockDevice> Session<'a, D> {
    pub(crate) fn new(service: &'a Service<'a, D>, export: &'a Export, control: &'a Control) -> Self {
        Self {
            service,
            export,
            control,
            pool: Pool::new(service.config.memory),
            read_side: Mutex::new(ReadSide { threads: 1, ended: false }),
            waiting: AtomicUsize::new(0),
            write_side: Mutex::new(()),
        }
    }

    /// Serves requests until the client leaves or the server stops; returns when all are answered.
    pub(crate) fn run(&self) {
        thread::scope(|scope| self.work(scope));
    }

    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        while let Some(job) = self.next(scope) {
            let cookie = job.request.cookie;
            let result = self.execute(job);
            self.reply(cookie, result);
        }
    }

    /// Waits for this thread's turn and reads a request.
    fn next<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> Option<Job> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut side = lock(&self.read_side);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if side.ended {
            return None;
        }
        match self.receive() {
            Ok(job) => {
                self.recruit(scope, &mut side);
                Some(job)
            }
            Err(end) => {
                log::debug!("client {}: {end}", self.control.id);
                side.ended = true;
                None
            }
        }
    }

    /// Makes sure that somebody reads the next request. A thread that counts as waiting takes the read side without
    /// doing anything else before; one that does not yet count costs a thread that would soon have been needed.
    fn recruit<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, side: &mut ReadSide) {
        if self.waiting.load(Ordering::Relaxed) > 0 || side.threads >= self.service.config.threads {
            return;
        }
        let name = format!("nbd-{}.{}", self.control.id, side.threads);
        match thread::Builder::new().name(name).spawn_scoped(scope, || self.work(scope)) {
            Ok(_) => side.threads += 1,
            // This thread reads on when it has answered.
            Err(e) => log::warn!("client {}: cannot start a thread: {e}", self.control.id),
        }
    }

    fn reply(&self, cookie: u64, result: Result<Option<Buffer>, Errno>) {
        count(&self.service.counters.requests, 1);
        count(&self.service.counters.errors, usize::from(result.is_err()));
        let (payload, error) = result.map_or_else(|errno| (None, Some(errno)), |payload| (payload, None));
        let header = simple_reply(cookie, error);
        let guard = lock(&self.write_side);
        let sent = write_all(&self.control.socket, &header, payload.as_deref().unwrap_or_default());
        drop(guard);
        if let Err(e) = sent {
            // A reply may have gone out in part, so no other may follow.
            log::debug!("client {}: cannot send a reply: {e}", self.control.id);
            self.control.cut_off();
        }
    }
}

/// Sends both parts, in one system call if the socket takes them.
fn write_all(mut socket: &Socket, header: &[u8], payload: &[u8]) -> io::Result<()> {
    let mut parts = &mut [IoSlice::new(header), IoSlice::new(payload)][..];
    let mut left = header.len() + payload.len();
    while left > 0 {
        match socket.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => {
                left -= sent;
                IoSlice::advance_slices(&mut parts, sent);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
