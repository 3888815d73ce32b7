// SPDX-License-Identifier: MIT OR Apache-2.0
//! The block device.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use block_device::{BlockDevice, BlockSize, Capabilities, Errno, Error, Result, ZeroFlags};
use bytes::Bytes;
use conn_pool::{Keeper, Pool};

use crate::error::{OpenError, pool_error};
use crate::link::{Failure, Link};
use crate::request::{Data, Done, Request, Work};
use crate::transfer::Transfer;

/// An oVirt disk as a block device. Any thread may use it at any time.
///
/// Each request waits for a connection, first come first served. Drop it only after [`close`](Self::close): what is
/// unflushed then is lost.
pub struct Device {
    pool: Pool<Link>,
    keeper: Mutex<Option<Keeper>>,
    size: u64,
    capabilities: Capabilities,
    max_request: u64,
}

impl Device {
    pub(crate) fn start(transfer: &Transfer) -> std::result::Result<Self, OpenError> {
        let pool = Pool::new(transfer.links(), Arc::new(Instant::now));
        let keeper = transfer.settings.keep_alive.map(|limit| Keeper::start(pool.clone(), limit));
        Ok(Self {
            pool,
            keeper: Mutex::new(keeper.transpose().map_err(OpenError::Keeper)?),
            size: transfer.size(),
            max_request: transfer.settings.max_request,
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
    /// Data may be lost: this flush failed, or something did before.
    pub fn close(&self) -> Result<()> {
        // First, as it would otherwise keep using what is being closed.
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(keeper);
        self.pool.close()
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

    /// Carries out a request by `work`, together with those that go with it, or lets another do so.
    fn run(
        &self,
        request: Request,
        work: impl FnOnce(&mut Link, Request) -> std::result::Result<Done, Failure>,
    ) -> Result<Done> {
        let answer = self.pool.run(request, |link, request| {
            work(link, request).map_err(|failure| {
                if failure.fatal {
                    // Before the link goes back, so that nobody takes it unaware.
                    self.pool.fail(failure.error.clone());
                }
                failure.error
            })
        });
        answer.map_err(pool_error)?
    }

    fn check_write(&self, offset: u64, len: u64) -> Result<()> {
        if self.capabilities.read_only {
            return Err(Error::new(Errno::Perm, "the disk is read-only"));
        }
        self.check_range(offset, len, Errno::NoSpc)
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

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let len = buf.len() as u64;
        self.check_range(offset, len, Errno::Inval)?;
        let request = Request::new(offset, len, Work::Read, self.max_request);
        let done = self.run(request, |link, request| {
            if request.len == len {
                return link.read(offset, buf).map(|()| Done::Plain);
            }
            let pieces = link.read_pieces(request.offset, request.len)?;
            Ok(Done::Read(Data::new(request.offset, pieces)))
        })?;
        if let Done::Read(data) = done {
            data.copy(offset, buf);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<()> {
        let len = data.len() as u64;
        self.check_write(offset, len)?;
        let work = Work::Write { data: [data].into(), fua };
        let request = Request::new(offset, len, work, self.max_request);
        self.run(request, move |link, request| {
            let Work::Write { data, .. } = request.work else { return Ok(Done::Plain) };
            link.write(request.offset, &data, fua).map(|()| Done::Plain)
        })?;
        Ok(())
    }

    /// [`ZeroFlags::no_hole`] makes no difference: whether zeroed ranges stay allocated is decided by the transfer
    /// (`sparse`), and imageio has no means to ask for either.
    fn zero(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        if flags.fast {
            return Err(Error::new(Errno::NotSup, "zeroing may be as slow as writing"));
        }
        self.check_write(offset, len)?;
        let fua = flags.fua;
        let request = Request::new(offset, len, Work::Zero { fua }, self.max_request);
        let zero = |link: &mut Link, request: Request| link.zero(request.offset, request.len, fua);
        self.run(request, |link, request| zero(link, request).map(|()| Done::Plain))?;
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.pool.flush().map_err(pool_error)
    }
}
