// SPDX-License-Identifier: MIT OR Apache-2.0
//! Long writes of threads that wait: a part of a block at either end has a request of its own.
//! Those that come through a [`Queue`](crate::Queue) are in pieces already.

use block_device_traits::{Result, has_loose_ends, write_pieces};
use bytes::Bytes;

/// Calls `write` for each piece of the data, of `longest` bytes at most, with its offset in bytes.
/// The first failure is told when all have been tried, as what is missing would be unknown
/// otherwise. A write without parts of blocks is one piece, and so is one that is to be durable at
/// once.
pub(crate) fn in_pieces(
    offset: u64,
    data: Bytes,
    fua: bool,
    longest: u64,
    write: impl Fn(u64, Bytes) -> Result<()>,
) -> Result<()> {
    let range = offset..offset + data.len() as u64;
    if fua || !has_loose_ends(&range) {
        return write(offset, data);
    }
    let (mut rest, mut outcome) = (data, Ok(()));
    for piece in write_pieces(range, longest) {
        // It is in memory.
        let part = rest.split_to((piece.end - piece.start) as usize);
        outcome = outcome.and(write(piece.start, part));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use block_device_traits::{Errno, Error};

    use super::*;

    #[test]
    fn each_piece_is_tried_and_the_first_failure_told() {
        let data: Bytes = (0..1 << 20).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
        let written = RefCell::new(Vec::new());
        let write = |offset, part: Bytes| {
            written.borrow_mut().push((offset, part));
            match offset {
                512 => Err(Error::new(Errno::NoSpc, "full")),
                4096 => Err(Error::new(Errno::Io, "this one is not told")),
                _ => Ok(()),
            }
        };
        assert_eq!(in_pieces(512, data.clone(), false, u64::MAX, write).unwrap_err().errno(), Errno::NoSpc);
        let offsets: Vec<_> = written.borrow().iter().map(|(offset, part)| (*offset, part.len())).collect();
        assert_eq!(offsets, [(512, 3584), (4096, (1 << 20) - 4096), (1 << 20, 512)]);
        let parts: Vec<_> = written.take().into_iter().map(|(_, part)| part).collect();
        assert!(parts.concat() == data);

        for (offset, fua) in [(512, true), (4096, false)] {
            in_pieces(offset, data.clone(), fua, 4096, |at, part| {
                assert!((at, &part) == (offset, &data));
                Ok(())
            })
            .unwrap();
        }
    }
}
