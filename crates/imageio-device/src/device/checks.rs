// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which requests are possible, and the errors with which others are refused.

use block_device_traits::{Errno, Error, Result, ZeroFlags};

use super::{Device, Question};

impl Device {
    pub(crate) fn check_read(&self, offset: u64, len: u64) -> Result<()> {
        self.check_range(offset, len, Errno::Inval)
    }

    pub(crate) fn check_write(&self, offset: u64, len: u64) -> Result<()> {
        if self.capabilities.read_only {
            return Err(Error::new(Errno::Perm, "the disk is read-only"));
        }
        self.check_range(offset, len, Errno::NoSpc)
    }

    pub(crate) fn check_zero(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.check_write(offset, len)?;
        let is_zero = || self.common.tracker.without_zeroes(offset..offset + len).is_empty();
        if flags.fast && (self.is_written(flags) || !is_zero()) {
            return Err(Error::new(Errno::NotSup, "zeroing may be as slow as writing"));
        }
        Ok(())
    }

    pub(crate) fn check_extents(
        &self,
        context: usize,
        offset: u64,
        len: u64,
        limit: usize,
    ) -> Result<Question> {
        self.check_range(offset, len, Errno::Inval)?;
        if len == 0 || limit == 0 {
            return Err(Error::new(Errno::Inval, "no extents are asked for"));
        }
        let unknown = || Error::new(Errno::Inval, format!("the disk has no metadata context {context}"));
        let view = self.extents.view(context).ok_or_else(unknown)?;
        Ok(Question { view, range: offset..offset + len, limit })
    }

    fn check_range(&self, offset: u64, len: u64, errno: Errno) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::new(errno, format!("{len} bytes at {offset} end past the disk's {}", self.size))),
        }
    }
}
