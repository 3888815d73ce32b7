// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a power cut leaves of the disk: what was flushed on the connection that wrote it.

use std::collections::HashMap;
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
    fn part(&self, range: Range<u64>) -> Self {
        match self {
            // What is in memory is counted in usize.
            Self::Data(data) => Self::Data(data.slice(range.start as usize..range.end as usize)),
            Self::Zeroes(_) => Self::Zeroes(range.end - range.start),
        }
    }
}

/// The side of the disk that survives a power cut.
#[derive(Debug)]
pub(crate) struct Power(Mutex<State>);

#[derive(Debug)]
struct State {
    durable: Disk,
    /// Which change each place of `durable` is from: an older one that is flushed later doesn't replace it.
    newest: RangeMap<u64, u64>,
    /// By the connections they came on.
    unflushed: HashMap<u64, Vec<Unflushed>>,
    last_number: u64,
    /// Connections up to this one ended with the power.
    last_cut: u64,
}

#[derive(Debug)]
struct Unflushed {
    number: u64,
    offset: u64,
    change: Change,
}

impl Unflushed {
    fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.change.len()
    }
}

/// No connection, and none that is cut.
const NOBODY: u64 = u64::MAX;

fn gone() -> io::Error {
    io::Error::other("the power was cut")
}

impl Power {
    /// Nothing is written yet.
    pub(crate) fn new(size: u64) -> io::Result<Self> {
        Ok(Self(Mutex::new(State {
            durable: Disk::open(&Backend::Memory, Some(size))?,
            newest: RangeMap::new(),
            unflushed: HashMap::new(),
            last_number: 0,
            last_cut: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn apply(&self, disk: &Disk, connection: u64, offset: u64, change: Change) -> io::Result<()> {
        let mut state = self.lock();
        if connection <= state.last_cut {
            return Err(gone());
        }
        // Under the lock, so that the numbers are in the order in which the disk changed.
        change.apply(disk, offset)?;
        state.last_number += 1;
        let number = state.last_number;
        state.unflushed.entry(connection).or_default().push(Unflushed { number, offset, change });
        Ok(())
    }

    /// A change behind the clients' backs, durable at once.
    pub(crate) fn write_through(&self, disk: &Disk, offset: u64, data: Bytes) -> io::Result<()> {
        self.apply(disk, NOBODY, offset, Change::Data(data))?;
        self.flush(NOBODY)
    }

    /// Makes durable what came on this connection.
    pub(crate) fn flush(&self, connection: u64) -> io::Result<()> {
        let mut state = self.lock();
        if connection <= state.last_cut {
            return Err(gone());
        }
        let changes = state.unflushed.remove(&connection).unwrap_or_default();
        changes.into_iter().try_for_each(|change| state.settle(&change))
    }

    /// Puts the disk back to what is durable. Connections up to the last one now can change nothing any more.
    pub(crate) fn cut(&self, disk: &Disk, last_connection: impl FnOnce() -> u64) -> io::Result<()> {
        let mut state = self.lock();
        // Under the lock: of a later connection, nothing is lost.
        state.last_cut = last_connection();
        let lost: Vec<_> = state.unflushed.drain().flat_map(|(_, changes)| changes).collect();
        for range in lost.iter().map(Unflushed::range) {
            let mut durable = vec![0; (range.end - range.start) as usize];
            state.durable.read(range.start, &mut durable)?;
            disk.write(range.start, &durable)?;
        }
        Ok(())
    }

    pub(crate) fn is_cut(&self, connection: u64) -> bool {
        connection <= self.lock().last_cut
    }
}

impl State {
    fn settle(&mut self, flushed: &Unflushed) -> io::Result<()> {
        let range = flushed.range();
        let mut places = RangeSet::from_iter((!range.is_empty()).then_some(range.clone()));
        let newer = self.newest.overlapping(&range).filter(|(_, number)| **number > flushed.number);
        newer.for_each(|(newer, _)| places.remove(newer.clone()));
        for place in places {
            let part = flushed.change.part(place.start - range.start..place.end - range.start);
            part.apply(&self.durable, place.start)?;
            self.newest.insert(place, flushed.number);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power_and_disk() -> (Power, Disk) {
        (Power::new(8).unwrap(), Disk::open(&Backend::Memory, Some(8)).unwrap())
    }

    fn write(power: &Power, disk: &Disk, connection: u64, offset: u64, data: &'static [u8]) {
        power.apply(disk, connection, offset, Change::Data(Bytes::from_static(data))).unwrap();
    }

    fn contents(disk: &Disk) -> Vec<u8> {
        let mut contents = vec![0; 8];
        disk.read(0, &mut contents).unwrap();
        contents
    }

    #[test]
    fn only_what_was_flushed_on_its_own_connection_stays() {
        let (power, disk) = power_and_disk();
        write(&power, &disk, 1, 0, b"aaaa");
        write(&power, &disk, 2, 4, b"bbbb");
        power.flush(1).unwrap();
        power.apply(&disk, 1, 1, Change::Zeroes(2)).unwrap();
        assert_eq!(contents(&disk), b"a\0\0abbbb");
        power.cut(&disk, || 2).unwrap();
        assert_eq!(contents(&disk), b"aaaa\0\0\0\0");
    }

    #[test]
    fn what_is_flushed_late_does_not_replace_what_is_newer() {
        let (power, disk) = power_and_disk();
        write(&power, &disk, 1, 0, b"aaaaaaaa");
        write(&power, &disk, 2, 2, b"bb");
        power.flush(2).unwrap();
        power.flush(1).unwrap();
        power.cut(&disk, || 2).unwrap();
        assert_eq!(contents(&disk), b"aabbaaaa");
    }

    #[test]
    fn a_newer_write_that_is_lost_leaves_what_was_flushed_before() {
        let (power, disk) = power_and_disk();
        write(&power, &disk, 1, 0, b"aaaa");
        write(&power, &disk, 2, 2, b"bbbb");
        power.flush(1).unwrap();
        power.cut(&disk, || 2).unwrap();
        assert_eq!(contents(&disk), b"aaaa\0\0\0\0");
    }

    #[test]
    fn connections_of_before_change_nothing_any_more() {
        let (power, disk) = power_and_disk();
        power.cut(&disk, || 1).unwrap();
        assert!(power.is_cut(1) && !power.is_cut(2));
        power.apply(&disk, 1, 0, Change::Zeroes(8)).unwrap_err();
        power.flush(1).unwrap_err();
        write(&power, &disk, 2, 0, b"aaaa");
    }
}
