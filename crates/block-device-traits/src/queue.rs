// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that nobody waits for.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Capabilities, Extent, Result, ZeroFlags};

/// A disk that takes requests and tells later how they ended: for servers that don't spend a thread
/// on each request.
pub trait QueuedDevice: Send + Sync {
    /// The disk's size: see [`BlockDevice::size`](crate::BlockDevice::size).
    fn size(&self) -> u64;

    /// The abilities of the disk: see
    /// [`BlockDevice::capabilities`](crate::BlockDevice::capabilities).
    fn capabilities(&self) -> Capabilities;

    /// The metadata contexts: see [`BlockDevice::contexts`](crate::BlockDevice::contexts).
    fn contexts(&self) -> &[String] {
        &[]
    }

    /// Tells whether a context is tentative: see
    /// [`BlockDevice::is_tentative`](crate::BlockDevice::is_tentative).
    fn is_tentative(&self, context: usize) -> bool {
        let _ = context;
        false
    }

    /// Finds out about a tentative context, as
    /// [`BlockDevice::has_context`](crate::BlockDevice::has_context) does: it may block, but not
    /// beyond [`stopping`](Self::stopping).
    fn has_context(&self, context: usize) -> bool {
        context < self.contexts().len()
    }

    /// Takes a request, and returns without waiting for it. `completion` is called once, from any
    /// thread, also from within this call; requests may end in any order.
    fn submit(&self, request: Request, completion: Box<dyn Completion>);

    /// Submits a request for a caller that only waits for the completion: the device may do the
    /// work in this thread, which saves a change of threads.
    fn carry_out(&self, request: Request, completion: Box<dyn Completion>) {
        self.submit(request, completion);
    }

    /// The server stops: what would be waited for without an end, and loses nothing, is given up
    /// now. Requests may still be submitted.
    fn stopping(&self) {}

    /// In bytes. Longer writes that need not be durable are best submitted in pieces of this size,
    /// which [`write_pieces`](crate::write_pieces) tells, each as soon as its data is there: it is
    /// on its way, and its memory in use again, while the rest still comes.
    fn longest_write(&self) -> u64 {
        u64::MAX
    }

    /// In bytes. Longer reads are best submitted in pieces, as [long writes](Self::longest_write)
    /// are: the device carries out several at a time, and the content of one is on its way to the
    /// client while the others still come.
    fn longest_read(&self) -> u64 {
        u64::MAX
    }

    /// In bytes: how much of the requests of all clients is of use on its way at a time. A server
    /// may have as much memory for requests, where its own limit is less. It may change from one
    /// request to the next, as the sizes above may.
    fn in_flight(&self) -> u64 {
        0
    }

    /// In bytes: how much a server may read ahead of a client that reads in order, with one request
    /// at a time on its way. The server uses what it has read until one of its clients changes the
    /// disk, so this is 0 where somebody else may.
    fn read_ahead(&self) -> u64 {
        0
    }

    /// Returns an extent from `offset` on, which is before the disk's end, as far as it is known
    /// without anybody being asked. The extent has the statuses of
    /// [`ALLOCATION`](crate::ALLOCATION), and doesn't go beyond the end. A server that reads ahead
    /// of its clients stays within one extent. `None`: nothing is to be read ahead any more, and
    /// nothing that was is to be used.
    fn extent_ahead(&self, offset: u64) -> Option<Extent> {
        Some(Extent { length: self.size().saturating_sub(offset), status: 0 })
    }
}

/// A request to a disk. Offsets and lengths are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// Fill the completion's [buffer](Completion::buffer) from `offset`.
    Read {
        /// The place on the disk, in bytes.
        offset: u64,
    },
    /// Writes like [`BlockDevice::write`](crate::BlockDevice::write); but `data` is the device's,
    /// which may keep it for as long as it likes.
    Write {
        /// The place on the disk, in bytes.
        offset: u64,
        /// The content to write.
        data: Bytes,
        /// On stable storage before the completion.
        fua: bool,
    },
    /// Zeroes a range: see [`BlockDevice::zero`](crate::BlockDevice::zero).
    Zero {
        /// The place on the disk, in bytes.
        offset: u64,
        /// The number of bytes to zero.
        len: u64,
        /// The way in which they are zeroed.
        flags: ZeroFlags,
    },
    /// Discards a range: see [`BlockDevice::trim`](crate::BlockDevice::trim).
    Trim {
        /// The place on the disk, in bytes.
        offset: u64,
        /// The number of bytes to discard.
        len: u64,
        /// On stable storage before the completion.
        fua: bool,
    },
    /// Flushes like [`BlockDevice::flush`](crate::BlockDevice::flush): it covers what was completed
    /// before it was submitted.
    Flush,
    /// Asks for extents like [`BlockDevice::extents`](crate::BlockDevice::extents); they are given
    /// to [`Completion::extents`].
    Extents {
        /// Its index in [`contexts`](QueuedDevice::contexts).
        context: usize,
        /// The place on the disk, in bytes.
        offset: u64,
        /// The number of bytes to describe.
        len: u64,
        /// The most extents that are wanted.
        limit: usize,
    },
}

/// A completion is told of the end of a request, and lends the memory for a read.
pub trait Completion: Send {
    /// The memory for a read's data; its length is that of the request. Always the same memory.
    fn buffer(&mut self) -> &mut [u8] {
        &mut []
    }

    /// A part of what is read is known to be zero: `range` of the [buffer](Self::buffer), which
    /// need not be filled then.
    fn fill_zeroes(&mut self, range: Range<usize>) {
        self.buffer()[range].fill(0);
    }

    /// The extents that were asked for. They are given before the request ends well.
    fn extents(&mut self, extents: Vec<Extent>) {
        drop(extents);
    }

    /// Returns true if anybody still waits for the end. If nobody does, the part of a long request
    /// that has not begun yet is better left: it would come over what others have written since.
    fn is_wanted(&self) -> bool {
        true
    }

    /// The request has ended. It should not block: the thread that calls it has other requests to
    /// attend to. What can be done for several completions at once is left to the end of the batch.
    fn complete(self: Box<Self>, result: Result<()>, batch: &mut Batch);
}

/// Completions that are told one after another. What they have [left to its end](Batch::at_end) is
/// done when it is dropped.
#[derive(Default)]
pub struct Batch {
    ends: Vec<Arc<dyn BatchEnd>>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("ends", &self.ends.len()).finish_non_exhaustive()
    }
}

/// Work that is done at the end of a batch of completions.
pub trait BatchEnd: Send + Sync {
    /// All completions of the batch have been told.
    fn batch_ended(self: Arc<Self>);
}

impl Batch {
    /// Calls `end` once all completions are told; once, however often it is asked for.
    pub fn at_end<T: BatchEnd + 'static>(&mut self, end: &Arc<T>) {
        let is_there =
            self.ends.iter().any(|known| Arc::as_ptr(known).cast::<()>() == Arc::as_ptr(end).cast());
        if !is_there {
            self.ends.push(Arc::clone(end) as Arc<dyn BatchEnd>);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.ends.drain(..).for_each(BatchEnd::batch_ended);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl BatchEnd for Count {
        fn batch_ended(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn each_end_comes_once_and_last() {
        let (one, other) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let mut batch = Batch::default();
        for end in [&one, &other, &one] {
            batch.at_end(end);
        }
        assert_eq!((one.0.load(SeqCst), other.0.load(SeqCst)), (0, 0));
        drop(batch);
        assert_eq!((one.0.load(SeqCst), other.0.load(SeqCst)), (1, 1));
    }
}
