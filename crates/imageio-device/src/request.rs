// SPDX-License-Identifier: MIT OR Apache-2.0
//! What waits for a connection, and which of it goes out as one HTTP request.
//!
//! NBD says nothing of the order in which requests that are in flight at the same time take effect, so those that wait
//! may be carried out in any order and together. Only what is adjacent is merged: nothing in it overlaps, and the result
//! is a request like any other.

use std::collections::VecDeque;
use std::mem;

use block_device::{Batch, Buffer, Completion, Error};
use bytes::Bytes;
use conn_pool::Outcome;

use crate::error::pool_error;

/// Reads are merged up to so many bytes: nobody gets their part before all have it.
const LARGEST_READ: u64 = 2 << 20;

/// A request for a range of the disk.
pub(crate) struct Request {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) work: Work,
    /// How long it may become by merging.
    limit: u64,
    /// Who is told of its end, but for those whose memory a read fills.
    completions: Vec<Box<dyn Completion>>,
}

/// What is to be done there.
pub(crate) enum Work {
    /// Where the data goes, piece by piece.
    Read { into: VecDeque<Target> },
    /// The data, piece by piece.
    Write { data: VecDeque<Bytes>, fua: bool },
    Zero { fua: bool },
}

/// Where a part of a read's data goes.
pub(crate) enum Target {
    /// By a thread that waits for the outcome.
    Lent(Box<dyn Buffer>),
    Submitted(Box<dyn Completion>),
}

impl Target {
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Lent(buffer) => buffer.bytes(),
            Self::Submitted(completion) => completion.buffer(),
        }
    }
}

impl Request {
    /// One that may become as long as `max_request`. `len` is that of the data.
    pub(crate) fn new(offset: u64, len: u64, work: Work, max_request: u64) -> Self {
        let limit = if matches!(work, Work::Read { .. }) { max_request.min(LARGEST_READ) } else { max_request };
        Self { offset, len, work, limit, completions: Vec::new() }
    }

    /// The same, and `completion` is told of its end.
    pub(crate) fn with(mut self, completion: Box<dyn Completion>) -> Self {
        self.completions.push(completion);
        self
    }

    fn end(&self) -> u64 {
        // Both ends were found to be on the disk.
        self.offset + self.len
    }
}

impl conn_pool::Request<Error> for Request {
    fn goes_with(&self, other: &Self) -> bool {
        let is_adjacent = other.end() == self.offset || self.end() == other.offset;
        let is_alike = match (&self.work, &other.work) {
            (Work::Read { .. }, Work::Read { .. }) => true,
            (Work::Write { fua, .. }, Work::Write { fua: other, .. })
            | (Work::Zero { fua }, Work::Zero { fua: other }) => fua == other,
            _ => false,
        };
        is_adjacent && is_alike && self.len + other.len <= self.limit
    }

    fn merge(&mut self, other: Self) {
        let before = other.offset < self.offset;
        match (&mut self.work, other.work) {
            (Work::Read { into }, Work::Read { into: more }) => join(into, more, before),
            (Work::Write { data, .. }, Work::Write { data: more, .. }) => join(data, more, before),
            _ => {}
        }
        self.offset = self.offset.min(other.offset);
        self.len += other.len;
        self.completions.extend(other.completions);
    }

    fn complete(self, outcome: &Outcome<Error>) {
        let result = outcome.clone().map_err(pool_error);
        let mut batch = Batch::default();
        // The data of a write goes here, before anyone is told.
        let mut completions = self.completions;
        if let Work::Read { into } = self.work {
            completions.extend(into.into_iter().filter_map(|target| match target {
                Target::Lent(_) => None,
                Target::Submitted(completion) => Some(completion),
            }));
        }
        for completion in completions {
            completion.complete(result.clone(), &mut batch);
        }
    }
}

/// Puts `more` before or behind.
fn join<T>(pieces: &mut VecDeque<T>, mut more: VecDeque<T>, before: bool) {
    if before {
        mem::swap(pieces, &mut more);
    }
    pieces.append(&mut more);
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
