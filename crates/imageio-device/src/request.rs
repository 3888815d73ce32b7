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
    Read {
        into: VecDeque<Target>,
    },
    /// The data, piece by piece.
    Write {
        data: VecDeque<Bytes>,
        /// The data is someone else's memory, which must not be kept when the request is done.
        is_lent: bool,
        fua: bool,
    },
    Zero {
        fua: bool,
    },
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
        Self { offset, len, work, limit: max_request, completions: Vec::new() }
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
        // An empty one would have no place among the parts of the other.
        let is_something = self.len > 0 && other.len > 0;
        is_something && is_adjacent && is_alike && self.len + other.len <= self.limit
    }

    fn merge(&mut self, other: Self) {
        let before = other.offset < self.offset;
        match (&mut self.work, other.work) {
            (Work::Read { into }, Work::Read { into: more }) => join(into, more, before),
            (Work::Write { data, is_lent, .. }, Work::Write { data: more, is_lent: other, .. }) => {
                *is_lent |= other;
                join(data, more, before);
            }
            _ => {}
        }
        self.offset = self.offset.min(other.offset);
        self.len += other.len;
        self.completions.extend(other.completions);
    }

    fn complete(self, outcome: &Outcome<Error>) {
        let result = outcome.clone().map_err(pool_error);
        let mut batch = Batch::default();
        let mut completions = self.completions;
        match self.work {
            Work::Read { into } => completions.extend(into.into_iter().filter_map(|target| match target {
                Target::Lent(_) => None,
                Target::Submitted(completion) => Some(completion),
            })),
            // The data of a write goes before anyone is told.
            Work::Write { data, .. } => drop(data),
            Work::Zero { .. } => {}
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
    use std::sync::Arc;
    use std::sync::mpsc::{Sender, channel};

    use block_device::{Errno, Result};
    use conn_pool::{PoolError, Request as _};

    use super::*;

    fn write(offset: u64, data: &'static [u8], fua: bool) -> Request {
        let work = Work::Write { data: VecDeque::from([Bytes::from_static(data)]), is_lent: false, fua };
        Request::new(offset, data.len() as u64, work, 8)
    }

    fn zero(offset: u64, fua: bool) -> Request {
        Request::new(offset, 2, Work::Zero { fua }, 8)
    }

    fn read(offset: u64, mut memory: Target, max_request: u64) -> Request {
        let len = memory.bytes().len() as u64;
        Request::new(offset, len, Work::Read { into: [memory].into() }, max_request)
    }

    fn data(request: &Request) -> Vec<u8> {
        match &request.work {
            Work::Write { data, .. } => data.iter().flatten().copied().collect(),
            _ => Vec::new(),
        }
    }

    #[track_caller]
    fn merge(request: &mut Request, other: Request) {
        assert!(request.goes_with(&other));
        request.merge(other);
    }

    /// Memory that a thread lends.
    struct Memory(Vec<u8>);

    impl Buffer for Memory {
        fn bytes(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    fn lent(len: usize) -> Target {
        Target::Lent(Box::new(Memory(vec![0; len])))
    }

    /// Tells its name, its outcome, and its memory.
    struct Tell(&'static str, Vec<u8>, Sender<(&'static str, Result<()>, Vec<u8>)>);

    impl Completion for Tell {
        fn buffer(&mut self) -> &mut [u8] {
            &mut self.1
        }

        fn complete(self: Box<Self>, result: Result<()>, _: &mut Batch) {
            let Self(name, memory, told) = *self;
            told.send((name, result, memory)).unwrap();
        }
    }

    #[test]
    fn neighbours_on_either_side_are_taken_in_up_to_the_limit() {
        let mut request = write(10, b"cd", false);
        merge(&mut request, write(12, b"ef", false));
        merge(&mut request, write(8, b"ab", false));
        assert_eq!((request.offset, request.len, &*data(&request)), (8, 6, &b"abcdef"[..]));
        let mut two = write(5, b"2", false);
        merge(&mut two, write(4, b"1", false));
        assert!(!two.goes_with(&write(6, b"34", true)));
        let mut before = write(7, b"0", false);
        merge(&mut before, request);
        assert_eq!((before.offset, &*data(&before)), (7, &b"0abcdef"[..]));
        assert!(before.goes_with(&write(14, b"g", false)));
        assert!(!before.goes_with(&write(14, b"gh", false)), "it would be too long");
    }

    #[test]
    fn what_differs_stays_apart() {
        let request = write(10, b"cd", false);
        let touching = [write(12, b"e", true), zero(12, false), read(12, lent(2), 8)];
        let elsewhere = [write(11, b"x", false), write(13, b"x", false), write(10, b"cd", false)];
        for other in touching.into_iter().chain(elsewhere) {
            assert!(!request.goes_with(&other), "{} bytes at {}", other.len, other.offset);
            assert!(!other.goes_with(&request), "{} bytes at {}", other.len, other.offset);
        }
        let mut zeroes = zero(0, true);
        assert!(!zeroes.goes_with(&zero(2, false)));
        merge(&mut zeroes, zero(2, true));
        assert_eq!((zeroes.offset, zeroes.len), (0, 4));
    }

    #[test]
    fn the_memory_of_reads_is_in_the_order_of_the_disk() {
        let (tell, told) = channel();
        let submitted = |name, len| Target::Submitted(Box::new(Tell(name, vec![0; len], tell.clone())));
        let mut reads = read(4, lent(2), 16);
        merge(&mut reads, read(6, submitted("last", 3), 16));
        // These two were merged before.
        let mut before = read(2, submitted("second", 2), 16);
        merge(&mut before, read(1, submitted("first", 1), 16));
        merge(&mut reads, before);
        assert_eq!((reads.offset, reads.len), (1, 8));
        if let Work::Read { into } = &mut reads.work {
            let places = into.iter_mut().flat_map(|target| target.bytes());
            places.zip(1..).for_each(|(place, byte)| *place = byte);
        }
        reads.complete(&Ok(()));
        let told: Vec<_> = told.try_iter().collect();
        let all =
            [("first", Ok(()), vec![1]), ("second", Ok(()), vec![2, 3]), ("last", Ok(()), vec![6, 7, 8])];
        assert_eq!(told, all);
    }

    #[test]
    fn all_that_were_merged_are_told_the_outcome() {
        let (tell, told) = channel();
        let with = |request: Request, name| request.with(Box::new(Tell(name, Vec::new(), tell.clone())));
        let mut writes = with(write(0, b"a", false), "one");
        merge(&mut writes, with(write(1, b"b", false), "other"));
        writes.complete(&Err(PoolError::Closed));
        let told: Vec<_> =
            told.try_iter().map(|(name, result, _)| (name, result.unwrap_err().errno())).collect();
        assert_eq!(told, [("one", Errno::Shutdown), ("other", Errno::Shutdown)]);
    }

    #[test]
    fn the_data_of_a_write_is_gone_when_its_end_is_told() {
        struct Data {
            _alive: Arc<()>,
        }
        impl AsRef<[u8]> for Data {
            fn as_ref(&self) -> &[u8] {
                b"data"
            }
        }
        struct Check(Arc<()>, Sender<bool>);
        impl Completion for Check {
            fn complete(mut self: Box<Self>, _: Result<()>, _: &mut Batch) {
                let is_gone = Arc::get_mut(&mut self.0).is_some();
                self.1.send(is_gone).unwrap();
            }
        }
        let (tell, told) = channel();
        let alive = Arc::new(());
        let work = Work::Write {
            data: [Bytes::from_owner(Data { _alive: Arc::clone(&alive) })].into(),
            is_lent: true,
            fua: false,
        };
        Request::new(0, 4, work, 8).with(Box::new(Check(alive, tell))).complete(&Ok(()));
        assert_eq!(told.recv(), Ok(true));
    }
}
