// SPDX-License-Identifier: MIT OR Apache-2.0
//! The work of the contenders.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use support::report::Unit;
use support::tools::{FIO, NBDCOPY, QEMU_IMG, Tool};

use crate::sparse::sparse_size;

/// The work on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// nbdcopy writes all of it, with so many requests of so many bytes on their way.
    Upload { request: usize, requests: u32 },
    /// [`AS_VIRT_V2V`], and the doors are called as virt-v2v calls nbdkit: ours by what stands in
    /// its place.
    VirtV2v,
    /// nbdcopy writes all of it, and makes the size of its requests of the server's preferred block
    /// size.
    UploadByDefault,
    /// nbdcopy reads all of it.
    ReadBack { request: usize },
    /// nbdcopy reads all of it, one request at a time.
    ReadInOrder { request: usize },
    /// A large disk with little data in it becomes a sparse file.
    SparseRead { client: Reader, format: &'static str },
    /// qemu-img writes all of it, out of order.
    Convert,
    /// fio writes 4 KiB here and there.
    RandomWrites { depth: u32 },
}

/// The program that reads a sparse disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Nbdcopy,
    QemuImg,
}

pub(crate) const TINY: usize = 64 << 10;
pub(crate) const SMALL: usize = 256 << 10;
pub(crate) const LARGE: usize = 4 << 20;

/// nbdcopy as it runs by itself.
pub(crate) const BY_ITSELF: Work = Work::Upload { request: SMALL, requests: 64 };
/// nbdcopy as virt-v2v runs it.
pub(crate) const AS_VIRT_V2V: Work = Work::Upload { request: LARGE, requests: 16 };
/// nbdcopy in large requests, with as many on their way as it has by itself.
pub(crate) const DEEP: Work = Work::Upload { request: LARGE, requests: 64 };

impl Work {
    pub(crate) fn name(self) -> String {
        match self {
            BY_ITSELF | AS_VIRT_V2V => format!("nbdcopy-{}", size(self.request())),
            Self::Upload { request, requests } => format!("nbdcopy-{}-{requests}", size(request)),
            Self::VirtV2v => "virt-v2v".into(),
            Self::UploadByDefault => "nbdcopy-default".into(),
            Self::ReadBack { request } => format!("read-{}", size(request)),
            Self::ReadInOrder { request } => format!("read-in-order-{}", size(request)),
            Self::SparseRead { client: Reader::Nbdcopy, format } => format!("sparse-{format}-nbdcopy"),
            Self::SparseRead { client: Reader::QemuImg, format } => format!("sparse-{format}-qemu-img"),
            Self::Convert => "qemu-img".into(),
            Self::RandomWrites { depth } => format!("fio-4k-depth-{depth}"),
        }
    }

    pub(crate) fn unit(self) -> Unit {
        if matches!(self, Self::RandomWrites { .. }) { Unit::Iops } else { Unit::Gib }
    }

    /// In all of it: bytes, or requests.
    pub(crate) fn amount(self, size: u64, quick: bool) -> u64 {
        match (self, quick) {
            // Much more than the replay buffer takes, whose memory is new at first.
            (Self::RandomWrites { .. }, false) => 20_000,
            (Self::RandomWrites { .. }, true) => 4000,
            (Self::SparseRead { .. }, _) => sparse_size(size),
            _ => size,
        }
    }

    /// Leaves a copy of the source on the server.
    pub(crate) fn is_upload(self) -> bool {
        matches!(self, Self::Upload { .. } | Self::VirtV2v | Self::UploadByDefault | Self::Convert)
    }

    /// The size of requests is what the row says, whatever the server would prefer.
    pub(crate) fn has_own_request_size(self) -> bool {
        matches!(
            self,
            Self::Upload { .. }
                | Self::ReadBack { .. }
                | Self::ReadInOrder { .. }
                | Self::RandomWrites { .. }
        )
    }

    /// Reads a disk that is full of data.
    pub(crate) fn is_read(self) -> bool {
        matches!(self, Self::ReadBack { .. } | Self::ReadInOrder { .. })
    }

    pub(crate) fn tool(self) -> Tool {
        match self {
            Self::Upload { .. } | Self::VirtV2v | Self::UploadByDefault => NBDCOPY,
            Self::ReadBack { .. } | Self::ReadInOrder { .. } => NBDCOPY,
            Self::SparseRead { client: Reader::Nbdcopy, .. } => NBDCOPY,
            Self::SparseRead { client: Reader::QemuImg, .. } | Self::Convert => QEMU_IMG,
            Self::RandomWrites { .. } => FIO,
        }
    }

    /// The size of one request, where nobody but the client has a say in it, and else what is
    /// usual.
    pub(crate) fn request(self) -> usize {
        match self {
            Self::Upload { request, .. } | Self::ReadBack { request } | Self::ReadInOrder { request } => {
                request
            }
            Self::VirtV2v => AS_VIRT_V2V.request(),
            Self::UploadByDefault => SMALL,
            // This is the size that ovirt-imageio's documentation recommends.
            Self::SparseRead { .. } => LARGE,
            // qemu-img's own.
            Self::Convert => 2 << 20,
            Self::RandomWrites { .. } => 4 << 10,
        }
    }

    /// The client's command line; `back` is where it puts what it reads, and nowhere if there is
    /// none.
    pub(crate) fn command(self, source: &Path, uri: &str, amount: u64, back: Option<&Path>) -> Command {
        let mut command = Command::new(self.tool().path());
        match self {
            Self::Upload { request, requests } => {
                command.arg(format!("--request-size={request}")).arg(format!("--requests={requests}"));
                command.arg("--flush").arg(source).arg(uri);
            }
            Self::VirtV2v => return AS_VIRT_V2V.command(source, uri, amount, back),
            Self::UploadByDefault => drop(command.arg("--flush").arg(source).arg(uri)),
            Self::ReadBack { request } | Self::ReadInOrder { request } => {
                let alone = ["--connections=1", "--requests=1"];
                command.args(alone.iter().filter(|_| matches!(self, Self::ReadInOrder { .. })));
                command.arg(format!("--request-size={request}")).arg(uri);
                command.arg(back.unwrap_or("null:".as_ref()));
            }
            Self::SparseRead { client, .. } => {
                // Each run makes the file anew.
                let back = back.unwrap_or("/nonexistent".as_ref());
                let options = ["convert", "-f", "raw", "-O", "raw"];
                command.args(options.iter().filter(|_| client == Reader::QemuImg)).arg(uri).arg(back);
            }
            Self::Convert => {
                command.args(["convert", "-n", "-W", "-f", "raw", "-O", "raw"]).arg(source).arg(uri);
            }
            Self::RandomWrites { depth } => {
                command.args([
                    "--name=bench",
                    "--ioengine=nbd",
                    "--rw=randwrite",
                    "--bs=4k",
                    "--randrepeat=1",
                ]);
                command.args(["--norandommap", "--output-format=json"]).arg(format!("--uri={uri}"));
                let size = source.metadata().map_or(0, |source| source.len());
                command.arg(format!("--iodepth={depth}")).arg(format!("--number_ios={amount}"));
                command.arg(format!("--size={size}"));
            }
        }
        command
    }
}

fn size(bytes: usize) -> String {
    if bytes < 1 << 20 { format!("{}k", bytes >> 10) } else { format!("{}m", bytes >> 20) }
}

/// fio's own count, without its start, which takes longer than some of the work.
pub(crate) fn fio_iops(printed: &str) -> Result<f64> {
    // Notes may stand before it.
    let json = &printed[printed.find('{').unwrap_or(0)..];
    let report: serde_json::Value = serde_json::from_str(json)?;
    report["jobs"][0]["write"]["iops"].as_f64().context("fio tells no IOPS")
}
