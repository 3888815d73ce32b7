// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link to the server: how long requests become and how many connections are used, by what is
//! measured there.
//!
//! A connection carries one request at a time. It sends the next one when the answer is there, so
//! the link is idle for its latency after each request, unless other connections use it meanwhile.
//! On one host the latency is nothing, and a few connections with requests that fit the processor's
//! cache are best. On a long link, more has to be on its way.
//!
//! # The rule
//! The *latency* is the shortest time in which the server has answered anything. Most answers to
//! OPTIONS, flushes and small requests take little more, and no answer takes less. The shortest of
//! all is kept: a link that becomes longer later is taken for as long as it was. Eight answers to
//! reads and writes at a time are looked at. If the latency is more than a half of the time that
//! they took on average, a step up in [`STEPS`] is taken. If it is less than a sixth, a step down
//! is taken. A step up doubles what is on its way. If the link or the server is busy all the time
//! by then, the answers take twice as long, so that the latency is more than a quarter of that, and
//! the rule comes to rest. Latencies below [`LONG`] count as nothing: what little there is to gain
//! isn't worth the memory.
//!
//! A slow storage makes answers slow, and not the latency, so nothing is gained by more, and none
//! is used. If only requests that are slow by themselves have been answered, the latency seems to
//! be long. Then up to 8 connections are used, which costs memory, and some throughput where the
//! server is on this host.
//!
//! A proxy that answers OPTIONS itself, and forwards the rest, hides the latency of what is behind
//! it: then nothing changes.
//!
//! No request waits for another by this, and nothing happens at a certain time: answers are all
//! that is looked at.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::counters::Exchange;
use crate::settings::Settings;

/// A latency from which on a link is long. Python's daemon takes about one millisecond to answer
/// anything.
const LONG: Duration = Duration::from_millis(3);

/// The number of answers that are looked at before the next step.
const ANSWERS: u32 = 8;

/// The limits that fit a link. Sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fit {
    connections: u32,
    max_request: u64,
    /// Twice as much as is on its way, or more, so that a flush is seldom needed.
    replay_buffer: u64,
}

/// From a server on this host to one that is far away.
const STEPS: [Fit; 3] = [
    Fit { connections: 4, max_request: 2 << 20, replay_buffer: 32 << 20 },
    Fit { connections: 8, max_request: 2 << 20, replay_buffer: 48 << 20 },
    Fit { connections: 8, max_request: 4 << 20, replay_buffer: 64 << 20 },
];

/// The most connections that are ever used without being asked for.
pub(crate) const MOST_CONNECTIONS: u32 = STEPS[STEPS.len() - 1].connections;

/// The link's measured speed, and the choices that follow from it.
#[derive(Debug)]
pub(crate) struct Link {
    /// The numbers that the user has chosen, which aren't changed.
    connections: Option<u32>,
    max_request: Option<u64>,
    replay_buffer: Option<u64>,
    /// The number of connections that the server allows.
    most_connections: u32,
    /// The index of the current step.
    step: AtomicUsize,
    measured: Mutex<Measured>,
}

#[derive(Debug)]
struct Measured {
    latency: Duration,
    /// The number of answers since the last step, and the time that they took together.
    answers: u32,
    time: Duration,
}

/// The step that is taken after some answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    /// More is to be on its way.
    Up,
    Stay,
    Down,
    /// The link isn't long.
    Bottom,
}

impl Link {
    /// A link that has answered the first request in `latency`. `most_connections` is what the
    /// server allows.
    pub(crate) fn new(settings: &Settings, most_connections: u32, latency: Duration) -> Self {
        let Settings { connections, max_request, replay_buffer, .. } = *settings;
        let measured = Mutex::new(Measured { latency, answers: 0, time: Duration::ZERO });
        Self {
            connections,
            max_request,
            replay_buffer,
            most_connections,
            step: AtomicUsize::new(0),
            measured,
        }
    }

    /// The server has answered after `time`.
    pub(crate) fn answered(&self, exchange: Exchange, time: Duration) {
        let moved = {
            let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
            measured.note(exchange, time)
        };
        let Some(moved) = moved.filter(|moved| *moved != Move::Stay) else { return };
        let go = |step: usize| Some(step_after(step, moved)).filter(|next| *next != step);
        if self.step.fetch_update(Relaxed, Relaxed, go).is_ok() {
            log::debug!("the link has a latency of {:?}: {:?}", self.latency(), self.fit());
        }
    }

    fn latency(&self) -> Duration {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).latency
    }

    fn fit(&self) -> Fit {
        STEPS[self.step.load(Relaxed)]
    }

    /// Returns the number of connections that are to be used at a time.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.unwrap_or(self.fit().connections).min(self.most_connections).max(1)
    }

    /// Returns the length in bytes that requests may reach with others. 0: they don't go with
    /// others.
    pub(crate) fn max_request(&self) -> u64 {
        self.max_request.unwrap_or(self.fit().max_request)
    }

    /// Returns the length in bytes that reads and writes may reach.
    pub(crate) fn longest_request(&self) -> u64 {
        match self.max_request() {
            0 => u64::MAX,
            max_request => max_request,
        }
    }

    /// Returns the number of bytes of unflushed content that may be kept.
    pub(crate) fn replay_buffer(&self) -> u64 {
        self.replay_buffer.unwrap_or(self.fit().replay_buffer)
    }

    /// Returns the number of bytes that are of use on their way to the server at a time, by all
    /// clients together: those of each connection, and half as much that is coming from the clients
    /// meanwhile; no more than a long link has, whatever the user has chosen. 0 where that is not
    /// known, as clients' own requests are sent.
    pub(crate) fn in_flight(&self) -> u64 {
        let most = u64::from(MOST_CONNECTIONS) * STEPS[STEPS.len() - 1].max_request;
        self.max_request().saturating_mul(self.connections().into()).min(most) / 2 * 3
    }
}

impl Measured {
    fn note(&mut self, exchange: Exchange, time: Duration) -> Option<Move> {
        self.latency = self.latency.min(time);
        if exchange.is_data() {
            self.answers += 1;
            self.time += time;
        }
        if self.answers < ANSWERS {
            return None;
        }
        let moved = judge(self.latency, self.time / self.answers);
        (self.answers, self.time) = (0, Duration::ZERO);
        Some(moved)
    }
}

/// Returns the move to make where answers take `time` on average.
fn judge(latency: Duration, time: Duration) -> Move {
    match latency {
        _ if latency < LONG => Move::Bottom,
        _ if latency * 2 > time => Move::Up,
        _ if latency * 6 < time => Move::Down,
        _ => Move::Stay,
    }
}

fn step_after(step: usize, moved: Move) -> usize {
    match moved {
        Move::Up => (step + 1).min(STEPS.len() - 1),
        Move::Stay => step,
        Move::Down => step.saturating_sub(1),
        Move::Bottom => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::{Kind, Purpose};
    use crate::settings::UrlSource;

    const MS: Duration = Duration::from_millis(1);
    const WRITE: Exchange = Exchange { purpose: Purpose::Client, kind: Kind::Write, bytes: 4096 };
    const KEEP_ALIVE: Exchange = Exchange { purpose: Purpose::KeepAlive, kind: Kind::Read, bytes: 1 };

    fn link(change: impl FnOnce(&mut Settings), latency: Duration) -> Link {
        let mut settings = Settings::new(UrlSource::Inline(String::new()));
        change(&mut settings);
        Link::new(&settings, 8, latency)
    }

    fn data(link: &Link, answers: u32, time: Duration) {
        (0..answers).for_each(|_| link.answered(WRITE, time));
    }

    #[test]
    fn the_latency_is_set_against_the_time_of_answers() {
        assert_eq!(judge(10 * MS, 19 * MS), Move::Up);
        assert_eq!(judge(10 * MS, 20 * MS), Move::Stay);
        assert_eq!(judge(10 * MS, 60 * MS), Move::Stay);
        assert_eq!(judge(10 * MS, 61 * MS), Move::Down);
        assert_eq!(judge(LONG - MS, 5 * MS), Move::Bottom);
    }

    #[test]
    fn a_server_nearby_gets_four_connections_and_requests_of_2_mib() {
        let near = link(|_| {}, MS);
        data(&near, 100, MS);
        assert_eq!(near.fit(), STEPS[0]);
        assert_eq!((near.connections(), near.max_request(), near.in_flight()), (4, 2 << 20, 12 << 20));
    }

    #[test]
    fn a_long_link_gets_more_step_by_step_and_less_again_where_it_is_busy() {
        let far = link(|_| {}, 20 * MS);
        data(&far, ANSWERS - 1, 25 * MS);
        assert_eq!(far.fit(), STEPS[0]);
        data(&far, 1, 25 * MS);
        assert_eq!(far.fit(), STEPS[1]);
        data(&far, 10 * ANSWERS, 25 * MS);
        assert_eq!((far.connections(), far.max_request()), (8, 4 << 20));
        data(&far, 10 * ANSWERS, 50 * MS);
        assert_eq!(far.fit(), STEPS[2], "it rests there");
        data(&far, ANSWERS, 200 * MS);
        assert_eq!(far.fit(), STEPS[1]);
    }

    #[test]
    fn a_short_answer_shows_that_the_link_is_not_long() {
        let link = link(|_| {}, 20 * MS);
        data(&link, 2 * ANSWERS, 25 * MS);
        assert_eq!(link.fit(), STEPS[2]);
        link.answered(KEEP_ALIVE, MS);
        data(&link, ANSWERS, 25 * MS);
        assert_eq!(link.fit(), STEPS[0]);
    }

    #[test]
    fn what_takes_its_time_without_data_says_nothing_of_the_time_of_data() {
        let link = link(|_| {}, 20 * MS);
        for exchange in [KEEP_ALIVE, Exchange::flush(Purpose::Client)] {
            (0..10 * ANSWERS).for_each(|_| link.answered(exchange, 20 * MS));
        }
        assert_eq!(link.fit(), STEPS[0]);
    }

    #[test]
    fn what_the_user_has_chosen_stays_and_the_server_has_the_last_word() {
        let chosen = |settings: &mut Settings| {
            (settings.connections, settings.max_request, settings.replay_buffer) =
                (Some(2), Some(0), Some(1));
        };
        let fixed = link(chosen, 20 * MS);
        data(&fixed, 10 * ANSWERS, 20 * MS);
        assert_eq!((fixed.connections(), fixed.max_request(), fixed.replay_buffer()), (2, 0, 1));
        assert_eq!((fixed.longest_request(), fixed.in_flight()), (u64::MAX, 0));
        let huge = link(|settings| settings.max_request = Some(u64::MAX - 4095), MS);
        assert_eq!(huge.in_flight(), 48 << 20);
        let settings = Settings::new(UrlSource::Inline(String::new()));
        let single = Link::new(&settings, 1, 20 * MS);
        data(&single, 10 * ANSWERS, 20 * MS);
        assert_eq!((single.connections(), single.max_request()), (1, 4 << 20));
    }
}
