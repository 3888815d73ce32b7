// SPDX-License-Identifier: MIT OR Apache-2.0
//! A change of the disk: how it is sent, in which steps, and what is kept of it.

use std::ops::Range;

use block_device_traits::piece_end;
use bytes::Bytes;
use imageio_client::{Connection, Flush};

use crate::counters::{Exchange, Kind, Purpose};
use crate::tracker::{Content, Part, Pieces, Tracker};

/// The least that a piece which is kept counts, in bytes: keeping track of it takes memory, too.
const LEAST_KEPT: u64 = 4096;

/// The means by which the server does things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerFeatures {
    /// `PATCH` flush; else each write is durable by itself.
    pub(crate) flush: bool,
    /// `PATCH` zero; else zeroes are written.
    pub(crate) zero: bool,
}

/// New content of a range.
pub(crate) enum Change {
    Write {
        /// Piece by piece.
        data: Vec<Bytes>,
        /// The memory is someone else's after the request: what is kept is a copy.
        is_lent: bool,
    },
    Zero,
}

impl Change {
    /// Sends it on a connection, and waits for the answer.
    pub(crate) fn send(
        &self,
        connection: &mut Connection,
        range: &Range<u64>,
        server: ServerFeatures,
        flush: Flush,
    ) -> imageio_client::Result<()> {
        let (offset, len) = (range.start, range.end - range.start);
        match self {
            Self::Write { data, .. } => connection.write(offset, data.iter().cloned(), flush),
            Self::Zero if server.zero => connection.zero(offset, len, flush),
            Self::Zero => connection.write_zeroes(offset, len, flush),
        }
    }

    /// Tells what sending the change counts as.
    pub(crate) fn exchange(&self, purpose: Purpose, range: &Range<u64>, server: ServerFeatures) -> Exchange {
        let kind = match self {
            Self::Zero if server.zero => Kind::Zero,
            Self::Write { .. } | Self::Zero => Kind::Write,
        };
        Exchange { purpose, kind, bytes: range.end - range.start }
    }

    /// The memory that keeping it takes, in bytes. Buffers have powers of two.
    pub(crate) fn memory(&self) -> u64 {
        let of_piece = |piece: &Bytes| LEAST_KEPT.max((piece.len() as u64).next_power_of_two());
        match self {
            Self::Write { data, .. } => data.iter().map(of_piece).sum(),
            Self::Zero => LEAST_KEPT,
        }
    }

    /// Returns the parts of the change at `range`.
    pub(crate) fn parts(&self, range: &Range<u64>, tracker: &Tracker) -> Vec<Part> {
        let Self::Write { data, .. } = self else { return vec![Part::zeroes(range.clone())] };
        let mut end = range.start;
        let parts = data.iter().map(|piece| {
            let start = end;
            end += piece.len() as u64;
            tracker.part(start..end, piece)
        });
        parts.collect()
    }

    /// Its content at `range`, piece by piece, to be kept.
    pub(crate) fn content(&self, range: &Range<u64>, tracker: &Tracker) -> Vec<(u64, Content)> {
        match self {
            Self::Write { data, is_lent } => {
                let keep = |piece: &Bytes| if *is_lent { tracker.copy(piece) } else { piece.clone() };
                data.iter().map(|piece| (piece.len() as u64, Content::Data(keep(piece)))).collect()
            }
            Self::Zero => vec![(range.end - range.start, Content::Zeroes)],
        }
    }

    /// The steps in which it is carried out, each of `longest` bytes at most. No two of them share
    /// a block.
    pub(crate) fn steps(self, range: Range<u64>, longest: u64) -> impl Iterator<Item = (Range<u64>, Self)> {
        let mut rest = self;
        let mut at = range.start;
        std::iter::from_fn(move || {
            let step = at..piece_end(&(at..range.end), longest);
            at = step.end;
            (!step.is_empty()).then(|| {
                let change = rest.take_front(step.end - step.start, step.end == range.end);
                (step, change)
            })
        })
    }

    /// Takes the first `len` bytes of it, which are there; all that is left if they are the last.
    fn take_front(&mut self, len: u64, is_last: bool) -> Self {
        match self {
            Self::Write { data, is_lent } if is_last => {
                Self::Write { data: std::mem::take(data), is_lent: *is_lent }
            }
            Self::Write { data, is_lent } => Self::Write { data: split_front(data, len), is_lent: *is_lent },
            Self::Zero => Self::Zero,
        }
    }
}

impl From<Pieces> for Change {
    /// Makes a change of what was kept.
    fn from(content: Pieces) -> Self {
        match content {
            Pieces::Data(data) => Self::Write { data, is_lent: false },
            Pieces::Zeroes => Self::Zero,
        }
    }
}

/// Takes the first `len` bytes.
fn split_front(data: &mut Vec<Bytes>, len: u64) -> Vec<Bytes> {
    let mut missing = len;
    // A piece's length fits in usize, and so does what is missing of it.
    let whole = data.iter().take_while(|piece| {
        let fits = piece.len() as u64 <= missing;
        missing -= if fits { piece.len() as u64 } else { 0 };
        fits
    });
    let whole = whole.count();
    let mut front: Vec<_> = data.drain(..whole).collect();
    if missing > 0
        && let Some(piece) = data.first_mut()
    {
        front.push(piece.split_to(missing as usize));
    }
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cut_pieces_where_they_have_to() {
        let data = ["abc", "d", "efghij", "k"].map(Bytes::from).to_vec();
        let steps = Change::Write { data, is_lent: false }.steps(100..111, 4);
        let steps: Vec<_> = steps
            .map(|(range, change)| match change {
                Change::Write { data, .. } => (range, data.concat()),
                Change::Zero => panic!("it writes"),
            })
            .collect();
        let expected = [(100..104, b"abcd".to_vec()), (104..108, b"efgh".into()), (108..111, b"ijk".into())];
        assert_eq!(steps, expected);
        assert_eq!(Change::Zero.steps(5..5, 4).count(), 0);
        let zeroes: Vec<_> = Change::Zero.steps(5..12, 4).map(|(range, _)| range).collect();
        assert_eq!(zeroes, [5..9, 9..12]);
    }

    #[test]
    fn what_is_kept_counts_the_memory_that_it_takes() {
        let of =
            |len: usize| Change::Write { data: vec![Bytes::from(vec![0; len])], is_lent: false }.memory();
        assert_eq!([of(1), of(4096), of(4097), of(100_000)], [4096, 4096, 8192, 131_072]);
        assert_eq!(Change::Zero.memory(), 4096);
    }
}
