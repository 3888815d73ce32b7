// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the contenders do, and where: the rows of the tables.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use support::report::Unit;
use support::target::Via;
use support::tools::{FIO, NBDCOPY, QEMU_IMG, Tool};

use crate::sparse::sparse_size;

/// The server and what keeps its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// The real daemon, with `qemu-nbd` and a raw image in memory.
    Real,
    /// The fake, which keeps nothing.
    FakeNull,
}

/// What is done with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// nbdcopy writes all of it.
    Upload { request: usize },
    /// The same; how large requests are is left to what nbdcopy makes of the server's preferred block size.
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

/// Who reads a sparse disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Nbdcopy,
    QemuImg,
}

use Server::{FakeNull, Real};
use Via::{Http, Https, Unix};

const TINY: usize = 64 << 10;
const SMALL: usize = 256 << 10;
const LARGE: usize = 4 << 20;

/// One line of the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowKind {
    pub(crate) server: Server,
    pub(crate) via: Via,
    pub(crate) work: Work,
    /// Measured with `--quick`.
    pub(crate) quick: bool,
}

const fn row(server: Server, via: Via, work: Work) -> RowKind {
    RowKind { server, via, work, quick: false }
}

const fn sparse(via: Via, client: Reader, format: &'static str) -> RowKind {
    row(Real, via, Work::SparseRead { client, format })
}

const fn quick(server: Server, via: Via, work: Work) -> RowKind {
    RowKind { server, via, work, quick: true }
}

pub(crate) const ROWS: &[RowKind] = &[
    quick(Real, Http, Work::Upload { request: SMALL }),
    row(Real, Unix, Work::Upload { request: SMALL }),
    quick(Real, Https, Work::Upload { request: SMALL }),
    quick(Real, Http, Work::Upload { request: LARGE }),
    row(Real, Unix, Work::Upload { request: LARGE }),
    row(Real, Https, Work::Upload { request: LARGE }),
    row(Real, Http, Work::UploadByDefault),
    row(Real, Unix, Work::UploadByDefault),
    row(Real, Https, Work::UploadByDefault),
    quick(Real, Http, Work::ReadBack { request: SMALL }),
    row(Real, Unix, Work::ReadBack { request: SMALL }),
    row(Real, Https, Work::ReadBack { request: SMALL }),
    row(Real, Http, Work::ReadBack { request: LARGE }),
    row(Real, Unix, Work::ReadBack { request: LARGE }),
    row(Real, Https, Work::ReadBack { request: LARGE }),
    row(Real, Http, Work::ReadInOrder { request: TINY }),
    row(Real, Http, Work::ReadInOrder { request: SMALL }),
    row(Real, Https, Work::ReadInOrder { request: SMALL }),
    sparse(Http, Reader::Nbdcopy, "raw"),
    sparse(Http, Reader::Nbdcopy, "qcow2"),
    sparse(Https, Reader::Nbdcopy, "raw"),
    sparse(Https, Reader::Nbdcopy, "qcow2"),
    sparse(Http, Reader::QemuImg, "raw"),
    sparse(Http, Reader::QemuImg, "qcow2"),
    sparse(Https, Reader::QemuImg, "raw"),
    sparse(Https, Reader::QemuImg, "qcow2"),
    row(Real, Http, Work::Convert),
    row(Real, Unix, Work::Convert),
    row(Real, Https, Work::Convert),
    quick(Real, Http, Work::RandomWrites { depth: 32 }),
    row(Real, Http, Work::RandomWrites { depth: 1 }),
    quick(FakeNull, Http, Work::Upload { request: SMALL }),
    row(FakeNull, Unix, Work::Upload { request: SMALL }),
    row(FakeNull, Https, Work::Upload { request: SMALL }),
    row(FakeNull, Http, Work::Upload { request: LARGE }),
    row(FakeNull, Http, Work::ReadBack { request: SMALL }),
    row(FakeNull, Http, Work::RandomWrites { depth: 32 }),
];

impl RowKind {
    pub(crate) fn name(&self) -> String {
        let server = match self.server {
            Real => "real",
            FakeNull => "fake-null",
        };
        format!("{server}/{}/{}", self.via.name(), self.work.name())
    }
}

impl Work {
    fn name(self) -> String {
        match self {
            Self::Upload { request } => format!("nbdcopy-{}", size(request)),
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
        matches!(self, Self::Upload { .. } | Self::UploadByDefault | Self::Convert)
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
            Self::Upload { .. } | Self::UploadByDefault => NBDCOPY,
            Self::ReadBack { .. } | Self::ReadInOrder { .. } => NBDCOPY,
            Self::SparseRead { client: Reader::Nbdcopy, .. } => NBDCOPY,
            Self::SparseRead { client: Reader::QemuImg, .. } | Self::Convert => QEMU_IMG,
            Self::RandomWrites { .. } => FIO,
        }
    }

    /// The size of one request, where nobody but the client has a say in it, and else what is usual.
    pub(crate) fn request(self) -> usize {
        match self {
            Self::Upload { request } | Self::ReadBack { request } | Self::ReadInOrder { request } => request,
            Self::UploadByDefault => SMALL,
            // What ovirt-imageio's documentation recommends.
            Self::SparseRead { .. } => LARGE,
            // qemu-img's own.
            Self::Convert => 2 << 20,
            Self::RandomWrites { .. } => 4 << 10,
        }
    }

    /// The client's command line; `back` is where it puts what it reads, and nowhere if there is none.
    pub(crate) fn command(self, source: &Path, uri: &str, amount: u64, back: Option<&Path>) -> Command {
        let mut command = Command::new(self.tool().path());
        match self {
            Self::Upload { request } => {
                command.arg(format!("--request-size={request}")).arg("--flush");
                // As virt-v2v runs it.
                command.args((request == LARGE).then_some("--requests=16")).arg(source).arg(uri);
            }
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
