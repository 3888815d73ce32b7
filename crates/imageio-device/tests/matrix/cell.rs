// SPDX-License-Identifier: MIT OR Apache-2.0
//! One fault at one step of one operation.

use std::path::Path;

use block_device_traits::{BlockDevice, Errno, Result};
use bytes::Bytes;
use fake_imageio::{Certificate, FakeServer};
use fault_proxy::{Fault, Point, Proxy};
use imageio_client::{Connection, Connector, ExtentsContext, Timeouts, TlsConfig, TransferUrl};
use imageio_device::{Device, Settings, Transfer, UrlSource};

use crate::common::{NO_FUA, PATIENCE, assert_fails_for_good, line};
use crate::{Operation, Step, TIMEOUT};

/// The expected end of an operation that meets a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Well, on the same connection.
    Unnoticed,
    /// Well.
    Survived,
    /// With an error of one line. Tried again, it ends well.
    Told,
    /// One or the other, as the client and the fault race.
    ToldOrSurvived,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) tls: bool,
    pub(crate) operation: Operation,
    pub(crate) step: Step,
    pub(crate) point: Point,
    pub(crate) fault: Fault,
    pub(crate) expected: Expected,
}

const SIZE: usize = 512 << 10;
/// The data of a read or write.
const LEN: usize = 64 << 10;
const READ_AT: usize = 128 << 10;
const WRITE_AT: usize = 256 << 10;

/// The content that is written before the fault, and not flushed.
const UNFLUSHED: &[u8] = b"written before, and not flushed";

/// A server, and the proxy that leads there.
pub(crate) struct Way {
    pub(crate) server: FakeServer,
    pub(crate) proxy: Proxy,
}

impl Way {
    pub(crate) fn new(tls: bool, contents: Vec<u8>) -> Self {
        Self::with_blocks(tls, contents, None)
    }

    /// Leads to a block device, where there is a size of blocks.
    pub(crate) fn with_blocks(tls: bool, contents: Vec<u8>, block_size: Option<u64>) -> Self {
        let mut builder = FakeServer::builder().contents(contents);
        if let Some(block_size) = block_size {
            builder = builder.block_device(block_size);
        }
        if tls {
            builder = builder.tls(Certificate::default());
        }
        let server = builder.start().unwrap();
        let proxy = Proxy::start(server.addr()).unwrap();
        Self { server, proxy }
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.server.cafile().is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.proxy.addr(), self.server.path())
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::new(UrlSource::Inline(self.url())).with(|settings| {
            settings.cafile = self.server.cafile().map(Path::to_owned);
            settings.connections = Some(1);
            settings.keep_alive = None;
            settings.timeouts = Timeouts::new(TIMEOUT, TIMEOUT, TIMEOUT);
            settings.reconnect_timeout = PATIENCE;
            settings.settle_time = TIMEOUT / 5;
        })
    }

    /// Closes the device, which has to tell if something is missing, and gives what the disk has
    /// then. Connections that nobody can see any more are the proxy's.
    pub(crate) fn close(self, device: &Device, is_missing: bool) -> Vec<u8> {
        assert_eq!(device.close().is_err(), is_missing);
        assert_eq!(device.failure(), None);
        drop(self.proxy);
        assert!(self.server.wait_for(PATIENCE, |log| log.open().count() == 0));
        self.server.contents().unwrap()
    }

    fn connector(&self) -> Connector {
        let url = TransferUrl::parse(&self.url()).unwrap();
        let tls = self.server.cafile().map(|file| TlsConfig::with_cafile(file).unwrap());
        Connector::new(url, tls, self.settings().timeouts).unwrap()
    }
}

fn contents() -> Vec<u8> {
    (0..SIZE).map(|at| (at / 7) as u8 | 1).collect()
}

impl Cell {
    pub(crate) fn run(self) {
        let way = Way::new(self.tls, contents());
        match self.operation {
            Operation::Open => self.opening(&way),
            Operation::Extents => self.extents(&way),
            _ => self.device(way),
        }
    }

    fn arm(&self, way: &Way) {
        way.proxy.fault(self.point, self.fault);
    }

    /// Returns true if the operation begins with a new connection.
    fn connects(&self) -> bool {
        matches!(self.step, Step::Connect | Step::Hello | Step::Certificate)
    }

    fn opening(&self, way: &Way) {
        self.arm(way);
        let open = || Transfer::open(way.settings()).map(|transfer| transfer.size());

        if self.is_well(&open().map_err(|error| line(&error)), SIZE as u64) {
            assert!(self.expected != Expected::Unnoticed || way.server.accepted() == 1);
        }
        assert_eq!(way.proxy.faults(), 1);
        assert_eq!(open().unwrap(), SIZE as u64);
    }

    fn extents(&self, way: &Way) {
        let connector = way.connector();
        let connect = || {
            let mut connection = connector.connect()?;
            connection.options().map(|_| connection)
        };
        let extents = |mut connection: Connection| {
            let extents = connection.extents(ExtentsContext::Zero)?;
            Ok(extents.iter().map(|extent| extent.length).sum())
        };
        let result = if self.connects() {
            self.arm(way);
            connector.connect().and_then(extents)
        } else {
            let connection = connect().unwrap();
            self.arm(way);
            extents(connection)
        };
        if self.is_well(&result.map_err(|error| line(&error)), SIZE as u64) {
            assert!(self.expected != Expected::Unnoticed || way.server.accepted() == 1);
        }
        assert_eq!(way.proxy.faults(), 1);
        assert_eq!(connect().and_then(extents).unwrap(), SIZE as u64);
    }

    /// Returns true if it ended well. Panics if its end is not the expected one.
    #[track_caller]
    fn is_well(&self, result: &std::result::Result<u64, String>, right: u64) -> bool {
        match self.expected {
            Expected::Told => assert!(result.is_err(), "nobody is told"),
            Expected::ToldOrSurvived if result.is_err() => return false,
            _ => assert_eq!(*result, Ok(right)),
        }
        self.expected != Expected::Told
    }

    fn device(&self, way: Way) {
        let device = Transfer::open(way.settings()).unwrap().start().unwrap();
        let mut disk = contents();
        put(&device, &mut disk, 0, UNFLUSHED).unwrap();
        if self.connects() {
            way.server.close_idle();
            assert!(way.proxy.is_deserted(PATIENCE));
        }
        let accepted = way.server.accepted() + usize::from(self.connects());
        self.arm(&way);
        let result = self.request(&device, &mut disk);
        assert_eq!(way.proxy.faults(), 1);
        if self.expected == Expected::Told {
            line(&result.unwrap_err());
            // The server may have closed the connection by now, or a moment later.
            if device.failure().is_some() {
                assert_fails_for_good(&device, Errno::Inval);
            } else {
                let is_missing = matches!(self.operation, Operation::Write | Operation::Zero);
                assert!(way.close(&device, is_missing).starts_with(UNFLUSHED));
            }
            return;
        }
        result.unwrap();
        if self.expected == Expected::Unnoticed {
            assert_eq!(way.server.accepted(), accepted);
        }
        // It goes on as if nothing had been.
        put(&device, &mut disk, READ_AT, b"written after it").unwrap();
        assert_disk(&device, &disk);
        assert!(way.close(&device, false) == disk, "the disk differs");
    }

    fn request(&self, device: &Device, disk: &mut [u8]) -> Result<()> {
        match self.operation {
            Operation::Read => {
                let mut found = vec![0; LEN];
                device.read(READ_AT as u64, &mut found)?;
                assert!(found == disk[READ_AT..READ_AT + LEN], "the read differs");
                Ok(())
            }
            Operation::Write => put(device, disk, WRITE_AT, &[0xa5; LEN]),
            Operation::Zero => {
                disk[WRITE_AT..WRITE_AT + LEN].fill(0);
                device.zero(WRITE_AT as u64, LEN as u64, NO_FUA)
            }
            _ => device.flush(),
        }
    }
}

/// Writes to the device, and to what it should have.
fn put(device: &Device, disk: &mut [u8], at: usize, data: &[u8]) -> Result<()> {
    disk[at..at + data.len()].copy_from_slice(data);
    device.write(at as u64, Bytes::copy_from_slice(data), false)
}

fn assert_disk(device: &Device, disk: &[u8]) {
    let mut found = vec![0; disk.len()];
    device.read(0, &mut found).unwrap();
    assert!(found == disk, "what is read differs");
}
