// SPDX-License-Identifier: MIT OR Apache-2.0
//! The storage of the disk's bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, SeekFrom};

/// Granularity of the memory backend and of extents, in bytes: a qcow2 image's default cluster.
pub(crate) const BLOCK: u64 = 64 << 10;

/// Longest piece of an answer's body, in bytes.
pub(crate) const CHUNK: u64 = 256 << 10;

static ZEROES: [u8; CHUNK as usize] = [0; CHUNK as usize];

/// The storage in which the server keeps data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// Memory, allocated as it is written: a disk may be larger than the machine.
    #[default]
    Memory,
    /// A sparse file, made if it is not there and extended to the size of the disk. Flush is
    /// `fdatasync`.
    File(PathBuf),
    /// Discards writes and reads zeroes without copying either: for benchmarks.
    Null,
}

/// A run of blocks of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) length: u64,
    pub(crate) zero: bool,
    pub(crate) hole: bool,
}

type Blocks = BTreeMap<u64, Box<[u8]>>;

#[derive(Debug)]
enum Storage {
    Memory(RwLock<Blocks>),
    File(File),
    Null,
}

/// A disk. Callers keep writes inside its size; reads past it give zeroes.
#[derive(Debug)]
pub(crate) struct Disk {
    storage: Storage,
    size: u64,
}

impl Disk {
    /// Opens a disk of `size` bytes, or of the size of the file.
    pub(crate) fn open(backend: &Backend, size: Option<u64>) -> io::Result<Self> {
        let unknown = || io::Error::new(io::ErrorKind::InvalidInput, "the disk needs a size");
        let (storage, size) = match backend {
            Backend::Memory => (Storage::Memory(RwLock::default()), size.ok_or_else(unknown)?),
            Backend::Null => (Storage::Null, size.ok_or_else(unknown)?),
            Backend::File(path) => {
                let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
                let found = file.metadata()?.len();
                let size = size.or((found > 0).then_some(found)).ok_or_else(unknown)?;
                if found < size {
                    file.set_len(size)?;
                }
                (Storage::File(file), size)
            }
        };
        Ok(Self { storage, size })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Some of the `len` bytes at `offset`, at most [`CHUNK`].
    pub(crate) fn chunk(&self, offset: u64, len: u64) -> io::Result<Bytes> {
        let len = len.min(CHUNK) as usize;
        if matches!(self.storage, Storage::Null) {
            return Ok(Bytes::from_static(&ZEROES[..len]));
        }
        let mut buf = vec![0; len];
        self.read(offset, &mut buf)?;
        Ok(Bytes::from(buf))
    }

    /// Fills `buf`, which is all zeroes, from `offset`.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        match &self.storage {
            Storage::Null => Ok(()),
            Storage::Memory(blocks) => {
                let blocks = blocks.read().unwrap_or_else(PoisonError::into_inner);
                pieces(offset, buf.len(), |block, inside, outside| {
                    if let Some(data) = blocks.get(&block) {
                        buf[outside].copy_from_slice(&data[inside]);
                    }
                });
                Ok(())
            }
            Storage::File(file) => match file.read_exact_at(buf, offset) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
                result => result,
            },
        }
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &self.storage {
            Storage::Null => {}
            Storage::Memory(blocks) => {
                let mut blocks = blocks.write().unwrap_or_else(PoisonError::into_inner);
                pieces(offset, data.len(), |block, inside, outside| {
                    let block = blocks.entry(block).or_insert_with(|| vec![0; BLOCK as usize].into());
                    block[inside].copy_from_slice(&data[outside]);
                });
            }
            Storage::File(file) => file.write_all_at(data, offset)?,
        }
        Ok(())
    }

    pub(crate) fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        match &self.storage {
            Storage::Memory(blocks) => {
                zero_blocks(&mut blocks.write().unwrap_or_else(PoisonError::into_inner), offset, len);
            }
            Storage::File(file) if len > 0 => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(file, flags, offset, len)?;
            }
            Storage::File(_) | Storage::Null => {}
        }
        Ok(())
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        match &self.storage {
            Storage::File(file) => file.sync_data(),
            Storage::Memory(_) | Storage::Null => Ok(()),
        }
    }

    /// The whole disk as runs, no two neighbours alike. Like qcow2, memory knows holes; like raw, a
    /// file does not.
    pub(crate) fn runs(&self) -> io::Result<Vec<Run>> {
        let mut runs = Runs { runs: Vec::new(), at: 0, size: self.size };
        match &self.storage {
            Storage::Null => runs.until(self.size, false, false),
            Storage::Memory(blocks) => {
                for (block, data) in blocks.read().unwrap_or_else(PoisonError::into_inner).iter() {
                    runs.until(block * BLOCK, true, true);
                    runs.until((block + 1) * BLOCK, is_zero(data), false);
                }
                runs.until(self.size, true, true);
            }
            Storage::File(file) => file_runs(file, &mut runs)?,
        }
        Ok(runs.runs)
    }
}

fn is_zero(data: &[u8]) -> bool {
    data.chunks(ZEROES.len()).all(|chunk| chunk == &ZEROES[..chunk.len()])
}

/// Calls `each(block, range inside the block, range of the buffer)` for the blocks of a range.
fn pieces(
    offset: u64,
    len: usize,
    mut each: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let start = (at % BLOCK) as usize;
        let count = (BLOCK as usize - start).min(len - done);
        each(at / BLOCK, start..start + count, done..done + count);
        done += count;
    }
}

fn zero_blocks(blocks: &mut Blocks, offset: u64, len: u64) {
    let end = offset + len;
    let touched: Vec<u64> =
        blocks.range(offset / BLOCK..end.div_ceil(BLOCK)).map(|(block, _)| *block).collect();
    for block in touched {
        let start = block * BLOCK;
        if offset <= start && start + BLOCK <= end {
            blocks.remove(&block);
        } else if let Some(data) = blocks.get_mut(&block) {
            let from = offset.saturating_sub(start).min(BLOCK) as usize;
            data[from..(end - start).min(BLOCK) as usize].fill(0);
        }
    }
}

fn file_runs(file: &File, runs: &mut Runs) -> io::Result<()> {
    let mut buf = vec![0; BLOCK as usize];
    while runs.at < runs.size {
        match rustix::fs::seek(file, SeekFrom::Data(runs.at)) {
            Ok(data) => runs.until(data / BLOCK * BLOCK, true, false),
            Err(rustix::io::Errno::NXIO) => runs.until(runs.size, true, false),
            Err(error) => return Err(error.into()),
        }
        if runs.at < runs.size {
            let len = BLOCK.min(runs.size - runs.at);
            file.read_exact_at(&mut buf[..len as usize], runs.at)?;
            runs.until(runs.at + len, is_zero(&buf[..len as usize]), false);
        }
    }
    Ok(())
}

/// Runs under construction: `at` is where the last one ends.
struct Runs {
    runs: Vec<Run>,
    at: u64,
    size: u64,
}

impl Runs {
    fn until(&mut self, end: u64, zero: bool, hole: bool) {
        let end = end.min(self.size);
        let Some(length) = end.checked_sub(self.at).filter(|length| *length > 0) else { return };
        self.at = end;
        match self.runs.last_mut() {
            Some(last) if (last.zero, last.hole) == (zero, hole) => last.length += length,
            _ => self.runs.push(Run { length, zero, hole }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(size: u64) -> (tempfile::TempDir, [Disk; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let file = Backend::File(dir.path().join("disk"));
        let disks = [Backend::Memory, file].map(|backend| Disk::open(&backend, Some(size)).unwrap());
        (dir, disks)
    }

    fn read(disk: &Disk, offset: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        disk.read(offset, &mut buf).unwrap();
        buf
    }

    #[test]
    fn writes_and_zeroes_across_blocks() {
        let (_dir, disks) = disks(4 * BLOCK);
        for disk in disks {
            let data: Vec<u8> = (0..2 * BLOCK).map(|i| i as u8 | 1).collect();
            disk.write(BLOCK / 2, &data).unwrap();
            assert_eq!(read(&disk, BLOCK / 2, data.len()), data);
            disk.zero(BLOCK - 5, BLOCK + 10).unwrap();
            let all = read(&disk, 0, 4 * BLOCK as usize);
            assert!(is_zero(&all[BLOCK as usize - 5..2 * BLOCK as usize + 5]));
            assert!(all[BLOCK as usize - 6] != 0 && all[2 * BLOCK as usize + 5] != 0);
        }
    }

    #[test]
    fn reading_past_the_end_gives_zeroes() {
        let (_dir, disks) = disks(10);
        for disk in disks {
            disk.write(8, b"xy").unwrap();
            assert_eq!(read(&disk, 8, 4), b"xy\0\0");
        }
    }

    #[test]
    fn runs_cover_the_disk_in_order() {
        let size = 10 * BLOCK + 100;
        let (_dir, disks) = disks(size);
        for disk in &disks {
            disk.write(2 * BLOCK, &[1; 2 * BLOCK as usize]).unwrap();
            disk.write(5 * BLOCK, &[0; 10]).unwrap();
            disk.write(size - 1, &[1]).unwrap();
        }
        let run = |length, zero, hole| Run { length, zero, hole };
        let memory = [
            run(2 * BLOCK, true, true),
            run(2 * BLOCK, false, false),
            run(BLOCK, true, true),
            run(BLOCK, true, false),
            run(4 * BLOCK, true, true),
            run(100, false, false),
        ];
        assert_eq!(disks[0].runs().unwrap(), memory);
        let file = [
            run(2 * BLOCK, true, false),
            run(2 * BLOCK, false, false),
            run(6 * BLOCK, true, false),
            run(100, false, false),
        ];
        assert_eq!(disks[1].runs().unwrap(), file);
    }

    #[test]
    fn a_huge_disk_costs_nothing_until_it_is_written() {
        let disk = Disk::open(&Backend::Memory, Some(8 << 40)).unwrap();
        disk.write(4 << 40, &[1]).unwrap();
        disk.zero(0, 8 << 40).unwrap();
        assert_eq!(disk.runs().unwrap(), [Run { length: 8 << 40, zero: true, hole: true }]);
    }

    #[test]
    fn the_null_disk_is_one_run_of_data() {
        let disk = Disk::open(&Backend::Null, Some(1 << 30)).unwrap();
        disk.write(0, &[1]).unwrap();
        assert_eq!(disk.runs().unwrap(), [Run { length: 1 << 30, zero: false, hole: false }]);
        assert_eq!(disk.chunk(0, u64::MAX).unwrap().len() as u64, CHUNK);
    }
}
