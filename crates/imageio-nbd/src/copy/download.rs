// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd download`: a disk becomes an image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::image::{self, QEMU_IMG};
use super::{Following, Report, Service, Stop, copy_disk, explained, source};
use crate::cli::copy::DownloadOptions;

/// Downloads the disk into the file, which appears, or is replaced, when it is complete.
pub(crate) fn run(options: &DownloadOptions) -> Result<u8> {
    image::check_tool()?;
    let (stop, _signals) = Stop::by_signals()?;
    let target = Target::new(&options.file)?;
    // The amount of data to be read is known later; ovirt-img doesn't tell it here, either.
    let report = Report::new(options.common.output, "downloading image", 0);
    report.begin("creating transfer");
    let disk = [format!("disk={}", options.disk), "direction=download".to_owned()];
    let parameters = options.common.parameters.iter().cloned().chain(disk);
    let (source, output) = source(options.common.config.as_deref(), parameters)?;
    let service = Service { label: None, stop: &stop, output: output.as_ref() };
    let downloaded = copy_disk(source, &stop, |device, _| {
        let follow = |observer: &_| Following::start(&report, 0, observer);
        service.serve(device, follow, |disk| stop.run(&mut convert(options, &disk.uri(""), &target)))
    });
    explained(downloaded.disk, &stop, "nothing was downloaded")?;
    target.complete()?;
    Ok(report.finish("download completed", None))
}

/// The destination of the content.
enum Target {
    /// A file, which is written under another name beside it, and renamed when it is complete.
    File { partial: tempfile::NamedTempFile, path: PathBuf },
    /// A block device, or whatever else is no file.
    Device(PathBuf),
}

impl Target {
    fn new(path: &Path) -> Result<Self> {
        let fail = || format!("cannot write {}", path.display());
        let path = std::path::absolute(path).with_context(fail)?;
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            return Ok(Self::Device(path));
        }
        let dir = path.parent().unwrap_or(Path::new("/"));
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".");
        let partial = tempfile::Builder::new().prefix(&name).suffix(".partial").tempfile_in(dir);
        Ok(Self::File { partial: partial.with_context(fail)?, path })
    }

    fn path(&self) -> &Path {
        match self {
            Self::File { partial, .. } => partial.path(),
            Self::Device(path) => path,
        }
    }

    /// The file gets its name.
    fn complete(self) -> Result<()> {
        let Self::File { partial, path } = self else { return Ok(()) };
        let fail = || format!("cannot write {}", path.display());
        // It was opened before anything was written, so that it is told of all that couldn't be.
        partial.as_file().sync_all().with_context(fail)?;
        partial.persist(&path).with_context(fail)?;
        // The directory is synchronised, so that the name, too, is there after a power failure.
        let dir = path.parent().unwrap_or(Path::new("/"));
        fs::File::open(dir).and_then(|dir| dir.sync_all()).with_context(fail)
    }
}

/// Builds the command line of `qemu-img`. Its usual cache mode doesn't flush what it has written.
fn convert(options: &DownloadOptions, disk: &str, target: &Target) -> Command {
    let mut qemu_img = Command::new(QEMU_IMG);
    qemu_img.args(["convert", "-W", "-m", "16", "-t", "writeback", "-f", "raw"]);
    if let Target::Device(_) = target {
        qemu_img.arg("-n");
    }
    qemu_img.args(["-O", options.format.of_qemu(), disk]).arg(target.path());
    qemu_img
}
