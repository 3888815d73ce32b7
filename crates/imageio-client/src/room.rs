// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several buffers, filled one after another.

/// What is still to be filled.
pub(crate) struct Room<'a, 'b> {
    bufs: &'a mut [&'b mut [u8]],
    /// How much of the first is filled.
    filled: usize,
}

impl<'a, 'b> Room<'a, 'b> {
    pub(crate) fn new(bufs: &'a mut [&'b mut [u8]]) -> Self {
        Self { bufs, filled: 0 }
    }

    /// Puts data there, as far as there is room.
    pub(crate) fn put(&mut self, mut data: &[u8]) {
        while !data.is_empty() && !self.bufs.is_empty() {
            let free = &mut self.bufs[0][self.filled..];
            let (now, later) = data.split_at(data.len().min(free.len()));
            free[..now.len()].copy_from_slice(now);
            self.advance(now.len());
            data = later;
        }
    }

    fn advance(&mut self, n: usize) {
        self.filled += n;
        if self.filled == self.bufs[0].len() {
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
        let mut room = Room::new(&mut bufs);
        [&b"ab"[..], b"", b"cde", b"fghi"].into_iter().for_each(|piece| room.put(piece));
        assert_eq!((&a, &c), (b"abc", b"defgh"));
    }
}
