// SPDX-License-Identifier: MIT OR Apache-2.0
//! One of the pool's connections, with what has to be known of it to lose nothing.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use block_device::{Errno, Error};
use bytes::Bytes;
use imageio_client::{Connection, Connector, Flush, StatusCode};

use crate::error::{Kind, device_error};
use crate::ledger::{Content, Ledger, Owner, Part, UnderWay};
use crate::replay_buffer::{ReplayBuffer, Room};
use crate::request::{Request, Target, Work};
use crate::retry::{Retry, TICKET_COMES_BACK};

/// Zeroing goes in steps of so many bytes: some storage stalls on more at once.
const ZERO_STEP: u64 = 128 << 20;

/// What is written again is flushed after so many bytes, so that another loss doesn't begin it anew.
const REPLAY_STEP: u64 = 1 << 20;

/// What a piece that is kept counts at least, in bytes: keeping track of it takes memory, too.
const LEAST_KEPT: u64 = 4096;

/// A connection of the pool: open, or yet to be opened.
#[derive(Debug)]
pub(crate) struct Link {
    connector: Arc<Connector>,
    means: Means,
    /// Opened when it is needed.
    connection: Option<Connection>,
    /// Writes were acknowledged on `connection` since its last flush.
    dirty: bool,
    ledger: Arc<Ledger>,
    owner: Owner,
    replay_buffer: Arc<ReplayBuffer>,
    /// What the unflushed content takes of it.
    kept: Option<Room>,
    /// How long to try to get a connection again.
    patience: Duration,
}

/// By what means the server does things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Means {
    /// `PATCH` flush; else each write is durable by itself.
    pub(crate) flush: bool,
    /// `PATCH` zero; else zeroes are written.
    pub(crate) zero: bool,
    /// In bytes; longer ones are sent in steps.
    pub(crate) longest_write: u64,
    /// What keeps a connection alive. `OPTIONS` wouldn't do: through a proxy, it renews only the first hop.
    pub(crate) keep_alive: KeepAlive,
}

/// What keeps a connection alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    Flush,
    ReadOneByte,
}

/// A failed request. A fatal failure means that data may be lost.
pub(crate) type Failure = conn_pool::Failure<Error>;

/// A change of the disk.
enum Change<'a> {
    Write {
        data: &'a VecDeque<Bytes>,
        /// The memory is someone else's after the request: what is kept is a copy.
        is_lent: bool,
    },
    Zero,
}

impl Change<'_> {
    fn send(
        &self,
        connection: &mut Connection,
        range: Range<u64>,
        means: Means,
        flush: Flush,
    ) -> imageio_client::Result<()> {
        let (offset, len) = (range.start, range.end - range.start);
        match self {
            Self::Write { data, .. } => connection.write(offset, data.iter().cloned(), flush),
            Self::Zero if means.zero => connection.zero(offset, len, flush),
            Self::Zero => connection.write_zeroes(offset, len, flush),
        }
    }

    /// What keeping it counts.
    fn cost(&self) -> u64 {
        match self {
            Self::Write { data, .. } => data.iter().map(|piece| LEAST_KEPT.max(piece.len() as u64)).sum(),
            Self::Zero => LEAST_KEPT,
        }
    }

    /// What it consists of.
    fn parts(&self, range: &Range<u64>, ledger: &Ledger) -> Vec<Part> {
        let Self::Write { data, .. } = self else { return vec![ledger.part(range.clone(), None)] };
        let mut end = range.start;
        let parts = data.iter().map(|piece| {
            let start = end;
            end += piece.len() as u64;
            ledger.part(start..end, Some(piece))
        });
        parts.collect()
    }

    /// Its content, piece by piece.
    fn content(&self, range: &Range<u64>, ledger: &Ledger) -> Vec<(u64, Content)> {
        match self {
            Self::Write { data, is_lent } => {
                let keep = |piece: &Bytes| if *is_lent { ledger.copy(piece) } else { piece.clone() };
                data.iter().map(|piece| (piece.len() as u64, Content::Data(keep(piece)))).collect()
            }
            Self::Zero => vec![(range.end - range.start, Content::Zeroes)],
        }
    }
}

impl Link {
    pub(crate) fn new(
        connector: Arc<Connector>,
        means: Means,
        (ledger, owner): (Arc<Ledger>, Owner),
        replay_buffer: Arc<ReplayBuffer>,
        patience: Duration,
    ) -> Self {
        Self {
            connector,
            means,
            connection: None,
            dirty: false,
            ledger,
            owner,
            replay_buffer,
            kept: None,
            patience,
        }
    }

    /// Fills the buffers one after another.
    pub(crate) fn read(&mut self, offset: u64, bufs: &mut [&mut [u8]]) -> Result<(), Failure> {
        let len: u64 = bufs.iter().map(|buf| buf.len() as u64).sum();
        // A server that was started again may not have what the disk is known to have.
        let newest = self.ledger.newest(&(offset..offset + len));
        self.request(Kind::Read, |connection| connection.read_vectored(offset, bufs))?;
        self.check_kept()?;
        newest.iter().for_each(|(at, end, content)| put(bufs, at - offset..end - offset, content));
        Ok(())
    }

    /// That what is unflushed can still be flushed. After success, too, the server may have closed the connection.
    fn check_kept(&self) -> Result<(), Failure> {
        if self.dirty && self.connection.is_none() && !self.can_replay() {
            return Err(self.fatal("the server closed a connection whose writes are not flushed", Errno::Io));
        }
        Ok(())
    }

    fn can_replay(&self) -> bool {
        !self.replay_buffer.is_off()
    }

    pub(crate) fn write(
        &mut self,
        offset: u64,
        data: &VecDeque<Bytes>,
        is_lent: bool,
        fua: bool,
    ) -> Result<(), Failure> {
        let len: u64 = data.iter().map(|piece| piece.len() as u64).sum();
        let range = offset..offset + len;
        if len <= self.means.longest_write {
            return self.change(range, &Change::Write { data, is_lent }, fua);
        }
        let mut rest = data.clone();
        for (step, is_last) in steps(range, self.means.longest_write) {
            let data = &split_front(&mut rest, step.end - step.start);
            self.change(step, &Change::Write { data, is_lent }, fua && is_last)?;
        }
        Ok(())
    }

    pub(crate) fn zero(&mut self, offset: u64, len: u64, fua: bool) -> Result<(), Failure> {
        for (step, is_last) in steps(offset..offset + len, ZERO_STEP) {
            self.change(step, &Change::Zero, fua && is_last)?;
        }
        Ok(())
    }

    /// Carries out a change, which is durable if it has to be, or if there is no room to keep it until a flush.
    fn change(&mut self, range: Range<u64>, change: &Change<'_>, fua: bool) -> Result<(), Failure> {
        if range.is_empty() {
            return Ok(());
        }
        let (flush, mut room) = self.durability(change, fua);
        let number = self.ledger.number();
        let mut retry = Retry::new(self.patience);
        loop {
            // First, as writing again waits for what is under way.
            if let Err(error) = self.connected() {
                self.survive_change(&range, &error, &mut retry)?;
                continue;
            }
            let parts = || change.parts(&range, &self.ledger);
            let Ok(under_way) = self.ledger.begin(range.clone(), number, parts) else {
                return Err(self.not_changed(&range, uncertain(&range)));
            };
            let means = self.means;
            match self.attempt(|connection| change.send(connection, range.clone(), means, flush)) {
                Ok(()) => {
                    self.changed(&under_way, change, flush, room.take());
                    return self.check_kept();
                }
                Err(error) => {
                    if may_come_true(&error) {
                        under_way.is_uncertain(change.parts(&range, &self.ledger));
                    }
                    drop(under_way);
                    self.survive_change(&range, &error, &mut retry)?;
                }
            }
        }
    }

    /// Whether a change is flushed, and the room to keep it until then if it isn't.
    fn durability(&self, change: &Change<'_>, fua: bool) -> (Flush, Option<Room>) {
        if fua {
            return (Flush::Yes, None);
        }
        // Where the connection wants a flush, it was needed at once, and a flush that goes along costs no request.
        if !self.means.flush || conn_pool::Connection::wants_flush(self) {
            return (Flush::Prompt, None);
        }
        match self.replay_buffer.take(change.cost()) {
            None if self.can_replay() => (Flush::Prompt, None),
            room => (Flush::No, room),
        }
    }

    /// [`survive`](Self::survive) a change that failed.
    fn survive_change(
        &mut self,
        range: &Range<u64>,
        error: &imageio_client::Error,
        retry: &mut Retry,
    ) -> Result<(), Failure> {
        self.survive(Kind::Write, error, retry).map_err(|failure| match error.status() {
            // It has said so, and changed nothing.
            Some(status) if status.is_client_error() => failure,
            _ => self.not_changed(range, failure),
        })
    }

    /// Who asked for the change is told; and so is who closes the device, unless that place is changed later.
    fn not_changed(&self, range: &Range<u64>, failure: Failure) -> Failure {
        self.ledger.not_changed(range, &failure.error);
        failure
    }

    /// Takes note of a change that was answered. The server's flush of a change covers all of its backend connection.
    fn changed(&mut self, under_way: &UnderWay, change: &Change<'_>, flush: Flush, room: Option<Room>) {
        if flush != Flush::No {
            under_way.replaces_all();
            self.flushed();
            return;
        }
        self.dirty = true;
        let Some(room) = room else { return under_way.is_done() };
        under_way.keep(self.owner, change.content(&under_way.range(), &self.ledger));
        match &mut self.kept {
            Some(kept) => kept.add(room),
            none => *none = Some(room),
        }
    }

    fn flushed(&mut self) {
        self.dirty = false;
        if let Some(_freed) = self.kept.take() {
            self.ledger.flushed(self.owner, u64::MAX);
        }
    }

    /// Sends a request that changes nothing, or a flush.
    fn request(
        &mut self,
        kind: Kind,
        mut send: impl FnMut(&mut Connection) -> imageio_client::Result<()>,
    ) -> Result<(), Failure> {
        let mut retry = Retry::new(self.patience);
        loop {
            match self.attempt(&mut send) {
                Ok(()) => return Ok(()),
                Err(error) => self.survive(kind, &error, &mut retry)?,
            }
        }
    }

    fn attempt(
        &mut self,
        send: impl FnOnce(&mut Connection) -> imageio_client::Result<()>,
    ) -> imageio_client::Result<()> {
        let connection = self.connected()?;
        let result = send(connection);
        if !connection.is_open() {
            self.connection = None;
            if result.as_ref().err().is_none_or(|error| error.status().is_none()) {
                self.ledger.connection_lost();
            }
        }
        result
    }

    /// The connection, opened if it has to be. What was unflushed on a lost one is written again first.
    fn connected(&mut self) -> imageio_client::Result<&mut Connection> {
        if self.connection.is_none() && self.dirty && self.can_replay() {
            self.replay()?;
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connector.connect()?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Opens a new connection in the place of one that was lost, writes there all that was unflushed, and flushes it.
    fn replay(&mut self) -> imageio_client::Result<()> {
        let mut connection = self.connector.connect()?;
        let (mut from, mut bytes, mut at_stake) = (0, 0, 0);
        while let Some((under_way, content)) = self.ledger.begin_again(self.owner, from) {
            let range = under_way.range();
            let data;
            let change = match content {
                Content::Data(piece) => {
                    data = VecDeque::from([piece]);
                    Change::Write { data: &data, is_lent: false }
                }
                Content::Zeroes => Change::Zero,
            };
            let len = range.end - range.start;
            (from, bytes, at_stake) = (range.end, bytes + len, at_stake + len);
            let flush = if at_stake >= REPLAY_STEP { Flush::Prompt } else { Flush::No };
            change.send(&mut connection, range.clone(), self.means, flush).inspect_err(|error| {
                if may_come_true(error) {
                    under_way.is_uncertain(change.parts(&range, &self.ledger));
                }
            })?;
            if flush != Flush::No {
                self.ledger.flushed(self.owner, from);
                at_stake = 0;
            }
        }
        if at_stake > 0 {
            connection.flush_promptly()?;
        }
        self.flushed();
        log::warn!(
            "a connection was lost; {bytes} bytes that were not flushed were written again on a new one"
        );
        self.connection = Some(connection).filter(Connection::is_open);
        Ok(())
    }

    /// After a failure: whether to try again, and not before it makes sense.
    fn survive(
        &mut self,
        kind: Kind,
        error: &imageio_client::Error,
        retry: &mut Retry,
    ) -> Result<(), Failure> {
        if !self.can_replay() && self.loses_data(kind, error) {
            return Err(self.failed_for_good(kind, error));
        }
        let server_failed = error.status().is_some_and(|status| status.is_server_error());
        if server_failed && kind != Kind::Read && self.can_replay() {
            // What the server was told since the last flush may be lost: once, all of it is sent again.
            self.connection = None;
        }
        if self.connection.is_none() && retry.pause(error, &self.ledger) {
            log::info!("opening a connection again: {error}");
            return Ok(());
        }
        if self.dirty && (self.connection.is_none() || (server_failed && kind != Kind::Read)) {
            return Err(self.failed_for_good(kind, error));
        }
        Err(Failure { error: device_error(kind, error), is_fatal: false })
    }

    /// Whether acknowledged data may be gone, or a write may still come true on a connection that is lost.
    fn loses_data(&self, kind: Kind, error: &imageio_client::Error) -> bool {
        let gone = self.connection.is_none();
        let server_failed = error.status().is_some_and(|status| status.is_server_error());
        let on_its_way = kind == Kind::Write && gone && error.status().is_none() && !error.is_unsent();
        (self.dirty && (gone || (server_failed && kind != Kind::Read))) || on_its_way
    }

    fn failed_for_good(&self, kind: Kind, error: &imageio_client::Error) -> Failure {
        let error = device_error(kind, error);
        self.fatal(&error.to_string(), error.errno())
    }

    /// Flushes what is dirty; `send` is a flush. What was lost meanwhile is written again, which ends with one, too.
    fn flush_by(&mut self, send: fn(&mut Connection) -> imageio_client::Result<()>) -> Result<(), Error> {
        self.check_kept().map_err(|failure| failure.error)?;
        if !self.dirty {
            return Ok(());
        }
        self.request(Kind::Flush, send).map_err(|failure| {
            if failure.is_fatal {
                return failure.error;
            }
            self.fatal(&failure.error.to_string(), failure.error.errno()).error
        })?;
        self.flushed();
        Ok(())
    }

    /// Whether nothing was at stake in a keep-alive that failed, and later requests may well succeed.
    fn is_harmless(&self, error: &imageio_client::Error) -> bool {
        // A ticket that is refused won't get better, unless its server has just been started again.
        let may_get_better =
            error.status() != Some(StatusCode::FORBIDDEN) || self.ledger.has_lost_within(TICKET_COMES_BACK);
        !self.dirty && may_get_better
    }

    fn keep_alive_once(&mut self) -> Result<(), imageio_client::Error> {
        if self.connection.is_none() {
            return Ok(());
        }
        let keep_alive = self.means.keep_alive;
        self.attempt(|connection| match keep_alive {
            KeepAlive::Flush => connection.flush_promptly(),
            KeepAlive::ReadOneByte => connection.read(0, &mut [0]),
        })
    }

    fn fatal(&self, reason: &str, errno: Errno) -> Failure {
        self.ledger.end();
        Failure { error: Error::new(errno, format!("data may be lost: {reason}")), is_fatal: true }
    }
}

/// The steps in which a range is changed, on one connection, so that the flush of the last covers all; and whether each
/// is the last.
fn steps(range: Range<u64>, longest: u64) -> impl Iterator<Item = (Range<u64>, bool)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let step = at..range.end.min(at.saturating_add(longest));
        at = step.end;
        (!step.is_empty()).then_some((step, at == range.end))
    })
}

/// Takes the first `len` bytes, which are there.
fn split_front(data: &mut VecDeque<Bytes>, len: u64) -> VecDeque<Bytes> {
    let mut front = VecDeque::new();
    let mut missing = len;
    while missing > 0
        && let Some(piece) = data.front_mut()
    {
        let n = missing.min(piece.len() as u64);
        front.push_back(piece.split_to(n as usize));
        missing -= n;
        if piece.is_empty() {
            data.pop_front();
        }
    }
    front
}

/// Overwrites what is at `range` of the buffers, counted from the start of the first.
fn put(bufs: &mut [&mut [u8]], range: Range<u64>, content: &Content) {
    let mut start = 0;
    for buf in bufs {
        let end = start + buf.len() as u64;
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            let at = |position: u64, origin: u64| (position - origin) as usize;
            let part = &mut buf[at(from, start)..at(to, start)];
            match content {
                Content::Data(data) => {
                    part.copy_from_slice(&data[at(from, range.start)..at(to, range.start)]);
                }
                Content::Zeroes => part.fill(0),
            }
        }
        start = end;
    }
}

/// Whether a change with this outcome may still be carried out.
fn may_come_true(error: &imageio_client::Error) -> bool {
    match error.status() {
        // A proxy's word says nothing of the server, and imageio's own proxy says 500 where it has lost the server.
        Some(status) => status.is_server_error(),
        None => !error.is_unsent(),
    }
}

fn uncertain(range: &Range<u64>) -> Failure {
    let text = format!(
        "a connection was lost while something else was being written within {} bytes at {}, and the server may \
         still write it: that place can't be changed in this transfer any more",
        range.end - range.start,
        range.start
    );
    Failure { error: Error::new(Errno::Io, text), is_fatal: false }
}

impl conn_pool::Connection for Link {
    type Error = Error;
    type Request = Request;

    fn carry_out(&mut self, request: &mut Request) -> Result<(), Failure> {
        let Request { offset, len, .. } = *request;
        match &mut request.work {
            Work::Read { into } => {
                let mut bufs: Vec<_> = into.iter_mut().map(Target::bytes).collect();
                self.read(offset, &mut bufs)
            }
            Work::Write { data, is_lent, fua } => self.write(offset, data, *is_lent, *fua),
            Work::Zero { fua } => self.zero(offset, len, *fua),
        }
    }

    fn is_dirty(&self) -> bool {
        self.dirty
    }

    fn wants_flush(&self) -> bool {
        self.kept.as_ref().is_some_and(Room::should_be_given_back)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.flush_by(Connection::flush)
    }

    /// Nobody has asked for it, and others wait for this connection or for the keeper: a connection without an answer is
    /// given up as soon as for a write. Its content is kept.
    fn flush_in_background(&mut self) -> Result<(), Error> {
        self.flush_by(if self.can_replay() { Connection::flush_promptly } else { Connection::flush })
    }

    fn keep_alive(&mut self) -> Result<(), Error> {
        self.check_kept().map_err(|failure| failure.error)?;
        if self.connection.is_some() {
            log::debug!("keeping an idle connection alive");
        }
        if self.dirty {
            return self.flush_in_background();
        }
        match self.keep_alive_once() {
            Ok(()) => Ok(()),
            Err(error) if self.is_harmless(&error) => {
                log::info!("keeping an idle connection alive: {error}");
                Ok(())
            }
            Err(error) => {
                let error = device_error(Kind::Flush, &error);
                Err(self.fatal(&format!("keeping an idle connection alive: {error}"), error.errno()).error)
            }
        }
    }
}
