// SPDX-License-Identifier: MIT OR Apache-2.0
//! The transmission phase of one connection.
//!
//! The session's thread reads requests and hands them to the device. Whoever completes one puts the
//! reply in line, and at the end of a batch sends what is in line with one system call, as far as
//! the client takes it at once. The rest is for a second thread, so that a client that doesn't read
//! its replies holds up nobody else.
//!
//! A client that sends one request at a time has it carried out by the session's own thread: see
//! `queue_depth`. What comes next is read ahead, if it reads in order: see `read_ahead`. Long READs
//! and WRITEs go to the device piece by piece: see `pieces`.
//!
//! A request waits in the client's socket while as many are in flight as may be, or while there is
//! no room for its payload. Both are given back when a reply is sent, which needs nothing that the
//! waiting thread holds.

mod in_order;
mod job;
mod pieces;
mod queue_depth;
mod read_ahead;
mod reads;
mod receive;
mod replies;
mod reply;
mod status;

use std::io::BufReader;
use std::sync::Arc;
use std::thread;

use block_device_traits::QueuedDevice;
use io_buffer_pool::Pool;
use nbd_wire::{Command, CommandFlags, Negotiated};

use crate::connection::Service;
use crate::registry::Control;
use crate::transport::{Incoming, Transport};
use job::Job;
use queue_depth::QueueDepth;
use read_ahead::ReadAhead;
use replies::Replies;
use status::Question;

/// The size of the buffer for a client's requests in bytes: it takes the heads of a few requests,
/// or some small writes with their payloads. Of a large payload it is the part that is copied
/// twice.
const INPUT_BUFFER: usize = 8 << 10;

/// A longer request, in bytes, is always handed to the device's own threads.
const SHORT: u32 = 64 << 10;

/// One connection that has chosen its export.
pub(crate) struct Session<'a, D> {
    service: &'a Service<'a, D>,
    /// The device of the export.
    device: &'a D,
    negotiated: Negotiated<'a>,
    control: &'a Control,
    transport: &'a Transport,
    buffers: Arc<Pool>,
    replies: Arc<Replies>,
}

impl<'a, D: QueuedDevice> Session<'a, D> {
    pub(crate) fn new(
        service: &'a Service<'a, D>,
        negotiated: Negotiated<'a>,
        control: &'a Arc<Control>,
        transport: &'a Transport,
    ) -> Self {
        let Service { exports, config, changes, .. } = service;
        let device = exports.device(negotiated.export);
        let counters = exports.counters(negotiated.export);
        let replies = Replies::new(control, transport, counters, changes, config);
        Self { service, device, negotiated, control, transport, buffers: Pool::new(config.memory), replies }
    }

    /// Serves requests until the client leaves or the server stops; returns when all are answered.
    pub(crate) fn run(&self) {
        thread::scope(|scope| {
            let writer = thread::Builder::new().name(format!("nbd-{}.w", self.control.id));
            if let Err(e) = writer.spawn_scoped(scope, || self.replies.send_rest()) {
                log::error!("client {}: cannot start a thread: {e}", self.control.id);
                return;
            }
            // Also in a panic: the other thread waits for it.
            let _end = self.replies.end_on_drop();
            let incoming = self.transport.incoming(&self.control.socket);
            self.read_requests(&mut BufReader::with_capacity(INPUT_BUFFER, incoming));
        });
    }

    fn read_requests(&self, input: &mut BufReader<Incoming<'_>>) {
        let (mut depth, mut ahead) = (QueueDepth::default(), self.nothing_ahead());
        loop {
            if let Err(end) = self.receive(input, &mut depth, &mut ahead) {
                self.service.exports.counters(self.negotiated.export).leave(end.is_in_order());
                if end.leaves_replies() {
                    self.replies.desert();
                }
                return log::debug!("client {}: {end}", self.control.id);
            }
        }
    }

    /// Nothing is read ahead yet, and later no more than leaves room for requests.
    fn nothing_ahead(&self) -> ReadAhead<'a, D> {
        let (device, Service { config, changes, .. }) = (self.device, self.service);
        let most =
            device.read_ahead().min(self.longest_read().saturating_mul(2)).min(config.memory as u64 / 2);
        ReadAhead::new(device, changes, Arc::clone(&self.buffers), self.has_chunks(), most)
    }

    /// In bytes, as the device wants it by now.
    fn longest_write(&self) -> u64 {
        self.device.longest_write().max(1)
    }

    /// In bytes, as the device wants it by now.
    fn longest_read(&self) -> u64 {
        self.device.longest_read().max(1)
    }

    /// The memory of this session follows what the device has a use for, of which each client has a
    /// part.
    fn adjust_memory(&self) {
        let clients = self.service.exports.counters(self.negotiated.export).connected().max(1);
        let part = usize::try_from(self.device.in_flight() / clients).unwrap_or(usize::MAX);
        self.buffers.set_budget(self.service.config.memory.max(part));
    }

    /// Hands a request to the device, or answers it.
    fn start(&self, mut job: Job, input: &BufReader<Incoming<'_>>, depth: &mut QueueDepth) {
        let Ok(command) = job.command else { return job.refuse() };
        let request = match command {
            Command::Read { offset, .. } => block_device_traits::Request::Read { offset },
            Command::Write { offset, fua, .. } => {
                block_device_traits::Request::Write { offset, data: job.take_data(), fua }
            }
            Command::Zero { offset, length, flags } => {
                block_device_traits::Request::Zero { offset, len: length, flags: zero_flags(flags) }
            }
            Command::Trim { offset, length, fua } => {
                block_device_traits::Request::Trim { offset, len: length, fua }
            }
            Command::Flush => block_device_traits::Request::Flush,
            Command::BlockStatus { offset, length, req_one, contexts } => {
                let left = self.negotiated.export.size() - offset;
                let limit = self.negotiated.max_descriptors();
                let question = Question { offset, length, one: req_one, limit, left };
                return status::ask(self.device, job, question, contexts);
            }
            // The device knows best what to keep at hand.
            Command::Cache { .. } | Command::Nothing | Command::Disconnect => return job.succeed(),
            // It has become a BLOCK_STATUS. A job that is dropped is answered by an error.
            Command::BlockStatusPayload { .. } => return,
        };
        if !depth.is_one() || !is_short(command) {
            return self.device.submit(request, Box::new(job));
        }
        self.device.carry_out(request, Box::new(job));
        // It was answered a moment ago, so this was sent before the client could know the answer.
        if reads::has_more(input) {
            depth.was_more();
        }
    }
}

/// Returns true if the command is soon done, should the client have more to do after all.
fn is_short(command: Command) -> bool {
    matches!(command, Command::Read { length, .. } | Command::Write { length, .. } if length <= SHORT)
}

fn zero_flags(flags: CommandFlags) -> block_device_traits::ZeroFlags {
    block_device_traits::ZeroFlags {
        fua: flags.contains(CommandFlags::FUA),
        no_hole: flags.contains(CommandFlags::NO_HOLE),
        fast: flags.contains(CommandFlags::FAST_ZERO),
    }
}
