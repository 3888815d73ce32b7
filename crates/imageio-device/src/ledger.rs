// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the server has acknowledged and not flushed, what is under way, and what may still come true.
//!
//! # Why
//! A server may lose what was written on a connection and not flushed there. So the content is kept here until its
//! connection is flushed. If the connection is lost before, it is written again on a new one, and flushed.
//!
//! # Rules
//! - For each byte, the newest acknowledged content is kept, as long as the connection that wrote it isn't flushed. A later
//!   write to the same place, on any connection, replaces it: it must not be overwritten by what is older.
//! - What was replaced was acknowledged, too, and a flush of its connection makes it durable, unless that connection is
//!   lost before. So that connection then writes what is there instead, though another one will flush that as well: the
//!   flush may be all that a client waits for.
//! - For the same reason, changes that overlap are never under way at the same time. NBD leaves their order open.
//! - A change that was sent and not answered may still be carried out, now or much later: it is *uncertain*. To write the
//!   same content again is safe, also for a client that asks for it anew, which is known by its range and a hash.
//!   Different content is refused there for the rest of the transfer, as nobody could tell which of the two stays.
//!
//! # Waiting
//! Who waits for a range holds a connection, but nothing that is under way. What is under way waits for the server alone,
//! and not for ever; when its connection is lost, it is no longer under way. So no cycle of waiting exists.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use block_device::Error;
use buffer_pool::Pool;
use bytes::Bytes;
use rangemap::{RangeMap, RangeSet};

/// What the connections of a device share.
#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    /// For content that has to be copied to be kept.
    copies: Arc<Pool>,
    /// Its key is nobody's to know.
    hasher: RandomState,
    /// Something is no longer under way, or all is over.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    unflushed: RangeMap<u64, Entry>,
    uncertain: RangeMap<u64, Pending>,
    /// One for each connection at most.
    under_way: Vec<Range<u64>>,
    /// Threads that wait for a range. A notification is a system call, also where nobody listens.
    waiting: usize,
    last_number: Number,
    is_over: bool,
    /// When a connection was lost, whichever it was, or could not be opened.
    last_loss: Option<Instant>,
    /// What was to be changed and was not, since; and why the first of it was not.
    not_changed: RangeSet<u64>,
    why_not: Option<String>,
}

/// Tells changes apart. The same number is the same content.
type Number = u64;

/// The index of a connection.
pub(crate) type Owner = usize;

/// A part of a change: where it is, and a hash of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) range: Range<u64>,
    pub(crate) hash: u64,
}

/// A part of a change that may still be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    number: Number,
    /// None where something else may be carried out, too: then nothing is the same.
    part: Option<Part>,
}

/// Something that was written.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    number: Number,
    /// The connection that wrote it: when it is flushed, this is durable.
    owner: Owner,
    /// Other connections that wrote here before, and aren't flushed since. Empty but where clients overwrite what they
    /// have just written.
    before: Vec<Owner>,
    /// Where `content` begins, also if only a part of it is left.
    start: u64,
    content: Content,
}

/// Two parts of the same.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.number, self.start, &self.before) == (other.number, other.start, &other.before)
    }
}

impl Eq for Entry {}

/// What is at some place.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Data(Bytes),
    Zeroes,
}

impl Entry {
    fn concerns(&self, connection: Owner) -> bool {
        self.owner == connection || self.before.contains(&connection)
    }

    /// The connections that wrote here and aren't flushed since, but for this one.
    fn others(&self, connection: Owner) -> Vec<Owner> {
        let all = std::iter::once(self.owner).chain(self.before.iter().copied());
        all.filter(|&other| other != connection).collect()
    }

    /// What it has at `range`, which is a part of it.
    fn part(&self, range: &Range<u64>) -> Content {
        let at = |position: u64| usize::try_from(position - self.start).expect("it was in memory before");
        match &self.content {
            Content::Data(data) => Content::Data(data.slice(at(range.start)..at(range.end))),
            Content::Zeroes => Content::Zeroes,
        }
    }
}

/// Different content may still be written to the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uncertain;

/// A change that is being carried out, until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    ledger: Arc<Ledger>,
    range: Range<u64>,
    number: Number,
}

impl Ledger {
    /// `replay_buffer` is how many bytes the connections will keep together.
    pub(crate) fn new(replay_buffer: u64) -> Self {
        let copies = Pool::new(usize::try_from(replay_buffer).unwrap_or(usize::MAX));
        Self { state: Mutex::default(), copies, hasher: RandomState::new(), changed: Condvar::new() }
    }

    /// A copy that may be kept.
    pub(crate) fn copy(&self, data: &[u8]) -> Bytes {
        let mut buffer = self.copies.take_uncounted(data.len());
        buffer.copy_from_slice(data);
        Bytes::from_owner(buffer)
    }

    /// A part of a change with this content, or zeroes.
    pub(crate) fn part(&self, range: Range<u64>, data: Option<&[u8]>) -> Part {
        Part { range, hash: self.hasher.hash_one(data) }
    }

    /// A number for a change.
    pub(crate) fn number(&self) -> Number {
        let mut state = self.lock();
        state.last_number += 1;
        state.last_number
    }

    /// Begins a change, when nothing that overlaps is under way. `parts` are what it consists of.
    ///
    /// # Errors
    /// [`Uncertain`].
    pub(crate) fn begin(
        self: &Arc<Self>,
        range: Range<u64>,
        number: Number,
        parts: impl Fn() -> Vec<Part>,
    ) -> Result<UnderWay, Uncertain> {
        let mut state = self.lock();
        loop {
            if state.is_refused(&range, number, &parts) {
                return Err(Uncertain);
            }
            if !state.is_under_way(&range) {
                return Ok(self.under_way(&mut state, range, number));
            }
            state = self.wait(state);
        }
    }

    /// The first change, from `from` on, that has to be written again if this connection is lost: begun again.
    pub(crate) fn begin_again(self: &Arc<Self>, owner: Owner, from: u64) -> Option<(UnderWay, Content)> {
        let rest = from..u64::MAX;
        let mut state = self.lock();
        loop {
            let mut entries = state.unflushed.overlapping(&rest);
            let (range, entry) = entries.find(|(_, entry)| entry.concerns(owner))?;
            let range = range.start.max(from)..range.end;
            if !state.is_under_way(&range) {
                let (number, content) = (entry.number, entry.part(&range));
                return Some((self.under_way(&mut state, range, number), content));
            }
            // What is under way is newer, and may replace it.
            state = self.wait(state);
        }
    }

    fn under_way(self: &Arc<Self>, state: &mut State, range: Range<u64>, number: Number) -> UnderWay {
        state.under_way.push(range.clone());
        UnderWay { ledger: Arc::clone(self), range, number }
    }

    /// What this connection wrote before `end` is flushed.
    pub(crate) fn flushed(&self, owner: Owner, end: u64) {
        // Freed outside the lock.
        let _entries = self.lock().remove(owner, end);
    }

    /// What is acknowledged and unflushed in `range`, part by part, with the offset of each.
    pub(crate) fn newest(&self, range: &Range<u64>) -> Vec<(u64, u64, Content)> {
        let state = self.lock();
        let parts = state.unflushed.overlapping(range).map(|(of, entry)| {
            let part = of.start.max(range.start)..of.end.min(range.end);
            (part.start, part.end, entry.part(&part))
        });
        parts.collect()
    }

    /// A connection was lost, or could not be opened.
    pub(crate) fn connection_lost(&self) {
        self.lock().last_loss = Some(Instant::now());
    }

    /// Whether that was so recently.
    pub(crate) fn has_lost_within(&self, time: Duration) -> bool {
        self.lock().last_loss.is_some_and(|loss| loss.elapsed() < time)
    }

    /// A change was given up, though the server has not refused it.
    pub(crate) fn not_changed(&self, range: &Range<u64>, reason: &Error) {
        let mut state = self.lock();
        state.not_changed.insert(range.clone());
        state.why_not.get_or_insert_with(|| reason.to_string());
    }

    /// What is not changed to this end, if anything isn't.
    pub(crate) fn what_is_missing(&self) -> Option<String> {
        let state = self.lock();
        let (first, why) = (state.not_changed.first()?, state.why_not.as_deref().unwrap_or_default());
        let bytes: u64 = state.not_changed.iter().map(|range| range.end - range.start).sum();
        Some(format!("{bytes} bytes were not written, the first at {}: {why}", first.start))
    }

    /// No request will succeed any more, so nobody needs to wait longer.
    pub(crate) fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Waits for so long, or until [`end`](Self::end). Whether all is over.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while !state.is_over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_over
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.waiting += 1;
        state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether something else may still be written to this range. Parts of it may be what is expected there.
    fn is_refused(&self, range: &Range<u64>, number: Number, parts: impl Fn() -> Vec<Part>) -> bool {
        let mut others =
            self.uncertain.overlapping(range).filter(|(_, pending)| pending.number != number).peekable();
        if others.peek().is_none() {
            return false;
        }
        let parts = parts();
        // What is left of a part that something else came over is not known by the hash of the whole.
        let is_same = |(left, pending): (&Range<u64>, &Pending)| {
            pending.part.as_ref().is_some_and(|part| *left == part.range && parts.contains(part))
        };
        !others.all(is_same)
    }

    fn is_under_way(&self, range: &Range<u64>) -> bool {
        self.under_way.iter().any(|other| other.start < range.end && range.start < other.end)
    }

    /// Removes what this connection wrote before `end`. What replaced some of that concerns its own connection alone now.
    fn remove(&mut self, owner: Owner, end: u64) -> Vec<Entry> {
        let concerned =
            self.unflushed.iter().filter(|(range, entry)| entry.concerns(owner) && range.end <= end);
        let concerned: Vec<_> = concerned.map(|(range, entry)| (range.clone(), entry.clone())).collect();
        let mut removed = Vec::with_capacity(concerned.len());
        for (range, mut entry) in concerned {
            if entry.owner == owner {
                self.unflushed.remove(range);
                removed.push(entry);
            } else {
                entry.before.retain(|&other| other != owner);
                self.unflushed.insert(range, entry);
            }
        }
        removed
    }

    /// The connections that wrote to parts of a range, and aren't flushed since, but for this one.
    fn others(&self, range: &Range<u64>, owner: Owner) -> Vec<(Range<u64>, Vec<Owner>)> {
        let parts = self
            .unflushed
            .overlapping(range)
            .map(|(of, entry)| (of.start.max(range.start)..of.end.min(range.end), entry.others(owner)));
        parts.filter(|(_, others)| !others.is_empty()).collect()
    }

    /// Notes that these connections wrote to a range before what is there now.
    fn add_before(&mut self, range: &Range<u64>, others: &[Owner]) {
        let parts = self.unflushed.overlapping(range).map(|(of, entry)| {
            let entry = Entry { before: others.to_vec(), ..entry.clone() };
            (of.start.max(range.start)..of.end.min(range.end), entry)
        });
        let parts: Vec<_> = parts.collect();
        self.unflushed.extend(parts);
    }
}

impl UnderWay {
    /// Where it is.
    pub(crate) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The server has acknowledged it, and nobody keeps it.
    pub(crate) fn is_done(&self) {
        self.ledger.lock().not_changed.remove(self.range.clone());
    }

    /// The same, and it is flushed: whatever was there before need not be kept any more.
    pub(crate) fn replaces_all(&self) {
        let mut state = self.ledger.lock();
        state.not_changed.remove(self.range.clone());
        state.unflushed.remove(self.range.clone());
    }

    /// The same, and it is not flushed: its content, piece by piece, is kept.
    pub(crate) fn keep(&self, owner: Owner, pieces: impl IntoIterator<Item = (u64, Content)>) {
        let mut state = self.ledger.lock();
        state.not_changed.remove(self.range.clone());
        let others = state.others(&self.range, owner);
        let mut start = self.range.start;
        for (len, content) in pieces {
            let entry = Entry { number: self.number, owner, before: Vec::new(), start, content };
            state.unflushed.insert(start..start + len, entry);
            start += len;
        }
        others.iter().for_each(|(range, others)| state.add_before(range, others));
    }

    /// It was sent, part by part, and there is no answer.
    pub(crate) fn is_uncertain(&self, parts: Vec<Part>) {
        let mut state = self.ledger.lock();
        for part in parts {
            let range = part.range.clone();
            let is_alone =
                state.uncertain.overlapping(&range).all(|(_, pending)| pending.part.as_ref() == Some(&part));
            let part = is_alone.then_some(part);
            state.uncertain.insert(range, Pending { number: self.number, part });
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.ledger.lock();
        let at = state.under_way.iter().position(|range| *range == self.range);
        state.under_way.swap_remove(at.expect("it is under way until now"));
        let waiting = state.waiting > 0;
        drop(state);
        if waiting {
            self.ledger.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_two_contents_may_still_come_true_neither_may_be_asked_for_again() {
        let ledger = Arc::new(Ledger::new(1 << 20));
        let part = |data: &[u8]| ledger.part(0..4, Some(data));
        let begin = |number, data: &'static [u8]| ledger.begin(0..4, number, || vec![part(data)]);
        begin(1, b"kept").unwrap().keep(0, [(4, Content::Data(Bytes::from_static(b"kept")))]);
        begin(2, b"lost").unwrap().is_uncertain(vec![part(b"lost")]);
        assert!(begin(3, b"lost").is_ok() && begin(3, b"kept").is_err());
        // The connection that wrote the other is lost, too, and again without an answer.
        ledger.begin_again(0, 0).unwrap().0.is_uncertain(vec![part(b"kept")]);
        assert!(begin(4, b"kept").is_err() && begin(4, b"lost").is_err());
    }
}
