// SPDX-License-Identifier: MIT OR Apache-2.0
//! The block device.

mod checks;

use std::fmt;
use std::ops::Range;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use block_device_traits::{
    Batch, BlockDevice, Capabilities, Errno, Error, Extent, ReadBuffer, Result, ZeroFlags,
};
use bytes::Bytes;
use conn_pool::{Keeper, Pool};

use crate::change::ServerFeatures;
use crate::connection::{Common, KeepAlive, ReplayingConnection};
use crate::counters::Counters;
use crate::error::{Cause, OpenError, pool_error};
use crate::extents::{Extents, View, clean_as_holes};
use crate::link::Link;
use crate::notice::Notice;
use crate::outage::Outage;
use crate::replay_buffer::ReplayBuffer;
use crate::request::{DeviceRequest, DiskRange};
use crate::settings::NoHole;
use crate::tracker::{Context, Tracker};
use crate::transfer::Transfer;
use crate::write;
use crate::zero::Zeroing;

/// An oVirt disk as a block device. Any thread may use it at any time.
///
/// Each request waits for a connection, first come first served. Drop it only after
/// [`close`](Self::close): what is unflushed then is lost.
pub struct Device {
    pub(crate) pool: Pool<ReplayingConnection>,
    pub(crate) common: Arc<Common>,
    keeper: Mutex<Option<Keeper<ReplayingConnection>>>,
    extents: Extents,
    size: u64,
    capabilities: Capabilities,
    /// In bytes.
    pub(crate) read_ahead: u64,
    no_hole: NoHole,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("size", &self.size)
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

impl Device {
    fn start(transfer: &Transfer) -> std::result::Result<Self, OpenError> {
        let common = Arc::new(Common::new(transfer));
        let connections = 0..transfer.connections() as usize;
        let connections = connections.map(|owner| ReplayingConnection::new(Arc::clone(&common), owner));
        let pool = Pool::new(connections, Arc::new(Instant::now));
        let keeper = Keeper::start(pool.clone(), transfer.settings.keep_alive).map_err(OpenError::Keeper)?;
        let extents = Extents::new(transfer, &common.tracker, &common.counters);
        Ok(Self {
            pool,
            common,
            extents,
            keeper: Mutex::new(Some(keeper)),
            size: transfer.size(),
            read_ahead: transfer.settings.read_ahead,
            no_hole: transfer.settings.no_hole,
            capabilities: transfer.device_capabilities(),
        })
    }

    /// Waits for the requests in flight, but not for extents, flushes what is unflushed, and closes
    /// all connections. Later requests get [`Errno::Shutdown`].
    ///
    /// # Errors
    /// Data may be lost: this flush failed, or something did before; or a write or zero failed, and
    /// its place was not written since.
    pub fn close(&self) -> Result<()> {
        self.end_extents();
        // Before the pool, as it would otherwise keep using what is being closed.
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(keeper);
        self.pool.close().map_err(|Cause(error)| error)?;
        match self.common.tracker.what_is_missing() {
            Some(missing) => Err(Error::new(Errno::Io, missing)),
            None => Ok(()),
        }
    }

    /// Returns the part of a read that the server has to be asked for, and its place in the buffer.
    /// The rest is known to be zero, and is told to `fill`; there is no part where all of it is.
    pub(crate) fn needed(
        &self,
        offset: u64,
        len: usize,
        mut fill: impl FnMut(Range<usize>),
    ) -> Option<(DiskRange, Range<usize>)> {
        let range = offset..offset + len as u64;
        let mut needed = self.common.tracker.without_zeroes(range.clone());
        if needed.is_empty() && self.failure().is_some() {
            // The pool knows what to say.
            needed = range;
        }
        // Both are in the buffer, so that positions in it fit in usize.
        let part = (needed.start - offset) as usize..(needed.end - offset) as usize;
        for zeroes in [0..part.start, part.end..len].into_iter().filter(|zeroes| !zeroes.is_empty()) {
            fill(zeroes);
        }
        let place = self.place(needed.start, needed.end - needed.start);
        (len == 0 || !part.is_empty()).then_some((place, part))
    }

    /// Tells `waiter` the extents of a range when the server was asked for them, or why not.
    pub(crate) fn when_extents_are_known(
        self: &Arc<Self>,
        question: Question,
        waiter: impl FnOnce(Result<Vec<Extent>>, &mut Batch) + Send + 'static,
    ) {
        let (device, view) = (Arc::clone(self), question.view);
        let waiter = move |is_told: Result<bool>, batch: &mut Batch| {
            let extents = is_told.and_then(|is_told| device.known_extents(&question, is_told));
            waiter(extents, batch);
        };
        self.extents.when_asked(view, Box::new(waiter));
    }

    /// Returns the extents of a range, as far as they are known by now.
    fn known_extents(&self, question: &Question, is_told: bool) -> Result<Vec<Extent>> {
        let Question { view, ref range, limit } = *question;
        let tracker = self.tracker();
        match (self.failure(), view) {
            (Some(failure), _) => Err(failure),
            // Nobody may take what isn't known for what is or isn't dirty.
            (None, View::Plain(Context::Dirty)) if !is_told => {
                Err(Error::new(Errno::Inval, "the transfer has no dirty extents"))
            }
            (None, View::Plain(context)) => Ok(tracker.extents(context, range, limit)),
            (None, View::CleanAsHoles) => {
                let of = |context, range: &_, limit| tracker.extents(context, range, limit);
                Ok(clean_as_holes(of, range, limit))
            }
        }
    }

    /// Nobody waits for extents any more, and none are told.
    pub(crate) fn end_extents(&self) {
        self.extents.close();
    }

    /// Returns true if a connection was lost lately, so that a request may take its time to be
    /// answered.
    pub(crate) fn had_outage_lately(&self) -> bool {
        const LATELY: Duration = Duration::from_secs(60);
        self.common.outage.was_within(LATELY, Instant::now())
    }

    pub(crate) fn link(&self) -> &Link {
        &self.common.link
    }

    /// Returns the extent that begins at `offset`, as far as it is known by now, for
    /// [`QueuedDevice::extent_ahead`](block_device_traits::QueuedDevice::extent_ahead).
    pub(crate) fn extent_ahead(&self, offset: u64) -> Option<Extent> {
        let range = offset.min(self.size)..self.size;
        match self.failure() {
            // The pool knows what to say.
            Some(_) => None,
            None => Some(self.common.tracker.extent_ahead(&range)),
        }
    }

    /// The failure that every request now gets, if data may be lost.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.pool.failure().map(|Cause(error)| error)
    }

    /// Returns the number of requests that wait for a connection: a figure for logs and tests, old
    /// as soon as it is told.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pool.waiting()
    }

    pub(crate) fn tracker(&self) -> &Tracker {
        &self.common.tracker
    }

    /// A zero that was found to be possible.
    pub(crate) fn zeroing(&self, offset: u64, len: u64, flags: ZeroFlags) -> Zeroing {
        Zeroing::new(self.place(offset, len), flags.fua, self.is_written(flags))
    }

    /// Returns true if zeroes are sent as data.
    fn is_written(&self, flags: ZeroFlags) -> bool {
        flags.no_hole && self.no_hole == NoHole::Write
    }

    fn run(&self, request: DeviceRequest) -> Result<()> {
        self.pool.run(request).map_err(pool_error)
    }

    /// A range that was found to be on the disk.
    pub(crate) fn place(&self, offset: u64, len: u64) -> DiskRange {
        DiskRange { offset, len, max_request: self.common.link.max_request() }
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
        let len = buffer.bytes().len();
        self.check_read(offset, len as u64)?;
        match self.needed(offset, len, |zeroes| buffer.fill_zeroes(zeroes)) {
            Some((place, part)) => self.run(DeviceRequest::read_into(place, part, buffer)),
            None => Ok(()),
        }
    }

    fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<()> {
        self.check_write(offset, data.len() as u64)?;
        let missing = |range, reason: &Error| self.tracker().failed(&range, reason);
        write::in_pieces(offset, data, fua, self.link().longest_request(), missing, |offset, part| {
            self.run(DeviceRequest::write(self.place(offset, part.len() as u64), part, fua, None))
        })
    }

    /// The meaning of [`ZeroFlags::no_hole`] is one of the [settings](crate::NoHole).
    /// [`ZeroFlags::fast`] succeeds where the disk is known to be zero.
    fn zero(&self, offset: u64, len: u64, flags: ZeroFlags) -> Result<()> {
        self.check_zero(offset, len, flags)?;
        let mut zeroing = self.zeroing(offset, len, flags);
        let mut piece = zeroing.take_piece();
        zeroing.note_rest(self.tracker());
        loop {
            self.run(piece.request(None))?;
            if zeroing.is_done() {
                return Ok(());
            }
            piece = zeroing.take_piece();
        }
    }

    fn contexts(&self) -> &[String] {
        self.extents.names()
    }

    fn is_tentative(&self, context: usize) -> bool {
        self.extents.view(context) == Some(View::Plain(Context::Dirty))
    }

    /// For dirty extents, the first call asks the server for them.
    fn has_context(&self, context: usize) -> bool {
        match self.extents.view(context) {
            Some(view) if self.is_tentative(context) => self.extents.wait(view, &|| true).unwrap_or(false),
            view => view.is_some(),
        }
    }

    /// The first call asks the server, which may take minutes; all calls wait for that.
    fn extents(&self, context: usize, offset: u64, len: u64, limit: usize) -> Result<Vec<Extent>> {
        self.extents_while(context, offset, len, limit, &|| true)
    }

    /// The server is asked to the end, for those who come later.
    fn extents_while(
        &self,
        context: usize,
        offset: u64,
        len: u64,
        limit: usize,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Vec<Extent>> {
        let question = self.check_extents(context, offset, len, limit)?;
        let is_told = self.extents.wait(question.view, goes_on)?;
        self.known_extents(&question, is_told)
    }

    fn flush(&self) -> Result<()> {
        self.pool.flush().map_err(pool_error)
    }
}

/// A question about a range, which was found to be on the disk.
pub(crate) struct Question {
    view: View,
    range: Range<u64>,
    limit: usize,
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
        let link = Arc::new(Link::new(settings, transfer.connections(), transfer.latency));
        Self {
            connector: Arc::clone(&transfer.connector),
            server: ServerFeatures { flush: capabilities.flush, zero: capabilities.zero },
            reconnect_timeout: settings.reconnect_timeout,
            ticket_keeper: transfer.ticket_keeper.clone(),
            keep_alive: if transfer.can_flush() { KeepAlive::Flush } else { KeepAlive::ReadOneByte },
            tracker: Arc::new(Tracker::new(transfer.size(), link.replay_buffer(), settings.settle_time)),
            outage: Outage::default(),
            replay_buffer: ReplayBuffer::new(Arc::clone(&link)),
            counters: Arc::new(Counters::new(transfer.connections())),
            told_of_loss: Notice::default(),
            link,
        }
    }
}
