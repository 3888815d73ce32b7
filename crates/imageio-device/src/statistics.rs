// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of a device's requests to its server, and its waits for the answers.
//!
//! # What counts
//! A request to the server counts when its attempt has ended, however that was:
//! - as [`sent`](Traffic::sent) if at least its first byte was handed to the system. The server may
//!   not have seen it, where the connection was lost;
//! - as [`answered`](Traffic::answered), too, if the whole answer came, and it says that the
//!   request was carried out. A request that was refused, or whose answer was lost, is sent and not
//!   answered, though the server may have done it.
//!
//! Its bytes are those of the range that it is about, also where a connection was lost in the
//! middle of them. A request that is sent again counts again. What
//! [`Transfer::open`](crate::Transfer::open) asks, and a checksum, is not the device's and doesn't
//! count.

use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

use crate::Device;

/// A number of requests, and the bytes that they are about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Amount {
    /// The number of requests.
    pub requests: u64,
    /// The sum of their lengths in bytes: 0 for flushes and questions for extents.
    pub bytes: u64,
}

/// Requests of one kind: see the [module](self).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Traffic {
    /// The requests that went out, at least in part.
    pub sent: Amount,
    /// The sent requests that the server has answered with success.
    pub answered: Amount,
}

/// Requests by what they ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Operations {
    /// `GET` of data.
    pub reads: Traffic,
    /// `PUT` of data: also of zeroes, where the server can't zero.
    pub writes: Traffic,
    /// `PATCH` with op zero.
    pub zeroes: Traffic,
    /// `PATCH` with op flush. A write or zero that flushes as well is no flush.
    pub flushes: Traffic,
}

/// Connections to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Connections {
    /// The number of connections that were opened.
    pub opened: u64,
    /// The number of connections that ended before the device closed them: broken, closed by the
    /// server, or given up after an error or a timeout. One that broke while it was idle counts
    /// when it is used next.
    pub lost: u64,
}

/// The figures of all that a device has asked of its server since it was started. Each figure is
/// right by itself; together they are, once no request is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Requests for clients, merged and split as they went out, with each further attempt; also
    /// those that read ahead of them, and the flush at the end.
    pub for_clients: Operations,
    /// Flushes that nobody has asked for, as the replay buffer was about to be full.
    pub in_background: Operations,
    /// Requests that kept idle connections from being closed: flushes, or reads of one byte.
    pub keep_alives: Operations,
    /// Writes and zeroes that were not flushed on a lost connection and were sent again on a new
    /// one, with the flushes of these.
    pub written_again: Operations,
    /// Questions for extents, zero or dirty.
    pub extents: Traffic,
    /// Connections, also those for extents, which are never lost by this count.
    pub connections: Connections,
    /// The number of times that something was tried once more after an attempt had failed, be it to
    /// connect or to send. Not counted are a question for extents that is asked again, requests
    /// that went out as one and are sent each by itself as the one was refused, and a keep-alive
    /// that is sent again at once, as the server had closed its connection.
    pub retries: u64,
    /// The time from the begin of each request to the end of its answer, with that for opening
    /// connections: the sum over all connections, which wait side by side. In seconds where it is
    /// serialized.
    #[serde(rename = "waited_seconds", serialize_with = "seconds")]
    pub waited: Duration,
}

impl Statistics {
    /// All reads, writes, zeroes and flushes, whatever they were for: those that are in the
    /// server's log.
    #[must_use]
    pub fn operations(&self) -> Operations {
        [self.for_clients, self.in_background, self.keep_alives, self.written_again].into_iter().sum()
    }
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// The event that a connection of a device waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Awaited {
    /// It is being opened, or it is waited for a moment in which that makes sense.
    Connection,
    /// The answer to a read.
    Read,
    /// The answer to a write.
    Write,
    /// The answer to a zero.
    Zero,
    /// The answer to a flush.
    Flush,
    /// The answer to a question for extents.
    Extents,
}

impl Awaited {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Connection, Self::Read, Self::Write, Self::Zero, Self::Flush, Self::Extents];

    /// A word for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connect",
            Self::Read => "read",
            Self::Write => "write",
            Self::Zero => "zero",
            Self::Flush => "flush",
            Self::Extents => "extents",
        }
    }
}

/// The party that wants the answer for which a connection waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Initiator {
    /// A client.
    Client,
    /// Nobody, but clients may come to wait for it: the flush of a replay buffer that is about to
    /// be full.
    Background,
    /// Nobody: it is to keep the connection alive.
    KeepAlive,
}

impl Initiator {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Client, Self::Background, Self::KeepAlive];
}

/// A connection that waits for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wait {
    /// Its number, from 1 on. Those for extents have numbers above the others.
    pub connection: usize,
    /// The answer that is waited for.
    pub awaited: Awaited,
    /// The time since when it waits, to the millisecond.
    pub since: Instant,
    /// The one for whom it waits.
    pub initiator: Initiator,
    /// The number of bytes that the connection has moved so far, in all its requests, also before
    /// it was opened again. While `since` is the same, more of them tell that the request goes on.
    pub moved: u64,
}

impl Wait {
    /// For what has something else than a device to look at.
    #[must_use]
    pub fn new(connection: usize, awaited: Awaited, since: Instant) -> Self {
        Self { connection, awaited, since, initiator: Initiator::Client, moved: 0 }
    }
}

impl Device {
    /// Returns the figures of what it has asked of the server so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.common.counters.statistics()
    }

    /// Returns the waits of its connections at this moment: connections that don't wait are left
    /// out.
    #[must_use]
    pub fn waits(&self) -> Vec<Wait> {
        self.common.counters.waits()
    }
}

/// Adds field by field.
macro_rules! sums {
    ($($name:ident: $($field:ident)*;)*) => {$(
        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }

        impl Add for $name {
            type Output = Self;

            fn add(mut self, other: Self) -> Self {
                self += other;
                self
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
                all.fold(Self::default(), Add::add)
            }
        }
    )*};
}

sums! {
    Amount: requests bytes;
    Traffic: sent answered;
    Operations: reads writes zeroes flushes;
    Connections: opened lost;
    Statistics: for_clients in_background keep_alives written_again extents connections retries waited;
}
