// SPDX-License-Identifier: MIT OR Apache-2.0
//! Long requests that go to the device piece by piece: a WRITE as its payload comes, and a READ
//! whose content goes to the client as it comes.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use block_device_traits::{Batch, Completion, Errno, Error, Result};
use bytes::Bytes;
use io_buffer_pool::{Buffer, Lease};

use super::job::Job;
use crate::lock;

/// The request. It is answered by whoever lets go of it last: the device with a piece, or the
/// session that hands them out.
pub(super) struct Whole {
    job: Job,
    length: u32,
    /// The number of bytes that are done, or the offset and the error of the first failure.
    done: Mutex<std::result::Result<u32, (u64, Error)>>,
}

/// A piece of a WRITE that the device carries out.
struct WritePiece {
    whole: Arc<Whole>,
    offset: u64,
    length: u32,
    lease: Lease,
}

/// A piece of a READ that the device carries out. The reply has chunks.
struct ReadPiece {
    whole: Arc<Whole>,
    offset: u64,
    buffer: Buffer,
    /// The parts of the buffer that are zero without having been filled.
    holes: Vec<Range<usize>>,
}

impl Whole {
    pub(super) fn new(job: Job, length: u32) -> Arc<Self> {
        Arc::new(Self { job, length, done: Mutex::new(Ok(0)) })
    }

    /// In bytes.
    pub(super) fn length(&self) -> u32 {
        self.length
    }

    /// A part of the payload of a WRITE, and who is told when it is written.
    pub(super) fn write_piece(self: &Arc<Self>, offset: u64, buffer: Buffer) -> (Bytes, Box<dyn Completion>) {
        let length = length(&buffer);
        let (buffer, lease) = buffer.uncounted();
        let piece = WritePiece { whole: Arc::clone(self), offset, length, lease };
        (Bytes::from_owner(buffer), Box::new(piece))
    }

    /// Makes the completion of a part of a READ, which sends the content as soon as it is there.
    pub(super) fn read_piece(self: &Arc<Self>, offset: u64, buffer: Buffer) -> Box<dyn Completion> {
        Box::new(ReadPiece { whole: Arc::clone(self), offset, buffer, holes: Vec::new() })
    }

    /// The connection ended, and the rest of the payload won't come.
    pub(super) fn lost(&self, error: &io::Error) {
        let reason = format!("the connection ended: {error}");
        self.piece_ended(self.job.request.offset, Err(Error::new(Errno::Io, reason)));
    }

    fn piece_ended(&self, offset: u64, result: Result<u32>) {
        let mut done = lock(&self.done);
        match (&mut *done, result) {
            (Ok(bytes), Ok(more)) => *bytes += more,
            (Ok(_), Err(error)) => *done = Err((offset, error)),
            // The first failure is told.
            (Err(_), _) => {}
        }
    }

    /// Answers the request, unless somebody else still has a part of it.
    pub(super) fn let_go(self: Arc<Self>, batch: &mut Batch) {
        let Some(Self { job, length, done }) = Arc::into_inner(self) else { return };
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let result = done.and_then(|bytes| match bytes == length {
            true => Ok(()),
            false => {
                let dropped = Error::new(Errno::Io, "bug: the device has dropped a part of the request");
                Err((job.request.offset, dropped))
            }
        });
        job.end_pieces(result, batch);
    }
}

impl Completion for WritePiece {
    fn complete(self: Box<Self>, result: Result<()>, batch: &mut Batch) {
        let Self { whole, offset, length, lease } = *self;
        drop(lease);
        whole.piece_ended(offset, result.map(|()| length));
        whole.let_go(batch);
    }
}

impl Completion for ReadPiece {
    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn fill_zeroes(&mut self, range: Range<usize>) {
        self.holes.push(range);
    }

    fn complete(self: Box<Self>, result: Result<()>, batch: &mut Batch) {
        let Self { whole, offset, buffer, holes } = *self;
        let length = length(&buffer);
        whole.piece_ended(
            offset,
            result.map(|()| {
                whole.job.add_content(offset, buffer, holes, batch);
                length
            }),
        );
        whole.let_go(batch);
    }
}

/// Of a part of a request, which is no longer than that.
fn length(buffer: &Buffer) -> u32 {
    u32::try_from(buffer.len()).expect("a part of a request is no longer than that")
}
