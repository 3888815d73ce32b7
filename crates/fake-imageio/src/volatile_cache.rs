// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk whose writes are lost until they are flushed: in a power cut, or when the way is lost
//! that they came by.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rangemap::{RangeMap, RangeSet};

use crate::backend::{Backend, Disk};

/// New content of a part of the disk.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Data(Bytes),
    Zeroes(u64),
}

impl Change {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Zeroes(len) => *len,
        }
    }

    pub(crate) fn apply(&self, disk: &Disk, offset: u64) -> io::Result<()> {
        match self {
            Self::Data(data) => disk.write(offset, data),
            Self::Zeroes(len) => disk.zero(offset, *len),
        }
    }

    /// The part of it at `range`, counted from its start.
    pub(crate) fn part(&self, range: Range<u64>) -> Self {
        match self {
            // The data is in memory, so its range fits in usize.
            Self::Data(data) => Self::Data(data.slice(range.start as usize..range.end as usize)),
            Self::Zeroes(_) => Self::Zeroes(range.end - range.start),
        }
    }
}

/// The unflushed changes of the disk, and what is left of the disk without them.
#[derive(Debug)]
pub(crate) struct VolatileCache(Mutex<State>);

#[derive(Debug)]
struct State {
    durable: Disk,
    /// Which change each place of `durable` is from: an older one that is flushed later doesn't
    /// replace it.
    newest: RangeMap<u64, u64>,
    /// By their numbers, which are in the order in which the disk changed.
    unflushed: BTreeMap<u64, Unflushed>,
    last_number: u64,
    last_way: u64,
    /// Ways up to this one are lost, …
    last_lost: u64,
    /// … and these, too.
    lost: BTreeSet<u64>,
}

#[derive(Debug)]
struct Unflushed {
    way: u64,
    offset: u64,
    change: Change,
}

impl Unflushed {
    fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.change.len()
    }
}

/// No connection's way, and never lost.
const NOBODY: u64 = u64::MAX;

impl VolatileCache {
    /// Nothing is written yet.
    pub(crate) fn new(size: u64) -> io::Result<Self> {
        Ok(Self(Mutex::new(State {
            durable: Disk::open(&Backend::Memory, Some(size))?,
            newest: RangeMap::new(),
            unflushed: BTreeMap::new(),
            last_number: 0,
            last_way: 0,
            last_lost: 0,
            lost: BTreeSet::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A way to the disk that nobody else has.
    pub(crate) fn new_way(&self) -> u64 {
        let mut state = self.lock();
        state.last_way += 1;
        state.last_way
    }

    pub(crate) fn apply(&self, disk: &Disk, way: u64, offset: u64, change: Change) -> io::Result<()> {
        let mut state = self.lock();
        state.check(way)?;
        if change.len() == 0 {
            return Ok(());
        }
        // Under the lock, so that the numbers are in the order in which the disk changed.
        change.apply(disk, offset)?;
        state.last_number += 1;
        let number = state.last_number;
        state.unflushed.insert(number, Unflushed { way, offset, change });
        Ok(())
    }

    /// A change behind the clients' backs, durable at once.
    pub(crate) fn write_through(&self, disk: &Disk, offset: u64, data: Bytes) -> io::Result<()> {
        self.apply(disk, NOBODY, offset, Change::Data(data))?;
        self.flush(NOBODY)
    }

    /// Makes durable what was written on this way.
    pub(crate) fn flush(&self, way: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.check(way)?;
        let flushed = state.take(|change| change.way == way);
        flushed.iter().try_for_each(|(number, change)| state.settle(*number, change))
    }

    /// Loses all ways there are, and what isn't durable. What comes by them can change nothing any
    /// more.
    pub(crate) fn cut(&self, disk: &Disk) -> io::Result<()> {
        let mut state = self.lock();
        state.last_lost = state.last_way;
        state.lost.clear();
        state.undo(disk, |_| true)
    }

    /// Loses one way, and what was written there and isn't durable.
    pub(crate) fn lose(&self, disk: &Disk, way: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.lost.insert(way);
        state.undo(disk, |change| change.way == way)
    }
}

impl State {
    fn check(&self, way: u64) -> io::Result<()> {
        if way <= self.last_lost || self.lost.contains(&way) {
            return Err(io::Error::other("the way to the disk is lost"));
        }
        Ok(())
    }

    /// The parts of a range that nothing newer than this change was flushed to.
    fn places(&self, range: Range<u64>, number: u64) -> RangeSet<u64> {
        let mut places = RangeSet::from_iter((!range.is_empty()).then_some(range.clone()));
        let newer = self.newest.overlapping(&range).filter(|(_, newest)| **newest > number);
        newer.for_each(|(newer, _)| places.remove(newer.clone()));
        places
    }

    fn settle(&mut self, number: u64, flushed: &Unflushed) -> io::Result<()> {
        for place in self.places(flushed.range(), number) {
            flushed.put(&place, &self.durable)?;
            self.newest.insert(place, number);
        }
        Ok(())
    }

    /// Takes out the changes that fit. Whoever has Rust 1.91 may use `BTreeMap::extract_if`.
    fn take(&mut self, fits: impl Fn(&Unflushed) -> bool) -> BTreeMap<u64, Unflushed> {
        let changes = std::mem::take(&mut self.unflushed);
        let (taken, left) = changes.into_iter().partition(|(_, change)| fits(change));
        self.unflushed = left;
        taken
    }

    /// Takes these changes back: what is durable comes up again, and what else isn't.
    fn undo(&mut self, disk: &Disk, is_lost: impl Fn(&Unflushed) -> bool) -> io::Result<()> {
        let lost = self.take(is_lost);
        for range in lost.values().map(Unflushed::range).collect::<RangeSet<u64>>() {
            let mut durable = vec![0; (range.end - range.start) as usize];
            self.durable.read(range.start, &mut durable)?;
            disk.write(range.start, &durable)?;
            for (number, change) in &self.unflushed {
                let (start, end) = (change.offset.max(range.start), change.range().end.min(range.end));
                if start < end {
                    let mut places = self.places(start..end, *number).into_iter();
                    places.try_for_each(|place| change.put(&place, disk))?;
                }
            }
        }
        Ok(())
    }
}

impl Unflushed {
    /// Writes the part of it that is at this place.
    fn put(&self, place: &Range<u64>, disk: &Disk) -> io::Result<()> {
        self.change.part(place.start - self.offset..place.end - self.offset).apply(disk, place.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache_and_disk() -> (VolatileCache, Disk) {
        let cache = VolatileCache::new(8).unwrap();
        assert_eq!([cache.new_way(), cache.new_way(), cache.new_way()], [1, 2, 3]);
        (cache, Disk::open(&Backend::Memory, Some(8)).unwrap())
    }

    fn write(cache: &VolatileCache, disk: &Disk, way: u64, offset: u64, data: &'static [u8]) {
        cache.apply(disk, way, offset, Change::Data(Bytes::from_static(data))).unwrap();
    }

    fn contents(disk: &Disk) -> Vec<u8> {
        let mut contents = vec![0; 8];
        disk.read(0, &mut contents).unwrap();
        contents
    }

    #[test]
    fn only_what_was_flushed_on_its_own_way_stays() {
        let (cache, disk) = cache_and_disk();
        write(&cache, &disk, 1, 0, b"aaaa");
        write(&cache, &disk, 2, 4, b"bbbb");
        cache.flush(1).unwrap();
        cache.apply(&disk, 1, 1, Change::Zeroes(2)).unwrap();
        assert_eq!(contents(&disk), b"a\0\0abbbb");
        cache.cut(&disk).unwrap();
        assert_eq!(contents(&disk), b"aaaa\0\0\0\0");
    }

    #[test]
    fn what_is_flushed_late_does_not_replace_what_is_newer() {
        let (cache, disk) = cache_and_disk();
        write(&cache, &disk, 1, 0, b"aaaaaaaa");
        write(&cache, &disk, 2, 2, b"bb");
        cache.flush(2).unwrap();
        cache.flush(1).unwrap();
        cache.cut(&disk).unwrap();
        assert_eq!(contents(&disk), b"aabbaaaa");
    }

    #[test]
    fn a_newer_write_that_is_lost_leaves_what_was_flushed_before() {
        let (cache, disk) = cache_and_disk();
        write(&cache, &disk, 1, 0, b"aaaa");
        write(&cache, &disk, 2, 2, b"bbbb");
        cache.flush(1).unwrap();
        cache.cut(&disk).unwrap();
        assert_eq!(contents(&disk), b"aaaa\0\0\0\0");
    }

    #[test]
    fn a_way_that_is_lost_takes_only_its_own_with_it() {
        let (cache, disk) = cache_and_disk();
        write(&cache, &disk, 1, 0, b"aaaaaaaa");
        write(&cache, &disk, 2, 1, b"bbbb");
        write(&cache, &disk, 3, 3, b"cc");
        cache.flush(3).unwrap();
        write(&cache, &disk, 2, 6, b"bb");
        cache.lose(&disk, 2).unwrap();
        assert_eq!(contents(&disk), b"aaaccaaa");
        cache.cut(&disk).unwrap();
        assert_eq!(contents(&disk), b"\0\0\0cc\0\0\0");
    }

    #[test]
    fn ways_that_are_lost_change_nothing_any_more() {
        let (cache, disk) = cache_and_disk();
        cache.lose(&disk, 2).unwrap();
        cache.apply(&disk, 2, 0, Change::Zeroes(8)).unwrap_err();
        write(&cache, &disk, 3, 0, b"aaaa");
        cache.cut(&disk).unwrap();
        cache.apply(&disk, 1, 0, Change::Zeroes(8)).unwrap_err();
        cache.flush(1).unwrap_err();
        let way = cache.new_way();
        write(&cache, &disk, way, 0, b"aaaa");
    }
}
