// SPDX-License-Identifier: MIT OR Apache-2.0
//! What waits for a connection, and which of it goes out as one HTTP request.
//!
//! NBD says nothing of the order in which requests that are in flight at the same time take effect, so those that wait
//! may be carried out in any order and together. Only what is adjacent is merged: nothing in it overlaps, and the result
//! is a request like any other.

use std::collections::VecDeque;
use std::sync::Arc;

use block_device::Result;
use bytes::Bytes;

/// Reads are merged up to so many bytes: the data is held in memory until everyone has taken their part.
const LARGEST_READ: u64 = 4 << 20;

/// A request for a range of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) work: Work,
    /// How long it may become by merging.
    limit: u64,
}

/// What is to be done there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    Read,
    /// The data, piece by piece.
    Write {
        data: VecDeque<Bytes>,
        fua: bool,
    },
    Zero {
        fua: bool,
    },
}

/// What everyone gets whose request was carried out.
#[derive(Debug, Clone)]
pub(crate) enum Done {
    /// A write or zero; or a read that was the leader's alone, into its own buffer.
    Plain,
    /// A read for several.
    Read(Data),
}

/// The data of a merged read.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    offset: u64,
    pieces: Arc<Vec<Bytes>>,
}

impl Request {
    /// One that may become as long as `max_request`.
    pub(crate) fn new(offset: u64, len: u64, work: Work, max_request: u64) -> Self {
        let limit = if work == Work::Read { max_request.min(LARGEST_READ) } else { max_request };
        Self { offset, len, work, limit }
    }

    fn end(&self) -> u64 {
        // Both ends were found to be on the disk.
        self.offset + self.len
    }
}

impl conn_pool::Request for Request {
    type Answer = Result<Done>;

    fn merge(&mut self, other: Self) -> std::result::Result<(), Self> {
        let before = other.end() == self.offset;
        if !(before || self.end() == other.offset) || self.len + other.len > self.limit {
            return Err(other);
        }
        match (&mut self.work, other.work) {
            (Work::Read, Work::Read) => {}
            (Work::Zero { fua }, Work::Zero { fua: same }) if *fua == same => {}
            (Work::Write { data, fua }, Work::Write { data: more, fua: same }) if *fua == same => {
                if before {
                    more.into_iter().rev().for_each(|piece| data.push_front(piece));
                } else {
                    data.extend(more);
                }
            }
            (_, work) => return Err(Self { work, ..other }),
        }
        self.offset = self.offset.min(other.offset);
        self.len += other.len;
        Ok(())
    }
}

impl Data {
    pub(crate) fn new(offset: u64, pieces: Vec<Bytes>) -> Self {
        Self { offset, pieces: Arc::new(pieces) }
    }

    /// Copies the part that is at `offset`, which this data includes.
    pub(crate) fn copy(&self, offset: u64, mut buf: &mut [u8]) {
        let mut skip = offset - self.offset;
        for piece in self.pieces.iter() {
            let len = piece.len() as u64;
            if skip >= len {
                skip -= len;
                continue;
            }
            // Less than the length of a piece in memory.
            let piece = &piece[skip as usize..];
            let n = piece.len().min(buf.len());
            let (part, rest) = buf.split_at_mut(n);
            part.copy_from_slice(&piece[..n]);
            (buf, skip) = (rest, 0);
            if buf.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use conn_pool::Request as _;

    use super::*;

    fn write(offset: u64, data: &'static [u8], fua: bool) -> Request {
        let work = Work::Write { data: VecDeque::from([Bytes::from_static(data)]), fua };
        Request::new(offset, data.len() as u64, work, 8)
    }

    fn data(request: &Request) -> Vec<u8> {
        match &request.work {
            Work::Write { data, .. } => data.iter().flatten().copied().collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn neighbours_on_either_side_are_taken_in_up_to_the_limit() {
        let mut request = write(10, b"cd", false);
        request.merge(write(12, b"ef", false)).unwrap();
        request.merge(write(8, b"ab", false)).unwrap();
        assert_eq!((request.offset, request.len, &*data(&request)), (8, 6, &b"abcdef"[..]));
        let mut two = write(5, b"2", false);
        two.merge(write(4, b"1", false)).unwrap();
        two.merge(write(6, b"34", true)).unwrap_err();
        let mut before = write(7, b"0", false);
        before.merge(request.clone()).unwrap();
        assert_eq!((before.offset, &*data(&before)), (7, &b"0abcdef"[..]));
        assert_eq!(
            before.merge(write(14, b"gh", false)),
            Err(write(14, b"gh", false)),
            "it would be too long"
        );
    }

    #[test]
    fn what_differs_stays_apart() {
        let zero = |offset, fua| Request::new(offset, 2, Work::Zero { fua }, 8);
        let read = |offset| Request::new(offset, 2, Work::Read, 8);
        let mut request = write(10, b"cd", false);
        for other in
            [write(12, b"e", true), zero(12, false), read(12), write(11, b"x", false), write(13, b"x", false)]
        {
            assert_eq!(request.merge(other.clone()), Err(other));
        }
        assert_eq!(request, write(10, b"cd", false));
        let mut zeroes = zero(0, true);
        assert_eq!(zeroes.merge(zero(2, false)), Err(zero(2, false)));
        zeroes.merge(zero(2, true)).unwrap();
        let mut reads = read(4);
        reads.merge(read(2)).unwrap();
        assert_eq!((zeroes.offset, zeroes.len, reads.offset, reads.len), (0, 4, 2, 4));
    }

    #[test]
    fn everyone_finds_their_part() {
        let pieces = [&b"abc"[..], b"", b"defgh", b"i"].map(Bytes::from_static);
        let data = Data::new(100, pieces.to_vec());
        for (offset, expected) in
            [(100, &b"ab"[..]), (102, b"cde"), (103, b"defgh"), (107, b"hi"), (100, b"abcdefghi")]
        {
            let mut buf = vec![0; expected.len()];
            data.copy(offset, &mut buf);
            assert_eq!(buf, expected);
        }
    }
}
