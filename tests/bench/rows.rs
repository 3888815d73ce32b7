// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rows of the tables: which work, by which way, to which server.

use std::num::NonZeroU64;
use std::time::Duration;

use fault_proxy::Link;
use support::target::Via;

use crate::work::{AS_VIRT_V2V, BY_ITSELF, DEEP, LARGE, Reader, SMALL, TINY, Work};

/// The server and what keeps its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// The real daemon, with `qemu-nbd` and a raw image in memory.
    Real,
    /// The fake, which keeps nothing.
    FakeNull,
}

use Server::{FakeNull, Real};
use Via::{Http, Https, Unix};

/// One line of the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowKind {
    pub(crate) server: Server,
    pub(crate) via: Via,
    /// The link between the doors and the server, if they aren't on one host.
    pub(crate) link: Option<Link>,
    pub(crate) work: Work,
    /// The disk is so much smaller than that of other rows, where a round would take too long.
    pub(crate) part: u64,
    /// Measured with `--quick`.
    pub(crate) quick: bool,
}

const fn row(server: Server, via: Via, work: Work) -> RowKind {
    RowKind { server, via, link: None, work, part: 1, quick: false }
}

const fn quick(server: Server, via: Via, work: Work) -> RowKind {
    RowKind { quick: true, ..row(server, via, work) }
}

const fn sparse(via: Via, client: Reader, format: &'static str) -> RowKind {
    row(Real, via, Work::SparseRead { client, format })
}

/// Puts `delay` milliseconds between client and server, and copies a part of the disk.
const fn far(delay: u64, work: Work, part: u64) -> RowKind {
    let link = Link::new(Duration::from_millis(delay), None);
    RowKind { link: Some(link), part, ..row(Real, Http, work) }
}

const fn by_https(row: RowKind) -> RowKind {
    RowKind { via: Https, ..row }
}

/// A local network of 1 Gbit/s, or nearly.
const NARROW: Link = Link::new(Duration::from_micros(200), NonZeroU64::new(100 << 20));

pub(crate) const ROWS: &[RowKind] = &[
    quick(Real, Http, BY_ITSELF),
    row(Real, Unix, BY_ITSELF),
    quick(Real, Https, BY_ITSELF),
    quick(Real, Http, AS_VIRT_V2V),
    row(Real, Unix, AS_VIRT_V2V),
    row(Real, Https, AS_VIRT_V2V),
    row(Real, Http, DEEP),
    row(Real, Unix, DEEP),
    row(Real, Https, DEEP),
    row(Real, Http, Work::VirtV2v),
    row(Real, Unix, Work::VirtV2v),
    row(Real, Https, Work::VirtV2v),
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
    far(0, AS_VIRT_V2V, 1),
    far(1, AS_VIRT_V2V, 1),
    far(5, AS_VIRT_V2V, 1),
    far(10, AS_VIRT_V2V, 1),
    far(20, AS_VIRT_V2V, 1),
    far(50, AS_VIRT_V2V, 2),
    far(0, DEEP, 1),
    far(1, DEEP, 1),
    far(5, DEEP, 1),
    far(10, DEEP, 1),
    far(20, DEEP, 1),
    far(50, DEEP, 2),
    far(0, BY_ITSELF, 1),
    far(1, BY_ITSELF, 2),
    far(5, BY_ITSELF, 4),
    // The whole disk, as its limit is for a copy in which the beginning counts little.
    far(10, BY_ITSELF, 1),
    far(20, BY_ITSELF, 4),
    far(50, BY_ITSELF, 8),
    far(20, Work::ReadBack { request: LARGE }, 1),
    far(20, Work::ReadBack { request: SMALL }, 4),
    by_https(far(20, AS_VIRT_V2V, 1)),
    by_https(far(20, BY_ITSELF, 4)),
    RowKind { link: Some(NARROW), ..row(Real, Http, AS_VIRT_V2V) },
    quick(FakeNull, Http, BY_ITSELF),
    row(FakeNull, Unix, BY_ITSELF),
    row(FakeNull, Https, BY_ITSELF),
    row(FakeNull, Http, AS_VIRT_V2V),
    row(FakeNull, Http, Work::ReadBack { request: SMALL }),
    row(FakeNull, Http, Work::RandomWrites { depth: 32 }),
];

impl RowKind {
    pub(crate) fn name(&self) -> String {
        let server = match self.server {
            Real => "real",
            FakeNull => "fake-null",
        };
        let link = self.link.map(link_name).unwrap_or_default();
        format!("{server}/{}{link}/{}", self.via.name(), self.work.name())
    }
}

/// Returns the part of a row's name that tells of its link: its rate, or else its delay.
fn link_name(link: Link) -> String {
    match link.rate {
        Some(rate) => format!("-{}mib", rate.get() >> 20),
        None => format!("-{}ms", link.delay.as_millis()),
    }
}
