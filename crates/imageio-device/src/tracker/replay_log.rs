// SPDX-License-Identifier: MIT OR Apache-2.0
//! Content that the server has acknowledged and not flushed: it is written again, should its
//! connection be lost.
//!
//! For each byte, the newest acknowledged content is kept, as long as the connection that wrote it
//! isn't flushed. A later write to the same place, on any connection, replaces it: the newer
//! content must not be overwritten by older content.
//!
//! Content that was replaced was acknowledged, too, and a flush of its connection makes it durable,
//! unless that connection is lost before. So that connection then writes what is there instead,
//! though another connection will flush that as well: the flush may be all that a client waits for.

use std::ops::Range;

use block_device_traits::BLOCK;
use bytes::Bytes;
use rangemap::RangeMap;

use super::identity::{Number, Owner};

/// The content of some place.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Data(Bytes),
    Zeroes,
}

/// A part of the disk with its content, which is to be written again.
#[derive(Debug)]
pub(crate) struct Unflushed {
    pub(crate) range: Range<u64>,
    /// The number of the change that it begins with.
    pub(crate) number: Number,
    pub(crate) content: Pieces,
}

/// The content of a part of the disk that several changes may have written.
#[derive(Debug)]
pub(crate) enum Pieces {
    /// Piece by piece.
    Data(Vec<Bytes>),
    Zeroes,
}

/// All that is acknowledged and not flushed.
#[derive(Debug, Default)]
pub(crate) struct ReplayLog {
    entries: RangeMap<u64, Entry>,
}

/// Something that was written.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    number: Number,
    /// The connection whose flush makes the content durable.
    owner: Owner,
    /// Other connections that wrote here before, and aren't flushed since. It is empty but where
    /// clients overwrite what they have just written.
    before: Vec<Owner>,
    /// The place where `content` begins, also if only a part of it is left.
    start: u64,
    content: Content,
}

/// Two entries are equal if they are parts of the same.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.number, self.start, &self.before) == (other.number, other.start, &other.before)
    }
}

impl Eq for Entry {}

impl ReplayLog {
    /// Keeps what a connection has written to `range`, piece by piece.
    pub(crate) fn keep(
        &mut self,
        range: &Range<u64>,
        number: Number,
        owner: Owner,
        pieces: impl IntoIterator<Item = (u64, Content)>,
    ) {
        let others = self.others(range, owner);
        let mut start = range.start;
        for (len, content) in pieces {
            let entry = Entry { number, owner, before: Vec::new(), start, content };
            self.entries.insert(start..start + len, entry);
            start += len;
        }
        others.iter().for_each(|(range, others)| self.add_before(range, others));
    }

    /// Forgets what is at `range`: something durable has replaced it.
    pub(crate) fn replaced(&mut self, range: &Range<u64>) {
        if !self.entries.is_empty() {
            self.entries.remove(range.clone());
        }
    }

    /// Forgets what this connection wrote before `end`, as it is flushed, and returns it. What
    /// replaced some of that concerns its own connection alone now.
    pub(crate) fn flushed(&mut self, owner: Owner, end: u64) -> Vec<Entry> {
        let concerned =
            self.entries.iter().filter(|(range, entry)| entry.concerns(owner) && range.end <= end);
        let concerned: Vec<_> = concerned.map(|(range, entry)| (range.clone(), entry.clone())).collect();
        let mut removed = Vec::with_capacity(concerned.len());
        for (range, mut entry) in concerned {
            if entry.owner == owner {
                self.entries.remove(range);
                removed.push(entry);
            } else {
                entry.before.retain(|&other| other != owner);
                self.entries.insert(range, entry);
            }
        }
        removed
    }

    /// The first place at or behind `from` that has to be written again if this connection is lost.
    /// Data that ends in the middle of a block takes along what is known of the rest of that block:
    /// each of the two, written alone, would be in doubt together with the other.
    pub(crate) fn first(&self, owner: Owner, from: u64) -> Option<Unflushed> {
        let mut entries = self.entries.overlapping(from..u64::MAX).filter(|(_, entry)| entry.concerns(owner));
        let (range, entry) = entries.next()?;
        let mut range = range.start.max(from)..range.end;
        let number = entry.number;
        let Content::Data(first) = entry.part(&range) else {
            return Some(Unflushed { range, number, content: Pieces::Zeroes });
        };
        let mut data = vec![first];
        let block_end = range.end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
        for (next, entry) in entries {
            if range.end == block_end || next.start != range.end {
                break;
            }
            let part = range.end..next.end.min(block_end);
            let Content::Data(piece) = entry.part(&part) else { break };
            data.push(piece);
            range.end = part.end;
        }
        Some(Unflushed { range, number, content: Pieces::Data(data) })
    }

    /// All places of which something is kept.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.entries.iter().map(|(range, _)| range.clone())
    }

    /// Returns the kept content of `range`, part by part.
    pub(crate) fn newest(&self, range: &Range<u64>) -> Vec<(Range<u64>, Content)> {
        let parts = self.entries.overlapping(range).map(|(of, entry)| {
            let part = intersection(of, range);
            let content = entry.part(&part);
            (part, content)
        });
        parts.collect()
    }

    /// The connections that wrote to parts of a range, and aren't flushed since, but for this one.
    fn others(&self, range: &Range<u64>, owner: Owner) -> Vec<(Range<u64>, Vec<Owner>)> {
        let overlapping = self.entries.overlapping(range);
        let parts = overlapping.map(|(of, entry)| (intersection(of, range), entry.others(owner)));
        parts.filter(|(_, others)| !others.is_empty()).collect()
    }

    /// Notes that these connections wrote to a range before what is there now.
    fn add_before(&mut self, range: &Range<u64>, others: &[Owner]) {
        let parts = self
            .entries
            .overlapping(range)
            .map(|(of, entry)| (intersection(of, range), Entry { before: others.to_vec(), ..entry.clone() }));
        let parts: Vec<_> = parts.collect();
        self.entries.extend(parts);
    }
}

impl Entry {
    fn concerns(&self, owner: Owner) -> bool {
        self.owner == owner || self.before.contains(&owner)
    }

    /// The connections that wrote here and aren't flushed since, but for this one.
    fn others(&self, owner: Owner) -> Vec<Owner> {
        let all = std::iter::once(self.owner).chain(self.before.iter().copied());
        all.filter(|&other| other != owner).collect()
    }

    /// Returns its content at `range`, which is a part of it.
    fn part(&self, range: &Range<u64>) -> Content {
        let at = |position: u64| usize::try_from(position - self.start).expect("it was in memory before");
        match &self.content {
            Content::Data(data) => Content::Data(data.slice(at(range.start)..at(range.end))),
            Content::Zeroes => Content::Zeroes,
        }
    }
}

fn intersection(one: &Range<u64>, other: &Range<u64>) -> Range<u64> {
    one.start.max(other.start)..one.end.min(other.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(log: &mut ReplayLog, number: Number, owner: Owner, at: u64, data: &'static [u8]) {
        let range = at..at + data.len() as u64;
        let content = Content::Data(Bytes::from_static(data));
        log.keep(&range, number, owner, [(data.len() as u64, content)]);
    }

    /// Returns the offsets and contents that a connection would write again, with a `+` between
    /// pieces.
    fn of(log: &ReplayLog, owner: Owner) -> Vec<(u64, String)> {
        let (mut from, mut all) = (0, Vec::new());
        while let Some(Unflushed { range, content, .. }) = log.first(owner, from) {
            from = range.end;
            let text = match content {
                Pieces::Data(data) => String::from_utf8(data.join(&b'+')).unwrap(),
                Pieces::Zeroes => "0".repeat((range.end - range.start) as usize),
            };
            all.push((range.start, text));
        }
        all
    }

    fn expect(log: &ReplayLog, owner: Owner, all: &[(u64, &str)]) {
        let expected: Vec<_> = all.iter().map(|(at, text)| (*at, (*text).to_owned())).collect();
        assert_eq!(of(log, owner), expected);
    }

    #[test]
    fn newer_content_replaces_older_and_concerns_both_connections() {
        let mut log = ReplayLog::default();
        write(&mut log, 1, 0, 0, b"older");
        write(&mut log, 2, 1, 1, b"new");
        expect(&log, 0, &[(0, "o+new+r")]);
        expect(&log, 1, &[(1, "new")]);
        // A flush of the older one leaves the newer to its own connection.
        assert_eq!(log.flushed(0, u64::MAX).len(), 2);
        expect(&log, 0, &[]);
        expect(&log, 1, &[(1, "new")]);
        log.flushed(1, u64::MAX);
        expect(&log, 1, &[]);
    }

    #[test]
    fn what_is_flushed_up_to_a_place_is_forgotten_up_to_there() {
        let mut log = ReplayLog::default();
        write(&mut log, 1, 0, 0, b"aa");
        write(&mut log, 2, 0, 2, b"bb");
        log.flushed(0, 2);
        expect(&log, 0, &[(2, "bb")]);
        log.replaced(&(3..10));
        expect(&log, 0, &[(2, "b")]);
    }

    #[test]
    fn parts_of_a_block_are_written_again_together() {
        const LONG: &str = "0123456789abcdef";
        let mut log = ReplayLog::default();
        let end = BLOCK - 2;
        write(&mut log, 1, 0, end - 3, b"old");
        // This is of another connection, which has it written again by itself.
        write(&mut log, 2, 1, end - 5, b"xx");
        write(&mut log, 3, 0, end, LONG.as_bytes());
        let rest = (BLOCK, &LONG[2..]);
        expect(&log, 0, &[(end - 3, "old+01"), rest]);
        // The rest of the block is zero, or nobody knows it.
        log.keep(&(end..BLOCK), 4, 0, [(2, Content::Zeroes)]);
        expect(&log, 0, &[(end - 3, "old"), (end, "00"), rest]);
        log.replaced(&(end..end + 1));
        expect(&log, 0, &[(end - 3, "old"), (end + 1, "0"), rest]);
        assert_eq!(log.flushed(0, BLOCK).len(), 2);
        expect(&log, 0, &[rest]);
    }

    #[test]
    fn the_newest_content_of_a_range_is_cut_to_it() {
        let mut log = ReplayLog::default();
        write(&mut log, 1, 0, 0, b"abcd");
        log.keep(&(6..9), 2, 0, [(3, Content::Zeroes)]);
        let newest = log.newest(&(2..8));
        assert_eq!(newest.iter().map(|(range, _)| range.clone()).collect::<Vec<_>>(), [2..4, 6..8]);
        assert!(matches!(&newest[0].1, Content::Data(data) if data == "cd"));
    }
}
