// SPDX-License-Identifier: MIT OR Apache-2.0
//! The answer to `GET …/extents`.

use std::io;
use std::ops::Range;

use serde::Serialize;

use crate::backend::Disk;

#[derive(Debug, Serialize)]
struct Zero {
    start: u64,
    length: u64,
    zero: bool,
    hole: bool,
}

#[derive(Debug, Serialize, PartialEq, Eq)]
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

/// JSON for `context=dirty`. Dirty ranges are given in order and do not overlap.
pub(crate) fn dirty(size: u64, ranges: &[Range<u64>]) -> io::Result<String> {
    Ok(serde_json::to_string(&dirty_extents(size, ranges))?)
}

fn dirty_extents(size: u64, ranges: &[Range<u64>]) -> Vec<Dirty> {
    let mut extents = Vec::new();
    let mut at = 0;
    let mut until = |end: u64, dirty| {
        if end > at {
            extents.push(Dirty { start: at, length: end - at, dirty, zero: false });
            at = end;
        }
    };
    for range in ranges {
        until(range.start.min(size), false);
        until(range.end.min(size), true);
    }
    until(size, false);
    extents
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
    fn dirty_extents_alternate_and_cover_the_disk() {
        let extents = dirty_extents(100, &[0..10, 10..20, 50..200]);
        let ends: Vec<_> = extents.iter().map(|e| (e.start + e.length, e.dirty)).collect();
        assert_eq!(ends, [(10, true), (20, true), (50, false), (100, true)]);
    }
}
