// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd download`: a disk becomes an image.

mod target;

use std::process::Command;

use anyhow::Result;
use engine_transfer::Content;

use self::target::Target;
use super::image::{self, QEMU_IMG};
use super::{Following, Report, Service, Stop, copy_disk, explained, source};
use crate::cli::copy::{Common, DownloadOptions, Format};
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
    if let Err(error) = explained(downloaded.disk, &stop, "nothing was downloaded") {
        // The end of the transfer is all that has failed then.
        let is_whole = downloaded.content == Content::Complete;
        return Err(if is_whole { error.context(target.keep()?.told()) } else { error });
    }
    target.complete()?;
    Ok(report.finish("download completed", None))
}

/// Builds the command line of `qemu-img`. Its usual cache mode doesn't flush what it has written.
fn convert(options: &DownloadOptions, disk: &str, target: &Target) -> Command {
    let mut qemu_img = Command::new(QEMU_IMG);
    qemu_img.args(["convert", "-W", "-m", "16", "-t", "writeback", "-f", "raw"]);
    // A device is as long as it is. A qcow2 image on it is made anew: one that is there has a size
    // of its own.
    if target.is_device() && options.format == Format::Raw {
        qemu_img.arg("-n");
    }
    qemu_img.args(["-O", options.format.of_qemu(), disk]).arg(target.path());
    qemu_img
}
