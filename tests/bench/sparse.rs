// SPDX-License-Identifier: MIT OR Apache-2.0
//! A large disk with little data in it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use support::tools::QEMU_IMG;

/// What is there together.
const PIECE: u64 = 1 << 20;

/// It has so many times the size of other rows' disks.
const TIMES: u64 = 6;

/// One in so many pieces is data: 200 of 6144, if other disks have 1 GiB.
const ONE_IN: u64 = 30;

/// A raw image, sparse as a file.
pub(crate) struct SparseDisk {
    path: PathBuf,
    data: u64,
}

/// How big it is where other disks have `size`, in bytes.
pub(crate) fn sparse_size(size: u64) -> u64 {
    size * TIMES
}

impl SparseDisk {
    /// Made in this directory, unless it is there already.
    pub(crate) fn make(dir: &Path, source: &[u8]) -> Result<Self> {
        let (path, size) = (dir.join("sparse.img"), sparse_size(source.len() as u64));
        let pieces = size / PIECE;
        let starts = (0..pieces).step_by(ONE_IN as usize).map(|piece| piece * PIECE);
        let data = pieces.div_ceil(ONE_IN) * PIECE;
        if !path.exists() {
            let file = File::create(&path)?;
            file.set_len(size)?;
            for (start, piece) in starts.zip(source.chunks_exact(PIECE as usize).cycle()) {
                file.write_all_at(piece, start)?;
            }
        }
        Ok(Self { path, data })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that a file has the same contents and is as sparse.
    pub(crate) fn verify(&self, copy: &Path) -> Result<()> {
        let allocated = fs::metadata(copy)?.blocks() * 512;
        ensure!(allocated <= self.data, "{allocated} bytes are allocated for {} of data", self.data);
        let (mut ours, mut theirs) = (File::open(&self.path)?, File::open(copy)?);
        let size = ours.metadata()?.len();
        ensure!(theirs.metadata()?.len() == size, "it has another size");
        let (mut expected, mut found) = (vec![0; PIECE as usize], vec![0; PIECE as usize]);
        for piece in 0..size / PIECE {
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
