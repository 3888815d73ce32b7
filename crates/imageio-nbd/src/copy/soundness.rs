// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether an image is sound, with all its backing files, as far as their formats can tell: of one
//! that was cut off, `qemu-img convert` reads zeroes in the place of what is missing, and succeeds.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::image::{QEMU_IMG, ask, by_signal, cannot_read, missing, words};
use super::image_files::beside;

/// An image of a chain, as `qemu-img info --backing-chain` tells it.
#[derive(Deserialize)]
struct Image {
    filename: String,
    format: String,
    #[serde(rename = "format-specific", default)]
    specific: Specific,
}

#[derive(Deserialize, Default)]
struct Specific {
    #[serde(default)]
    data: Details,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Details {
    /// The file that holds the content of a qcow2 image, if it isn't the image itself.
    data_file: Option<String>,
    /// The files that hold the content of a VMDK image.
    #[serde(default)]
    extents: Vec<DataFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DataFile {
    filename: String,
    format: Option<String>,
    /// In bytes.
    virtual_size: u64,
}

/// A part of an image, as `qemu-img map` tells it.
#[derive(Deserialize)]
struct Mapped {
    /// In bytes.
    length: u64,
    /// Its place in the file, if it has one.
    offset: Option<u64>,
    /// The number of the image in the chain.
    depth: usize,
    /// The file is read for it. Where that isn't so, it may have a place, which need not be in the
    /// file.
    data: bool,
}

/// Fails if the image, or one of its backing files, isn't sound. `format` is the option with
/// qemu's word for the format, if that is known.
pub(super) fn check(path: &Path, format: &[&OsStr]) -> Result<()> {
    let options = ["info", "--backing-chain"].map(OsStr::new);
    let chain: Vec<Image> =
        ask(&[&options, format, &[path.as_ref()]].concat()).with_context(|| path.display().to_string())?;
    chain.iter().try_for_each(|image| image.check(path))
}

impl Image {
    fn check(&self, top: &Path) -> Result<()> {
        if self.format == "raw" {
            return Ok(());
        }
        self.check_tables()?;
        let file = beside(top, &self.filename);
        let Details { data_file, extents } = &self.specific.data;
        // qemu doesn't compare the length of the file with what is in the tables, or only where the
        // last of the content begins.
        let content = match (data_file, &extents[..]) {
            (Some(data_file), _) => Some(beside(&file, data_file)),
            (None, []) => Some(file.clone()),
            (None, [extent]) => Some(beside(&file, &extent.filename)),
            // There is no telling which of them is meant.
            (None, _) => None,
        };
        if let Some(content) = content {
            check_length(&content, self.mapped()?)?;
        }
        extents.iter().filter(|extent| extent.is_flat()).try_for_each(|extent| {
            let data_file: PathBuf = beside(&file, &extent.filename);
            check_length(&data_file, extent.virtual_size)
        })
    }

    /// Has `qemu-img` check what the format's own tables tell.
    fn check_tables(&self) -> Result<()> {
        /// Some of its space is used by nothing.
        const LEAKS: i32 = 3;
        /// The format has nothing to be checked.
        const NOT_SUPPORTED: i32 = 63;
        /// It couldn't be opened, as where a backing file is missing or another process writes to
        /// it; or not be read.
        const NOT_CHECKED: i32 = 1;
        let mut qemu_img = Command::new(QEMU_IMG);
        qemu_img.args(["check", "-q", "-f", &self.format, &self.filename]).stdin(Stdio::null());
        let Output { status, stderr, .. } = qemu_img.output().map_err(missing)?;
        let name = &self.filename;
        match status.code() {
            Some(0 | LEAKS | NOT_SUPPORTED) => Ok(()),
            Some(NOT_CHECKED) => bail!("{name}: {QEMU_IMG} can't check the image: {}", words(&stderr)),
            Some(_) => bail!("{name}: the image is damaged: see qemu-img check"),
            // A signal to this program reaches that one, too, and the image may be sound.
            None => bail!("{name}: {}", by_signal("check")),
        }
    }

    /// Returns the end of the content that is in the image's file, or in its data file, in bytes.
    fn mapped(&self) -> Result<u64> {
        let arguments = ["map", "-f", &self.format, &self.filename].map(OsStr::new);
        let mapped: Vec<Mapped> = ask(&arguments)?;
        let own = mapped.iter().filter(|mapped| mapped.depth == 0 && mapped.data);
        Ok(own.filter_map(|mapped| mapped.offset?.checked_add(mapped.length)).max().unwrap_or(0))
    }
}

impl DataFile {
    /// Returns true if it is a disk's content as it is, without tables.
    fn is_flat(&self) -> bool {
        matches!(self.format.as_deref(), Some("FLAT" | "VMFS"))
    }
}

/// Fails if a file has fewer bytes than are expected in it. Of what is no file of this system,
/// qemu-img knows the length.
fn check_length(path: &Path, expected: u64) -> Result<()> {
    let Ok(mut file) = File::open(path) else { return Ok(()) };
    let length = file.seek(SeekFrom::End(0)).with_context(|| cannot_read(path))?;
    ensure!(
        length >= expected,
        "{}: the image is damaged: it has {length} bytes, and needs {expected}",
        path.display()
    );
    Ok(())
}
