// SPDX-License-Identifier: MIT OR Apache-2.0
//! The records of a disk's changes: which are under way, which are unflushed, in doubt, or missing.
//!
//! A server may lose what was written on a connection and not flushed there, and may carry out
//! later what it never answered. Each part of this keeps one kind of record, and knows nothing of
//! the others:
//! - `range_lock`: changes that share a block are never under way together, as NBD leaves their
//!   order open and storage may lose one of them (`blocks`);
//! - `replay_log`: acknowledged content, until its connection is flushed;
//! - `in_doubt`: places to which something may still be written;
//! - `unsettled`: places where that may be happening right now;
//! - `missing`: what was not written in the end;
//! - `extents`: what reads as zeroes, and what is dirty, each told by an answer of the server
//!   (`extent_map`).
//!
//! One lock holds them together. It is never held while the server is waited for.
//!
//! # Waiting
//! A thread that waits for a range holds a connection, but nothing that is under way. What is under
//! way waits for the server alone, and not for ever; when its connection is lost, it is no longer
//! under way. So no cycle of waiting exists.

mod blocks;
mod extent_map;
mod extents;
mod identity;
mod in_doubt;
mod missing;
mod range_lock;
mod replay_log;
mod under_way;
mod unsettled;

pub(crate) use extent_map::{Context, ExtentMap};
pub(crate) use identity::Owner;
pub(crate) use in_doubt::Part;
pub(crate) use replay_log::{Content, Pieces};

use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use block_device_traits::{Extent, piece_end};
use bytes::Bytes;
use imageio_client::ExtentsContext;
use io_buffer_pool::Pool;
use rangemap::RangeSet;

use extents::{Discarded, Extents};
use identity::Number;
use in_doubt::InDoubt;
use missing::Missing;
use range_lock::RangeLock;
use replay_log::{ReplayLog, Unflushed};
use unsettled::Unsettled;

/// The records that all connections of a device share.
#[derive(Debug)]
pub(crate) struct Tracker {
    disk_size: u64,
    records: Mutex<Records>,
    /// For content that has to be copied to be kept.
    copies: Arc<Pool>,
    /// Its key is nobody's to know.
    hasher: RandomState,
    /// Something is no longer under way.
    released: Condvar,
    /// The time for which a place is left alone where a change was cut off.
    settle_time: Duration,
    /// Something may be known to be zero: a hint, so that nobody needs the lock to find out that
    /// nothing is.
    knows_zeroes: AtomicBool,
}

#[derive(Debug, Default)]
struct Records {
    range_lock: RangeLock,
    replay_log: ReplayLog,
    in_doubt: InDoubt,
    unsettled: Unsettled,
    missing: Missing,
    zero: Extents,
    dirty: Extents,
    /// Threads that wait for a range. A notification is a system call, also where nobody listens.
    waiting: usize,
    last_number: Number,
}

/// Different content may still be written to the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OtherInDoubt;

/// The reason why a change can't begin now.
#[derive(Debug, Clone, Copy)]
enum Obstacle {
    /// Something else is under way there.
    Other,
    /// The place is to be left alone for so long.
    Unsettled(Duration),
}

/// Acknowledged content can't be made safe: something else may undo it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MayBeUndone {
    /// The place of the content, in bytes.
    pub(crate) offset: u64,
}

/// A change that is being carried out, until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    tracker: Arc<Tracker>,
    range: Range<u64>,
    blocks: Range<u64>,
    number: Number,
}

impl Tracker {
    /// For a disk of `disk_size` bytes. `replay_buffer` is how many bytes the connections will keep
    /// together, to begin with.
    pub(crate) fn new(disk_size: u64, replay_buffer: u64, settle_time: Duration) -> Self {
        Self {
            disk_size,
            records: Mutex::default(),
            copies: Pool::new(usize::try_from(replay_buffer).unwrap_or(usize::MAX)),
            hasher: RandomState::new(),
            released: Condvar::new(),
            settle_time,
            knows_zeroes: AtomicBool::new(false),
        }
    }

    /// A number for a change.
    pub(crate) fn number(&self) -> Number {
        let mut records = self.lock();
        records.last_number += 1;
        records.last_number
    }

    /// Begins a change, when nothing is under way in its blocks. `parts` are what it consists of.
    ///
    /// # Errors
    /// [`OtherInDoubt`].
    pub(crate) fn begin(
        self: &Arc<Self>,
        range: Range<u64>,
        number: Number,
        parts: impl Fn() -> Vec<Part>,
    ) -> Result<UnderWay, OtherInDoubt> {
        let blocks = self.blocks(&range);
        let mut records = self.lock();
        loop {
            if !records.in_doubt.allows(&range, number, &parts) {
                return Err(OtherInDoubt);
            }
            let Err(obstacle) = records.try_begin(&blocks) else {
                let _discarded = records.changing(&blocks);
                drop(records);
                return Ok(UnderWay { tracker: Arc::clone(self), range, blocks, number });
            };
            records = self.wait(records, obstacle);
        }
    }

    /// The first content, from `from` on, that has to be written again if this connection is lost:
    /// its change is begun again. Of zeroes, these are `longest_zero` bytes at most. Data comes
    /// piece by piece.
    ///
    /// # Errors
    /// [`MayBeUndone`].
    pub(crate) fn begin_again(
        self: &Arc<Self>,
        owner: Owner,
        from: u64,
        longest_zero: u64,
    ) -> Result<Option<(UnderWay, Pieces)>, MayBeUndone> {
        let mut records = self.lock();
        loop {
            let Some(Unflushed { mut range, number, content }) = records.replay_log.first(owner, from) else {
                return Ok(None);
            };
            if matches!(content, Pieces::Zeroes) {
                range.end = piece_end(&range, longest_zero);
            }
            if records.in_doubt.may_undo(&range) {
                return Err(MayBeUndone { offset: range.start });
            }
            let blocks = self.blocks(&range);
            let Err(obstacle) = records.try_begin(&blocks) else {
                let _discarded = records.changing(&blocks);
                drop(records);
                let under_way = UnderWay { tracker: Arc::clone(self), range, blocks, number };
                return Ok(Some((under_way, content)));
            };
            // The change that is under way is newer, and may replace it.
            records = self.wait(records, obstacle);
        }
    }

    /// The changes that this connection wrote before `end` are flushed.
    pub(crate) fn flushed(&self, owner: Owner, end: u64) {
        // Freed outside the lock.
        let _entries = self.lock().replay_log.flushed(owner, end);
    }

    /// Returns the content of `range` that is acknowledged and unflushed, part by part.
    pub(crate) fn newest(&self, range: &Range<u64>) -> Vec<(Range<u64>, Content)> {
        self.lock().replay_log.newest(range)
    }

    /// A change was given up.
    pub(crate) fn failed(&self, range: &Range<u64>, reason: &impl Display) {
        let reason = reason.to_string();
        self.lock().missing.add(range, &reason);
    }

    /// One line that says what was not written, if anything wasn't.
    pub(crate) fn what_is_missing(&self) -> Option<String> {
        self.lock().missing.report()
    }

    /// The server is going to be asked.
    pub(crate) fn ask_extents(&self, asked: ExtentsContext) {
        let mut records = self.lock();
        let Records { range_lock, replay_log, in_doubt, .. } = &*records;
        let doubtful = range_lock.ranges().chain(replay_log.ranges()).chain(in_doubt.ranges());
        let doubtful: Vec<_> = doubtful.collect();
        records.extents(asked).ask(doubtful);
    }

    /// Takes the answer of the server; `None` where it has given none.
    pub(crate) fn extents_answered(&self, asked: ExtentsContext, mut told: Option<ExtentMap>) {
        while let Some(map) = &mut told
            && let Some(changes) = self.take_changes(asked)
        {
            changes.iter().for_each(|range| map.change(range));
        }
        let is_known = self.lock().extents(asked).answered(&mut told);
        if asked == ExtentsContext::Zero {
            self.knows_zeroes.store(is_known, Relaxed);
        }
    }

    fn take_changes(&self, asked: ExtentsContext) -> Option<RangeSet<u64>> {
        self.lock().extents(asked).take_changes()
    }

    /// Nothing is known from this answer any more.
    pub(crate) fn forget_extents(&self, asked: ExtentsContext) {
        if asked == ExtentsContext::Zero {
            self.knows_zeroes.store(false, Relaxed);
        }
        // Freed outside the lock.
        let _map = self.lock().extents(asked).forget();
    }

    /// Returns the rest of a range without the zeroes that it is known to begin and end with. It is
    /// empty if all of it is zero.
    pub(crate) fn without_zeroes(&self, range: Range<u64>) -> Range<u64> {
        match self.knows_zeroes.load(Relaxed) {
            true => self.lock().zero.without_zeroes(&range),
            false => range,
        }
    }

    /// Returns the extent that a range begins with: zeroes, or what isn't known to be zero.
    pub(crate) fn extent_ahead(&self, range: &Range<u64>) -> Extent {
        let nothing_known = Extent { length: range.end - range.start, status: 0 };
        match self.knows_zeroes.load(Relaxed) {
            true => self.lock().zero.of(Context::Zero, range, 1).pop().unwrap_or(nothing_known),
            false => nothing_known,
        }
    }

    /// Returns the extents of a range, as far as they are known: at most `limit`, from its start
    /// on.
    pub(crate) fn extents(&self, context: Context, range: &Range<u64>, limit: usize) -> Vec<Extent> {
        self.lock().extents(context.asked()).of(context, range, limit)
    }

    /// A copy that may be kept.
    pub(crate) fn copy(&self, data: &[u8]) -> Bytes {
        let mut buffer = self.copies.take_uncounted(data.len());
        buffer.copy_from_slice(data);
        Bytes::from_owner(buffer)
    }

    /// A part of a write.
    pub(crate) fn part(&self, range: Range<u64>, data: &[u8]) -> Part {
        Part::data(range, self.hasher.hash_one(data))
    }

    fn blocks(&self, range: &Range<u64>) -> Range<u64> {
        blocks::touched(range, self.disk_size)
    }

    /// Waits until the obstacle may be gone.
    fn wait<'a>(&self, mut records: MutexGuard<'a, Records>, obstacle: Obstacle) -> MutexGuard<'a, Records> {
        records.waiting += 1;
        records = match obstacle {
            Obstacle::Other => self.released.wait(records).unwrap_or_else(PoisonError::into_inner),
            Obstacle::Unsettled(time) => {
                let waited = self.released.wait_timeout(records, time);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        records.waiting -= 1;
        records
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        // Nothing under the lock leaves it half done.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    /// A change of these blocks is under way from now on, unless something is in its way.
    fn try_begin(&mut self, blocks: &Range<u64>) -> Result<(), Obstacle> {
        if !self.unsettled.is_empty() {
            let now = Instant::now();
            if let Some(until) = self.unsettled.until(blocks, now) {
                return Err(Obstacle::Unsettled(until - now));
            }
        }
        if self.range_lock.try_lock(blocks) { Ok(()) } else { Err(Obstacle::Other) }
    }

    /// Returns the ranges that are known from the answer to this question.
    fn extents(&mut self, asked: ExtentsContext) -> &mut Extents {
        match asked {
            ExtentsContext::Zero => &mut self.zero,
            ExtentsContext::Dirty => &mut self.dirty,
        }
    }

    /// A change of these blocks is about to be sent.
    fn changing(&mut self, blocks: &Range<u64>) -> [Discarded; 2] {
        let discarded = [self.zero.changing(blocks), self.dirty.changing(blocks)];
        // Blocks that were changed before the server is asked are dirty, too, also if its bitmap
        // doesn't record any more.
        self.dirty.distrust(blocks);
        discarded
    }
}
