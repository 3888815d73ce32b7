// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd upload`: an image becomes a disk.

use anyhow::Result;

use super::image::{Image, QEMU_IMG};
use super::{Argument, Copy, Report};
use crate::cli::copy::{Format, UploadOptions};

/// Uploads the image. The new disk's id is printed.
pub(crate) fn run(options: &UploadOptions) -> Result<u8> {
    let image = Image::inspect(&options.file)?;
    let report = Report::new(options.common.output, "uploading image", image.size);
    report.tell("creating disk");
    let arguments = convert(&image, is_zero(options, &image));
    let copy = Copy { program: QEMU_IMG, arguments, exact_size: Some(image.size), report };
    let report = copy.report.clone();
    let disk = super::serve(copy, &options.common, parameters(options, &image)?)?;
    report.finish("upload completed", disk.as_deref());
    Ok(0)
}

fn format(options: &UploadOptions, image: &Image) -> Format {
    options.format.unwrap_or(if image.is_iso { Format::Raw } else { Format::Qcow2 })
}

fn is_sparse(options: &UploadOptions, image: &Image) -> bool {
    !options.preallocated && !image.is_iso
}

/// Whether the disk reads as zeroes before anything is written: it is made now, and its storage is no block device that is used as it
/// is. That isn't known of a raw disk, as block storage has no sparse ones.
fn is_zero(options: &UploadOptions, image: &Image) -> bool {
    options.disk.is_none() && format(options, image) == Format::Qcow2 && is_sparse(options, image)
}

/// What the engine is asked for.
fn parameters(options: &UploadOptions, image: &Image) -> Result<Vec<String>> {
    if let Some(disk) = &options.disk {
        return Ok(vec![format!("disk={disk}")]);
    }
    let name = options.disk_name.clone().unwrap_or_else(|| image.name());
    let mut parameters = vec![
        format!("new-disk={name}"),
        format!("storage-domain={}", options.storage_domain.as_deref().unwrap_or_default()),
        format!("size={}", image.size),
    ];
    let is_sparse = is_sparse(options, image);
    match format(options, image) {
        Format::Qcow2 => {
            parameters.push("backup=incremental".to_owned());
            if is_sparse {
                parameters.push(format!("initial-size={}", image.measure()?));
            }
        }
        Format::Raw => parameters.push("format=raw".to_owned()),
    }
    if !is_sparse {
        parameters.push("sparse=false".to_owned());
    }
    if image.is_iso {
        parameters.push("content-type=iso".to_owned());
    }
    parameters.extend(options.description.iter().map(|text| format!("description={text}")));
    Ok(parameters)
}

/// The arguments of `qemu-img`. Writes may go in any order, as the disk is of use only when all are done.
fn convert(image: &Image, is_zero: bool) -> Vec<Argument> {
    let mut arguments: Vec<Argument> = ["convert", "-n", "-W", "-m", "16"].map(Argument::from).into();
    if is_zero {
        arguments.push("--target-is-zero".into());
    }
    arguments.extend([
        Argument::from("-f"),
        Argument::from(&image.format),
        Argument::from("-O"),
        Argument::from("raw"),
        Argument::from(&image.path),
        Argument::Disk,
    ]);
    arguments
}
