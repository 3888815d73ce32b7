// SPDX-License-Identifier: MIT OR Apache-2.0
//! Command lines of `qemu-img` that copy an image part by part. Its writes may go in any order, as
//! the disk is of use only when all are done.
//!
//! Of data that goes on for 2 GiB and more, `qemu-img` copies 2 GiB less 512 bytes first. All of
//! its writes behind that would be in the middle of blocks, which they share with their neighbours:
//! such writes go one after the other, and can't be sent again after a connection was lost. Parts
//! are shorter than that.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Image;
use crate::copy::image::{QEMU_IMG, cannot_read};
use crate::listen::{Address, Place};

/// The amount of data that is copied between two notes, in bytes: so much is copied again after an
/// interruption. To begin a part takes a few hundredths of a second, besides the flush.
const PART: u64 = 1 << 30;

/// The parts of so many bytes, from an offset on.
pub(super) fn parts(from: u64, size: u64) -> impl Iterator<Item = Range<u64>> {
    let starts = std::iter::successors((from < size).then_some(from), move |start| {
        start.checked_add(PART).filter(|next| *next < size)
    });
    starts.map(move |start| start..start.saturating_add(PART).min(size))
}

/// Copies all of an image to a disk. One that `is_zero` needs no zeroes.
///
/// An image is copied at once if JSON can't hold its name, or if it has a backing file: of a part,
/// `qemu-img` doesn't see what is zero there, and such an image has no data in so large a piece.
pub(super) fn copy_all(image: &Image, disk: &Address, is_zero: bool) -> Result<Vec<Command>> {
    if image.size > PART && !image.has_backing_file && check_name(&image.path).is_ok() {
        return parts(0, image.size).map(|part| copy(image, disk, is_zero, part)).collect();
    }
    let mut qemu_img = convert(is_zero);
    qemu_img.args(["-f", &image.format, "-O", "raw"]).arg(&image.path).arg(disk.uri(""));
    Ok(vec![qemu_img])
}

/// Copies a part.
pub(super) fn copy(image: &Image, disk: &Address, is_zero: bool, part: Range<u64>) -> Result<Command> {
    let Place::Unix(socket) = &disk.place else { bail!("bug: the socket is private") };
    let path = check_name(&image.path)?;
    let socket = socket
        .to_str()
        .context("the name of the directory for temporary files isn't UTF-8: set TMPDIR to another one")?;
    let is_file = image.path.metadata().with_context(|| cannot_read(&image.path))?.is_file();
    let driver = if is_file { "file" } else { "host_device" };
    let source = json!({"driver": image.format, "file": {"driver": driver, "filename": path}});
    let target = json!({"driver": "nbd", "server": {"type": "unix", "path": socket}});
    let mut qemu_img = convert(is_zero);
    qemu_img.arg(only(&part, &source)).arg(only(&part, &target));
    Ok(qemu_img)
}

/// The name of an image of which parts are copied: JSON has to hold it.
pub(super) fn check_name(image: &Path) -> Result<&str> {
    image.to_str().context("--resume: the image's name isn't UTF-8: give it another one")
}

fn convert(is_zero: bool) -> Command {
    let mut qemu_img = Command::new(QEMU_IMG);
    qemu_img.args(["convert", "-n", "-W", "-m", "16"]).args(is_zero.then_some("--target-is-zero"));
    qemu_img
}

/// A part of something, as qemu's pseudo-protocol for options names it.
fn only(part: &Range<u64>, whole: &Value) -> String {
    let part = json!({"driver": "raw", "offset": part.start, "size": part.end - part.start, "file": whole});
    format!("json:{part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_the_whole() {
        let all = |from, size| parts(from, size).map(|Range { start, end }| (start, end)).collect::<Vec<_>>();
        assert_eq!(all(0, 0), []);
        assert_eq!(all(512, 512), []);
        assert_eq!(all(0, 512), [(0, 512)]);
        assert_eq!(all(0, 2 * PART), [(0, PART), (PART, 2 * PART)]);
        assert_eq!(all(PART, 2 * PART + 512), [(PART, 2 * PART), (2 * PART, 2 * PART + 512)]);
        assert_eq!(all(u64::MAX - 1, u64::MAX), [(u64::MAX - 1, u64::MAX)]);
    }
}
