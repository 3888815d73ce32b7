// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hashing blocks by all processors, and their hashes in order.
//!
//! One thread gives out blocks; for each, a channel for its hash stands in line. Workers hash them
//! as they can, and the caller takes the hashes from that line. Both the blocks that wait and the
//! line are bounded.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::image::{Block, shorter};
use crate::{Blkhash, Error};

/// More would wait for storage.
const MOST_WORKERS: usize = 16;

/// The number of hashes that may be in line for each worker.
const LINE: usize = 4;

/// The hash of a block, and its length in bytes.
type Hashed = Result<(Box<[u8]>, usize), Error>;

/// A block, and where its hash goes.
type Task = (Block, Sender<Hashed>);

/// The checksum of an image of these blocks; those that are in a file are in `file`.
pub(crate) fn run(
    blkhash: Blkhash,
    file: Option<&File>,
    blocks: impl Iterator<Item = Result<Block, Error>> + Send,
    progress: &dyn Fn(u64),
) -> Result<String, Error> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
    let (tasks, waiting) = bounded(1);
    let (line, hashes) = bounded(LINE * workers);
    let worker = Worker { blkhash, file, zeroes: blkhash.algorithm.hash(&vec![0; blkhash.block_size]) };
    let worker = &worker;
    thread::scope(|scope| {
        for n in 0..workers {
            let waiting = waiting.clone();
            let thread = thread::Builder::new().name(format!("hash-{n}"));
            thread.spawn_scoped(scope, move || worker.run(&waiting))?;
        }
        drop(waiting);
        let feeder = thread::Builder::new().name("blocks".into());
        feeder.spawn_scoped(scope, move || give_out(blocks, &tasks, &line))?;
        collect(blkhash, hashes, progress)
    })
}

/// Ends when the blocks do, or when nobody wants their hashes any more.
fn give_out(
    blocks: impl Iterator<Item = Result<Block, Error>>,
    tasks: &Sender<Task>,
    line: &Sender<Receiver<Hashed>>,
) {
    for block in blocks {
        let (sender, hash) = bounded(1);
        let is_wanted = line.send(hash).is_ok();
        let is_taken = match block {
            Ok(block) => tasks.send((block, sender)).is_ok(),
            Err(error) => sender.send(Err(error)).is_ok(),
        };
        if !is_wanted || !is_taken {
            return;
        }
    }
}

/// Collects the hashes in the order of the blocks. If one of them has failed, the line is dropped,
/// which ends the others.
fn collect(
    blkhash: Blkhash,
    hashes: Receiver<Receiver<Hashed>>,
    progress: &dyn Fn(u64),
) -> Result<String, Error> {
    let (mut outer, mut done) = (blkhash.algorithm.hasher(), 0);
    for hash in hashes {
        let (hash, len) = hash.recv().expect("each block is hashed, or its worker has panicked")?;
        outer.update(&hash);
        done += len as u64;
        progress(done);
    }
    Ok(outer.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct Worker<'f> {
    blkhash: Blkhash,
    file: Option<&'f File>,
    /// The hash of a whole block of zeroes.
    zeroes: Box<[u8]>,
}

impl Worker<'_> {
    fn run(&self, tasks: &Receiver<Task>) {
        let mut buffer = vec![0; self.blkhash.block_size];
        for (block, sender) in tasks {
            let hashed = self.hash(&block, &mut buffer).map(|hash| (hash, block.len()));
            // Nobody wants it where another block has failed.
            let _ = sender.send(hashed);
        }
    }

    fn hash(&self, block: &Block, buffer: &mut [u8]) -> Result<Box<[u8]>, Error> {
        match *block {
            Block::Zeroes(len) if len == self.blkhash.block_size => Ok(self.zeroes.clone()),
            Block::Zeroes(len) => Ok(self.hash_bytes(&vec![0; len])),
            Block::Data(ref data) => Ok(self.hash_bytes(data)),
            Block::InFile { offset, len } => {
                let buffer = &mut buffer[..len];
                let file = self.file.expect("blocks that are in a file come with it");
                file.read_exact_at(buffer, offset).map_err(|error| shorter(error, offset + len as u64))?;
                Ok(self.hash_bytes(buffer))
            }
        }
    }

    fn hash_bytes(&self, data: &[u8]) -> Box<[u8]> {
        if data.len() == self.blkhash.block_size && is_zero(data) {
            return self.zeroes.clone();
        }
        self.blkhash.algorithm.hash(data)
    }
}

/// In pieces of a size that the compiler makes use of vector instructions for; most data ends it
/// with the first one.
fn is_zero(data: &[u8]) -> bool {
    let pieces = data.chunks_exact(64);
    let is_rest_zero = pieces.remainder().iter().all(|byte| *byte == 0);
    is_rest_zero && data.chunks_exact(64).all(|piece| piece.iter().fold(0, |any, byte| any | byte) == 0)
}
