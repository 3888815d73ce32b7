// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checksum that oVirt's imageio server computes of a disk, of a local image: a hash over the
//! hashes of the image's blocks, in their order. If both checksums are the same, the disk and the
//! image are the same, and neither had to be moved.
//!
//! ```
//! use blkhash::{Algorithm, Blkhash};
//!
//! let blkhash = Blkhash::new(Algorithm::default(), blkhash::DEFAULT_BLOCK_SIZE);
//! let image = vec![0; 10_000];
//! let checksum = blkhash.of_stream(&image[..], image.len() as u64, &|_bytes_done| {})?;
//! assert_eq!(checksum.len(), 64);
//! # Ok::<(), blkhash::Error>(())
//! ```
//!
//! The last block may be shorter than the others. A block of zeroes is hashed as one, so it makes
//! no difference how a disk stores it. The definition is that of `GET …/checksum` in imageio's
//! documentation of its `images` resource, as its daemon 2.5 answers it.
//!
//! # Why this way
//!
//! The hash of each block is independent of the others, so all processors compute hashes while one
//! thread reads. Holes of a file are not read: the system tells where they are. The checksum is of
//! the disk's content, so a compressed or sparse image format has to be read through something that
//! knows it, such as `qemu-img`, and comes here as a stream.
//!
//! # Threads and lifecycle
//!
//! [`Blkhash`] is a small value that says what to compute. A call starts its threads, and ends them
//! before it returns. The callback for the progress is called by the thread that asks for the
//! checksum.
//!
//! # Errors
//!
//! [`Error`] says whether the image can't be read, or is shorter or longer than its size. After an
//! error there is no checksum of a part.

mod algorithm;
mod image;
mod pipeline;

pub use algorithm::Algorithm;

use std::fs::File;
use std::io::{self, Read};

use image::{FileBlocks, StreamBlocks};

/// The length of blocks in bytes if nothing else is asked for: imageio's default.
pub const DEFAULT_BLOCK_SIZE: u64 = 4 << 20;

/// Why there is no checksum.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image can't be read.
    #[error("cannot read the image")]
    Read(#[from] io::Error),
    /// The image has ended before its size.
    #[error("the image ends before its {0} bytes")]
    Shorter(u64),
    /// The image goes on behind its size.
    #[error("the image goes on behind its {0} bytes")]
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

    /// The checksum of a file or block device, in hexadecimal digits. `progress` is told how many
    /// bytes are done.
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

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Blkhash>();
    is_send_and_sync::<Algorithm>();
    is_send_and_sync::<Error>();
};

#[cfg(test)]
mod tests;
