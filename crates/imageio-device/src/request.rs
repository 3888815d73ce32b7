// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests that wait for a connection, and the choice of those that go out as one HTTP
//! request.
//!
//! NBD says nothing of the order in which requests that are in flight at the same time take effect,
//! so those that wait may be carried out in any order and together. Only what is adjacent goes
//! together: nothing in it overlaps, and the result is a request like any other.

use std::ops::Range;
use std::time::Instant;

use block_device_traits::{BLOCK, Batch, Completion, ReadBuffer, has_loose_ends};
use bytes::Bytes;
use conn_pool::{Outcome, Place};

use crate::error::{Cause, pool_error};

/// A request for a range of the disk.
pub(crate) struct DeviceRequest {
    shape: Shape,
    arrived: Instant,
    work: Work,
}

/// The work that a request asks for.
enum Work {
    /// A thread that waits for the outcome lends the memory, of which this part is filled.
    ReadInto(Box<dyn ReadBuffer>, Range<usize>),
    /// The completion lends the memory, of which this part is filled.
    Read(Box<dyn Completion>, Range<usize>),
    Write {
        data: Bytes,
        /// The data is someone else's memory, which must not be kept when the request is done.
        is_lent: bool,
        completion: Option<Box<dyn Completion>>,
    },
    Zero {
        completion: Option<Box<dyn Completion>>,
    },
}

/// The properties that decide whether requests go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) operation: Operation,
    /// In bytes.
    start: u64,
    end: u64,
    /// The length that it may reach with others, in bytes.
    limit: u64,
}

/// The operation that the server is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write { fua: bool },
    Zero { fua: bool },
}

/// A range that was found to be on the disk, in bytes, and how long requests may become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DiskRange {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) max_request: u64,
}

impl DeviceRequest {
    /// A read into a part of the memory that a thread lends, which waits for the outcome.
    pub(crate) fn read_into(place: DiskRange, part: Range<usize>, buffer: Box<dyn ReadBuffer>) -> Self {
        Self::new(place, Operation::Read, Work::ReadInto(buffer, part))
    }

    /// A read into a part of the memory of whoever is told of its end.
    pub(crate) fn read(place: DiskRange, part: Range<usize>, completion: Box<dyn Completion>) -> Self {
        Self::new(place, Operation::Read, Work::Read(completion, part))
    }

    /// A write. Without a completion, a thread waits for the outcome, and the memory is lent by it.
    pub(crate) fn write(
        place: DiskRange,
        data: Bytes,
        fua: bool,
        completion: Option<Box<dyn Completion>>,
    ) -> Self {
        let work = Work::Write { data, is_lent: completion.is_none(), completion };
        Self::new(place, Operation::Write { fua }, work)
    }

    /// A zero. Without a completion, a thread waits for the outcome.
    pub(crate) fn zero(place: DiskRange, fua: bool, completion: Option<Box<dyn Completion>>) -> Self {
        Self::new(place, Operation::Zero { fua }, Work::Zero { completion })
    }

    fn new(place: DiskRange, operation: Operation, work: Work) -> Self {
        let DiskRange { offset, len, max_request } = place;
        let shape = Shape { operation, start: offset, end: offset + len, limit: max_request };
        Self { shape, arrived: Instant::now(), work }
    }

    /// Returns the time at which the request came.
    pub(crate) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Returns the memory for a read's data.
    pub(crate) fn memory(&mut self) -> Option<&mut [u8]> {
        match &mut self.work {
            Work::ReadInto(buffer, part) => Some(&mut buffer.bytes()[part.clone()]),
            Work::Read(completion, part) => Some(&mut completion.buffer()[part.clone()]),
            Work::Write { .. } | Work::Zero { .. } => None,
        }
    }

    /// The data of a write.
    pub(crate) fn data(&self) -> Option<&Bytes> {
        match &self.work {
            Work::Write { data, .. } => Some(data),
            Work::ReadInto(..) | Work::Read(..) | Work::Zero { .. } => None,
        }
    }

    /// Returns true if the data must not be kept when the request is done.
    pub(crate) fn is_lent(&self) -> bool {
        matches!(self.work, Work::Write { is_lent: true, .. })
    }

    /// Drops the data, and gives back who is to be told, but for threads that wait.
    fn into_completion(self) -> Option<Box<dyn Completion>> {
        match self.work {
            Work::ReadInto(..) => None,
            Work::Read(completion, _) => Some(completion),
            Work::Write { completion, .. } | Work::Zero { completion } => completion,
        }
    }
}

impl conn_pool::PoolRequest for DeviceRequest {
    type Error = Cause;
    type Shape = Shape;

    fn shape(&self) -> Shape {
        self.shape
    }

    fn complete(done: Vec<(Self, Outcome<Cause>)>) {
        let mut batch = Batch::default();
        for (request, outcome) in done {
            if let Some(completion) = request.into_completion() {
                completion.complete(outcome.map_err(pool_error), &mut batch);
            }
        }
    }
}

impl Shape {
    pub(crate) fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Returns true if it is better to leave a long change apart at this place, which is between
    /// two blocks. With a part of a block at its end, all of it would have to wait for a change of
    /// the rest of that block, and would be in doubt with it.
    fn is_better_apart(&self, at: u64) -> bool {
        let is_change = self.operation != Operation::Read;
        is_change && at.is_multiple_of(BLOCK) && has_loose_ends(&self.range())
    }
}

impl conn_pool::Shape for Shape {
    /// Only what is adjacent, and of one kind, goes together.
    fn join(self, other: Self) -> Option<(Self, Place)> {
        // An empty one would have no place among the others.
        let is_something = self.len() > 0 && other.len() > 0;
        // The server may claim any size, so that lengths may have no sum.
        let fits = self.len().saturating_add(other.len()) <= self.limit;
        if self.operation != other.operation || !is_something || !fits {
            return None;
        }
        let (joined, place) = if other.end == self.start {
            (Self { start: other.start, ..self }, Place::Before)
        } else if other.start == self.end {
            (Self { end: other.end, ..self }, Place::Behind)
        } else {
            return None;
        };
        (!joined.is_better_apart(self.start.max(other.start))).then_some((joined, place))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Sender, channel};

    use block_device_traits::{Errno, Result};
    use conn_pool::{PoolError, PoolRequest as _, Shape as _};

    use super::*;

    fn shape(operation: Operation, range: Range<u64>) -> Shape {
        Shape { operation, start: range.start, end: range.end, limit: 8 }
    }

    #[test]
    fn neighbours_on_either_side_are_taken_in_up_to_the_limit() {
        let write = |range| shape(Operation::Write { fua: false }, range);
        let join = |one: Shape, other| one.join(other).map(|(both, place)| (both.range(), place));
        assert_eq!(join(write(10..12), write(12..14)), Some((10..14, Place::Behind)));
        assert_eq!(join(write(10..12), write(8..10)), Some((8..12, Place::Before)));
        assert_eq!(join(write(10..14), write(14..18)), Some((10..18, Place::Behind)));
        assert_eq!(join(write(10..14), write(14..19)), None, "it would be too long");
        for elsewhere in [11..12, 13..14, 10..12, 12..12, 10..10] {
            assert_eq!(join(write(10..12), write(elsewhere.clone())), None, "{elsewhere:?}");
        }
    }

    #[test]
    fn parts_of_blocks_go_together_and_not_with_whole_blocks() {
        const MIB: u64 = 1 << 20;
        let change = |operation, range: Range<u64>| Shape { limit: MIB, ..shape(operation, range) };
        for operation in [Operation::Write { fua: false }, Operation::Zero { fua: false }] {
            let join = |one, other| {
                let joined = change(operation, one).join(change(operation, other));
                joined.map(|(both, place)| (both.range(), place))
            };
            let (blocks, next_blocks) = (4096..MIB, MIB + 4096..2 * MIB);
            let (head, tail, next_head) = (512..4096, MIB..MIB + 512, MIB + 512..MIB + 4096);
            assert_eq!(join(head.clone(), blocks.clone()), None);
            assert_eq!(join(blocks.clone(), tail.clone()), None);
            assert_eq!(join(tail.clone(), blocks.clone()), None);
            let both = MIB..MIB + 4096;
            assert_eq!(join(tail, next_head), Some((both.clone(), Place::Behind)));
            // They are a whole block, which goes with either of its neighbours.
            assert_eq!(join(both.clone(), next_blocks), Some((MIB..2 * MIB, Place::Behind)));
            assert_eq!(join(both, blocks), Some((4096..MIB + 4096, Place::Before)));
            assert_eq!(join(head, 4096..8192), Some((512..8192, Place::Behind)), "it is short");
            let middle = MIB / 2 + 512;
            assert_eq!(join(512..middle, middle..MIB), Some((512..MIB, Place::Behind)));
        }
        let read = |range| change(Operation::Read, range);
        assert!(read(512..4096).join(read(4096..MIB)).is_some());
    }

    #[test]
    fn what_differs_stays_apart() {
        use Operation::{Read, Write, Zero};
        let all = [Read, Write { fua: false }, Write { fua: true }, Zero { fua: false }, Zero { fua: true }];
        for one in all {
            for other in all {
                let joined = shape(one, 0..2).join(shape(other, 2..4));
                assert_eq!(joined.is_some(), one == other, "{one:?} and {other:?}");
            }
        }
    }

    /// Tells its name and its outcome.
    struct Tell(&'static str, Vec<u8>, Sender<(&'static str, Result<()>)>);

    impl Completion for Tell {
        fn buffer(&mut self) -> &mut [u8] {
            &mut self.1
        }

        fn complete(self: Box<Self>, result: Result<()>, _: &mut Batch) {
            self.2.send((self.0, result)).unwrap();
        }
    }

    const PLACE: DiskRange = DiskRange { offset: 0, len: 4, max_request: 8 };

    #[test]
    fn each_is_told_its_own_outcome() {
        let (tell, told) = channel();
        let completion = |name| Box::new(Tell(name, vec![0; 4], tell.clone()));
        let read = DeviceRequest::read(PLACE, 0..4, completion("read"));
        let zero = DeviceRequest::zero(PLACE, false, Some(completion("zero")));
        let thread = DeviceRequest::zero(PLACE, false, None);
        DeviceRequest::complete(vec![(read, Ok(())), (thread, Ok(())), (zero, Err(PoolError::Closed))]);
        let told: Vec<_> =
            told.try_iter().map(|(name, result)| (name, result.map_err(|error| error.errno()))).collect();
        assert_eq!(told, [("read", Ok(())), ("zero", Err(Errno::Shutdown))]);
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
        let data = Bytes::from_owner(Data { _alive: Arc::clone(&alive) });
        let write = DeviceRequest::write(PLACE, data, false, Some(Box::new(Check(alive, tell))));
        DeviceRequest::complete(vec![(write, Ok(()))]);
        assert_eq!(told.recv(), Ok(true));
    }
}
