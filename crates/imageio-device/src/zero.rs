// SPDX-License-Identifier: MIT OR Apache-2.0
//! Zeroes of any length, piece by piece: a request may be for the whole disk, and neither a flush
//! nor the end of the device is to wait for all of it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use block_device_traits::{Batch, Completion, Errno, Error, Result, piece_end};
use bytes::Bytes;
use conn_pool::Submitter;

use crate::connection::ReplayingConnection;
use crate::request::{DeviceRequest, DiskRange};
use crate::tracker::Tracker;

/// The longest piece that is zeroed, in bytes.
const LONGEST: u64 = 1 << 30;

/// The data that is written to a range that is to stay allocated. A piece of it is no longer than
/// this.
static ZEROES: [u8; 2 << 20] = [0; 2 << 20];

/// The rest of a zero that is under way.
pub(crate) struct Zeroing {
    rest: Range<u64>,
    max_request: u64,
    fua: bool,
    /// The server is sent zeroes as data.
    is_written: bool,
}

/// A part of a zero.
pub(crate) struct Piece {
    place: DiskRange,
    fua: bool,
    data: Option<Bytes>,
}

impl Zeroing {
    /// A zero of a range. If it `is_written`, the range stays allocated.
    pub(crate) fn new(place: DiskRange, fua: bool, is_written: bool) -> Self {
        let DiskRange { offset, len, max_request } = place;
        Self { rest: offset..offset + len, max_request, fua, is_written }
    }

    /// Takes the first piece of what is left. It is empty if nothing is.
    pub(crate) fn take_piece(&mut self) -> Piece {
        let longest = if self.is_written { ZEROES.len() as u64 } else { LONGEST };
        let (start, end) = (self.rest.start, piece_end(&self.rest, longest));
        self.rest.start = end;
        let len = end - start;
        Piece {
            place: DiskRange { offset: start, len, max_request: self.max_request },
            fua: self.fua,
            // It is no longer than what is in memory.
            data: self.is_written.then(|| Bytes::from_static(&ZEROES[..len as usize])),
        }
    }

    /// Returns true if nothing is left.
    pub(crate) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes note that the rest is not zeroed: until that is done, or something else is written
    /// there, it is missing.
    pub(crate) fn note_rest(&self, tracker: &Tracker) {
        if !self.is_done() {
            tracker.failed(&self.rest, &"a zero of several pieces did not come so far");
        }
    }
}

impl Piece {
    /// Returns the request that carries it out on a connection. Without a completion, a thread
    /// waits for the outcome.
    pub(crate) fn request(self, completion: Option<Box<dyn Completion>>) -> DeviceRequest {
        match self.data {
            Some(data) => DeviceRequest::write(self.place, data, self.fua, completion),
            None => DeviceRequest::zero(self.place, self.fua, completion),
        }
    }
}

/// A zero of several pieces, which hands in the next piece when one is done.
pub(crate) struct InPieces {
    pub(crate) zeroing: Zeroing,
    pub(crate) submitter: Submitter<ReplayingConnection>,
    /// Nobody is to wait for the pieces that are left.
    pub(crate) is_stopping: Arc<AtomicBool>,
    /// The completion that is told of the end of the whole zero.
    pub(crate) whole: Box<dyn Completion>,
}

impl InPieces {
    fn next_piece(mut self: Box<Self>) {
        let piece = self.zeroing.take_piece();
        let submitter = self.submitter.clone();
        submitter.submit(piece.request(Some(self)));
    }
}

impl Completion for InPieces {
    fn is_wanted(&self) -> bool {
        self.whole.is_wanted()
    }

    /// An end without success is told within the call that submits a piece, but then no other is
    /// submitted: so calls don't pile up.
    fn complete(self: Box<Self>, result: Result<()>, batch: &mut Batch) {
        let result = match result {
            Ok(()) if self.zeroing.is_done() => Ok(()),
            Ok(()) if self.is_stopping.load(Relaxed) => {
                Err(Error::new(Errno::Shutdown, "the server stops, and a part of the range is not zeroed"))
            }
            // Others may have written there since the client has gone.
            Ok(()) if !self.whole.is_wanted() => {
                Err(Error::new(Errno::Io, "the client is gone, and a part of the range is not zeroed"))
            }
            Ok(()) => return self.next_piece(),
            Err(error) => Err(error),
        };
        self.whole.complete(result, batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offset and length of each piece.
    fn pieces(range: Range<u64>, is_written: bool) -> Vec<(u64, u64)> {
        let place = DiskRange { offset: range.start, len: range.end - range.start, max_request: 0 };
        let mut zeroing = Zeroing::new(place, false, is_written);
        let mut pieces = Vec::new();
        loop {
            let Piece { place, data, .. } = zeroing.take_piece();
            assert_eq!(data.map(|data| data.len() as u64), is_written.then_some(place.len));
            pieces.push((place.offset, place.len));
            if zeroing.is_done() {
                return pieces;
            }
        }
    }

    #[test]
    fn pieces_cover_the_range_and_end_between_blocks() {
        const GIB: u64 = 1 << 30;
        assert_eq!(pieces(5..5, false), [(5, 0)], "an empty zero is a request, too");
        assert_eq!(pieces(0..GIB, false), [(0, GIB)]);
        assert_eq!(pieces(512..2 * GIB + 1, false), [(512, GIB - 512), (GIB, GIB), (2 * GIB, 1)]);
        const MIB: u64 = 1 << 20;
        assert_eq!(pieces(MIB..5 * MIB, true), [(MIB, 2 * MIB), (3 * MIB, 2 * MIB)]);
    }
}
