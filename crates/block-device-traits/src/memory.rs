// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device in memory, for tests.

use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use crate::extents::no_context;
use crate::{
    ALLOCATION, BlockDevice, BlockSize, Capabilities, Errno, Error, Extent, HOLE, Result, ZERO, ZeroFlags,
};

/// A disk in memory that can do everything.
#[derive(Debug)]
pub struct MemoryDevice {
    data: RwLock<Vec<u8>>,
    size: u64,
    capabilities: Capabilities,
    contexts: Vec<String>,
}

/// The size in bytes of the blocks whose extents are told as zero or as data.
const BLOCK: u64 = 4096;

impl MemoryDevice {
    /// A disk of `size` zero bytes.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self::from_bytes(vec![0; size])
    }

    /// A disk that holds `data`.
    #[must_use]
    pub fn from_bytes(data: Vec<u8>) -> Self {
        let capabilities = Capabilities {
            read_only: false,
            flush: true,
            fua: true,
            trim: true,
            fast_zero: true,
            multi_conn: true,
            block_size: BlockSize::default(),
        };
        let contexts = vec![ALLOCATION.to_owned()];
        Self { size: data.len() as u64, data: RwLock::new(data), capabilities, contexts }
    }

    /// Gives the disk other capabilities; `read_only` is enforced.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// A copy of what the disk holds.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        self.data.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn range(&self, offset: u64, len: u64, errno: Errno) -> Result<std::ops::Range<usize>> {
        match offset.checked_add(len) {
            // The end fits in usize, because the vector's length does.
            Some(end) if end <= self.size => Ok(offset as usize..end as usize),
            _ => Err(Error::new(errno, format!("{len} bytes at {offset} end past the disk's {}", self.size))),
        }
    }

    fn modify(&self, offset: u64, len: u64, change: impl FnOnce(&mut [u8])) -> Result<()> {
        if self.capabilities.read_only {
            return Err(Error::new(Errno::Perm, "the disk is read-only"));
        }
        let range = self.range(offset, len, Errno::NoSpc)?;
        change(&mut self.data.write().unwrap_or_else(PoisonError::into_inner)[range]);
        Ok(())
    }
}

impl BlockDevice for MemoryDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let range = self.range(offset, buf.len() as u64, Errno::Inval)?;
        buf.copy_from_slice(&self.data.read().unwrap_or_else(PoisonError::into_inner)[range]);
        Ok(())
    }

    fn write(&self, offset: u64, data: Bytes, _fua: bool) -> Result<()> {
        self.modify(offset, data.len() as u64, |range| range.copy_from_slice(&data))
    }

    fn zero(&self, offset: u64, len: u64, _flags: ZeroFlags) -> Result<()> {
        self.modify(offset, len, |range| range.fill(0))
    }

    fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<()> {
        self.zero(offset, len, ZeroFlags { fua, ..ZeroFlags::default() })
    }

    fn contexts(&self) -> &[String] {
        &self.contexts
    }

    /// Blocks of zeroes are holes.
    fn extents(&self, context: usize, offset: u64, len: u64, limit: usize) -> Result<Vec<Extent>> {
        if context > 0 {
            return Err(no_context(context));
        }
        self.range(offset, len, Errno::Inval)?;
        let data = self.data.read().unwrap_or_else(PoisonError::into_inner);
        let mut extents: Vec<Extent> = Vec::new();
        let mut start = offset;
        while start < offset + len {
            let end = (start - start % BLOCK + BLOCK).min(self.size);
            let is_zero = data[start as usize..end as usize].iter().all(|byte| *byte == 0);
            let (length, status) = (end - start, if is_zero { HOLE | ZERO } else { 0 });
            let is_full = extents.len() == limit;
            match extents.last_mut() {
                Some(last) if last.status == status => last.length += length,
                _ if is_full => break,
                _ => extents.push(Extent { length, status }),
            }
            start = end;
        }
        Ok(extents)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_zeroed_is_zero() {
        let disk = MemoryDevice::new(16);
        disk.write(4, Bytes::from_static(b"abcdef"), false).unwrap();
        disk.zero(6, 2, ZeroFlags::default()).unwrap();
        disk.trim(9, 1, false).unwrap();
        let mut buf = [1; 8];
        disk.read(3, &mut buf).unwrap();
        assert_eq!(&buf, b"\0ab\0\0e\0\0");
    }

    #[test]
    fn a_range_past_the_end_changes_nothing() {
        let disk = MemoryDevice::new(4);
        let error = disk.write(2, Bytes::from_static(b"xyz"), false).unwrap_err();
        assert_eq!(error.errno(), Errno::NoSpc);
        assert_eq!(disk.read(u64::MAX, &mut [0]).unwrap_err().errno(), Errno::Inval);
        assert_eq!(disk.contents(), [0; 4]);
    }

    #[test]
    fn a_read_only_disk_refuses_writes() {
        let caps = Capabilities { read_only: true, ..MemoryDevice::new(0).capabilities() };
        let disk = MemoryDevice::new(4).with_capabilities(caps);
        assert_eq!(disk.zero(0, 1, ZeroFlags::default()).unwrap_err().errno(), Errno::Perm);
    }

    #[test]
    fn blocks_of_zeroes_are_holes() {
        let disk = MemoryDevice::new(5 * BLOCK as usize + 1);
        disk.write(BLOCK + 7, Bytes::from_static(b"x"), false).unwrap();
        let extents = |offset, len, limit| {
            let extents = disk.extents(0, offset, len, limit).unwrap();
            extents.into_iter().map(|extent| (extent.length, extent.status)).collect::<Vec<_>>()
        };
        let (hole, data) = (HOLE | ZERO, 0);
        let all = 5 * BLOCK + 1;
        assert_eq!(extents(0, all, 9), [(BLOCK, hole), (BLOCK, data), (3 * BLOCK + 1, hole)]);
        assert_eq!(extents(0, all, 1), [(BLOCK, hole)]);
        assert_eq!(extents(BLOCK - 1, 3, 9), [(1, hole), (BLOCK, data)]);
        assert_eq!(extents(BLOCK + 8, 1, 9), [(BLOCK - 8, hole)], "the byte is before it");
        assert_eq!(disk.extents(0, all, 1, 9).unwrap_err().errno(), Errno::Inval);
        assert_eq!(disk.extents(1, 0, 1, 9).unwrap_err().errno(), Errno::Inval);
    }
}
