// SPDX-License-Identifier: MIT OR Apache-2.0
//! The narrow traits between a block device and whatever serves it.
//!
//! A [`BlockDevice`] reads, writes, zeroes, trims and flushes; it tells its size, its
//! [`Capabilities`] and what it knows of its ranges. A server (NBD, nbdkit's plugin, a test) needs
//! nothing else, and knows nothing of where the data is.
//!
//! ```
//! use std::sync::Arc;
//!
//! use block_device_traits::{
//!     BlockDevice, Capabilities, Errno, Error, MemoryDevice, Result, ZeroFlags,
//! };
//! use bytes::Bytes;
//!
//! /// A disk whose first sector nobody can change.
//! struct Protected(MemoryDevice);
//!
//! impl BlockDevice for Protected {
//!     fn size(&self) -> u64 {
//!         self.0.size()
//!     }
//!
//!     fn capabilities(&self) -> Capabilities {
//!         self.0.capabilities()
//!     }
//!
//!     fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
//!         self.0.read(offset, buf)
//!     }
//!
//!     fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<()> {
//!         match offset {
//!             0..512 => Err(Error::new(Errno::Perm, "the first sector is protected")),
//!             _ => self.0.write(offset, data, fua),
//!         }
//!     }
//!
//!     fn zero(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
//!         self.0.zero(offset, len, flags)
//!     }
//!
//!     fn flush(&self) -> Result<()> {
//!         self.0.flush()
//!     }
//! }
//!
//! let disk = Protected(MemoryDevice::new(1 << 20));
//! disk.write(512, Bytes::from_static(b"data"), false)?;
//! assert_eq!(disk.write(0, Bytes::from_static(b"data"), false).unwrap_err().errno(), Errno::Perm);
//! # Ok::<(), Error>(())
//! ```
//!
//! # Two traits
//!
//! Every call of a [`BlockDevice`] blocks until it is done: callers have a thread for each request,
//! as nbdkit does. Such a device is easy to write. A [`QueuedDevice`] takes a request and tells a
//! [`Completion`] later how it has ended: callers need no thread for each request. [`Threaded`]
//! makes a queued device of one that blocks. There is no async trait: the devices that this was
//! made for have threads of their own, and would run no executor.
//!
//! # Threads and lifecycle
//!
//! Calls come from any thread, many at a time. A device lives for as long as somebody holds it;
//! nothing here opens or closes one. Dropping a [`Threaded`] waits for the requests that it has
//! taken.
//!
//! # Offsets and errors
//!
//! All offsets and lengths are in bytes. Callers keep requests inside [`BlockDevice::size`], and a
//! device may check again. An [`Error`] has an [`Errno`], which a client of the disk is told, and a
//! line of text for the log. The kinds of errors are those of the NBD protocol, and no others, as
//! no client could tell others apart.

mod error;
mod extents;
mod memory;
mod pieces;
mod queue;
mod threaded;

pub use error::{Errno, Error, Result};
pub use extents::{ALLOCATION, Extent, HOLE, ZERO};
pub use memory::MemoryDevice;
pub use pieces::{BLOCK, has_loose_ends, piece_end, write_pieces};
pub use queue::{Batch, BatchEnd, Completion, QueuedDevice, Request};
pub use threaded::Threaded;

use std::ops::Range;

use bytes::Bytes;

/// A disk: what the NBD frontend and the nbdkit plugin serve.
pub trait BlockDevice: Send + Sync {
    /// Size in bytes; constant for the life of the device.
    fn size(&self) -> u64;

    /// The abilities of the device; constant for the life of the device.
    fn capabilities(&self) -> Capabilities;

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// Any [`Error`]; the contents of `buf` are then unspecified.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Fills `buffer` from `offset`, perhaps from another thread, together with those of other
    /// reads. It is dropped before this returns.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_into(&self, offset: u64, mut buffer: Box<dyn ReadBuffer>) -> Result<()> {
        self.read(offset, buffer.bytes())
    }

    /// Writes `data` at `offset`. `Ok` means that the write is visible to later reads; with `fua`
    /// (force unit access) also that it is on stable storage. No clone of `data` outlives the call.
    ///
    /// # Errors
    /// Any [`Error`]; the range then holds old or new data.
    fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<()>;

    /// Makes a range read as zeroes.
    ///
    /// # Errors
    /// Any [`Error`]; with [`ZeroFlags::fast`], [`Errno::NotSup`] where it would be no faster than
    /// a write.
    fn zero(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()>;

    /// Says that the contents of a range are not needed any more: they may read as anything until
    /// they are written. Called only where [`Capabilities::trim`] is set.
    ///
    /// # Errors
    /// Any [`Error`]; [`Errno::Inval`] where the device can't.
    fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<()> {
        let _ = fua;
        Err(Error::new(Errno::Inval, format!("the device cannot trim {len} bytes at {offset}")))
    }

    /// The metadata contexts that the device has, such as [`ALLOCATION`]; constant for the life of
    /// the device.
    fn contexts(&self) -> &[String] {
        &[]
    }

    /// Returns true if it takes time to find out whether the device has the context with this index
    /// in [`contexts`](Self::contexts); constant for the life of the device. Those who ask for such
    /// a context call [`has_context`](Self::has_context) first.
    fn is_tentative(&self, context: usize) -> bool {
        let _ = context;
        false
    }

    /// Returns true if the device has the context with this index in [`contexts`](Self::contexts).
    /// For a [tentative](Self::is_tentative) one, it may take minutes until the first call returns;
    /// the answer stays the same then.
    fn has_context(&self, context: usize) -> bool {
        context < self.contexts().len()
    }

    /// Returns the extents of `len` bytes from `offset` on, as the context with this index in
    /// [`contexts`](Self::contexts) has them. `len` is not 0. There is one extent at least, and
    /// `limit` at most, which is not 0. They begin at `offset`, in order and without gaps. They may
    /// end before the range does, and the last may go beyond it.
    ///
    /// # Errors
    /// Any [`Error`]; [`Errno::Inval`] where there is no such context.
    fn extents(&self, context: usize, offset: u64, len: u64, limit: usize) -> Result<Vec<Extent>> {
        let _ = (offset, len, limit);
        Err(extents::no_context(context))
    }

    /// Does what [`extents`](Self::extents) does, for a caller that may not be able to wait to the
    /// end. Where the device waits for somebody else, it asks some times in a second whether it
    /// `goes_on`.
    ///
    /// # Errors
    /// As [`extents`](Self::extents); [`Errno::Shutdown`] once it doesn't go on.
    fn extents_while(
        &self,
        context: usize,
        offset: u64,
        len: u64,
        limit: usize,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Extent>> {
        let _ = goes_on;
        self.extents(context, offset, len, limit)
    }

    /// Brings every write and zero that was answered before this call to stable storage, whichever
    /// client sent it.
    ///
    /// # Errors
    /// Any [`Error`]: then data may be lost.
    fn flush(&self) -> Result<()>;
}

/// Memory that a read fills.
pub trait ReadBuffer: Send {
    /// The memory, always the same.
    fn bytes(&mut self) -> &mut [u8];

    /// A part of what is read is known to be zero: `range` of the [memory](Self::bytes), which need
    /// not be filled then.
    fn fill_zeroes(&mut self, range: Range<usize>) {
        self.bytes()[range].fill(0);
    }
}

/// Options of a request that zeroes a range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ZeroFlags {
    /// On stable storage before the answer.
    pub fua: bool,
    /// Keep the range allocated (NBD's `NO_HOLE`).
    pub no_hole: bool,
    /// Fail at once with [`Errno::NotSup`] if zeroing is no faster than writing.
    pub fast: bool,
}

/// The abilities of a device. By default it can only read, write and zero, with the default
/// [`BlockSize`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Writes and zeroes are refused.
    pub read_only: bool,
    /// `flush` means something.
    pub flush: bool,
    /// `fua` is honoured for writes and zeroes.
    pub fua: bool,
    /// [`BlockDevice::trim`] does something.
    pub trim: bool,
    /// Zeroing with `fast` may succeed.
    pub fast_zero: bool,
    /// A flush covers the writes of all clients, so one client may use several connections.
    pub multi_conn: bool,
    /// Request sizes.
    pub block_size: BlockSize,
}

impl Capabilities {
    /// Changes it in one expression: `Capabilities::default().with(|can| can.flush = true)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// Request sizes in bytes, with the rules of NBD's block size constraints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSize {
    /// Requests should be aligned to this: a power of two up to 64 KiB.
    pub minimum: u32,
    /// The size that performs best: a power of two, at least 512.
    pub preferred: u32,
    /// The longest request with a payload.
    pub maximum: u32,
}

impl Default for BlockSize {
    /// Byte access, 4 KiB preferred, 64 MiB at most, which is as much as libnbd and nbdkit let
    /// pass.
    fn default() -> Self {
        Self { minimum: 1, preferred: 4096, maximum: 64 << 20 }
    }
}

/// Threads may share these, or it doesn't compile.
const _: () = {
    const fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<MemoryDevice>();
    is_send_and_sync::<Threaded<MemoryDevice>>();
    is_send_and_sync::<Capabilities>();
    is_send_and_sync::<Request>();
    is_send_and_sync::<Error>();
};
