// SPDX-License-Identifier: MIT OR Apache-2.0
//! One client's view of the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use block_device_traits::{
    ALLOCATION, BlockDevice, Capabilities, Errno, Error, Extent, ReadBuffer, Result, ZeroFlags,
};
use bytes::Bytes;

use crate::ffi::{channel, flags};
use crate::stats::{self, Connected, Operation};

/// The number of extents that are told at once. Whoever wants more asks again.
const MOST_EXTENTS: usize = 8192;

/// The state that nbdkit keeps for each client: the disk, and whether this client may only read.
pub(crate) struct Client {
    device: Arc<dyn BlockDevice>,
    read_only: bool,
    _connected: Connected,
}

/// A request as logs show it.
struct LoggedRequest {
    operation: Operation,
    offset: u64,
    count: u64,
    flags: &'static str,
}

impl Client {
    pub(crate) fn new(device: Arc<dyn BlockDevice>, read_only: bool) -> Self {
        Self { device, read_only, _connected: Connected::new() }
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    pub(crate) fn can_write(&self) -> bool {
        !self.read_only && !self.capabilities().read_only
    }

    /// In nbdkit's type.
    pub(crate) fn size(&self) -> Result<i64> {
        let size = self.device.size();
        i64::try_from(size)
            .map_err(|_| Error::new(Errno::Overflow, format!("{size} bytes are too many for nbdkit")))
    }

    pub(crate) fn read(&self, offset: u64, mut buffer: Box<dyn ReadBuffer>) -> Result<()> {
        let count = buffer.bytes().len() as u64;
        let request = LoggedRequest { operation: Operation::Read, offset, count, flags: "" };
        request.run(|| self.device.read_into(offset, buffer))
    }

    pub(crate) fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<()> {
        let count = data.len() as u64;
        let request = LoggedRequest { operation: Operation::Write, offset, count, flags: flag(fua, " fua") };
        request.run(|| {
            self.check_writable()?;
            self.device.write(offset, data, fua)
        })
    }

    pub(crate) fn zero(&self, offset: u64, count: u64, flags: ZeroFlags) -> Result<()> {
        let request =
            LoggedRequest { operation: Operation::Zero, offset, count, flags: flag(flags.fua, " fua") };
        request.run(|| {
            self.check_writable()?;
            self.device.zero(offset, count, flags)
        })
    }

    pub(crate) fn flush(&self) -> Result<()> {
        LoggedRequest { operation: Operation::Flush, offset: 0, count: 0, flags: "" }
            .run(|| self.device.flush())
    }

    pub(crate) fn can_extents(&self) -> bool {
        self.allocation().is_some()
    }

    /// The extents of a range, from its start on; perhaps not of all of it. The first call waits
    /// for the server, which may take minutes; but not once nbdkit ends, which waits for this, or
    /// the client has gone.
    pub(crate) fn extents(&self, offset: u64, count: u64, only_first: bool) -> Result<Vec<Extent>> {
        let flags = flag(only_first, " req-one");
        let request = LoggedRequest { operation: Operation::Extents, offset, count, flags };
        request.run(|| {
            let unknown = || Error::new(Errno::NotSup, "the disk doesn't tell what is allocated");
            let limit = if only_first { 1 } else { MOST_EXTENTS };
            let context = self.allocation().ok_or_else(unknown)?;
            self.device.extents_while(context, offset, count, limit, &channel::goes_on)
        })
    }

    /// The index of the one context that nbdkit knows.
    fn allocation(&self) -> Option<usize> {
        self.device.contexts().iter().position(|context| context == ALLOCATION)
    }

    /// nbdkit has refused it before; a filter may not have.
    fn check_writable(&self) -> Result<()> {
        if self.can_write() { Ok(()) } else { Err(Error::new(Errno::Perm, "the disk is read-only")) }
    }
}

fn flag(set: bool, name: &'static str) -> &'static str {
    if set { name } else { "" }
}

impl LoggedRequest {
    /// Carries it out, and takes note of how it went. An error says what was asked.
    fn run<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        stats::count(self.operation, self.count, took, result.is_ok());
        if flags::requests() {
            self.show(took, &result);
        }
        result.map_err(|error| Error::new(error.errno(), format!("{self}: {error}")))
    }

    fn show<T>(&self, took: Duration, result: &Result<T>) {
        let took = took.as_secs_f64() * 1e3;
        channel::debug(&match result {
            Ok(_) => format!("imageio: {self}: {took:.3} ms"),
            Err(error) => format!("imageio: {self}: {took:.3} ms: {}: {error}", error.errno().name()),
        });
    }
}

impl std::fmt::Display for LoggedRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.operation.name();
        match self.operation {
            Operation::Flush => f.write_str(name),
            Operation::Read | Operation::Write | Operation::Zero | Operation::Extents => {
                write!(f, "{name} of {} bytes at {}{}", self.count, self.offset, self.flags)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use block_device_traits::MemoryDevice;

    use super::*;

    /// Shows what it holds when it goes.
    struct Shown([u8; 4], Sender<[u8; 4]>);

    impl ReadBuffer for Shown {
        fn bytes(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    impl Drop for Shown {
        fn drop(&mut self) {
            self.1.send(self.0).unwrap();
        }
    }

    #[test]
    fn a_read_only_client_of_a_writable_disk_only_reads() {
        let disk: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::from_bytes(b"disk".to_vec()));
        let client = Client::new(Arc::clone(&disk), true);
        assert!(!client.can_write() && Client::new(disk, false).can_write());
        let error = client.write(0, Bytes::from_static(b"x"), true).unwrap_err();
        assert_eq!(error.errno(), Errno::Perm);
        assert_eq!(error.to_string(), "write of 1 bytes at 0 fua: the disk is read-only");
        let (shown, read) = channel();
        client.read(0, Box::new(Shown([0; 4], shown))).unwrap();
        assert_eq!(&read.recv().unwrap(), b"disk");
        assert_eq!(client.size().unwrap(), 4);
    }

    #[test]
    fn a_client_is_told_of_one_extent_if_it_asks_for_one() {
        let disk = MemoryDevice::new(3 * 4096);
        disk.write(4096, Bytes::from_static(b"x"), false).unwrap();
        let client = Client::new(Arc::new(disk), false);
        assert!(client.can_extents());
        let extents = |only_first| client.extents(0, 3 * 4096, only_first).unwrap().len();
        assert_eq!((extents(false), extents(true)), (3, 1));
    }
}
