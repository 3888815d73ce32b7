// SPDX-License-Identifier: MIT OR Apache-2.0
//! Information about the ranges of a disk: metadata contexts and their extents (`doc/proto.md`,
//! 'Metadata querying').

use crate::{Errno, Error};

/// The context that tells which ranges are allocated, and which read as zeroes. Its status is a sum
/// of [`HOLE`] and [`ZERO`].
pub const ALLOCATION: &str = "base:allocation";

/// Status of [`ALLOCATION`]: the range is not allocated. What is read there is only known with
/// [`ZERO`].
pub const HOLE: u64 = 1;

/// Status of [`ALLOCATION`]: the range reads as zeroes.
pub const ZERO: u64 = 2;

/// A range with one status. It begins where the extent before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// In bytes, and not 0.
    pub length: u64,
    /// The status that its context gives to the range, in the context's own numbers.
    pub status: u64,
}

pub(crate) fn no_context(context: usize) -> Error {
    Error::new(Errno::Inval, format!("the device has no metadata context {context}"))
}
