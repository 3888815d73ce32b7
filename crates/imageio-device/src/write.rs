// SPDX-License-Identifier: MIT OR Apache-2.0
//! Long writes of threads that wait: a part of a block at either end has a request of its own.
//! Those that come through a [`Queue`](crate::Queue) are in pieces already.

use std::ops::Range;

use block_device_traits::{Error, Result, has_loose_ends, write_pieces};
use bytes::Bytes;

/// Calls `write` for each piece of the data, of `longest` bytes at most, with its offset in bytes.
/// A piece that fails is the last one, and `missing` is told what is behind it, and why. A write
/// without parts of blocks is one piece, and so is one that is to be durable at once.
pub(crate) fn in_pieces(
    offset: u64,
    data: Bytes,
    fua: bool,
    longest: u64,
    missing: impl Fn(Range<u64>, &Error),
    write: impl Fn(u64, Bytes) -> Result<()>,
) -> Result<()> {
    let range = offset..offset + data.len() as u64;
    if fua || !has_loose_ends(&range) {
        return write(offset, data);
    }
    let mut rest = data;
    for piece in write_pieces(range.clone(), longest) {
        // A piece is no longer than the data, whose length is a usize.
        let part = rest.split_to((piece.end - piece.start) as usize);
        write(piece.start, part).inspect_err(|error| missing(piece.end..range.end, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use block_device_traits::Errno;

    use super::*;

    /// Returns 1 MiB of data.
    fn data() -> Bytes {
        (0..1 << 20).map(|i| (i % 251) as u8).collect::<Vec<_>>().into()
    }

    #[test]
    fn parts_of_blocks_are_written_apart_unless_all_is_to_be_durable() {
        let written = RefCell::new(Vec::new());
        let write = |offset, part: Bytes| {
            written.borrow_mut().push((offset, part));
            Ok(())
        };
        let nothing_is_missing = |range, error: &Error| panic!("{range:?}: {error}");
        in_pieces(512, data(), false, 1 << 20, nothing_is_missing, write).unwrap();
        let offsets: Vec<_> = written.borrow().iter().map(|(offset, part)| (*offset, part.len())).collect();
        assert_eq!(offsets, [(512, 3584), (4096, (1 << 20) - 4096), (1 << 20, 512)]);
        let parts: Vec<_> = written.take().into_iter().map(|(_, part)| part).collect();
        assert!(parts.concat() == data());
        for (offset, fua) in [(512, true), (4096, false)] {
            in_pieces(offset, data(), fua, 4096, nothing_is_missing, write).unwrap();
            assert!(written.take() == [(offset, data())]);
        }
    }

    #[test]
    fn a_piece_that_fails_is_the_last_and_the_rest_is_missing() {
        let full = |offset, _| match offset {
            4096 => Err(Error::new(Errno::NoSpc, "full")),
            offset => {
                assert_eq!(offset, 512);
                Ok(())
            }
        };
        let missing = RefCell::new(Vec::new());
        let is_missing = |range, error: &Error| missing.borrow_mut().push((range, error.errno()));
        let outcome = in_pieces(512, data(), false, 1 << 20, is_missing, full);
        assert_eq!(outcome.unwrap_err().errno(), Errno::NoSpc);
        let [rest] = &missing.take()[..] else { panic!("it is told once") };
        assert_eq!(*rest, (1 << 20..(1 << 20) + 512, Errno::NoSpc));
    }
}
