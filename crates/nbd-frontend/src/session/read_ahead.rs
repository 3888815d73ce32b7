// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading ahead: data is read before the client asks for it.
//!
//! A client that has one READ at a time on its way waits for the device each time, and the device
//! for the client. So once it has read in order for a while (`in_order`), what comes next is read
//! meanwhile, in two pieces: one that the client is about to get, and one that is on its way. They
//! count in the session's memory, and are never waited for there.
//!
//! They are used as long as no client has begun to change the disk since they were asked for,
//! wherever that is (`changes`). One that could not be read is forgotten, and the client's own READ
//! finds out why.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use block_device_traits::{Batch, Completion, Extent, QueuedDevice, Request, Result, ZERO};
use io_buffer_pool::{Buffer, Pool};
use oneshot::{Receiver, Sender};

use super::in_order::InOrder;
use super::reply::Slice;
use crate::changes::Changes;

/// The reads ahead of one client.
pub(super) struct ReadAhead<'a, D> {
    device: &'a D,
    changes: &'a Changes,
    buffers: Arc<Pool>,
    /// Zeroes may be told instead of sent.
    may_have_holes: bool,
    /// In bytes.
    most: u64,
    order: InOrder,
    /// Each begins where the one before it ends.
    pieces: VecDeque<Piece>,
    /// The number of changes that had ended when the first of the pieces was asked for. No other
    /// had begun.
    changed: u64,
}

struct Piece {
    range: Range<u64>,
    content: Content,
}

enum Content {
    OnItsWay(Receiver<Loaded>),
    Here(Loaded),
}

/// The content that was read.
#[derive(Clone)]
struct Loaded {
    buffer: Arc<Buffer>,
    /// The parts of the buffer that are zero without having been filled.
    holes: Arc<[Range<usize>]>,
}

/// The device's side of a piece, which has its buffer. If it is dropped, the piece counts as one
/// that could not be read.
struct Fetch {
    buffer: Buffer,
    holes: Vec<Range<usize>>,
    may_have_holes: bool,
    told: Sender<Loaded>,
}

impl<'a, D: QueuedDevice> ReadAhead<'a, D> {
    /// For a client of whom at most so many bytes are read ahead.
    pub(super) fn new(
        device: &'a D,
        changes: &'a Changes,
        buffers: Arc<Pool>,
        may_have_holes: bool,
        most: u64,
    ) -> Self {
        let (order, pieces) = (InOrder::default(), VecDeque::new());
        Self { device, changes, buffers, may_have_holes, most, order, pieces, changed: 0 }
    }

    /// The client reads this range. `is_alone` says that nothing else of it is in flight.
    pub(super) fn note(&mut self, range: &Range<u64>, is_alone: bool) {
        let device = self.device;
        self.order.note(range, is_alone, |skipped| {
            let ahead = device.extent_ahead(skipped.start);
            ahead.is_some_and(|Extent { length, status }| {
                status & ZERO != 0 && length >= skipped.end - skipped.start
            })
        });
    }

    /// Returns true if no piece is read ahead.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Gives back the memory, and begins anew.
    pub(super) fn forget(&mut self) {
        self.order.forget();
        self.drop_pieces();
    }

    /// Gives back the memory.
    pub(super) fn drop_pieces(&mut self) {
        self.pieces.clear();
    }

    /// The content of a range, if all of it was read ahead and still counts. Waits for what is on
    /// its way. Otherwise, the memory is given back.
    pub(super) fn take(&mut self, range: &Range<u64>) -> Option<Vec<Slice>> {
        if self.pieces.is_empty() {
            return None;
        }
        if !self.is_valid(range.start) {
            self.forget();
            return None;
        }
        self.drop_until(range.start);
        if !self.covers(range) {
            self.drop_pieces();
            return None;
        }
        let needed = self.pieces.iter_mut().take_while(|piece| piece.range.start < range.end);
        let slices: Option<_> = needed.map(|piece| piece.slice(range)).collect();
        match slices {
            Some(_) => self.drop_until(range.end),
            None => self.forget(),
        }
        slices
    }

    fn covers(&self, range: &Range<u64>) -> bool {
        let ends = self.pieces.front().zip(self.pieces.back());
        ends.is_some_and(|(first, last)| first.range.start <= range.start && range.end <= last.range.end)
    }

    fn drop_until(&mut self, offset: u64) {
        while self.pieces.front().is_some_and(|piece| piece.range.end <= offset) {
            self.pieces.pop_front();
        }
    }

    /// Returns true if the disk still has the content that was read ahead, and the device would
    /// answer.
    fn is_valid(&self, offset: u64) -> bool {
        self.changes.begun() == self.changed && self.device.extent_ahead(offset).is_some()
    }

    /// Reads ahead of a client that has just read `len` bytes.
    pub(super) fn go_on(&mut self, len: u64) {
        while let Some(range) = self.next_piece(len) {
            let Some(changed) = self.changes.settled() else { return };
            if self.pieces.is_empty() {
                self.changed = changed;
            }
            if self.changed != changed {
                return;
            }
            // A piece that fits in memory fits in usize.
            let Some(buffer) = self.buffers.take_if_room((range.end - range.start) as usize) else { return };
            let (told, content) = oneshot::channel();
            let (holes, may_have_holes) = (Vec::new(), self.may_have_holes);
            let offset = range.start;
            self.pieces.push_back(Piece { range, content: Content::OnItsWay(content) });
            self.device
                .submit(Request::Read { offset }, Box::new(Fetch { buffer, holes, may_have_holes, told }));
        }
    }

    /// Returns the range that is to be read next, if any is.
    fn next_piece(&self, len: u64) -> Option<Range<u64>> {
        let longest = self.order.piece(len, self.most)?;
        let start = self.pieces.back().map_or(self.order.next(), |last| last.range.end);
        let ahead = start.checked_sub(self.order.next())?;
        let left = self.device.size().checked_sub(start).filter(|&left| left > 0)?;
        if ahead > longest {
            return None;
        }
        // If zeroes and data take turns all the time, a piece has both, as the client's own READs
        // have.
        let extent = self.device.extent_ahead(start)?.length.max(InOrder::SHORTEST);
        Some(start..start + extent.min(longest).min(left))
    }
}

impl Piece {
    /// The part of the range that is in this piece. `None` if that could not be read.
    fn slice(&mut self, range: &Range<u64>) -> Option<Slice> {
        if let Content::OnItsWay(loaded) = &self.content {
            self.content = Content::Here(loaded.recv_ref().ok()?);
        }
        let Content::Here(Loaded { buffer, holes }) = &self.content else { return None };
        let (start, end) = (range.start.max(self.range.start), range.end.min(self.range.end));
        let position = |offset: u64| (offset - self.range.start) as usize;
        Some(Slice {
            offset: start,
            buffer: Arc::clone(buffer),
            range: position(start)..position(end),
            holes: Arc::clone(holes),
        })
    }
}

impl Completion for Fetch {
    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn fill_zeroes(&mut self, range: Range<usize>) {
        match self.may_have_holes {
            true => self.holes.push(range),
            false => self.buffer[range].fill(0),
        }
    }

    fn complete(self: Box<Self>, result: Result<()>, _batch: &mut Batch) {
        let Self { buffer, holes, told, .. } = *self;
        match result {
            // The client may be gone, or have something else to do.
            Ok(()) => drop(told.send(Loaded { buffer: Arc::new(buffer), holes: holes.into() })),
            Err(error) => log::debug!("reading ahead: {error}"),
        }
    }
}
