// SPDX-License-Identifier: MIT OR Apache-2.0
//! A WRITE whose payload goes to the device piece by piece.

use std::sync::{Arc, Mutex, PoisonError};

use block_device::{Batch, Completion, Errno, Error, Result};
use buffer_pool::{Buffer, Lease};
use bytes::Bytes;

use super::job::Job;
use crate::lock;

/// The request. It is answered by whoever lets go of it last: the device with a piece, or the session that reads them.
pub(super) struct Whole {
    job: Job,
    length: u32,
    /// How many bytes were written, or why some were not.
    written: Mutex<Result<u32>>,
}

/// What the device has of it.
struct Piece {
    whole: Arc<Whole>,
    length: u32,
    lease: Lease,
}

impl Whole {
    pub(super) fn new(job: Job, length: u32) -> Arc<Self> {
        Arc::new(Self { job, length, written: Mutex::new(Ok(0)) })
    }

    /// In bytes.
    pub(super) fn length(&self) -> u32 {
        self.length
    }

    /// A part of the payload, and who is told when it is written.
    pub(super) fn piece(self: &Arc<Self>, buffer: Buffer) -> (Bytes, Box<dyn Completion>) {
        let length = u32::try_from(buffer.len()).expect("a part of a payload is no longer than that");
        let (buffer, lease) = buffer.uncounted();
        (Bytes::from_owner(buffer), Box::new(Piece { whole: Arc::clone(self), length, lease }))
    }

    /// The rest of the payload won't come.
    pub(super) fn fail(&self, reason: String) {
        self.piece_ended(Err(Error::new(Errno::Io, reason)));
    }

    fn piece_ended(&self, result: Result<u32>) {
        let mut written = lock(&self.written);
        match (&mut *written, result) {
            (Ok(bytes), Ok(more)) => *bytes += more,
            (Ok(_), Err(error)) => *written = Err(error),
            // The first failure is told.
            (Err(_), _) => {}
        }
    }

    /// Answers the request, unless somebody else still has a part of it.
    pub(super) fn let_go(self: Arc<Self>, batch: &mut Batch) {
        let Some(Self { job, length, written }) = Arc::into_inner(self) else { return };
        let written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
        let result = written.and_then(|bytes| match bytes == length {
            true => Ok(()),
            false => Err(Error::new(Errno::Io, "bug: the device has dropped a part of the request")),
        });
        Box::new(job).complete(result, batch);
    }
}

impl Completion for Piece {
    fn complete(self: Box<Self>, result: Result<()>, batch: &mut Batch) {
        let Self { whole, length, lease } = *self;
        drop(lease);
        whole.piece_ended(result.map(|()| length));
        whole.let_go(batch);
    }
}
