// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests with the ranges of a disk of 100 bytes.

use block_device_traits::ZERO;
use imageio_client::ExtentsContext;

use super::*;

const DIRTY: u64 = 1;

fn extent(range: Range<u64>, zero: bool, hole: bool, dirty: bool) -> imageio_client::Extent {
    imageio_client::Extent { start: range.start, length: range.end - range.start, zero, hole, dirty }
}

/// Zero from 10 to 50, a hole from 30 to 60.
fn map() -> ExtentMap {
    let mut map = ExtentMap::new(ExtentsContext::Zero);
    for (range, is_zero, is_hole) in [
        (0..10, false, false),
        (10..30, true, false),
        (30..50, true, true),
        (50..60, false, true),
        (60..100, false, false),
    ] {
        assert!(map.add(&extent(range, is_zero, is_hole, false)));
    }
    map
}

/// Dirty from 10 to 50.
fn dirty_map() -> ExtentMap {
    let mut map = ExtentMap::new(ExtentsContext::Dirty);
    for (range, is_zero, is_dirty) in
        [(0..10, true, false), (10..30, true, true), (30..50, false, true), (50..100, false, false)]
    {
        assert!(map.add(&extent(range, is_zero, false, is_dirty)));
    }
    map
}

fn known() -> Extents {
    told(map())
}

fn told(map: ExtentMap) -> Extents {
    let mut extents = Extents::default();
    extents.ask([]);
    assert!(extents.answered(&mut Some(map)));
    extents
}

fn dirty(extents: &Extents) -> Vec<(u64, u64)> {
    of(extents, Context::Dirty, 0..100, 100)
}

fn zeroes(extents: &Extents) -> Vec<(u64, u64)> {
    of(extents, Context::Zero, 0..100, 100)
}

fn of(extents: &Extents, context: Context, range: Range<u64>, limit: usize) -> Vec<(u64, u64)> {
    extents.of(context, &range, limit).into_iter().map(|extent| (extent.length, extent.status)).collect()
}

#[test]
fn neighbours_that_are_alike_are_one() {
    assert_eq!(map().ranges(), 2);
    let mut map = map();
    assert!(map.add(&extent(100..100, true, true, true)), "an empty one is nothing");
    assert_eq!(map.ranges(), 2);
}

#[test]
fn extents_begin_where_they_are_asked_for_and_end_with_the_range() {
    let extents = known();
    assert_eq!(zeroes(&extents), [(10, 0), (40, ZERO), (50, 0)]);
    assert_eq!(of(&extents, Context::Depth, 0..100, 100), [(30, 1), (30, 0), (40, 1)]);
    for (range, limit, expected) in [
        (10..50, 9, vec![(40, ZERO)]),
        (9..51, 9, vec![(1, 0), (40, ZERO), (1, 0)]),
        (9..51, 2, vec![(1, 0), (40, ZERO)]),
        (9..51, 1, vec![(1, 0)]),
        (20..21, 1, vec![(1, ZERO)]),
        (50..100, 9, vec![(50, 0)]),
        (0..10, 9, vec![(10, 0)]),
    ] {
        assert_eq!(of(&extents, Context::Zero, range.clone(), limit), expected, "{range:?} {limit}");
    }
}

#[test]
fn what_nobody_knows_is_data() {
    let mut extents = Extents::default();
    assert_eq!((zeroes(&extents), of(&extents, Context::Depth, 5..7, 1)), (vec![(100, 0)], vec![(2, 1)]));
    extents.ask([]);
    assert_eq!(zeroes(&extents), [(100, 0)]);
    assert!(!extents.answered(&mut None));
    assert_eq!(zeroes(&extents), [(100, 0)]);
    assert!(!extents.answered(&mut Some(map())), "it was not asked for");
    assert_eq!(extents.without_zeroes(&(10..20)), 10..20);
}

#[test]
fn a_change_is_data_and_no_hole_before_it_is_sent() {
    let mut extents = known();
    drop(extents.changing(&(20..40)));
    assert_eq!(zeroes(&extents), [(10, 0), (10, ZERO), (20, 0), (10, ZERO), (50, 0)]);
    assert_eq!(of(&extents, Context::Depth, 0..100, 9), [(40, 1), (20, 0), (40, 1)]);
    drop(extents.changing(&(90..95)));
    drop(extents.changing(&(5..5)));
    assert_eq!(zeroes(&extents).len(), 5);
}

#[test]
fn what_was_zeroed_is_zero_and_no_hole() {
    let mut extents = known();
    drop(extents.changing(&(40..70)));
    extents.zeroed(&(40..70));
    extents.zeroed(&(80..80));
    assert_eq!(zeroes(&extents), [(10, 0), (60, ZERO), (30, 0)]);
    assert_eq!(of(&extents, Context::Depth, 0..100, 9), [(30, 1), (10, 0), (60, 1)]);
}

#[test]
fn zeroes_at_both_ends_need_not_be_read() {
    let extents = known();
    for (range, left) in [
        (10..50, 50..50),
        (20..21, 21..21),
        (9..11, 9..10),
        (49..51, 50..51),
        (60..61, 60..61),
        (0..100, 0..100),
        (0..50, 0..10),
        (12..12, 12..12),
    ] {
        assert_eq!(extents.without_zeroes(&range), left, "{range:?}");
    }
    let mut extents = extents;
    drop(extents.changing(&(20..30)));
    assert_eq!(extents.without_zeroes(&(15..45)), 20..30);
}

#[test]
fn what_changes_while_the_server_is_asked_is_data_whatever_it_says() {
    let mut extents = Extents::default();
    drop(extents.changing(&(40..42)));
    extents.ask([12..14, 20..22]);
    drop(extents.changing(&(30..31)));
    // Zeroes, too: nobody knows which of two changes came first.
    extents.zeroed(&(12..14));
    extents.ask([]);
    assert!(extents.answered(&mut Some(map())));
    let expected = [(10, 0), (2, ZERO), (2, 0), (6, ZERO), (2, 0), (8, ZERO), (1, 0), (19, ZERO), (50, 0)];
    assert_eq!(zeroes(&extents), expected, "what was durable before is as the server says");
}

#[test]
fn what_may_be_lost_without_a_trace_is_data_from_the_start() {
    let mut extents = Extents::default();
    extents.distrust(&(15..16));
    extents.ask([]);
    extents.answered(&mut Some(map()));
    extents.distrust(&(17..18));
    assert_eq!(zeroes(&extents), [(10, 0), (5, ZERO), (1, 0), (34, ZERO), (50, 0)]);
}

#[test]
fn what_is_forgotten_does_not_come_back() {
    let mut extents = known();
    assert_eq!(extents.forget(), Some(map()));
    assert_eq!(zeroes(&extents), [(100, 0)]);
    let mut extents = Extents::default();
    extents.ask([]);
    assert_eq!(extents.forget(), None);
    assert!(!extents.answered(&mut Some(map())));
    extents.zeroed(&(0..100));
    assert_eq!(extents.without_zeroes(&(0..1)), 0..1);
}

#[test]
fn what_is_dirty_is_told_and_no_zeroes_are() {
    let extents = told(dirty_map());
    assert_eq!(dirty(&extents), [(10, 0), (40, DIRTY), (50, 0)]);
    assert_eq!(dirty_map().ranges(), 1);
    assert_eq!(extents.without_zeroes(&(10..20)), 10..20);
    assert_eq!(zeroes(&extents), [(100, 0)]);
    assert_eq!(dirty(&known()), [(100, DIRTY)], "another answer tells of it");
}

#[test]
fn what_nobody_knows_is_dirty() {
    let mut extents = Extents::default();
    assert_eq!(dirty(&extents), [(100, DIRTY)]);
    extents.ask([]);
    assert_eq!(dirty(&extents), [(100, DIRTY)]);
    extents.answered(&mut None);
    assert_eq!(dirty(&extents), [(100, DIRTY)]);
    let mut extents = told(dirty_map());
    assert_eq!(extents.forget(), Some(dirty_map()));
    assert_eq!(dirty(&extents), [(100, DIRTY)]);
}

#[test]
fn a_change_is_dirty_before_it_is_sent_and_stays_so() {
    let mut extents = told(dirty_map());
    drop(extents.changing(&(5..7)));
    drop(extents.changing(&(60..70)));
    drop(extents.changing(&(80..80)));
    extents.zeroed(&(60..70));
    let expected = [(5, 0), (2, DIRTY), (3, 0), (40, DIRTY), (10, 0), (10, DIRTY), (30, 0)];
    assert_eq!(dirty(&extents), expected);
}

#[test]
fn what_changes_while_the_server_is_asked_is_dirty_whatever_it_says() {
    let mut extents = Extents::default();
    drop(extents.changing(&(90..92)));
    extents.distrust(&(94..96));
    extents.ask([0..1, 1..2]);
    drop(extents.changing(&(4..6)));
    assert!(extents.answered(&mut Some(dirty_map())));
    let expected = [(2, DIRTY), (2, 0), (2, DIRTY), (4, 0), (40, DIRTY), (44, 0), (2, DIRTY), (4, 0)];
    assert_eq!(dirty(&extents), expected, "what was durable before is as the server says");
}

#[test]
fn little_is_kept_before_anybody_asks_and_too_much_is_all() {
    let mut extents = Extents::default();
    for at in 0..=MOST_BEFORE as u64 {
        extents.distrust(&(200 + 2 * at..201 + 2 * at));
    }
    extents.ask([]);
    assert!(extents.answered(&mut Some(dirty_map())));
    assert_eq!(dirty(&extents), [(100, DIRTY)]);
}

#[test]
fn many_changes_are_applied_outside_the_lock() {
    let mut extents = Extents::default();
    extents.ask([]);
    assert_eq!(extents.take_changes(), None);
    for at in 0..FEW as u64 {
        drop(extents.changing(&(20 + 2 * at..21 + 2 * at)));
    }
    assert_eq!(extents.take_changes(), None, "they are few");
    drop(extents.changing(&(0..1)));
    let (changes, mut map) = (extents.take_changes().unwrap(), map());
    assert_eq!(changes.len(), FEW + 1);
    changes.iter().for_each(|range| map.change(range));
    drop(extents.changing(&(11..12)));
    assert_eq!(extents.take_changes(), None);
    assert!(extents.answered(&mut Some(map)));
    assert_eq!(zeroes(&extents)[..6], [(10, 0), (1, ZERO), (1, 0), (8, ZERO), (1, 0), (1, ZERO)]);
    assert_eq!(extents.take_changes(), None);
}

#[test]
fn what_becomes_too_much_is_freed_outside_the_lock() {
    let mut ranges = RangeSet::new();
    for at in 0..3 {
        let Discarded(discarded) = note(&mut ranges, 2 * at..2 * at + 1, 2);
        assert_eq!(discarded.is_some(), at == 2);
    }
    assert!(ranges.iter().eq([&(0..u64::MAX)]));
    let mut extents = Extents(State::Asking { changed: ranges });
    assert_eq!(extents.take_changes().unwrap().len(), 1, "it concerns all");
    let mut told = Some(map());
    assert!(!Extents(State::Unknown).answered(&mut told));
    assert!(told.is_some(), "it is for the caller to drop");
}
