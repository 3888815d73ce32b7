// SPDX-License-Identifier: MIT OR Apache-2.0
//! nbdkit's list of extents, which a callback fills.

use block_device_traits::{Errno, Error, Extent, HOLE, ZERO};

use super::abi::{EXTENT_HOLE, EXTENT_ZERO, NbdkitExtents};

/// The list of one call.
pub(super) struct ExtentList(*mut NbdkitExtents);

impl ExtentList {
    /// # Safety
    /// `list` is nbdkit's, and nobody else uses it as long as this exists.
    pub(super) unsafe fn new(list: *mut NbdkitExtents) -> Self {
        Self(list)
    }

    /// Adds extents, of which the first begins at `offset` in bytes.
    ///
    /// # Errors
    /// [`Errno::NoMem`].
    pub(super) fn add_all(&self, offset: u64, extents: &[Extent]) -> Result<(), Error> {
        let mut at = offset;
        for extent in extents {
            if self.add(at, extent.length, extent_type(extent.status)) != 0 {
                return Err(Error::new(Errno::NoMem, "nbdkit has no room for extents"));
            }
            at += extent.length;
        }
        Ok(())
    }

    #[cfg(not(test))]
    fn add(&self, offset: u64, length: u64, extent_type: u32) -> std::ffi::c_int {
        // SAFETY: the list is valid and this one's alone, as `new` was promised. The rest are
        // numbers.
        unsafe { super::abi::nbdkit_add_extent(self.0, offset, length, extent_type) }
    }

    /// In unit tests, a `Vec` is in nbdkit's place.
    #[cfg(test)]
    fn add(&self, offset: u64, length: u64, extent_type: u32) -> std::ffi::c_int {
        // SAFETY: the tests pass such a vector, which nobody else uses meanwhile.
        unsafe { (*self.0.cast::<Vec<(u64, u64, u32)>>()).push((offset, length, extent_type)) };
        0
    }
}

/// NBD's status of `base:allocation` in nbdkit's words.
fn extent_type(status: u64) -> u32 {
    let word = |is_set: bool, word| if is_set { word } else { 0 };
    word(status & HOLE != 0, EXTENT_HOLE) | word(status & ZERO != 0, EXTENT_ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_extent_begins_where_the_last_one_ends() {
        let mut added: Vec<(u64, u64, u32)> = Vec::new();
        // SAFETY: in tests, the list is a vector.
        let list = unsafe { ExtentList::new((&raw mut added).cast()) };
        let extents = [(5, 0), (7, ZERO), (1, HOLE | ZERO)];
        let extents = extents.map(|(length, status)| Extent { length, status });
        list.add_all(100, &extents).unwrap();
        assert_eq!(added, [(100, 5, 0), (105, 7, 2), (112, 1, 3)]);
    }
}
