// SPDX-License-Identifier: MIT OR Apache-2.0
//! The dirty bitmap of an incremental backup.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rangemap::RangeSet;

/// The size of the part of the disk that a bit stands for, in bytes: qemu's default.
const GRANULARITY: u64 = 64 << 10;

/// The dirty ranges, in bytes.
#[derive(Debug)]
pub(crate) struct Bitmap {
    dirty: Mutex<RangeSet<u64>>,
    /// Of a disk so long, it takes note of changes.
    recorded_size: Option<u64>,
}

impl Bitmap {
    pub(crate) fn new(dirty: &[Range<u64>], recorded_size: Option<u64>) -> Self {
        let dirty = dirty.iter().filter(|range| !range.is_empty()).cloned().collect();
        Self { dirty: Mutex::new(dirty), recorded_size }
    }

    /// The range was changed.
    pub(crate) fn changed(&self, range: &Range<u64>) {
        let Some(size) = self.recorded_size.filter(|_| !range.is_empty()) else { return };
        let end = range.end.next_multiple_of(GRANULARITY).min(size);
        let blocks = range.start - range.start % GRANULARITY..end;
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).insert(blocks);
    }

    pub(crate) fn dirty(&self) -> RangeSet<u64> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_noted_by_blocks_if_at_all() {
        const BLOCK: u64 = GRANULARITY;
        let changed = |recorded_size| {
            let bitmap = Bitmap::new(&[1..5, 7..8, 9..9], recorded_size);
            for range in
                [BLOCK + 1..BLOCK + 2, 2 * BLOCK..3 * BLOCK, 5 * BLOCK..5 * BLOCK, 6 * BLOCK..6 * BLOCK + 7]
            {
                bitmap.changed(&range);
            }
            bitmap.dirty().into_iter().collect::<Vec<_>>()
        };
        assert_eq!(changed(None), [1..5, 7..8]);
        assert_eq!(changed(Some(6 * BLOCK + 7)), [1..5, 7..8, BLOCK..3 * BLOCK, 6 * BLOCK..6 * BLOCK + 7]);
    }
}
