// SPDX-License-Identifier: MIT OR Apache-2.0
//! The answer to `GET …/extents`.

use std::io;

use rangemap::RangeSet;
use serde::Serialize;

use crate::backend::{Disk, Run};

#[derive(Debug, Serialize)]
struct Zero {
    start: u64,
    length: u64,
    zero: bool,
    hole: bool,
}

#[derive(Debug, Serialize)]
struct Dirty {
    start: u64,
    length: u64,
    dirty: bool,
    zero: bool,
}

/// JSON for `context=zero`.
pub(crate) fn zero(disk: &Disk) -> io::Result<String> {
    let mut start = 0;
    let extents: Vec<Zero> = disk
        .runs()?
        .into_iter()
        .map(|run| {
            let extent = Zero { start, length: run.length, zero: run.zero, hole: run.hole };
            start += run.length;
            extent
        })
        .collect();
    Ok(serde_json::to_string(&extents)?)
}

/// JSON for `context=dirty`.
pub(crate) fn dirty(disk: &Disk, dirty: &RangeSet<u64>) -> io::Result<String> {
    Ok(serde_json::to_string(&dirty_extents(disk.runs()?, dirty))?)
}

/// Splits the runs of zeroes and data into dirty and clean extents. Neighbours that are alike in
/// both are one, as with the real server.
fn dirty_extents(runs: Vec<Run>, dirty: &RangeSet<u64>) -> Vec<Dirty> {
    let (mut extents, mut start) = (Vec::new(), 0);
    for Run { length, zero, .. } in runs {
        let run = start..start + length;
        for range in dirty.overlapping(&run) {
            add(&mut extents, range.start.max(run.start), false, zero);
            add(&mut extents, range.end.min(run.end), true, zero);
        }
        add(&mut extents, run.end, false, zero);
        start = run.end;
    }
    extents
}

/// Adds an extent that ends there, behind the others.
fn add(extents: &mut Vec<Dirty>, end: u64, dirty: bool, zero: bool) {
    let start = extents.last().map_or(0, |last| last.start + last.length);
    match extents.last_mut() {
        _ if start == end => {}
        Some(last) if (last.dirty, last.zero) == (dirty, zero) => last.length = end - last.start,
        _ => extents.push(Dirty { start, length: end - start, dirty, zero }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;

    #[test]
    fn zero_extents_start_where_the_last_one_ends() {
        let disk = Disk::open(&Backend::Memory, Some(128 << 10)).unwrap();
        disk.write(0, &[1]).unwrap();
        let json = zero(&disk).unwrap();
        let expected = r#"[{"start":0,"length":65536,"zero":false,"hole":false},"#.to_owned()
            + r#"{"start":65536,"length":65536,"zero":true,"hole":true}]"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn dirty_extents_differ_from_their_neighbours_and_cover_the_disk() {
        let run = |length, zero| Run { length, zero, hole: zero };
        let dirty = [5..10, 10..20, 50..200].into_iter().collect();
        let extents = dirty_extents(vec![run(15, true), run(40, false), run(45, true)], &dirty);
        let told: Vec<_> = extents.iter().map(|e| (e.start, e.length, e.dirty, e.zero)).collect();
        let expected = [
            (0, 5, false, true),
            (5, 10, true, true),
            (15, 5, true, false),
            (20, 30, false, false),
            (50, 5, true, false),
            (55, 45, true, true),
        ];
        assert_eq!(told, expected);
    }
}
