// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counting what is asked of the server: see [`statistics`](crate::statistics) for what each figure
//! means.
//!
//! A request to the server takes a few additions, and a look at the clock three times. Nothing is
//! read or written by what the figures say, so no order of memory depends on them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use imageio_client::ByteCounter;

use crate::statistics::{Amount, Awaited, Connections, Initiator, Operations, Statistics, Traffic, Wait};
use crate::tracker::Owner;

/// The purpose for which a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Client,
    Background,
    KeepAlive,
    WriteAgain,
}

const PURPOSES: usize = 4;

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Zero,
    Flush,
}

const KINDS: usize = 4;

/// A request to the server, as it is counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    pub(crate) purpose: Purpose,
    pub(crate) kind: Kind,
    pub(crate) bytes: u64,
}

/// The number of connections that ask for extents: one for what is zero, and one for what is dirty.
const INQUIRIES: usize = 2;

/// The figures of a device.
#[derive(Debug)]
pub(crate) struct Counters {
    exchanges: [[Count; KINDS]; PURPOSES],
    extents: Count,
    opened: AtomicU64,
    lost: AtomicU64,
    retries: AtomicU64,
    /// In nanoseconds.
    waited: AtomicU64,
    /// Each connection's present wait.
    waits: Box<[Slot]>,
    began: Instant,
}

#[derive(Debug, Default)]
struct Count {
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    answered: AtomicU64,
    answered_bytes: AtomicU64,
}

/// A connection, as it is seen from outside.
#[derive(Debug, Default)]
struct Slot {
    /// Its wait, in one number that is always whole: see [`Slot::encode`]. 0: it waits for nothing.
    waits_for: AtomicU64,
    moved: ByteCounter,
}

/// A connection waits as long as this lives.
pub(crate) struct Busy<'a> {
    slot: &'a Slot,
    before: u64,
}

impl Exchange {
    pub(crate) fn flush(purpose: Purpose) -> Self {
        Self { purpose, kind: Kind::Flush, bytes: 0 }
    }

    /// Tells whether this is a range without bytes, which is not sent at all.
    pub(crate) fn is_nothing(self) -> bool {
        self.bytes == 0 && matches!(self.kind, Kind::Read | Kind::Write)
    }

    /// Returns true if it moves data, at somebody's request.
    pub(crate) fn is_data(self) -> bool {
        matches!(self.kind, Kind::Read | Kind::Write) && self.purpose != Purpose::KeepAlive
    }

    fn awaited(self) -> Awaited {
        match self.kind {
            Kind::Read => Awaited::Read,
            Kind::Write => Awaited::Write,
            Kind::Zero => Awaited::Zero,
            Kind::Flush => Awaited::Flush,
        }
    }
}

impl Counters {
    /// For so many connections.
    pub(crate) fn new(connections: u32) -> Self {
        let waits = (0..connections as usize + INQUIRIES).map(|_| Slot::default()).collect();
        Self {
            exchanges: Default::default(),
            extents: Count::default(),
            opened: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            waits,
            began: Instant::now(),
        }
    }

    /// The connection waits for something as long as the guard lives; then for what it waited for
    /// before. Without an initiator, that is for the same one.
    pub(crate) fn busy(&self, owner: Owner, awaited: Awaited, initiator: Option<Initiator>) -> Busy<'_> {
        self.busy_since(Instant::now(), owner, awaited, initiator)
    }

    fn busy_since(
        &self,
        now: Instant,
        owner: Owner,
        awaited: Awaited,
        initiator: Option<Initiator>,
    ) -> Busy<'_> {
        let slot = &self.waits[owner];
        let before = slot.waits_for.load(Relaxed);
        let initiator = initiator.unwrap_or_else(|| Slot::initiator(before));
        let millis = now.saturating_duration_since(self.began).as_millis() as u64;
        slot.waits_for.store(Slot::encode(awaited, initiator, millis), Relaxed);
        Busy { slot, before }
    }

    /// Opens a connection, which is to count the bytes that it moves.
    pub(crate) fn connect<T>(
        &self,
        owner: Owner,
        connect: impl FnOnce(&ByteCounter) -> imageio_client::Result<T>,
    ) -> imageio_client::Result<T> {
        let moved = &self.waits[owner].moved;
        let (result, _) = self.wait(owner, Awaited::Connection, || connect(moved));
        if result.is_ok() {
            self.opened.fetch_add(1, Relaxed);
        }
        result
    }

    /// Sends a request, and waits for the answer. Tells how long that took, too.
    pub(crate) fn exchange(
        &self,
        owner: Owner,
        exchange: Exchange,
        send: impl FnOnce() -> imageio_client::Result<()>,
    ) -> (imageio_client::Result<()>, Duration) {
        let (result, time) = self.wait(owner, exchange.awaited(), send);
        if !exchange.is_nothing() {
            let count = &self.exchanges[exchange.purpose as usize][exchange.kind as usize];
            count.note(&result, exchange.bytes);
        }
        (result, time)
    }

    /// Asks for extents, on the connection of an inquiry: the first or the second.
    pub(crate) fn ask_extents<T>(
        &self,
        inquiry: usize,
        ask: impl FnOnce() -> imageio_client::Result<T>,
    ) -> imageio_client::Result<T> {
        let (result, _) = self.wait(self.inquirer(inquiry), Awaited::Extents, ask);
        self.extents.note(&result, 0);
        result
    }

    /// The place of an inquiry's connection, behind those of the pool.
    pub(crate) fn inquirer(&self, inquiry: usize) -> Owner {
        self.waits.len() - INQUIRIES + inquiry
    }

    fn wait<T>(&self, owner: Owner, awaited: Awaited, work: impl FnOnce() -> T) -> (T, Duration) {
        let start = Instant::now();
        let _busy = self.busy_since(start, owner, awaited, None);
        let result = work();
        let time = start.elapsed();
        self.waited.fetch_add(time.as_nanos() as u64, Relaxed);
        (result, time)
    }

    /// A connection has ended, and the device did not want that.
    pub(crate) fn lost(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    /// Returns the number of connections that were lost so far.
    pub(crate) fn connections_lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// A request is sent once more.
    pub(crate) fn again(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let operations = |purpose: Purpose| {
            let of = |kind: Kind| self.exchanges[purpose as usize][kind as usize].traffic();
            let (reads, writes) = (of(Kind::Read), of(Kind::Write));
            Operations { reads, writes, zeroes: of(Kind::Zero), flushes: of(Kind::Flush) }
        };
        Statistics {
            for_clients: operations(Purpose::Client),
            in_background: operations(Purpose::Background),
            keep_alives: operations(Purpose::KeepAlive),
            written_again: operations(Purpose::WriteAgain),
            extents: self.extents.traffic(),
            connections: Connections { opened: self.opened.load(Relaxed), lost: self.connections_lost() },
            retries: self.retries.load(Relaxed),
            waited: Duration::from_nanos(self.waited.load(Relaxed)),
        }
    }

    pub(crate) fn waits(&self) -> Vec<Wait> {
        let wait = |(owner, slot): (Owner, &Slot)| {
            let (awaited, initiator, millis) = Slot::decode(slot.waits_for.load(Relaxed))?;
            let since = self.began + Duration::from_millis(millis);
            Some(Wait { connection: owner + 1, awaited, since, initiator, moved: slot.moved.bytes() })
        };
        self.waits.iter().enumerate().filter_map(wait).collect()
    }
}

impl Count {
    fn note<T>(&self, result: &imageio_client::Result<T>, bytes: u64) {
        let add = |requests: &AtomicU64, sum: &AtomicU64| {
            requests.fetch_add(1, Relaxed);
            sum.fetch_add(bytes, Relaxed);
        };
        if result.as_ref().err().is_none_or(|error| !error.is_unsent()) {
            add(&self.sent, &self.sent_bytes);
        }
        if result.is_ok() {
            add(&self.answered, &self.answered_bytes);
        }
    }

    fn traffic(&self) -> Traffic {
        let amount = |requests: &AtomicU64, bytes: &AtomicU64| Amount {
            requests: requests.load(Relaxed),
            bytes: bytes.load(Relaxed),
        };
        // The answered ones first, so that they are never more than the others.
        let answered = amount(&self.answered, &self.answered_bytes);
        Traffic { sent: amount(&self.sent, &self.sent_bytes), answered }
    }
}

impl Slot {
    /// The lowest four bits have what is awaited, from 1 on, and the next four for whom; the rest
    /// is the time in milliseconds.
    fn encode(awaited: Awaited, initiator: Initiator, millis: u64) -> u64 {
        millis << 8 | (initiator as u64) << 4 | (awaited as u64 + 1)
    }

    fn decode(code: u64) -> Option<(Awaited, Initiator, u64)> {
        let awaited = ((code & 0xf) as usize).checked_sub(1)?;
        Some((Awaited::ALL[awaited], Self::initiator(code), code >> 8))
    }

    /// A client, where nothing was awaited.
    fn initiator(code: u64) -> Initiator {
        Initiator::ALL[(code >> 4 & 0xf) as usize]
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.slot.waits_for.store(self.before, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Exchange = Exchange { purpose: Purpose::Client, kind: Kind::Write, bytes: 100 };

    fn lost(unsent: bool) -> imageio_client::Result<()> {
        let (operation, reason) = (String::new(), String::new());
        Err(imageio_client::Error::Lost { operation, reason, unsent })
    }

    #[test]
    fn what_was_sent_and_what_was_answered_is_told_apart() {
        let counters = Counters::new(1);
        for result in [Ok(()), lost(false), lost(true)] {
            let _ = counters.exchange(0, WRITE, || result);
        }
        let nothing = Exchange { bytes: 0, ..WRITE };
        counters.exchange(0, nothing, || Ok(())).0.unwrap();
        counters.exchange(0, Exchange::flush(Purpose::KeepAlive), || Ok(())).0.unwrap();
        let told = counters.statistics();
        let sent = Amount { requests: 2, bytes: 200 };
        assert_eq!(told.for_clients.writes, Traffic { sent, answered: Amount { requests: 1, bytes: 100 } });
        assert_eq!(told.keep_alives.flushes.answered.requests, 1);
        assert_eq!(told.operations().writes.sent, sent);
        assert_eq!((told + told).operations().flushes.sent.requests, 2);
    }

    #[test]
    fn a_connection_that_was_opened_counts() {
        let counters = Counters::new(1);
        counters.connect(0, |_| Ok(())).unwrap();
        counters.connect(0, |_| lost(true)).unwrap_err();
        counters.lost();
        let Connections { opened, lost } = counters.statistics().connections;
        assert_eq!((opened, lost), (1, 1));
    }

    #[test]
    fn what_is_waited_for_is_seen_from_outside() {
        let counters = Counters::new(2);
        let seen = || -> Vec<_> {
            let waits = counters.waits().into_iter();
            waits.map(|wait| (wait.connection, wait.awaited, wait.initiator)).collect()
        };
        assert_eq!(seen(), []);
        let all = Awaited::ALL.map(|awaited| {
            let _busy = counters.busy(1, awaited, None);
            seen()
        });
        assert_eq!(all, Awaited::ALL.map(|awaited| vec![(2, awaited, Initiator::Client)]));
        let _keep_alive = counters.busy(0, Awaited::Flush, Some(Initiator::KeepAlive));
        counters
            .connect(0, |_| {
                assert_eq!(
                    seen(),
                    [(1, Awaited::Connection, Initiator::KeepAlive)],
                    "still to keep it alive"
                );
                Ok(())
            })
            .unwrap();
        assert_eq!(seen(), [(1, Awaited::Flush, Initiator::KeepAlive)]);
        counters
            .ask_extents(1, || {
                assert_eq!(seen()[1], (4, Awaited::Extents, Initiator::Client));
                Ok(())
            })
            .unwrap();
        assert_eq!(counters.statistics().extents.answered.requests, 1);
    }

    #[test]
    fn the_time_of_a_wait_is_kept() {
        let (counters, before) = (Counters::new(1), Instant::now());
        let _busy = counters.busy(0, Awaited::Zero, None);
        let since = counters.waits()[0].since;
        assert!(since <= Instant::now() && before.duration_since(since) <= Duration::from_millis(1));
    }
}
