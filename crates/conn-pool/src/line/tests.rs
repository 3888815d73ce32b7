// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use crate::error::{Outcome, Panicked};

/// A range of a line, which goes with its neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Range(u32, u32);

impl Shape for Range {
    fn join(self, other: Self) -> Option<(Self, Place)> {
        if other.1 == self.0 {
            return Some((Self(other.0, self.1), Place::Before));
        }
        (self.1 == other.0).then_some((Self(self.0, other.1), Place::Behind))
    }
}

impl PoolRequest for Range {
    type Error = Panicked;
    type Shape = Self;

    fn shape(&self) -> Self {
        *self
    }

    fn complete(_: Vec<(Self, Outcome<Panicked>)>) {}
}

type TestLine = Line<Range, &'static str, &'static str>;

/// Requests of length one at these places, each with its number as who waits.
fn line(places: &[u32]) -> TestLine {
    let mut line = Line::new();
    places.iter().for_each(|&at| line.wait(Range(at, at + 1), None));
    line
}

/// The places of the requests that get this connection next; or the visitor.
fn next(line: &mut TestLine, slot: Slot) -> Result<Vec<u32>, Option<&'static str>> {
    match line.next(slot, true) {
        Some(Next::Requests(gathered, _)) => Ok(places(&gathered)),
        Some(Next::Visit(visitor)) => Err(Some(visitor)),
        None => Err(None),
    }
}

fn places(gathered: &Gathered<Range, &'static str>) -> Vec<u32> {
    assert_eq!(gathered.group.len(), gathered.waiters.len());
    gathered.group.iter().map(|range| range.0).collect()
}

#[test]
fn first_come_first_served() {
    let mut line = line(&[10, 20, 30]);
    assert_eq!((line.len(), line.wants(7, true)), (3, true));
    assert_eq!([0, 0, 0].map(|slot| next(&mut line, slot)), [Ok(vec![10]), Ok(vec![20]), Ok(vec![30])]);
    assert_eq!((next(&mut line, 0), line.len(), line.wants(7, true)), (Err(None), 0, false));
}

#[test]
fn what_goes_together_is_taken_along_from_anywhere_in_the_order_of_places() {
    // 3 goes with the first only after 2 does.
    let mut line = line(&[1, 20, 3, 2, 0, 21]);
    assert_eq!((next(&mut line, 0), line.len()), (Ok(vec![0, 1, 2, 3]), 2));
    assert_eq!((next(&mut line, 0), line.len()), (Ok(vec![20, 21]), 0));
    assert_eq!(next(&mut line, 0), Err(None));
}

#[test]
fn the_waiters_stay_with_their_requests_and_the_first_is_known() {
    let mut line = TestLine::new();
    for (at, waiter) in [(5, Some("first")), (6, None), (4, Some("before"))] {
        line.wait(Range(at, at + 1), waiter);
    }
    let Some(Next::Requests(mut gathered, ticket)) = line.next(0, true) else { panic!("they wait") };
    assert_eq!((ticket, gathered.group.shape()), (1, Range(4, 7)));
    assert_eq!((gathered.first, gathered.take_first_waiter()), (1, Some("first")));
    assert_eq!(gathered.waiters, [Some("before"), None, None]);
}

#[test]
fn what_comes_before_the_work_begins_is_taken_along_too() {
    let mut line = line(&[1]);
    let Some(Next::Requests(mut gathered, _)) = line.next(0, true) else { panic!("it waits") };
    [5, 2, 0].into_iter().for_each(|at| line.wait(Range(at, at + 1), None));
    line.join(&mut gathered, 0);
    assert_eq!((places(&gathered), line.len()), (vec![0, 1, 2], 1));
    assert_eq!(next(&mut line, 0), Ok(vec![5]));
}

#[test]
fn a_visit_is_not_passed_at_its_connections_but_elsewhere() {
    let setup = || {
        let mut line = line(&[1, 2]);
        let ticket = line.ticket();
        line.visit(ticket, vec![3, 4], "flush");
        [3, 9].into_iter().for_each(|at| line.wait(Range(at, at + 1), None));
        line
    };
    let mut at_its_own = setup();
    assert_eq!([4, 4].map(|slot| next(&mut at_its_own, slot)), [Ok(vec![1, 2]), Err(Some("flush"))]);
    assert_eq!([4, 4].map(|slot| next(&mut at_its_own, slot)), [Ok(vec![3]), Ok(vec![9])]);
    let mut elsewhere = setup();
    assert_eq!([5, 5].map(|slot| next(&mut elsewhere, slot)), [Ok(vec![1, 2, 3]), Ok(vec![9])]);
    assert!(elsewhere.wants(3, true) && !elsewhere.wants(5, true));
    assert_eq!((next(&mut elsewhere, 5), next(&mut elsewhere, 3)), (Err(None), Err(Some("flush"))));
}

#[test]
fn a_visitor_keeps_its_place_for_the_next_connection() {
    let mut line = line(&[]);
    let [early, late] = [line.ticket(), line.ticket()];
    line.wait(Range(1, 2), None);
    line.visit(late, vec![0], "late");
    line.visit(early, vec![0], "early");
    let served = [0, 0, 0].map(|slot| next(&mut line, slot));
    assert_eq!(served, [Err(Some("early")), Err(Some("late")), Ok(vec![1])]);
}

#[test]
fn a_connection_that_is_gone_is_waited_for_no_more() {
    let mut line = line(&[]);
    let ticket = line.ticket();
    line.visit(ticket, vec![0], "one");
    line.visit(ticket, vec![0, 1], "two");
    line.remove(0);
    assert_eq!((line.len(), next(&mut line, 0), next(&mut line, 1)), (1, Err(None), Err(Some("two"))));
}

#[test]
fn all_can_be_sent_away() {
    let mut line = line(&[1, 5, 2]);
    let ticket = line.ticket();
    ["stays", "goes"].into_iter().for_each(|visitor| line.visit(ticket, vec![0], visitor));
    line.wait(Range(6, 7), Some("waiter"));
    assert_eq!(next(&mut line, 1), Ok(vec![1, 2]));
    assert_eq!(line.take_requests(), [(Range(5, 6), None), (Range(6, 7), Some("waiter"))]);
    line.retain_visitors(|visitor| *visitor == "stays");
    assert_eq!((line.len(), next(&mut line, 0), next(&mut line, 0)), (1, Err(Some("stays")), Err(None)));
}
