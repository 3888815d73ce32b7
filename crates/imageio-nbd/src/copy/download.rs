// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd download`: a disk becomes an image.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::image::{self, QEMU_IMG};
use super::{Following, Report, Service, Stop, copy_disk, explained, source};
use crate::cli::copy::{Common, DownloadOptions};
use crate::cli::{OF_DOWNLOAD, check_parameters};

/// Downloads the disk into the file, which appears, or is replaced, when it is complete.
pub(crate) fn run(options: &DownloadOptions) -> Result<u8> {
    image::check_tool()?;
    check_parameters(&options.common.parameters, OF_DOWNLOAD)?;
    let (stop, _signals) = Stop::by_signals()?;
    let target = Target::new(&options.file)?;
    // The amount of data to be read is known later; ovirt-img doesn't tell it here, either.
    let report = Report::new(options.common.output, "downloading image", 0);
    report.begin("creating transfer");
    let disk = [format!("disk={}", options.disk), "direction=download".to_owned()];
    let Common { config, parameters, .. } = &options.common;
    let (source, output) = source(config.as_deref(), parameters.iter().cloned(), disk)?;
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
        Self::find(path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn find(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)?;
        let found = path.metadata();
        if let Ok(found) = &found {
            if !found.is_file() && !found.is_dir() {
                return Ok(Self::Device(path));
            }
            // Whoever may not write the file may not replace it, either.
            OpenOptions::new().write(true).open(&path)?;
        }
        let path = behind_links(path)?;
        let partial = partial(&path, found.is_ok())?;
        Ok(Self::File { partial, path })
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
        if let Ok(replaced) = path.metadata() {
            resemble(partial.as_file(), &replaced).with_context(fail)?;
        }
        // It was opened before anything was written, so that it is told of all that couldn't be.
        partial.as_file().sync_all().with_context(fail)?;
        partial.persist(&path).with_context(fail)?;
        // The directory is synchronised, so that the name, too, is there after a power failure.
        let dir = path.parent().unwrap_or(Path::new("/"));
        fs::File::open(dir).and_then(|dir| dir.sync_all()).with_context(fail)
    }
}

/// The file that symbolic links lead to. It need not be there.
fn behind_links(mut path: PathBuf) -> Result<PathBuf> {
    /// Linux follows as many (`path_resolution(7)`).
    const MOST: usize = 40;
    for _ in 0..MOST {
        let Ok(link) = path.read_link() else { return Ok(path) };
        path = path.parent().unwrap_or(Path::new("/")).join(link);
    }
    bail!("there are too many symbolic links")
}

/// A file beside another one. One that replaces nothing has the mode that the umask leaves.
fn partial(path: &Path, is_replacement: bool) -> io::Result<tempfile::NamedTempFile> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    // The replacement isn't anybody else's to read before it is complete.
    let mode = if is_replacement { 0o600 } else { 0o666 };
    let mut builder = tempfile::Builder::new();
    builder.prefix(&name).suffix(".partial").permissions(Permissions::from_mode(mode));
    builder.tempfile_in(path.parent().unwrap_or(Path::new("/")))
}

/// Gives a file the owner, as far as this user may do so, and the mode of the one that it replaces.
fn resemble(file: &File, replaced: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (replaced.uid(), replaced.gid())
        && let Err(error) = fchown(file, Some(replaced.uid()), Some(replaced.gid()))
    {
        log::warn!("the file that was there had another owner, which the new one can't get: {error}");
    }
    // The last, as another owner takes some bits of the mode away.
    file.set_permissions(replaced.permissions())
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
