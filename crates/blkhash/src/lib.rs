// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checksum that imageio computes of a disk: a hash over the hashes of its blocks, in their order. The last block may be
//! shorter. A block of zeroes is hashed as one, so that it makes no difference how a disk stores it.
//!
//! Source: `GET …/checksum` in imageio's documentation of its `images` resource, and what its daemon 2.5 answers.

mod algorithm;
mod image;
mod pipeline;

pub use algorithm::Algorithm;

use std::fs::File;
use std::io::{self, Read};

use image::{FileBlocks, StreamBlocks};

/// How long blocks are if nothing else is asked for, in bytes: imageio's default.
pub const DEFAULT_BLOCK_SIZE: u64 = 4 << 20;

/// Why there is no checksum.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image can't be read.
    #[error("cannot read the image: {0}")]
    Read(#[from] io::Error),
    /// The image has ended before its size.
    #[error("the image has become shorter than its {0} bytes")]
    Shorter(u64),
    /// The image goes on behind its size.
    #[error("the image has become longer than its {0} bytes")]
    Longer(u64),
}

/// A kind of checksum.
#[derive(Debug, Clone, Copy)]
pub struct Blkhash {
    algorithm: Algorithm,
    /// In bytes.
    block_size: usize,
}

impl Blkhash {
    /// With blocks of `block_size` bytes, which is at least 1.
    ///
    /// # Panics
    /// If `block_size` is 0, or not a length in memory.
    #[must_use]
    pub fn new(algorithm: Algorithm, block_size: u64) -> Self {
        let block_size = usize::try_from(block_size).expect("a block fits into memory");
        assert!(block_size > 0, "blocks have a length");
        Self { algorithm, block_size }
    }

    /// The checksum of a file or block device, in hexadecimal digits. `progress` is told how many bytes are done.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::Shorter`] if the file is cut meanwhile.
    pub fn of_file(self, file: &File, progress: &dyn Fn(u64)) -> Result<String, Error> {
        let blocks = FileBlocks::new(file, self.block_size)?;
        pipeline::run(self, Some(file), blocks, progress)
    }

    /// The checksum of what `input` gives until its end: `size` bytes.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Shorter`] or [`Error::Longer`].
    pub fn of_stream(
        self,
        input: impl Read + Send,
        size: u64,
        progress: &dyn Fn(u64),
    ) -> Result<String, Error> {
        pipeline::run(self, None, StreamBlocks::new(input, size, self.block_size), progress)
    }
}

#[cfg(test)]
mod tests;
