// SPDX-License-Identifier: MIT OR Apache-2.0
//! The accept loop.
//!
//! The address of a client is known only once it is accepted. So a newcomer is accepted first, and
//! then stands in line until `admission` has a place for it. No further clients are accepted before
//! the line is empty: they wait in the listening sockets, and cost nothing here.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use block_device_traits::QueuedDevice;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::Socket;

use crate::Listener;
use crate::admission::{Limits, Peer, Verdict};
use crate::connection::Service;
use crate::registry::Registry;
use crate::stats::count;

/// The pause after the system had no resources for another client. No client is accepted meanwhile;
/// a session that ends cuts the pause short.
const PAUSE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Accepts clients, and starts their sessions.
pub(crate) struct Accept<'scope, 'env, D> {
    scope: &'scope Scope<'scope, 'env>,
    service: &'scope Service<'scope, D>,
    registry: &'scope Arc<Registry>,
    limits: Limits,
    /// One of each listener at most, so that none of them keeps the others waiting.
    newcomers: VecDeque<(Socket, Peer)>,
    /// The newcomers that stand aside: one of each address at most.
    aside: Vec<(Socket, Peer)>,
    gave_way: Notice,
    refused: Notice,
    full: Notice,
    failed: Notice,
}

impl<'scope, 'env, D: QueuedDevice> Accept<'scope, 'env, D> {
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        service: &'scope Service<'scope, D>,
        registry: &'scope Arc<Registry>,
    ) -> Self {
        let limits = Limits {
            places: service.config.sessions.max(1),
            share: service.config.sessions_per_address.max(1),
        };
        let (newcomers, aside, notice) = (VecDeque::new(), Vec::new(), Notice::default());
        let (gave_way, refused, full, failed) = (notice, notice, notice, notice);
        Self { scope, service, registry, limits, newcomers, aside, gave_way, refused, full, failed }
    }

    /// Until the server is to stop, or there is nothing to listen on and the last session has
    /// ended.
    pub(crate) fn until_stopped(&mut self, listeners: &[Listener]) -> io::Result<()> {
        listeners.iter().try_for_each(Listener::prepare)?;
        let mut paused = false;
        while !self.registry.is_stopping() && (!listeners.is_empty() || self.registry.count() > 0) {
            let open = if paused || !self.newcomers.is_empty() { &[] } else { listeners };
            let ready = self.wait(open, paused)?;
            paused = !ready.into_iter().all(|listener| self.accept(listener));
            self.admit();
        }
        Ok(())
    }

    /// Waits until something has happened; the listeners with clients.
    fn wait<'l>(&self, listeners: &'l [Listener], paused: bool) -> io::Result<Vec<&'l Listener>> {
        let woken = self.registry.woken();
        let sockets = listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN));
        let mut fds: Vec<_> = std::iter::once(PollFd::new(woken, PollFlags::IN)).chain(sockets).collect();
        match poll(&mut fds, paused.then_some(&PAUSE)) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            polled => polled?,
        };
        // Cleared before the caller looks around, so that whatever happens meanwhile wakes it
        // again.
        woken.clear();
        let ready = listeners.iter().zip(&fds[1..]).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(listener, _)| listener).collect())
    }

    /// False if the system has run out of resources.
    fn accept(&mut self, listener: &Listener) -> bool {
        match listener.accept() {
            Ok(client) => self.newcomers.extend(client),
            Err(e) => {
                let is_due = self.failed.is_due(Instant::now());
                let level = if is_due { log::Level::Error } else { log::Level::Debug };
                log::log!(level, "a client can't be accepted, and the server goes on trying: {e}");
                return false;
            }
        }
        true
    }

    /// Starts or refuses the clients in line, until one has to wait.
    fn admit(&mut self) {
        // A newcomer that stands aside has been here for longer.
        self.aside.drain(..).for_each(|newcomer| self.newcomers.push_front(newcomer));
        while let Some((socket, peer)) = self.newcomers.pop_front() {
            let verdict = self.verdict(peer);
            self.log(verdict, peer);
            match verdict {
                Verdict::Accept => self.start_as(socket, peer),
                Verdict::StandAside => self.aside.push((socket, peer)),
                Verdict::Refuse => drop(socket),
                // The end of a session wakes the loop, and then this newcomer is the first again.
                Verdict::GiveWay(_) | Verdict::Soon | Verdict::Wait => {
                    return self.newcomers.push_front((socket, peer));
                }
            }
        }
    }

    fn verdict(&self, peer: Peer) -> Verdict {
        match self.registry.admit(peer, self.limits) {
            Verdict::StandAside if self.aside.iter().any(|(_, other)| *other == peer) => Verdict::Refuse,
            verdict => verdict,
        }
    }

    fn log(&mut self, verdict: Verdict, peer: Peer) {
        let (now, Limits { places, share }) = (Instant::now(), self.limits);
        match verdict {
            Verdict::Accept | Verdict::Soon | Verdict::StandAside => {}
            Verdict::GiveWay(id) if self.gave_way.is_due(now) => {
                log::warn!("client {id} gives way to another, as it has not negotiated yet");
            }
            Verdict::GiveWay(id) => log::debug!("client {id} gives way to another"),
            Verdict::Wait if self.full.is_due(now) => {
                log::warn!("{places} clients are connected, which is the limit: more wait until one leaves");
            }
            Verdict::Wait => {}
            Verdict::Refuse => {
                count(&self.service.counters.refused, 1);
                if self.refused.is_due(now) {
                    let refused = self.service.counters.refused.load(Relaxed);
                    log::warn!(
                        "a client is refused: {share} from {peer} are connected, which is the limit for one \
                         address ({refused} refused so far)"
                    );
                }
            }
        }
    }

    /// Starts a session for a client that was connected before.
    pub(crate) fn start(&self, socket: Socket) {
        let peer = Peer::of(&socket);
        self.start_as(socket, peer);
    }

    fn start_as(&self, socket: Socket, peer: Peer) {
        count(&self.service.counters.sessions, 1);
        let client = self.registry.register(socket, peer);
        let id = client.control().id;
        let service = self.service;
        let session = move || service.serve(&client);
        if let Err(e) = thread::Builder::new().name(format!("nbd-{id}")).spawn_scoped(self.scope, session) {
            log::error!("client {id}: cannot start a thread: {e}");
        }
    }
}

/// Something that is worth a line in the log, but not one each time that it happens.
#[derive(Debug, Clone, Copy, Default)]
struct Notice {
    last: Option<Instant>,
}

impl Notice {
    /// The least time between two lines.
    const PAUSE: Duration = Duration::from_secs(60);

    /// Returns true if it is to be logged, and notes that it was logged `now`.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| now.duration_since(last) >= Self::PAUSE);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_logged_once_a_minute() {
        let (mut notice, start) = (Notice::default(), Instant::now());
        let logged = (0..180).filter(|second| notice.is_due(start + Duration::from_secs(*second)));
        assert_eq!(logged.collect::<Vec<_>>(), [0, 60, 120]);
    }
}
