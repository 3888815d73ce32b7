// SPDX-License-Identifier: MIT OR Apache-2.0
//! Detection of transfers that stall, and of the side that they wait for. Time is a parameter, and
//! nothing is asked here.
//!
//! The client and the server are watched each by itself, as what the one does is no progress of the
//! other: the server may hang while clients come and go, and a flush in the background says nothing
//! of the client.

use std::fmt;
use std::time::{Duration, Instant};

use imageio_device::statistics::{Awaited, Initiator, Operations, Wait};

use crate::report::Figures;

/// The time for which nothing may move before that is worth a message. It doubles with each stall
/// that was told, so that there are few messages, however long and slow a transfer is.
const LIMIT: Duration = Duration::from_secs(10);

/// For what may well take long where all is well: slow storage zeroes and flushes at its pace, and
/// tells nothing meanwhile.
const LONG_LIMIT: Duration = Duration::from_secs(60);

/// The state of a transfer at a moment, as far as it tells a stall.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    /// The number of requests that the server has answered, but for keep-alives.
    answered: u64,
    /// The number of clients' requests that were answered, also with errors.
    asked: u64,
    /// The number of clients that are connected.
    connected: u64,
    /// Some content was asked for or changed.
    has_moved: bool,
    /// The waits for the server; those for keep-alives are left out.
    waits: Vec<Wait>,
}

/// A transfer that stalls or goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// It has waited for the client for so long.
    ClientStalls(Duration),
    /// It has waited for the server for so long, on these connections.
    ServerStalls(Duration, Vec<Wait>),
    /// It goes on after so long, whoever it has waited for.
    ClientGoesOn(Duration),
    ServerGoesOn(Duration),
    /// Nothing is expected of the server any more, and it has done nothing of it for so long.
    ServerFails(Duration),
}

/// The state that is kept from one look to the next.
#[derive(Debug)]
pub(crate) struct Stall {
    seen: Look,
    client: Silence,
    server: Silence,
}

/// One side in which nothing moves.
#[derive(Debug)]
struct Silence {
    /// The time at which something has moved last, as far as was seen.
    since: Instant,
    /// This silence was.
    is_told: bool,
    /// The number of silences that were told.
    told: u32,
}

impl Look {
    pub(crate) fn new(Figures { clients, server }: &Figures, mut waits: Vec<Wait>) -> Self {
        let operations = server.for_clients + server.in_background + server.written_again;
        let Operations { reads, writes, zeroes, flushes, .. } = operations;
        let answered = [reads, writes, zeroes, flushes, server.extents].map(|kind| kind.answered.requests);
        waits.retain(|wait| wait.initiator != Initiator::KeepAlive);
        Self {
            answered: answered.iter().sum(),
            asked: clients.kinds().iter().map(|kind| kind.requests).sum(),
            connected: clients.connected,
            has_moved: clients.has_moved(),
            waits,
        }
    }

    /// A client waits for the server.
    fn client_waits(&self) -> bool {
        self.waits.iter().any(|wait| wait.initiator == Initiator::Client)
    }

    /// Bytes of a request have moved that was under way before. Those of a new attempt are no
    /// progress.
    fn moves_since(&self, before: &Self) -> bool {
        self.waits.iter().any(|wait| {
            let is_same = |old: &&Wait| (old.connection, old.since) == (wait.connection, wait.since);
            before.waits.iter().find(is_same).is_some_and(|old| old.moved != wait.moved)
        })
    }

    /// The time for which the server may be silent: what may take long holds up all else.
    fn limit(&self) -> Duration {
        self.waits.iter().map(|wait| limit(wait.awaited)).max().unwrap_or(LIMIT)
    }
}

fn limit(awaited: Awaited) -> Duration {
    match awaited {
        Awaited::Zero | Awaited::Flush | Awaited::Extents => LONG_LIMIT,
        _ => LIMIT,
    }
}

impl Stall {
    /// Nothing has moved yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { seen: Look::default(), client: Silence::new(now), server: Silence::new(now) }
    }

    /// Takes another look. What is worth a message is told once for each stall, and once when it is
    /// over.
    pub(crate) fn look(&mut self, look: Look, now: Instant) -> impl Iterator<Item = Event> + use<> {
        let events = [self.look_at_server(&look, now), self.look_at_client(&look, now)];
        self.seen = look;
        events.into_iter().flatten()
    }

    /// While it is waited for, only what it answers is progress; and bytes that move, as long as
    /// nothing was told.
    fn look_at_server(&mut self, look: &Look, now: Instant) -> Option<Event> {
        let Self { seen, server, .. } = self;
        if look.answered != seen.answered {
            return server.ends(now).map(Event::ServerGoesOn);
        }
        if look.waits.is_empty() {
            return server.ends(now).map(Event::ServerFails);
        }
        if seen.waits.is_empty() || !server.is_told && look.moves_since(seen) {
            server.ends(now);
        }
        let waited = server.exceeds(look.limit(), now)?;
        Some(Event::ServerStalls(waited, look.waits.clone()))
    }

    /// It is waited for while it is there and has asked for nothing, if it has moved anything
    /// before.
    fn look_at_client(&mut self, look: &Look, now: Instant) -> Option<Event> {
        let Self { seen, client, .. } = self;
        if look.asked != seen.asked || look.client_waits() {
            return client.ends(now).map(Event::ClientGoesOn);
        }
        let is_waited_for = look.connected > 0 && look.has_moved;
        if !is_waited_for || look.connected != seen.connected {
            client.ends(now);
        } else if !look.waits.is_empty() {
            // It may wait for what is done in the background.
            client.may_be_excused(now);
        }
        client.exceeds(LIMIT, now).map(Event::ClientStalls)
    }
}

impl Silence {
    fn new(now: Instant) -> Self {
        Self { since: now, is_told: false, told: 0 }
    }

    /// Tells how long it was, if it was told.
    fn ends(&mut self, now: Instant) -> Option<Duration> {
        let lasted = now.saturating_duration_since(self.since);
        self.since = now;
        std::mem::take(&mut self.is_told).then_some(lasted)
    }

    /// It begins now, unless it was told.
    fn may_be_excused(&mut self, now: Instant) {
        if !self.is_told {
            self.since = now;
        }
    }

    /// Tells how long it has lasted, once that is too long.
    fn exceeds(&mut self, limit: Duration, now: Instant) -> Option<Duration> {
        let lasted = now.saturating_duration_since(self.since);
        if self.is_told || lasted < limit.saturating_mul(1_u32.checked_shl(self.told).unwrap_or(u32::MAX)) {
            return None;
        }
        self.is_told = true;
        self.told += 1;
        Some(lasted)
    }
}

impl Event {
    /// Returns true if it concerns the server, which is expected to answer; a client may do what it
    /// likes.
    pub(crate) fn is_warning(&self) -> bool {
        matches!(self, Self::ServerStalls(..) | Self::ServerGoesOn(_) | Self::ServerFails(_))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientStalls(time) => write!(f, "waiting for the client, since {} s", time.as_secs()),
            Self::ServerStalls(time, waits) => {
                let time = time.as_secs();
                match (answers(waits), connections(waits, Awaited::Connection)) {
                    (answers, None) => {
                        write!(f, "waiting for the server's answer to {answers}, since {time} s")
                    }
                    (answers, Some(on)) if answers.is_empty() => {
                        write!(f, "waiting for the server to be reached ({on}), since {time} s")
                    }
                    (answers, Some(on)) => write!(
                        f,
                        "waiting for the server's answer to {answers}, and to be reached ({on}), since {time} s"
                    ),
                }
            }
            Self::ClientGoesOn(time) => write!(f, "the client goes on, after {} s", time.as_secs()),
            Self::ServerGoesOn(time) => write!(f, "the server goes on, after {} s", time.as_secs()),
            Self::ServerFails(time) => {
                write!(f, "the wait for the server has ended without success, after {} s", time.as_secs())
            }
        }
    }
}

/// Such as `write (connections 1, 3), flush (connection 2)`. Nothing where only connections are
/// opened.
fn answers(waits: &[Wait]) -> String {
    let mut kinds: Vec<Awaited> = waits.iter().map(|wait| wait.awaited).collect();
    kinds.retain(|kind| *kind != Awaited::Connection);
    kinds.sort_unstable();
    kinds.dedup();
    let told = kinds.into_iter().filter_map(|kind| {
        let on = connections(waits, kind)?;
        Some(format!("{} ({on})", kind.name()))
    });
    told.collect::<Vec<_>>().join(", ")
}

/// The connections that wait for this, such as `connections 1, 3`.
fn connections(waits: &[Wait], awaited: Awaited) -> Option<String> {
    let on = waits.iter().filter(|wait| wait.awaited == awaited).map(|wait| wait.connection.to_string());
    let on: Vec<_> = on.collect();
    match &on[..] {
        [] => None,
        [one] => Some(format!("connection {one}")),
        several => Some(format!("connections {}", several.join(", "))),
    }
}

#[cfg(test)]
mod tests;
