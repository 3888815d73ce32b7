// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads show what was acknowledged, also if the server has forgotten it: one that was started
//! again may not have it.

use std::ops::Range;

use crate::tracker::Content;

/// Overwrites what is at `range` of the buffers, counted from the start of the first.
pub(crate) fn put(bufs: &mut [&mut [u8]], range: &Range<u64>, content: &Content) {
    let mut start = 0;
    for buf in bufs {
        let end = start + buf.len() as u64;
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            // Both are in memory, so that positions in them fit in usize.
            let at = |position: u64, origin: u64| (position - origin) as usize;
            let part = &mut buf[at(from, start)..at(to, start)];
            match content {
                Content::Data(data) => {
                    part.copy_from_slice(&data[at(from, range.start)..at(to, range.start)]);
                }
                Content::Zeroes => part.fill(0),
            }
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn content_is_put_across_buffers() {
        let (mut one, mut other) = ([b'.'; 4], [b'.'; 4]);
        put(&mut [&mut one, &mut other], &(2..6), &Content::Data(Bytes::from_static(b"abcd")));
        put(&mut [&mut one, &mut other], &(7..8), &Content::Zeroes);
        assert_eq!((&one, &other), (b"..ab", b"cd.\0"));
    }
}
