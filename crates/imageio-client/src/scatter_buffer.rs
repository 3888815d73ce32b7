// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several buffers, filled one after another.

/// The buffers that are still to be filled.
pub(crate) struct ScatterBuffer<'a, 'b> {
    bufs: &'a mut [&'b mut [u8]],
    /// The number of bytes of the first buffer that are filled.
    filled: usize,
}

impl<'a, 'b> ScatterBuffer<'a, 'b> {
    pub(crate) fn new(bufs: &'a mut [&'b mut [u8]]) -> Self {
        Self { bufs, filled: 0 }
    }

    /// Puts data there, as far as there is room. False if some is left over.
    pub(crate) fn put(&mut self, mut data: &[u8]) -> bool {
        while !data.is_empty()
            && let Some(free) = self.free()
        {
            let (now, later) = data.split_at(data.len().min(free.len()));
            free[..now.len()].copy_from_slice(now);
            let n = now.len();
            self.advance(n);
            data = later;
        }
        data.is_empty()
    }

    /// Returns the part that is filled next, unless all is filled.
    pub(crate) fn free(&mut self) -> Option<&mut [u8]> {
        self.advance(0);
        self.bufs.first_mut().map(|first| &mut first[self.filled..])
    }

    /// Notes that `n` bytes of what is [free](Self::free) have been filled.
    pub(crate) fn advance(&mut self, n: usize) {
        self.filled += n;
        while self.bufs.first().is_some_and(|first| first.len() == self.filled) {
            self.bufs = &mut std::mem::take(&mut self.bufs)[1..];
            self.filled = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_fill_buffers_of_any_size() {
        let (mut a, mut b, mut c) = ([0; 3], [0; 0], [0; 5]);
        let mut bufs = [&mut a[..], &mut b[..], &mut c[..]];
        let mut buffer = ScatterBuffer::new(&mut bufs);
        let fits = [&b"ab"[..], b"", b"cde", b"fghi"].map(|piece| buffer.put(piece));
        assert_eq!(fits, [true, true, true, false]);
        assert!(buffer.free().is_none());
        assert_eq!((&a, &c), (b"abc", b"defgh"));
    }
}
