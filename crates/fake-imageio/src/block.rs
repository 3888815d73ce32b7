// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes of a block device, which is written in whole blocks. Where a change begins or ends
//! inside of one, that block is read, changed and written back, and nothing keeps others from
//! writing to it meanwhile.

use std::io;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::backend::Disk;
use crate::volatile_cache::Change;

/// The number of turns that others get between reading a block and writing it back.
pub(crate) const TURNS: usize = 8;

/// A part of a change that is written at once.
#[derive(Debug)]
pub(crate) struct Piece {
    offset: u64,
    change: Change,
    /// The block that it is written with, where it doesn't fill whole ones.
    block: Option<Range<u64>>,
}

impl Piece {
    /// Returns true if a block has to be read for it.
    pub(crate) fn is_edge(&self) -> bool {
        self.block.is_some()
    }

    /// Reads the rest of its block, and returns what is to be written, and where.
    pub(crate) fn read(self, disk: &Disk) -> io::Result<(u64, Change)> {
        let Some(block) = self.block else { return Ok((self.offset, self.change)) };
        // A block's length fits in usize.
        let mut whole = vec![0; (block.end - block.start) as usize];
        disk.read(block.start, &mut whole)?;
        let start = (self.offset - block.start) as usize;
        let part = &mut whole[start..start + self.change.len() as usize];
        match &self.change {
            Change::Data(data) => part.copy_from_slice(data),
            Change::Zeroes(_) => part.fill(0),
        }
        Ok((block.start, Change::Data(whole.into())))
    }
}

/// The pieces of a change, in the order in which they are written; one, where there are no blocks.
pub(crate) fn pieces(offset: u64, change: &Change, block_size: Option<u64>, disk_size: u64) -> Vec<Piece> {
    let end = offset + change.len();
    let mut pieces = Vec::new();
    let mut at = offset;
    while at < end {
        let (next, block) = match block_size {
            None => (end, None),
            Some(size) if at.is_multiple_of(size) && end - at >= size => (end - end % size, None),
            Some(size) => {
                let start = at - at % size;
                (end.min(start + size), Some(start..disk_size.min(start + size)))
            }
        };
        pieces.push(Piece { offset: at, change: change.part(at - offset..next - offset), block });
        at = next;
    }
    pieces
}

/// Puts a body together that comes in pieces of any length, so that only its ends are inside of a
/// block.
#[derive(Debug)]
pub(crate) struct Body {
    block_size: Option<u64>,
    offset: u64,
    rest: BytesMut,
}

impl Body {
    pub(crate) fn new(offset: u64, block_size: Option<u64>) -> Self {
        Self { block_size, offset, rest: BytesMut::new() }
    }

    /// Takes in what came, and gives what can be written now, and where.
    pub(crate) fn add(&mut self, data: Bytes) -> (u64, Bytes) {
        let Some(size) = self.block_size else { return self.next(data) };
        self.rest.extend_from_slice(&data);
        let end = self.offset + self.rest.len() as u64;
        let whole = (end - end % size).saturating_sub(self.offset);
        // It is a part of what is in memory.
        let data = self.rest.split_to(whole as usize).freeze();
        self.next(data)
    }

    /// Returns the rest at the end of the body, and its offset.
    pub(crate) fn end(mut self) -> (u64, Bytes) {
        let rest = self.rest.split().freeze();
        self.next(rest)
    }

    fn next(&mut self, data: Bytes) -> (u64, Bytes) {
        let offset = self.offset;
        self.offset += data.len() as u64;
        (offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;

    fn written(offset: u64, len: u64, block_size: Option<u64>) -> Vec<(u64, u64)> {
        let disk = Disk::open(&Backend::Memory, Some(30)).unwrap();
        let pieces = pieces(offset, &Change::Zeroes(len), block_size, disk.size());
        pieces
            .into_iter()
            .map(|piece| piece.read(&disk).unwrap())
            .map(|(offset, change)| (offset, change.len()))
            .collect()
    }

    #[test]
    fn only_the_ends_of_a_change_are_written_with_the_rest_of_their_block() {
        assert_eq!(written(3, 20, None), [(3, 20)]);
        assert_eq!(written(8, 16, Some(8)), [(8, 16)]);
        assert_eq!(written(3, 20, Some(8)), [(0, 8), (8, 8), (16, 8)]);
        assert_eq!(written(9, 3, Some(8)), [(8, 8)]);
        // The disk ends inside of its last block.
        assert_eq!(written(16, 14, Some(8)), [(16, 8), (24, 6)]);
    }

    #[test]
    fn a_block_keeps_what_was_beside_the_change() {
        let disk = Disk::open(&Backend::Memory, Some(8)).unwrap();
        disk.write(0, b"abcdefgh").unwrap();
        let change = Change::Data(Bytes::from_static(b"XY"));
        let piece = pieces(3, &change, Some(8), 8).remove(0);
        assert!(piece.is_edge());
        let (offset, block) = piece.read(&disk).unwrap();
        assert!(offset == 0 && matches!(block, Change::Data(data) if &*data == b"abcXYfgh"));
    }

    #[test]
    fn a_body_in_pieces_is_written_up_to_the_last_whole_block() {
        let mut body = Body::new(6, Some(4));
        let written = [&b"ab"[..], b"c", b"defgh", b"i"].map(|data| body.add(Bytes::from_static(data)));
        let expected = [(6, &b"ab"[..]), (8, b""), (8, b"cdef"), (12, b"")];
        assert_eq!(written, expected.map(|(at, data)| (at, Bytes::from_static(data))));
        assert_eq!(body.end(), (12, Bytes::from_static(b"ghi")));
    }
}
