// SPDX-License-Identifier: MIT OR Apache-2.0
//! Large disks that aren't full of data.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use support::tools::QEMU_IMG;

/// The number of bytes that are compared at a time.
const MIB: u64 = 1 << 20;

/// They have so many times the size of other rows' disks.
const TIMES: u64 = 6;

/// The places of data in the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// The name of its file.
    file: &'static str,
    /// Bytes that are there together.
    piece: u64,
    /// One in so many pieces is data.
    one_in: u64,
}

/// Little data: 200 of 6144 MiB, if other disks have 1 GiB.
pub(crate) const SCATTERED: Layout = Layout { file: "sparse.img", piece: MIB, one_in: 30 };

/// A third is data: twice as much as on other disks.
pub(crate) const RUNS: Layout = Layout { file: "runs.img", piece: 32 * MIB, one_in: 3 };

/// A raw image, sparse as a file.
pub(crate) struct SparseDisk {
    path: PathBuf,
    data: u64,
}

/// Returns the size in bytes that it has where other disks have `size`.
pub(crate) fn sparse_size(size: u64) -> u64 {
    size * TIMES
}

impl SparseDisk {
    /// Made in this directory, unless it is there already.
    pub(crate) fn make(dir: &Path, source: &[u8], layout: Layout) -> Result<Self> {
        let (path, size) = (dir.join(layout.file), sparse_size(source.len() as u64));
        let piece = layout.piece.min(source.len() as u64);
        let pieces = size / piece;
        let starts = (0..pieces).step_by(layout.one_in as usize).map(|number| number * piece);
        let data = pieces.div_ceil(layout.one_in) * piece;
        if !path.exists() {
            let file = File::create(&path)?;
            file.set_len(size)?;
            for (start, bytes) in starts.zip(source.chunks_exact(piece as usize).cycle()) {
                file.write_all_at(bytes, start)?;
            }
        }
        Ok(Self { path, data })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of data.
    pub(crate) fn data(&self) -> u64 {
        self.data
    }

    /// Checks that a file has the same contents and is as sparse.
    pub(crate) fn verify(&self, copy: &Path) -> Result<()> {
        let allocated = fs::metadata(copy)?.blocks() * 512;
        ensure!(allocated <= self.data, "{allocated} bytes are allocated for {} of data", self.data);
        let (mut ours, mut theirs) = (File::open(&self.path)?, File::open(copy)?);
        let size = ours.metadata()?.len();
        ensure!(theirs.metadata()?.len() == size, "it has another size");
        let (mut expected, mut found) = (vec![0; MIB as usize], vec![0; MIB as usize]);
        for piece in 0..size / MIB {
            ours.read_exact(&mut expected)?;
            theirs.read_exact(&mut found)?;
            ensure!(found == expected, "wrong data in MiB {piece}");
        }
        Ok(())
    }
}

/// Makes an image of this format with the contents of a raw one.
pub(crate) fn convert(raw: &Path, image: &Path, format: &str) -> Result<()> {
    let output = Command::new(QEMU_IMG.path())
        .args(["convert", "-f", "raw", "-O", format])
        .args([raw, image])
        .output()
        .context("cannot start qemu-img")?;
    ensure!(output.status.success(), "qemu-img: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
