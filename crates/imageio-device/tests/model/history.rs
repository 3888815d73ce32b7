// SPDX-License-Identifier: MIT OR Apache-2.0
//! The acts of clients on a disk, and the contents that it may have then.
//!
//! Each change is one value all over. So between two neighbouring ends of changes, the same values
//! are possible everywhere: what holds for a byte is found out once for such a segment.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::scenario::BLOCK;

/// A tick of one clock that all clients share.
pub(crate) type Time = u64;

/// A change of a range to one value; each write has its own, zeroes share theirs.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) range: Range<usize>,
    pub(crate) value: u8,
    pub(crate) start: Time,
    /// Of the answer, good or bad.
    pub(crate) end: Time,
    pub(crate) ok: bool,
    pub(crate) fua: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) offset: usize,
    pub(crate) data: Vec<u8>,
    pub(crate) start: Time,
    pub(crate) end: Time,
}

/// The part of a range that was said to be dirty.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) range: Range<usize>,
    pub(crate) dirty: Vec<Range<usize>>,
    pub(crate) start: Time,
    pub(crate) end: Time,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    clock: AtomicU64,
    events: Mutex<Events>,
}

#[derive(Debug, Default)]
struct Events {
    changes: Vec<Change>,
    reads: Vec<Read>,
    /// The ranges that were said to be zero, as if they had been read.
    zeroes: Vec<Read>,
    dirty: Vec<Told>,
    /// Start and end of those that succeeded.
    flushes: Vec<(Time, Time)>,
}

impl History {
    pub(crate) fn tick(&self) -> Time {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap()
    }

    pub(crate) fn changed(&self, change: Change) {
        self.events().changes.push(change);
    }

    pub(crate) fn read(&self, read: Read) {
        self.events().reads.push(read);
    }

    pub(crate) fn told_zero(&self, range: &Range<usize>, start: Time, end: Time) {
        let data = vec![0; range.len()];
        self.events().zeroes.push(Read { offset: range.start, data, start, end });
    }

    pub(crate) fn told_dirty(&self, told: Told) {
        self.events().dirty.push(told);
    }

    pub(crate) fn flushed(&self, start: Time, end: Time) {
        self.events().flushes.push((start, end));
    }

    /// Each byte that was read was written there, and was not overwritten before the read began.
    pub(crate) fn check_reads(&self) -> Result<(), String> {
        let events = self.events();
        events.reads.iter().try_for_each(|read| events.check_read(read))
    }

    /// Each range that was said to be zero may have been read as such.
    pub(crate) fn check_told_zero(&self) -> Result<(), String> {
        let events = self.events();
        events.zeroes.iter().try_for_each(|read| events.check_read(read))
    }

    /// A range that was said to be zero holds zeroes or what was changed later: no change that had
    /// ended before comes true afterwards.
    pub(crate) fn check_stays_zero(&self, disk: &[u8]) -> Result<(), String> {
        let events = self.events();
        events.zeroes.iter().try_for_each(|read| {
            let range = read.offset..read.offset + read.data.len();
            let is_possible = |segment: &Range<usize>| {
                let later = || events.there(segment).filter(|change| change.end > read.start);
                let is_possible = |value: &u8| *value == 0 || later().any(|change| change.value == *value);
                disk[segment.clone()].iter().all(is_possible)
            };
            match events.segments(&range).into_iter().find(|segment| !is_possible(segment)) {
                Some(segment) => {
                    let there: Vec<_> = events.there(&segment).collect();
                    Err(format!("{segment:?} was said to be zero at {}, after {there:?}", read.start))
                }
                None => Ok(()),
            }
        })
    }

    /// The ranges that were dirty from the start, and those that were changed before somebody
    /// asked, were said to be dirty. If the server's bitmap `is_still`, nothing else was but the
    /// rest of the blocks of changes, also of those that failed.
    pub(crate) fn check_told_dirty(
        &self,
        from_the_start: &[Range<usize>],
        is_still: bool,
    ) -> Result<(), String> {
        let events = self.events();
        events.dirty.iter().try_for_each(|told| {
            let changes = |is_wanted: fn(&Change, &Told) -> bool| {
                events.changes.iter().filter(move |change| is_wanted(change, told))
            };
            let changed = changes(|change, told| change.ok && change.end < told.start);
            let mut must_be = from_the_start.iter().chain(changed.map(|change| &change.range));
            if let Some(clean) = must_be.find(|range| !told.covers(range)) {
                return Err(format!("{clean:?} is not dirty: {told:?}"));
            }
            let begun = changes(|change, told| change.start < told.end).map(|change| blocks(&change.range));
            let may_be: Vec<_> = begun.chain(from_the_start.iter().cloned()).collect();
            let is_known = |at: &usize| may_be.iter().any(|range| range.contains(at));
            match told.dirty.iter().flat_map(Range::clone).find(|at| is_still && !is_known(at)) {
                Some(at) => Err(format!("{at} is dirty for no reason: {told:?}")),
                None => Ok(()),
            }
        })
    }

    /// A range that was said to be clean is as it was at first, or was changed later.
    pub(crate) fn check_stays_clean(&self, disk: &[u8]) -> Result<(), String> {
        let events = self.events();
        events.dirty.iter().try_for_each(|told| {
            let is_possible = |segment: &Range<usize>| {
                let is_changed = events.there(segment).any(|change| change.end > told.start);
                is_changed || told.covers(segment) || disk[segment.clone()].iter().all(|value| *value == 0)
            };
            let ends = told.dirty.iter().flat_map(|range| [range.start, range.end]);
            match events.segments_with(&told.range, ends).into_iter().find(|segment| !is_possible(segment)) {
                Some(segment) => Err(format!("{segment:?} has changed after {told:?}")),
                None => Ok(()),
            }
        })
    }

    /// Each byte of the disk was written there, and was not overwritten by a change that was
    /// answered.
    pub(crate) fn check_answered(&self, disk: &[u8]) -> Result<(), String> {
        self.check(disk, |change| change.ok)
    }

    /// Checks the disk for the changes that a flush covers, or which were durable by themselves.
    pub(crate) fn check_flushed(&self, disk: &[u8]) -> Result<(), String> {
        let flushed_since = self.events().flushes.iter().map(|(start, _)| *start).max();
        let is_flushed =
            |change: &Change| change.fua || flushed_since.is_some_and(|flush| change.end < flush);
        self.check(disk, |change| change.ok && is_flushed(change))
    }

    /// Each change that failed was made good by others of the same place, all over. One that is
    /// longer than `step` was sent in parts: of these, the first may be there, though the others
    /// failed.
    pub(crate) fn check_made_good(&self, disk: &[u8], step: usize) -> Result<(), String> {
        let events = self.events();
        let failed = || events.changes.iter().filter(|change| !change.ok);
        failed().try_for_each(|failed| {
            let is_made_good = |segment: &Range<usize>| {
                let is_there =
                    |change: &Change| disk[segment.clone()].iter().all(|value| *value == change.value);
                let mut later = events.there(segment).filter(|change| change.end > failed.start);
                later.any(|change| change.ok || (change.range.len() > step && is_there(change)))
            };
            match events.segments(&failed.range).into_iter().find(|segment| !is_made_good(segment)) {
                Some(missing) => Err(format!("nobody is told that {missing:?} is missing of {failed:?}")),
                None => Ok(()),
            }
        })
    }

    fn check(&self, disk: &[u8], overwrites: impl Fn(&Change) -> bool) -> Result<(), String> {
        let wrong = self.events().first_impossible(0, disk, Time::MAX, overwrites);
        wrong.map_or(Ok(()), Err)
    }
}

impl Told {
    /// Returns true if all of a range was said to be dirty, as far as it was asked for.
    fn covers(&self, range: &Range<usize>) -> bool {
        let asked = range.start.max(self.range.start)..range.end.min(self.range.end);
        asked.is_empty()
            || self.dirty.iter().any(|dirty| dirty.start <= asked.start && asked.end <= dirty.end)
    }
}

/// The range with the rest of its blocks.
fn blocks(range: &Range<usize>) -> Range<usize> {
    range.start - range.start % BLOCK..range.end.next_multiple_of(BLOCK)
}

impl Events {
    fn check_read(&self, read: &Read) -> Result<(), String> {
        let overwrites = |change: &Change| change.ok && change.end < read.start;
        let wrong = self.first_impossible(read.offset, &read.data, read.end, overwrites);
        let (start, end) = (read.start, read.end);
        wrong.map_or(Ok(()), |wrong| Err(format!("a read from {start} to {end}: {wrong}")))
    }

    /// The parts of a range in which no change begins or ends.
    fn segments(&self, range: &Range<usize>) -> Vec<Range<usize>> {
        self.segments_with(range, [])
    }

    /// Divides the disk at these other places, too.
    fn segments_with(
        &self,
        range: &Range<usize>,
        places: impl IntoIterator<Item = usize>,
    ) -> Vec<Range<usize>> {
        let ends = self.changes.iter().flat_map(|change| [change.range.start, change.range.end]);
        let ends = ends.chain(places);
        let mut ends: Vec<_> =
            ends.filter(|end| range.contains(end)).chain([range.start, range.end]).collect();
        ends.sort_unstable();
        ends.dedup();
        ends.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }

    /// The changes of a segment.
    fn there<'a>(&'a self, segment: &Range<usize>) -> impl Iterator<Item = &'a Change> + use<'a> {
        let at = segment.start;
        self.changes.iter().filter(move |change| change.range.contains(&at))
    }

    /// Returns the reason why the content that was seen until `end` can't be, given those of the
    /// changes that overwrite what ended before they began.
    fn first_impossible(
        &self,
        offset: usize,
        data: &[u8],
        end: Time,
        overwrites: impl Fn(&Change) -> bool,
    ) -> Option<String> {
        self.segments(&(offset..offset + data.len())).into_iter().find_map(|segment| {
            let since =
                self.there(&segment).filter(|change| overwrites(change)).map(|change| change.start).max();
            let is_there =
                |change: &&Change| change.start < end && since.is_none_or(|since| change.end >= since);
            let mut possible = [false; 256];
            possible[0] = since.is_none();
            let values = self.there(&segment).filter(is_there).map(|change| usize::from(change.value));
            values.for_each(|value| possible[value] = true);
            let found = &data[segment.start - offset..segment.end - offset];
            let at = found.iter().position(|&value| !possible[usize::from(value)])?;
            let there: Vec<_> = self.there(&segment).collect();
            Some(format!("{} at {} cannot be after {there:?}", found[at], segment.start + at))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(value: u8, start: Time, end: Time, ok: bool) -> Change {
        Change { range: 0..1, value, start, end, ok, fua: false }
    }

    fn history(changes: &[Change]) -> History {
        let history = History::default();
        changes.iter().cloned().for_each(|change| history.changed(change));
        history
    }

    #[test]
    fn overlapping_changes_may_come_in_any_order_and_others_may_not() {
        let history = history(&[change(1, 1, 4, true), change(2, 3, 6, true), change(3, 7, 8, false)]);
        for possible in [1, 2, 3] {
            history.check_answered(&[possible]).unwrap();
        }
        for impossible in [0, 4] {
            history.check_answered(&[impossible]).unwrap_err();
        }
        history.changed(change(5, 9, 10, true));
        history.check_answered(&[5]).unwrap();
        history.check_answered(&[3]).unwrap_err();
    }

    #[test]
    fn only_what_was_flushed_must_be_there() {
        let history = history(&[change(1, 1, 2, true), change(2, 5, 6, true)]);
        history.check_flushed(&[0]).unwrap();
        history.flushed(3, 4);
        history.check_flushed(&[0]).unwrap_err();
        history.check_flushed(&[1]).unwrap();
        history.check_flushed(&[2]).unwrap();
        history.changed(Change { fua: true, ..change(3, 7, 8, true) });
        history.check_flushed(&[2]).unwrap_err();
    }

    #[test]
    fn a_read_sees_nothing_older_than_what_was_answered_before() {
        let history = history(&[change(1, 1, 2, true), change(2, 3, 6, true)]);
        let read = |value, start, end| Read { offset: 0, data: vec![value], start, end };
        history.read(read(1, 4, 5));
        history.read(read(2, 4, 5));
        history.check_reads().unwrap();
        history.read(read(1, 7, 8));
        history.check_reads().unwrap_err();
    }

    #[test]
    fn what_is_changed_or_was_dirty_is_said_to_be_dirty_and_nothing_else() {
        let told = |dirty: Range<usize>| {
            let history =
                history(&[change(1, 1, 2, true), Change { range: 9000..9001, ..change(2, 1, 2, false) }]);
            history.told_dirty(Told { range: 0..4 * BLOCK, dirty: vec![dirty], start: 3, end: 4 });
            history
        };
        let from_the_start = [10..15, 15..20];
        let check = |dirty: Range<usize>| told(dirty).check_told_dirty(&from_the_start, true);
        check(0..20).unwrap();
        check(0..19).unwrap_err();
        check(1..20).unwrap_err();
        check(0..BLOCK).unwrap();
        check(0..BLOCK + 1).unwrap_err();
        told(0..BLOCK + 1).check_told_dirty(&from_the_start, false).unwrap();
        let mut disk = vec![0; 4 * BLOCK];
        (disk[0], disk[9000]) = (1, 2);
        told(0..20).check_stays_clean(&disk).unwrap_err();
        told(0..9001).check_stays_clean(&disk).unwrap();
        disk[9000] = 0;
        told(0..20).check_stays_clean(&disk).unwrap();
    }

    #[test]
    fn one_wrong_byte_between_the_ends_of_changes_is_found() {
        let wide = |range, value, start| Change { range, ..change(value, start, start + 1, true) };
        let history = history(&[wide(2..90, 1, 1), wide(40..60, 2, 3)]);
        let mut disk = [vec![0; 2], vec![1; 38], vec![2; 20], vec![1; 30], vec![0; 10]].concat();
        history.check_answered(&disk).unwrap();
        for (at, value) in [(0, 1), (2, 0), (39, 2), (40, 1), (59, 1), (60, 2), (89, 0), (90, 1)] {
            let right = std::mem::replace(&mut disk[at], value);
            history.check_answered(&disk).unwrap_err();
            disk[at] = right;
        }
    }

    #[test]
    fn a_change_that_failed_is_made_good_by_later_ones_all_over() {
        let part = |range, start, ok| Change { range, ..change(1, start, start + 1, ok) };
        let history = history(&[part(0..10, 1, true), part(2..8, 3, false)]);
        let check = |step| history.check_made_good(&[1; 10], step);
        check(6).unwrap_err();
        check(5).unwrap();
        history.changed(part(0..5, 5, true));
        check(6).unwrap_err();
        history.changed(part(5..8, 7, false));
        check(6).unwrap_err();
        history.changed(part(5..8, 9, true));
        check(6).unwrap();
    }

    #[test]
    fn a_part_of_another_failed_change_may_be_written_over_one_that_failed() {
        let failed = |range, value, start| Change { range, ..change(value, start, start + 1, false) };
        let history = history(&[failed(0..8, 1, 1), failed(0..16, 2, 3)]);
        history.changed(Change { range: 8..16, ..change(3, 5, 6, true) });
        let disk = [[2; 8], [3; 8]].concat();
        history.check_made_good(&disk, 8).unwrap();
        history.check_made_good(&disk, 16).unwrap_err();
        history.check_made_good(&[3; 16], 8).unwrap_err();
    }
}
