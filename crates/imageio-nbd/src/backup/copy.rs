// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copying between a disk and an image of a backup.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result};
use backup_directory::{Checksum, DiskBackup, Image};
use blkhash::{Algorithm, Blkhash};
use imageio_device::Device;
use imageio_stats::Observer;

use crate::copy::{Progress, Service, Stop, Work};
use crate::tools::cannot_run;

/// The number of requests that qemu-img has on their way at a time: enough for all connections to
/// the server.
const REQUESTS: &str = "16";

/// Of backups' checksums.
const ALGORITHM: &str = "blake2b";

/// Checks that the programs are there that backups are made with.
pub(crate) fn check_tools() -> Result<()> {
    for tool in ["qemu-img", "qemu-nbd", "nbdcopy"] {
        let asked = Command::new(tool).arg("--version").stdin(Stdio::null()).output();
        asked.map_err(|error| cannot_run(tool, "which backups need", error))?;
    }
    Ok(())
}

/// Work on a disk.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    /// The name that messages have for the disk.
    pub(crate) label: &'a str,
    pub(crate) stop: &'a Stop,
    pub(crate) progress: &'a Progress,
}

/// Reads a disk into a new image. If that has a backing file, what the disk tells as holes is left
/// to it.
pub(crate) fn read(device: &Arc<Device>, image: &Image, task: Task<'_>) -> Result<()> {
    served(device, task, |uri| {
        let mut qemu_img = Command::new("qemu-img");
        qemu_img.args(["convert", "-W", "-m", REQUESTS, "-f", "raw", "-O", "qcow2"]);
        if let Some(name) = &image.backing_name {
            qemu_img.args(["-F", "qcow2", "-B", name]);
        }
        task.stop.run(qemu_img.arg(uri).arg(absolute(&image.path)?))
    })
}

/// Writes what an image holds, with its backing files, to a disk. One that `is_zero` needs no
/// zeroes.
pub(crate) fn write(device: &Arc<Device>, image: &Path, is_zero: bool, task: Task<'_>) -> Result<()> {
    served(device, task, |uri| {
        let mut qemu_img = Command::new("qemu-img");
        qemu_img.args(["convert", "-n", "-W", "-m", REQUESTS, "-f", "qcow2", "-O", "raw"]);
        qemu_img.args(is_zero.then_some("--target-is-zero"));
        task.stop.run(qemu_img.arg(absolute(image)?).arg(uri))
    })
}

/// Serves a device while its URI is used.
fn served(device: &Arc<Device>, task: Task<'_>, use_it: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let service = Service { label: Some(task.label), stop: task.stop, output: None };
    let follow = |observer: &Arc<Observer>| {
        let followed = Arc::clone(observer);
        Ok(task.progress.begin(Work::Copy, task.label.to_owned(), move || followed.progress().from_clients))
    };
    service.serve(device, follow, |address| use_it(&address.uri("")))
}

/// The checksum of what an image of this size holds, with its backing files.
pub(crate) fn checksum(image: &Path, size: u64, task: Task<'_>) -> Result<Checksum> {
    let algorithm = Algorithm::named(ALGORITHM).context("bug: there is no such hash")?;
    let block_size = blkhash::DEFAULT_BLOCK_SIZE;
    let value = content_hash(image, size, Blkhash::new(algorithm, block_size), task)?;
    Ok(Checksum { algorithm: ALGORITHM.to_owned(), block_size, value })
}

/// Returns true if an image holds what was backed up, by the checksum in the manifest.
pub(crate) fn is_as_backed_up(backup: &DiskBackup, image: &Path, task: Task<'_>) -> Result<bool> {
    let Checksum { algorithm, block_size, value } = &backup.checksum;
    let known = Algorithm::named(algorithm).filter(|_| is_usual(*block_size));
    let algorithm = known.with_context(|| {
        format!(
            "a checksum by {algorithm} in blocks of {block_size} bytes isn't known: use a newer imageio-nbd"
        )
    })?;
    let blkhash = Blkhash::new(algorithm, *block_size);
    Ok(content_hash(image, backup.disk.provisioned_size, blkhash, task)? == *value)
}

/// Returns true if imageio would take blocks of this size, in bytes: a manifest may have any.
pub(crate) fn is_usual(block_size: u64) -> bool {
    (1 << 20..=16 << 20).contains(&block_size)
}

fn content_hash(image: &Path, size: u64, blkhash: Blkhash, task: Task<'_>) -> Result<String> {
    let hashed = Arc::new(AtomicU64::new(0));
    let followed = Arc::clone(&hashed);
    let label = format!("checksum of {}", task.label);
    let _under_way = task.progress.begin(Work::Check, label, move || followed.load(Relaxed));
    let mut nbdcopy = Command::new("nbdcopy");
    nbdcopy.args(["--", "[", "qemu-nbd", "-r", "-f", "qcow2"]).arg(absolute(image)?).args(["]", "-"]);
    let mut nbdcopy = task.stop.start(nbdcopy.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let output = nbdcopy.take_output().context("bug: its output is a pipe")?;
    let sum = blkhash.of_stream(output, size, &|done| hashed.store(done, Relaxed));
    match sum {
        // It has more to tell, and nobody listens.
        Err(error @ blkhash::Error::Longer(_)) => Err(error.into()),
        sum => {
            nbdcopy.finish()?;
            Ok(sum?)
        }
    }
}

/// A name that isn't taken for an option or a protocol.
fn absolute(image: &Path) -> Result<PathBuf> {
    std::path::absolute(image).context("the current directory is gone")
}
