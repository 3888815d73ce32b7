// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a transfer stalls, and whom it waits for. Time is a parameter, and nothing is asked here.

use std::fmt;
use std::time::{Duration, Instant};

use imageio_device::statistics::{Awaited, Operations, Wait};

use crate::report::Figures;

/// For how long nothing may move before that is worth a message.
const LIMIT: Duration = Duration::from_secs(10);

/// What is seen of a transfer at a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    /// It grows with each answer, to a client or of the server; but not by keep-alives.
    progress: u64,
    /// How many clients are connected.
    connected: u64,
    /// Some content was asked for or changed.
    has_moved: bool,
    /// What is expected of the server; no keep-alives.
    waits: Vec<Wait>,
}

/// Who has to do something next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    /// The client has come and gone, or not begun.
    Nobody,
    Client,
    Server,
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
}

/// What is remembered from one look to the next.
#[derive(Debug)]
pub(crate) struct Stall {
    seen: Look,
    /// When something has moved last, as far as was seen.
    since: Instant,
    /// Of this stall.
    was_told: bool,
}

impl Look {
    pub(crate) fn new(Figures { clients, server }: &Figures, mut waits: Vec<Wait>) -> Self {
        let operations = server.for_clients + server.in_background + server.written_again;
        let Operations { reads, writes, zeroes, flushes, .. } = operations;
        let answered = [reads, writes, zeroes, flushes, server.extents].map(|kind| kind.answered.requests);
        let to_clients = clients.kinds().map(|kind| kind.requests);
        waits.retain(|wait| !wait.is_keep_alive);
        Self {
            progress: answered.iter().chain(&to_clients).sum(),
            connected: clients.connected,
            has_moved: clients.has_moved(),
            waits,
        }
    }

    fn awaits(&self) -> Awaits {
        match () {
            () if !self.waits.is_empty() => Awaits::Server,
            () if self.connected > 0 && self.has_moved => Awaits::Client,
            () => Awaits::Nobody,
        }
    }
}

impl Stall {
    /// Nothing has moved yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { seen: Look::default(), since: now, was_told: false }
    }

    /// Takes another look. What is worth a message is told once for each stall, and once when it is over.
    pub(crate) fn look(&mut self, look: Look, now: Instant) -> Option<Event> {
        let (before, awaits) = (self.seen.awaits(), look.awaits());
        let is_same = look.progress == self.seen.progress && look.connected == self.seen.connected;
        if !is_same || awaits != before {
            // A client that has asked for something goes on, though it has got no answer yet.
            let goes_on = look.progress != self.seen.progress || awaits == Awaits::Server;
            let after = now.saturating_duration_since(self.since);
            let was_told = std::mem::replace(&mut self.was_told, false);
            (self.seen, self.since) = (look, now);
            return (was_told && goes_on).then_some(before).and_then(|before| before.goes_on(after));
        }
        self.seen = look;
        let waited = now.saturating_duration_since(self.since);
        if waited < LIMIT || self.was_told {
            return None;
        }
        let event = match awaits {
            Awaits::Nobody => return None,
            Awaits::Client => Event::ClientStalls(waited),
            Awaits::Server => Event::ServerStalls(waited, self.seen.waits.clone()),
        };
        self.was_told = true;
        Some(event)
    }
}

impl Awaits {
    fn goes_on(self, after: Duration) -> Option<Event> {
        match self {
            Self::Nobody => None,
            Self::Client => Some(Event::ClientGoesOn(after)),
            Self::Server => Some(Event::ServerGoesOn(after)),
        }
    }
}

impl Event {
    /// Whether it concerns the server, which is expected to answer; a client may do what it likes.
    pub(crate) fn is_warning(&self) -> bool {
        matches!(self, Self::ServerStalls(..) | Self::ServerGoesOn(_))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientStalls(time) => write!(f, "waiting for the client, since {} s", time.as_secs()),
            Self::ServerStalls(time, waits) => {
                let awaited = awaited(waits);
                write!(f, "waiting for the server's answer to {awaited}, since {} s", time.as_secs())
            }
            Self::ClientGoesOn(time) => write!(f, "the client goes on, after {} s", time.as_secs()),
            Self::ServerGoesOn(time) => write!(f, "the server goes on, after {} s", time.as_secs()),
        }
    }
}

/// Such as `write (connections 1, 3), flush (connection 2)`.
fn awaited(waits: &[Wait]) -> String {
    let mut kinds: Vec<Awaited> = waits.iter().map(|wait| wait.awaited).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let kind = |kind: Awaited| {
        let on = waits.iter().filter(|wait| wait.awaited == kind).map(|wait| wait.connection.to_string());
        let on: Vec<_> = on.collect();
        let noun = if on.len() == 1 { "connection" } else { "connections" };
        format!("{} ({noun} {})", kind.name(), on.join(", "))
    };
    kinds.into_iter().map(kind).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Requests;

    const SECOND: Duration = Duration::from_secs(1);

    /// A transfer, and a clock that stands still between two looks.
    struct Scene {
        stall: Stall,
        now: Instant,
        figures: Figures,
        waits: Vec<Wait>,
    }

    impl Scene {
        /// A client that has written something.
        fn begin() -> Self {
            let now = Instant::now();
            let mut figures = Figures::default();
            figures.clients.connected = 1;
            figures.clients.writes = Requests { requests: 1, bytes: 512, errors: 0 };
            let mut scene = Self { stall: Stall::new(now), now, figures, waits: Vec::new() };
            assert_eq!(scene.look(), None);
            scene
        }

        fn look(&mut self) -> Option<Event> {
            self.stall.look(Look::new(&self.figures, self.waits.clone()), self.now)
        }

        /// Looks once a second.
        fn pass(&mut self, seconds: u32) -> Vec<String> {
            let looks = (0..seconds).filter_map(|_| {
                self.now += SECOND;
                self.look().map(|event| event.to_string())
            });
            looks.collect()
        }

        fn waits(&mut self, of: &[(usize, Awaited)]) {
            let wait = |&(connection, awaited)| Wait::new(connection, awaited, self.now);
            self.waits = of.iter().map(wait).collect();
        }
    }

    #[test]
    fn a_client_that_stalls_is_told_once_and_when_it_goes_on() {
        let mut scene = Scene::begin();
        assert_eq!(scene.pass(9), [""; 0]);
        assert_eq!(scene.pass(50), ["waiting for the client, since 10 s"]);
        scene.figures.clients.writes.requests += 1;
        assert_eq!(scene.pass(1), ["the client goes on, after 60 s"]);
        assert_eq!(scene.pass(60), ["waiting for the client, since 10 s"], "another stall");
        scene.waits(&[(1, Awaited::Read)]);
        assert_eq!(scene.pass(1), ["the client goes on, after 61 s"], "it has asked for something");
    }

    #[test]
    fn a_server_that_stalls_is_told_with_what_it_is_to_answer() {
        let mut scene = Scene::begin();
        scene.waits(&[(2, Awaited::Flush), (3, Awaited::Write), (1, Awaited::Write)]);
        assert_eq!(
            scene.pass(60),
            ["waiting for the server's answer to write (connections 3, 1), flush (connection 2), since 10 s"]
        );
        scene.waits(&[(2, Awaited::Flush)]);
        scene.figures.server.for_clients.writes.answered.requests += 2;
        assert_eq!(scene.pass(1), ["the server goes on, after 60 s"]);
        assert!(scene.look().is_none());
        assert_eq!(scene.pass(11), ["waiting for the server's answer to flush (connection 2), since 10 s"]);
    }

    #[test]
    fn what_moves_doesn_t_stall() {
        let mut scene = Scene::begin();
        scene.waits(&[(1, Awaited::Write)]);
        for _ in 0..10 {
            assert_eq!(scene.pass(9), [""; 0]);
            scene.figures.clients.reads.requests += 1;
            assert_eq!(scene.pass(9), [""; 0]);
            scene.figures.server.written_again.flushes.answered.requests += 1;
        }
    }

    #[test]
    fn attempts_that_fail_are_no_progress() {
        let mut scene = Scene::begin();
        for _ in 0..9 {
            scene.waits(&[(1, Awaited::Connection)]);
            scene.figures.server.retries += 1;
            scene.figures.server.for_clients.writes.sent.requests += 1;
            assert_eq!(scene.pass(1), [""; 0]);
        }
        assert_eq!(
            scene.pass(2),
            ["waiting for the server's answer to connect (connection 1), since 10 s"],
            "the look before this was the first that saw the wait"
        );
    }

    #[test]
    fn keep_alives_are_nobody_s_progress_and_nobody_waits_for_them() {
        let mut scene = Scene::begin();
        scene.waits(&[(1, Awaited::Flush)]);
        scene.waits[0].is_keep_alive = true;
        for _ in 0..5 {
            scene.figures.server.keep_alives.flushes.answered.requests += 1;
            scene.pass(1);
        }
        assert_eq!(scene.pass(5), ["waiting for the client, since 10 s"]);
    }

    #[test]
    fn who_is_not_there_or_has_not_begun_is_not_waited_for() {
        let mut scene = Scene::begin();
        scene.figures.clients.connected = 0;
        assert_eq!(scene.pass(60), [""; 0], "nobody is there");
        scene.figures.clients.connected = 1;
        assert_eq!(scene.pass(10), [""; 0], "it has come a moment ago");
        assert_eq!(scene.pass(1), ["waiting for the client, since 10 s"]);
        scene.figures.clients.connected = 0;
        assert_eq!(scene.pass(60), [""; 0], "it has gone, which is no progress");
        scene.figures.clients = Default::default();
        scene.figures.clients.connected = 1;
        assert_eq!(scene.pass(60), [""; 0], "it has moved nothing");
    }

    #[test]
    fn only_the_server_is_a_matter_for_a_warning() {
        assert!(Event::ServerStalls(LIMIT, Vec::new()).is_warning());
        assert!(!Event::ClientStalls(LIMIT).is_warning());
    }
}
