// SPDX-License-Identifier: MIT OR Apache-2.0
//! One of the pool's connections, which opens again when it was lost, and then writes again what
//! was not flushed.
//!
//! `recovery` decides what to do after each attempt, and `attempt` carries it out. `replay` writes
//! again.

mod attempt;
mod replay;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block_device_traits::{Errno, Error};
use conn_pool::{Affected, Group, State, Task};
use error_reporter::Report;
use imageio_client::{Connection, Connector, Flush};

use crate::change::{Change, ServerFeatures};
use crate::counters::{Counters, Exchange, Kind, Purpose};
use crate::error::Cause;
use crate::link::Link;
use crate::notice::Notice;
use crate::outage::Outage;
use crate::overlay;
use crate::recovery::{Asked, Failing};
use crate::replay_buffer::{ReplayBuffer, Reservation};
use crate::request::{DeviceRequest, Operation};
use crate::statistics::{Awaited, Initiator};
use crate::ticket::TicketKeeper;
use crate::tracker::{Owner, Tracker, UnderWay};

/// A failed request.
pub(crate) type Failure = conn_pool::Failure<Cause>;

/// The parts that the connections of a device have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) connector: Arc<Connector>,
    pub(crate) server: ServerFeatures,
    pub(crate) link: Arc<Link>,
    /// The time for which a connection is tried to be opened again.
    pub(crate) reconnect_timeout: Duration,
    pub(crate) ticket_keeper: Option<Arc<dyn TicketKeeper>>,
    pub(crate) keep_alive: KeepAlive,
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) outage: Outage,
    pub(crate) replay_buffer: Arc<ReplayBuffer>,
    pub(crate) counters: Arc<Counters>,
    /// A server that closes often would fill the log.
    pub(crate) told_of_loss: Notice,
}

/// The request that keeps a connection alive. `OPTIONS` wouldn't do: through a proxy, it renews
/// only the first hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    Flush,
    ReadOneByte,
}

/// Zeroing goes in steps of so many bytes: some storage stalls on more at once.
const LONGEST_ZERO: u64 = 128 << 20;

/// Zeroing goes in shorter steps for a while after a connection was lost: no data can be written to
/// a place for the rest of the transfer if another is lost while that place is zeroed.
const LONGEST_ZERO_AFTER_LOSS: (u64, Duration) = (4 << 20, Duration::from_secs(600));

/// A connection of the pool: open, or yet to be opened.
#[derive(Debug)]
pub(crate) struct ReplayingConnection {
    common: Arc<Common>,
    owner: Owner,
    /// It is opened when it is needed.
    open: Option<Connection>,
    /// Writes were acknowledged and not flushed, on `open` or on a connection that is lost.
    is_dirty: bool,
    /// The room that the unflushed content takes in the replay buffer.
    reserved: Option<Reservation>,
    /// The server has closed a connection with something unflushed on it, though it had answered:
    /// what follows is flushed at once, or it would be written again and again.
    closes_early: bool,
    /// The last attempt to keep it alive has failed, which was told.
    told_keep_alive: bool,
}

impl conn_pool::Connection for ReplayingConnection {
    type Error = Cause;
    type Request = DeviceRequest;

    fn carry_out(&mut self, task: Task<'_, DeviceRequest>) -> Result<(), Failure> {
        // Also in the pauses between attempts.
        let counters = Arc::clone(&self.common.counters);
        let _busy = counters.busy(self.owner, awaited(&task), Some(initiator(&task)));
        match task {
            Task::Requests(group) => self.carry_out_group(group),
            Task::Flush => self.flush(Purpose::Client, Connection::flush),
            Task::FlushInBackground => self.flush_in_background(Purpose::Background),
            Task::KeepAlive => self.keep_alive(),
        }
    }

    fn state(&self) -> State {
        match (self.is_dirty, &self.reserved) {
            (true, Some(reserved)) if reserved.should_be_given_back() => State::Full,
            (true, _) => State::Dirty,
            (false, _) if self.open.is_some() => State::Clean,
            (false, _) => State::Closed,
        }
    }

    fn concurrency(&self) -> usize {
        self.common.link.connections() as usize
    }
}

/// Requests.
impl ReplayingConnection {
    pub(crate) fn new(common: Arc<Common>, owner: Owner) -> Self {
        Self {
            common,
            owner,
            open: None,
            is_dirty: false,
            reserved: None,
            closes_early: false,
            told_keep_alive: false,
        }
    }

    fn carry_out_group(&mut self, group: &mut Group<DeviceRequest>) -> Result<(), Failure> {
        let shape = group.shape();
        self.check_outage(group).inspect_err(|failure| {
            if shape.operation != Operation::Read {
                self.common.tracker.failed(&shape.range(), &failure.error);
            }
        })?;
        match shape.operation {
            Operation::Read => {
                let mut bufs: Vec<_> = group.iter_mut().filter_map(DeviceRequest::memory).collect();
                self.read(shape.range().start, &mut bufs)
            }
            Operation::Write { fua } => {
                let data = group.iter().filter_map(DeviceRequest::data).cloned().collect();
                let is_lent = group.iter().any(DeviceRequest::is_lent);
                let longest = self.common.link.longest_request();
                self.change(shape.range(), Change::Write { data, is_lent }, longest, fua)
            }
            Operation::Zero { fua } => self.change(shape.range(), Change::Zero, self.longest_zero(), fua),
        }
    }

    /// Fails if the server is gone and others have given up, so that those who have waited for a
    /// connection don't wait for the server one after another.
    fn check_outage(&self, group: &Group<DeviceRequest>) -> Result<(), Failure> {
        let has_connection = self.open.is_some() || self.is_dirty;
        let given_up = || self.common.outage.given_up_since(group.iter().map(DeviceRequest::arrived).max()?);
        match (!has_connection).then(given_up).flatten() {
            Some(error) => {
                let text =
                    format!("the server is gone, and requests that came before were given up: {error}");
                Err(self.failure(Failing::Request, Error::new(error.errno(), text)))
            }
            None => Ok(()),
        }
    }

    fn longest_zero(&self) -> u64 {
        let (short, time) = LONGEST_ZERO_AFTER_LOSS;
        if self.common.outage.was_within(time, Instant::now()) { short } else { LONGEST_ZERO }
    }

    /// Fills the buffers one after another.
    fn read(&mut self, offset: u64, bufs: &mut [&mut [u8]]) -> Result<(), Failure> {
        let len: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        let range = offset..offset + len;
        let newest = self.common.tracker.newest(&range);
        let exchange = Exchange { purpose: Purpose::Client, kind: Kind::Read, bytes: len };
        self.send_again_and_again(Asked::Read, exchange, |connection| {
            connection.read_vectored(offset, bufs)
        })?;
        for (part, content) in newest {
            overlay::put(bufs, &(part.start - offset..part.end - offset), &content);
        }
        Ok(())
    }

    /// Carries out a change step by step on this connection, so that the flush of the last step
    /// covers all.
    fn change(&mut self, range: Range<u64>, change: Change, longest: u64, fua: bool) -> Result<(), Failure> {
        for (step, change) in change.steps(range.clone(), longest) {
            let is_last = step.end == range.end;
            let start = step.start;
            self.change_step(step, &change, fua && is_last).inspect_err(|failure| {
                // Whoever closes the device is told as well, unless that place is changed later.
                self.common.tracker.failed(&(start..range.end), &failure.error);
            })?;
        }
        Ok(())
    }

    /// Carries out a change, which is durable if it has to be, or if there is no room to keep it
    /// until a flush.
    fn change_step(&mut self, range: Range<u64>, change: &Change, fua: bool) -> Result<(), Failure> {
        let (flush, mut reserved) = self.durability(change, fua);
        let common = Arc::clone(&self.common);
        let (tracker, number) = (&common.tracker, common.tracker.number());
        let parts = || change.parts(&range, tracker);
        let exchange = change.exchange(Purpose::Client, &range, common.server);
        let mut attempts = self.attempts();
        loop {
            // First, as writing again waits for what is under way.
            self.open(Asked::Change, &mut attempts)?;
            let Ok(under_way) = tracker.begin(range.clone(), number, parts) else {
                return Err(other_in_doubt(&range));
            };
            let result =
                self.attempt(exchange, |connection| change.send(connection, &range, common.server, flush));
            if result.is_ok() {
                self.changed(&range, change, flush, reserved.take(), &under_way);
            }
            let decision = self.decide(Asked::Change, &result);
            if decision.is_in_doubt {
                under_way.is_in_doubt(parts());
            }
            // Others may have the range while this one waits.
            drop(under_way);
            if self.goes_on(Asked::Change, decision, result, &mut attempts)? {
                return Ok(());
            }
        }
    }

    /// Returns the way in which a change is flushed, and the room to keep it until then if it
    /// isn't.
    fn durability(&self, change: &Change, fua: bool) -> (Flush, Option<Reservation>) {
        if fua {
            return (Flush::Yes, None);
        }
        // A full connection needs a flush at once, and one that goes along costs no request.
        let wants_flush = self.closes_early || conn_pool::Connection::state(self) == State::Full;
        if !self.common.server.flush || wants_flush {
            return (Flush::Prompt, None);
        }
        match self.common.replay_buffer.reserve(change.memory()) {
            None if self.keeps() => (Flush::Prompt, None),
            reserved => (Flush::No, reserved),
        }
    }

    /// Takes note of a change that was answered. The server's flush of a change covers all of its
    /// backend connection.
    fn changed(
        &mut self,
        range: &Range<u64>,
        change: &Change,
        flush: Flush,
        reserved: Option<Reservation>,
        under_way: &UnderWay,
    ) {
        if matches!(change, Change::Zero) {
            under_way.is_zero();
        }
        if flush != Flush::No {
            under_way.is_durable();
            self.flushed();
            return;
        }
        self.is_dirty = true;
        let Some(reserved) = reserved else { return under_way.is_done() };
        under_way.keep(self.owner, change.content(range, &self.common.tracker));
        match &mut self.reserved {
            Some(more) => more.add(reserved),
            none => *none = Some(reserved),
        }
    }

    /// Flushes what is dirty; `send` is a flush. Writing again what was on a lost connection ends
    /// with a flush, too.
    fn flush(
        &mut self,
        purpose: Purpose,
        send: fn(&mut Connection) -> imageio_client::Result<()>,
    ) -> Result<(), Failure> {
        if self.is_dirty {
            self.send_again_and_again(Asked::Flush, Exchange::flush(purpose), send)?;
            self.flushed();
        }
        Ok(())
    }

    /// Nobody has asked for it, and others wait for this connection: a connection without an answer
    /// is given up as soon as for a write. Its content is kept.
    fn flush_in_background(&mut self, purpose: Purpose) -> Result<(), Failure> {
        self.flush(purpose, if self.keeps() { Connection::flush_promptly } else { Connection::flush })
    }

    fn flushed(&mut self) {
        self.is_dirty = false;
        if let Some(_freed) = self.reserved.take() {
            self.common.tracker.flushed(self.owner, u64::MAX);
        }
    }

    /// Uses the connection. Where nothing is unflushed, a failure is no end: a later request will
    /// open a connection again, and fail by itself if it can't.
    fn keep_alive(&mut self) -> Result<(), Failure> {
        log::debug!("keeping an idle connection alive");
        if self.is_dirty {
            return self.flush_in_background(Purpose::KeepAlive);
        }
        // Once more where the server had closed the connection.
        let result =
            self.use_once().or_else(|error| if error.is_lost() { self.use_once() } else { Err(error) });
        let level = if self.told_keep_alive { log::Level::Debug } else { log::Level::Warn };
        self.told_keep_alive = result.is_err();
        if let Err(error) = result {
            self.give_up_connection();
            log::log!(level, "keeping an idle connection alive: {}", Report::new(error));
        }
        Ok(())
    }

    fn use_once(&mut self) -> imageio_client::Result<()> {
        if self.open.is_none() {
            self.connect()?;
        }
        let purpose = Purpose::KeepAlive;
        match self.common.keep_alive {
            KeepAlive::Flush => self.attempt(Exchange::flush(purpose), Connection::flush_promptly),
            KeepAlive::ReadOneByte => {
                let exchange = Exchange { purpose, kind: Kind::Read, bytes: 1 };
                self.attempt(exchange, |connection| connection.read(0, &mut [0]))
            }
        }
    }
}

/// Returns the event that a connection waits for while it carries out a task.
fn awaited(task: &Task<'_, DeviceRequest>) -> Awaited {
    match task {
        Task::Requests(group) => match group.shape().operation {
            Operation::Read => Awaited::Read,
            Operation::Write { .. } => Awaited::Write,
            Operation::Zero { .. } => Awaited::Zero,
        },
        Task::Flush | Task::FlushInBackground => Awaited::Flush,
        Task::KeepAlive => Awaited::Connection,
    }
}

/// Tells who wants a task to be carried out.
fn initiator(task: &Task<'_, DeviceRequest>) -> Initiator {
    match task {
        Task::Requests(_) | Task::Flush => Initiator::Client,
        Task::FlushInBackground => Initiator::Background,
        Task::KeepAlive => Initiator::KeepAlive,
    }
}

fn other_in_doubt(range: &Range<u64>) -> Failure {
    let text = format!(
        "a connection was lost while something else was being written within {} bytes at {}, and the server may \
         still write it: that place can't be changed in this transfer any more",
        range.end - range.start,
        range.start
    );
    Failure { error: Cause(Error::new(Errno::Io, text)), affected: Affected::One }
}
