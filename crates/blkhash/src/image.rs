// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images, block by block.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::Error;

/// A block that is to be hashed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// The range reads as this number of zeroes.
    Zeroes(usize),
    /// These bytes.
    Data(Vec<u8>),
    /// The range is in the file, at this offset.
    InFile { offset: u64, len: usize },
}

impl Block {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Zeroes(len) | Self::InFile { len, .. } => *len,
            Self::Data(data) => data.len(),
        }
    }
}

/// The blocks of a file, of which those that are in holes aren't read.
pub(crate) struct FileBlocks<'f> {
    file: &'f File,
    size: u64,
    block_size: usize,
    at: u64,
    has_ended: bool,
    /// The first data that ends behind `at`; at the end of the file, if there is none.
    data: Range<u64>,
}

impl<'f> FileBlocks<'f> {
    pub(crate) fn new(file: &'f File, block_size: usize) -> io::Result<Self> {
        // Also that of a block device.
        let size = seek(file, SeekFrom::End(0))?;
        Ok(Self { file, size, block_size, at: 0, has_ended: false, data: 0..0 })
    }

    /// Looks for the next data.
    fn find_data(&self) -> io::Result<Range<u64>> {
        let start = match seek(self.file, SeekFrom::Data(self.at)) {
            // Nothing but a hole, unless the file ends before.
            Err(Errno::NXIO) if seek(self.file, SeekFrom::End(0))? < self.size => {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            Err(Errno::NXIO) => return Ok(self.size..u64::MAX),
            // A block device or a file system that knows nothing of holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(0..u64::MAX),
            start => start?,
        };
        Ok(start..seek(self.file, SeekFrom::Hole(start))?)
    }

    /// Returns an error if the file is not as long as it was. This is checked once, when all of it
    /// is done.
    fn check_end(&mut self) -> Option<Error> {
        if std::mem::replace(&mut self.has_ended, true) {
            return None;
        }
        match seek(self.file, SeekFrom::End(0)) {
            Ok(end) if end < self.size => Some(Error::Shorter(self.size)),
            Ok(end) if end > self.size => Some(Error::Longer(self.size)),
            Ok(_) => None,
            Err(error) => Some(io::Error::from(error).into()),
        }
    }
}

impl Iterator for FileBlocks<'_> {
    type Item = Result<Block, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.at;
        // The minimum with a length in memory is one.
        let len = (self.size - offset).min(self.block_size as u64) as usize;
        if len == 0 {
            return self.check_end().map(Err);
        }
        if self.data.end <= offset {
            match self.find_data() {
                Ok(data) => self.data = data,
                Err(error) => return Some(Err(shorter(error, self.size))),
            }
        }
        self.at += len as u64;
        let is_hole = self.at <= self.data.start;
        Some(Ok(if is_hole { Block::Zeroes(len) } else { Block::InFile { offset, len } }))
    }
}

/// The blocks of a stream.
pub(crate) struct StreamBlocks<R> {
    input: R,
    size: u64,
    block_size: usize,
    at: u64,
    has_ended: bool,
}

impl<R: Read> StreamBlocks<R> {
    pub(crate) fn new(input: R, size: u64, block_size: usize) -> Self {
        Self { input, size, block_size, at: 0, has_ended: false }
    }

    /// Nothing comes behind the last block.
    fn check_end(&mut self) -> Option<Error> {
        if std::mem::replace(&mut self.has_ended, true) {
            return None;
        }
        match self.input.by_ref().take(1).read_to_end(&mut Vec::new()) {
            Ok(0) => None,
            Ok(_) => Some(Error::Longer(self.size)),
            Err(error) => Some(error.into()),
        }
    }
}

impl<R: Read> Iterator for StreamBlocks<R> {
    type Item = Result<Block, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let len = (self.size - self.at).min(self.block_size as u64) as usize;
        if len == 0 {
            return self.check_end().map(Err);
        }
        let mut data = vec![0; len];
        if let Err(error) = self.input.read_exact(&mut data) {
            return Some(Err(shorter(error, self.size)));
        }
        self.at += len as u64;
        Some(Ok(Block::Data(data)))
    }
}

/// Returns the error of an image that can't be read up to `size`: often because it ends too early.
pub(crate) fn shorter(error: io::Error, size: u64) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => Error::Shorter(size),
        _ => error.into(),
    }
}
