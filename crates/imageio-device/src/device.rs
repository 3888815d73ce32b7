// SPDX-License-Identifier: MIT OR Apache-2.0
//! The block device.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use block_device::{BlockDevice, BlockSize, Buffer, Capabilities, Errno, Error, Result, ZeroFlags};
use bytes::Bytes;
use conn_pool::{Keeper, Pool};

use crate::error::{OpenError, pool_error};
use crate::ledger::Ledger;
use crate::link::Link;
use crate::request::{Request, Target, Work};
use crate::transfer::Transfer;

/// An oVirt disk as a block device. Any thread may use it at any time.
///
/// Each request waits for a connection, first come first served. Drop it only after [`close`](Self::close): what is
/// unflushed then is lost.
pub struct Device {
    pub(crate) pool: Pool<Link>,
    ledger: Arc<Ledger>,
    keeper: Mutex<Option<Keeper<Link>>>,
    size: u64,
    capabilities: Capabilities,
    max_request: u64,
    pub(crate) longest_write: u64,
}

impl Device {
    pub(crate) fn start(transfer: &Transfer) -> std::result::Result<Self, OpenError> {
        let ledger = Arc::new(Ledger::new(transfer.settings.replay_buffer));
        let pool = Pool::new(transfer.links(&ledger), Arc::new(Instant::now));
        let keeper = Keeper::start(pool.clone(), transfer.settings.keep_alive).map_err(OpenError::Keeper)?;
        Ok(Self {
            pool,
            ledger,
            keeper: Mutex::new(Some(keeper)),
            size: transfer.size(),
            max_request: transfer.settings.max_request,
            longest_write: transfer.longest_write(),
            capabilities: Capabilities {
                read_only: transfer.is_read_only(),
                flush: transfer.can_flush(),
                fua: transfer.can_flush(),
                fast_zero: false,
                multi_conn: true,
                block_size: BlockSize {
                    preferred: transfer.settings.preferred_block_size,
                    ..BlockSize::default()
                },
            },
        })
    }

    /// Waits for the requests in flight, flushes what is unflushed, and closes all connections. Later requests get
    /// [`Errno::Shutdown`].
    ///
    /// # Errors
    /// Data may be lost: this flush failed, or something did before; or a write was given up, though the server has not
    /// refused it, and its place was not written since.
    pub fn close(&self) -> Result<()> {
        // First, as it would otherwise keep using what is being closed.
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(keeper);
        self.pool.close()?;
        match self.ledger.what_is_missing() {
            Some(missing) => Err(Error::new(Errno::Io, missing)),
            None => Ok(()),
        }
    }

    /// Whether a request is expected to be answered soon: no connection was lost lately.
    pub(crate) fn is_calm(&self) -> bool {
        const LATELY: Duration = Duration::from_secs(60);
        !self.ledger.has_lost_within(LATELY)
    }

    /// The failure that every request now gets, if data may be lost.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.pool.failure()
    }

    /// How many requests wait for a connection: a figure for logs and tests, old as soon as it is told.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pool.waiting()
    }

    fn run(&self, request: Request) -> Result<()> {
        self.pool.run(request).map_err(pool_error)
    }

    // The requests must have been found possible before.

    pub(crate) fn read_request(&self, offset: u64, len: u64, target: Target) -> Request {
        Request::new(offset, len, Work::Read { into: [target].into() }, self.max_request)
    }

    pub(crate) fn write_request(&self, offset: u64, data: Bytes, is_lent: bool, fua: bool) -> Request {
        let len = data.len() as u64;
        Request::new(offset, len, Work::Write { data: [data].into(), is_lent, fua }, self.max_request)
    }

    pub(crate) fn zero_request(&self, offset: u64, len: u64, flags: ZeroFlags) -> Request {
        Request::new(offset, len, Work::Zero { fua: flags.fua }, self.max_request)
    }

    pub(crate) fn check_read(&self, offset: u64, len: u64) -> Result<()> {
        self.check_range(offset, len, Errno::Inval)
    }

    pub(crate) fn check_write(&self, offset: u64, len: u64) -> Result<()> {
        if self.capabilities.read_only {
            return Err(Error::new(Errno::Perm, "the disk is read-only"));
        }
        self.check_range(offset, len, Errno::NoSpc)
    }

    pub(crate) fn check_zero(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        if flags.fast {
            return Err(Error::new(Errno::NotSup, "zeroing may be as slow as writing"));
        }
        self.check_write(offset, len)
    }

    fn check_range(&self, offset: u64, len: u64, errno: Errno) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::new(errno, format!("{len} bytes at {offset} end past the disk's {}", self.size))),
        }
    }
}

impl BlockDevice for Device {
    fn size(&self) -> u64 {
        self.size
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Alone, as `buf` is this thread's: [`read_into`](Self::read_into) can be merged.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check_read(offset, buf.len() as u64)?;
        let mut link = self.pool.get().map_err(pool_error)?;
        link.read(offset, &mut [buf]).map_err(|failure| {
            if failure.is_fatal {
                // Before the link goes back, so that nobody takes it unaware.
                self.pool.fail(failure.error.clone());
            }
            failure.error
        })
    }

    fn read_into(&self, offset: u64, mut buffer: Box<dyn Buffer>) -> Result<()> {
        let len = buffer.bytes().len() as u64;
        self.check_read(offset, len)?;
        self.run(self.read_request(offset, len, Target::Lent(buffer)))
    }

    fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<()> {
        self.check_write(offset, data.len() as u64)?;
        self.run(self.write_request(offset, data, true, fua))
    }

    /// [`ZeroFlags::no_hole`] makes no difference: whether zeroed ranges stay allocated is decided by the transfer
    /// (`sparse`), and imageio has no means to ask for either.
    fn zero(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.check_zero(offset, len, flags)?;
        self.run(self.zero_request(offset, len, flags))
    }

    fn flush(&self) -> Result<()> {
        self.pool.flush().map_err(pool_error)
    }
}
