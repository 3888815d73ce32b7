// SPDX-License-Identifier: MIT OR Apache-2.0
//! The block device.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use block_device::{BlockDevice, BlockSize, Capabilities, Errno, Error, ReadBuffer, Result, ZeroFlags};
use bytes::Bytes;
use conn_pool::{Keeper, Pool};

use crate::change::ServerFeatures;
use crate::connection::{Common, KeepAlive, ReplayingConnection};
use crate::error::{Cause, OpenError, pool_error};
use crate::outage::Outage;
use crate::replay_buffer::ReplayBuffer;
use crate::request::{DeviceRequest, Extent};
use crate::tracker::Tracker;
use crate::transfer::Transfer;

/// An oVirt disk as a block device. Any thread may use it at any time.
///
/// Each request waits for a connection, first come first served. Drop it only after [`close`](Self::close): what is
/// unflushed then is lost.
pub struct Device {
    pub(crate) pool: Pool<ReplayingConnection>,
    common: Arc<Common>,
    keeper: Mutex<Option<Keeper<ReplayingConnection>>>,
    size: u64,
    capabilities: Capabilities,
    max_request: u64,
}

impl Device {
    fn start(transfer: &Transfer) -> std::result::Result<Self, OpenError> {
        let common = Arc::new(Common::new(transfer));
        let connections = 0..transfer.connections() as usize;
        let connections = connections.map(|owner| ReplayingConnection::new(Arc::clone(&common), owner));
        let pool = Pool::new(connections, Arc::new(Instant::now));
        let keeper = Keeper::start(pool.clone(), transfer.settings.keep_alive).map_err(OpenError::Keeper)?;
        Ok(Self {
            pool,
            common,
            keeper: Mutex::new(Some(keeper)),
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
    /// Data may be lost: this flush failed, or something did before; or a write or zero failed, and its place was not
    /// written since.
    pub fn close(&self) -> Result<()> {
        // First, as it would otherwise keep using what is being closed.
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(keeper);
        self.pool.close().map_err(|Cause(error)| error)?;
        match self.common.tracker.what_is_missing() {
            Some(missing) => Err(Error::new(Errno::Io, missing)),
            None => Ok(()),
        }
    }

    /// Whether a connection was lost lately, so that a request may take its time to be answered.
    pub(crate) fn had_outage_lately(&self) -> bool {
        const LATELY: Duration = Duration::from_secs(60);
        self.common.outage.was_within(LATELY, Instant::now())
    }

    /// In bytes; longer writes are sent in steps.
    pub(crate) fn longest_write(&self) -> u64 {
        self.common.longest_write
    }

    /// The failure that every request now gets, if data may be lost.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.pool.failure().map(|Cause(error)| error)
    }

    /// How many requests wait for a connection: a figure for logs and tests, old as soon as it is told.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pool.waiting()
    }

    fn run(&self, request: DeviceRequest) -> Result<()> {
        self.pool.run(request).map_err(pool_error)
    }

    /// A range that was found to be on the disk.
    pub(crate) fn extent(&self, offset: u64, len: u64) -> Extent {
        Extent { offset, len, max_request: self.max_request }
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

    /// The data is copied once more than by [`read_into`](Self::read_into).
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let (give_back, memory) = channel();
        self.read_into(offset, Box::new(OwnMemory { memory: vec![0; buf.len()], give_back }))?;
        let memory = memory.recv().expect("it is given back before the request is told of");
        buf.copy_from_slice(&memory);
        Ok(())
    }

    fn read_into(&self, offset: u64, mut buffer: Box<dyn ReadBuffer>) -> Result<()> {
        let len = buffer.bytes().len() as u64;
        self.check_read(offset, len)?;
        self.run(DeviceRequest::read_into(self.extent(offset, len), buffer))
    }

    fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<()> {
        let len = data.len() as u64;
        self.check_write(offset, len)?;
        self.run(DeviceRequest::write(self.extent(offset, len), data, fua, None))
    }

    /// [`ZeroFlags::no_hole`] makes no difference: whether zeroed ranges stay allocated is decided by the transfer
    /// (`sparse`), and imageio has no means to ask for either.
    fn zero(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.check_zero(offset, len, flags)?;
        self.run(DeviceRequest::zero(self.extent(offset, len), flags.fua, None))
    }

    fn flush(&self) -> Result<()> {
        self.pool.flush().map_err(pool_error)
    }
}

/// Memory that a read fills, for a caller whose own is borrowed.
struct OwnMemory {
    memory: Vec<u8>,
    give_back: Sender<Vec<u8>>,
}

impl ReadBuffer for OwnMemory {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

impl Drop for OwnMemory {
    fn drop(&mut self) {
        // Nobody waits for it where the request was refused.
        let _ = self.give_back.send(std::mem::take(&mut self.memory));
    }
}

impl Transfer {
    /// Starts the device with its pool and keeper. Connections are opened when they are needed.
    ///
    /// # Errors
    /// [`OpenError::Keeper`] where no thread can be had.
    pub fn start(self) -> std::result::Result<Device, OpenError> {
        Device::start(&self)
    }
}

impl Common {
    fn new(transfer: &Transfer) -> Self {
        let (settings, capabilities) = (&transfer.settings, transfer.capabilities());
        Self {
            connector: Arc::clone(&transfer.connector),
            server: ServerFeatures { flush: capabilities.flush, zero: capabilities.zero },
            longest_write: match settings.max_request {
                0 => u64::MAX,
                max_request => max_request,
            },
            reconnect_timeout: settings.reconnect_timeout,
            keep_alive: if transfer.can_flush() { KeepAlive::Flush } else { KeepAlive::ReadOneByte },
            tracker: Arc::new(Tracker::new(transfer.size(), settings.replay_buffer)),
            outage: Outage::default(),
            replay_buffer: ReplayBuffer::new(settings.replay_buffer, transfer.connections()),
        }
    }
}
