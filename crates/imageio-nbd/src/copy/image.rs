// SPDX-License-Identifier: MIT OR Apache-2.0
//! The properties of an image, as `qemu-img` knows them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Error, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::soundness;
use crate::tools::cannot_run;

pub(super) const QEMU_IMG: &str = "qemu-img";

/// An image file.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    /// qemu's word for its format.
    pub(super) format: String,
    /// The size that a guest sees, in bytes.
    pub(super) size: u64,
    /// It is the image of an optical disk.
    pub(super) is_iso: bool,
    /// What it doesn't have itself is in a backing file.
    pub(super) has_backing_file: bool,
}

#[derive(Deserialize)]
struct Info {
    format: String,
    #[serde(rename = "virtual-size")]
    virtual_size: u64,
    #[serde(default)]
    encrypted: bool,
    #[serde(rename = "backing-filename")]
    backing_file: Option<String>,
}

#[derive(Deserialize)]
struct Measured {
    required: u64,
}

impl Image {
    /// `format` is qemu's word for its format. Without it, `qemu-img` looks at the content.
    pub(super) fn inspect(path: &Path, format: Option<&str>) -> Result<Self> {
        let path = std::path::absolute(path).context("the name of an image is expected")?;
        // The usual mistake, in fewer words than qemu-img's.
        File::open(&path).with_context(|| cannot_read(&path))?;
        let option = format_option(format);
        let info = [&[OsStr::new("info")], &option[..], &[path.as_ref()]].concat();
        let Info { format, virtual_size, encrypted, backing_file } =
            ask(&info).with_context(|| path.display().to_string())?;
        ensure!(
            !encrypted,
            "{}: the image is encrypted: upload a copy that qemu-img convert has decrypted",
            path.display()
        );
        ensure!(virtual_size > 0, "{}: the image is empty, so there is nothing to upload", path.display());
        soundness::check(&path, &option)?;
        let is_iso = format == "raw" && is_iso(&path).with_context(|| cannot_read(&path))?;
        Ok(Self { path, format, size: virtual_size, is_iso, has_backing_file: backing_file.is_some() })
    }

    /// Returns the size of its content as qcow2, in bytes.
    pub(super) fn measure(&self) -> Result<u64> {
        measure(&self.path, &self.format)
    }

    /// Returns the default name of a disk for it.
    pub(super) fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Returns the size in bytes that the content of an image, with its backing files, takes as qcow2.
pub(crate) fn measure(path: &Path, format: &str) -> Result<u64> {
    // A name that isn't taken for an option or a protocol.
    let path = std::path::absolute(path).context("the current directory is gone")?;
    let options = ["measure", "-O", "qcow2", "-f", format].map(OsStr::new);
    let Measured { required } = ask(&[&options[..], &[path.as_ref()]].concat())?;
    Ok(required)
}

/// Checks that there is a `qemu-img`.
pub(super) fn check_tool() -> Result<()> {
    let asked = Command::new(QEMU_IMG).arg("--version").stdin(Stdio::null()).output();
    asked.map(drop).map_err(missing)
}

pub(super) fn cannot_read(file: &Path) -> String {
    format!("cannot read {}", file.display())
}

pub(super) fn missing(error: io::Error) -> Error {
    cannot_run(QEMU_IMG, "which does the copying", error)
}

/// What `qemu-img` was to tell by one of its commands isn't known.
pub(super) fn by_signal(command: &str) -> String {
    format!("{QEMU_IMG} {command} was ended by a signal")
}

/// Asks `qemu-img` for JSON.
pub(super) fn ask<T: DeserializeOwned>(arguments: &[&OsStr]) -> Result<T> {
    let (command, rest) = arguments.split_first().context("bug: no command")?;
    let mut qemu_img = Command::new(QEMU_IMG);
    qemu_img.arg(command).args(["--output", "json"]).args(rest).stdin(Stdio::null());
    let Output { status, stdout, stderr } = qemu_img.output().map_err(missing)?;
    ensure!(status.code().is_some(), by_signal(&command.to_string_lossy()));
    let said = words(&stderr);
    ensure!(status.success(), "qemu-img can't use the image: {said}");
    if !said.is_empty() {
        log::warn!("{QEMU_IMG}: {said}");
    }
    serde_json::from_slice(&stdout)
        .with_context(|| format!("{QEMU_IMG} is too old, or not qemu's: install a newer one"))
}

/// The last of what `qemu-img` has to say, in one line.
pub(super) fn words(stderr: &[u8]) -> String {
    const LINES: usize = 3;
    let text = String::from_utf8_lossy(stderr);
    let line = |line: &str| line.trim_start_matches("qemu-img: ").trim().replace(char::is_control, " ");
    let lines: Vec<_> = text.lines().map(line).collect();
    lines[lines.len().saturating_sub(LINES)..].join("; ")
}

/// Returns the option that names an image's format, if it is known.
pub(super) fn format_option(format: Option<&str>) -> Vec<&OsStr> {
    format.map_or_else(Vec::new, |format| vec![OsStr::new("-f"), OsStr::new(format)])
}

/// Returns true if the file has the first volume descriptor of ISO 9660, behind the area that is
/// the system's (ECMA-119, 7.2 and 9.4).
fn is_iso(path: &Path) -> std::io::Result<bool> {
    const DESCRIPTOR: u64 = 0x8000;
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(DESCRIPTOR))?;
    let mut found = Vec::new();
    file.take(7).read_to_end(&mut found)?;
    Ok(found == b"\x01CD001\x01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iso_image_is_known_by_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, [0; 100]).unwrap();
        assert!(!is_iso(&path).unwrap());
        let mut iso = vec![0; 0x9000];
        iso[0x8000..0x8007].copy_from_slice(b"\x01CD001\x01");
        std::fs::write(&path, &iso).unwrap();
        assert!(is_iso(&path).unwrap());
    }

    #[test]
    fn a_disk_is_called_by_its_image() {
        let image = |path: &str| Image {
            path: path.into(),
            format: "raw".into(),
            size: 0,
            is_iso: false,
            has_backing_file: false,
        };
        assert_eq!(image("/tmp/fedora-40.qcow2").name(), "fedora-40");
        assert_eq!(image("/tmp/disk").name(), "disk");
    }

    #[test]
    fn a_file_that_is_not_there_is_told_by_name() {
        let error = format!("{:#}", Image::inspect(Path::new("/no/such/image"), None).unwrap_err());
        assert_eq!(error, "cannot read /no/such/image: No such file or directory (os error 2)");
    }
}
