// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that read in order, one request at a time.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use block_device_traits::{
    Batch, Capabilities, Completion, Errno, Error, Extent, MemoryDevice, QueuedDevice, Request, Threaded,
};
use common::*;
use nbd_frontend::{Config, ExportInfo};

const KIB: usize = 1 << 10;
/// The length of the clients' reads: after eight of these, two more are read ahead.
const READ_LEN: usize = 64 * KIB;
const SIZE: usize = 8 * MIB;
/// The second half is zero.
const DATA: usize = SIZE / 2;

/// A disk in memory that tells what was read. Reads may be held.
struct Device {
    threads: Threaded<MemoryDevice>,
    read_ahead: u64,
    /// It tells what is zero.
    knows_zeroes: bool,
    reads: Mutex<Vec<(u64, usize)>>,
    is_failed: AtomicBool,
    /// Reads and writes wait here, if they are to.
    held: Mutex<Option<VecDeque<Submitted>>>,
}

type Submitted = (Request, Box<dyn Completion>);

fn content() -> Vec<u8> {
    let mut content: Vec<u8> =
        (0..SIZE / 4).flat_map(|n| (n as u32).wrapping_mul(0x9e37_79b1).to_le_bytes()).collect();
    content[DATA..].fill(0);
    content
}

impl Device {
    fn new(read_ahead: usize) -> Self {
        let disk = Arc::new(MemoryDevice::from_bytes(content()));
        Self {
            threads: Threaded::start(disk, 4).unwrap(),
            read_ahead: read_ahead as u64,
            knows_zeroes: false,
            reads: Mutex::default(),
            is_failed: AtomicBool::default(),
            held: Mutex::default(),
        }
    }

    /// Returns the offset and the length of each read since the last call.
    fn reads(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }

    /// Waits until there are so many reads, and returns them.
    fn await_reads(&self, count: usize) -> Vec<(u64, usize)> {
        await_that(|| self.reads.lock().unwrap().len() >= count);
        self.reads()
    }

    fn hold(&self) {
        *self.held.lock().unwrap() = Some(VecDeque::new());
    }

    /// Waits until so many are held, and holds no more.
    fn take_held(&self, count: usize) -> VecDeque<Submitted> {
        await_that(|| self.held.lock().unwrap().as_ref().unwrap().len() >= count);
        self.held.lock().unwrap().take().unwrap()
    }

    /// Does what was submitted.
    fn end(&self, request: Request, mut completion: Box<dyn Completion>) {
        match request {
            Request::Read { offset } if self.knows_zeroes && offset as usize >= DATA => {
                let all = 0..completion.buffer().len();
                completion.fill_zeroes(all);
                completion.complete(Ok(()), &mut Batch::default());
            }
            request => self.threads.submit(request, completion),
        }
    }
}

fn await_that(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never comes");
        thread::yield_now();
    }
}

impl QueuedDevice for Device {
    fn size(&self) -> u64 {
        SIZE as u64
    }

    fn capabilities(&self) -> Capabilities {
        self.threads.capabilities()
    }

    fn submit(&self, request: Request, mut completion: Box<dyn Completion>) {
        if let Request::Read { offset } = request {
            self.reads.lock().unwrap().push((offset, completion.buffer().len()));
        }
        if let Some(held) = &mut *self.held.lock().unwrap() {
            held.push_back((request, completion));
            return;
        }
        self.end(request, completion);
    }

    fn read_ahead(&self) -> u64 {
        self.read_ahead
    }

    fn extent_ahead(&self, offset: u64) -> Option<Extent> {
        let (data, size) = (DATA as u64, SIZE as u64);
        match offset {
            _ if self.is_failed.load(Ordering::SeqCst) => None,
            _ if !self.knows_zeroes => Some(Extent { length: size - offset, status: 0 }),
            _ if offset < data => Some(Extent { length: data - offset, status: 0 }),
            _ => Some(Extent { length: size - offset, status: block_device_traits::ZERO }),
        }
    }
}

fn start(device: &Arc<Device>) -> Running {
    Running::queued(Arc::clone(device), &ExportInfo::default(), Config::default())
}

/// Reads a range in order, one request at a time.
fn read_in_order(client: &mut Client, range: std::ops::Range<usize>, len: usize) -> Vec<u8> {
    range.clone().step_by(len).flat_map(|at| client.read(at as u64, len.min(range.end - at))).collect()
}

/// Has read so much in order that the next reads are there already, or on their way.
fn reader(server: &Running, device: &Device) -> Client {
    let mut client = server.client();
    assert!(read_in_order(&mut client, 0..8 * READ_LEN, READ_LEN) == content()[..8 * READ_LEN]);
    let ahead = device.await_reads(10).split_off(8);
    assert_eq!(ahead, [(8 * READ_LEN as u64, READ_LEN), (9 * READ_LEN as u64, READ_LEN)]);
    client
}

#[test]
fn what_is_read_in_order_is_read_once_and_in_larger_pieces() {
    for len in [4096, 10_000, READ_LEN, 100_000, 512 * KIB] {
        let device = Arc::new(Device::new(MIB));
        let server = start(&device);
        let mut client = server.client();
        assert!(read_in_order(&mut client, 0..SIZE, len) == content(), "{len}");
        let reads = device.reads();
        let total: usize = reads.iter().map(|(_, len)| len).sum();
        // If a client's read is not all there, it is read as a whole.
        assert!((SIZE..SIZE + 2 * MIB).contains(&total), "{total} bytes in reads of {len}");
        assert!(reads.iter().all(|&(at, len)| at as usize + len <= SIZE), "never beyond the end");
        assert!(reads.iter().any(|&(_, piece)| piece == 512 * KIB), "the pieces grow");
        client.disconnect();
        let outcome = server.stop();
        assert_eq!((outcome.bytes_read, outcome.errors), (SIZE as u64, 0));
        assert_eq!(outcome.requests, SIZE.div_ceil(len) as u64);
    }
}

#[test]
fn whoever_reads_little_or_here_and_there_or_side_by_side_costs_nothing_more() {
    let device = Arc::new(Device::new(MIB));
    let server = start(&device);
    let mut asked = Vec::new();
    // A little, as those do that look for labels.
    let mut client = server.client();
    for at in (0..512 * KIB - 4096).step_by(4096) {
        client.read(at as u64, 4096);
        asked.push((at as u64, 4096));
    }
    // Backwards, and not quite in order.
    for n in (0..100_u64).rev().chain((0..100).map(|n| 2 * n)) {
        client.read(n * 32768, 32768);
        asked.push((n * 32768, 32768));
    }
    assert_eq!(device.reads(), asked);
    // Two at a time: the device answers none before the other is there.
    let mut client = server.client();
    for pair in 0..50_u64 {
        device.hold();
        (0..2).for_each(|n| client.request(READ, 0, n, (2 * pair + n) * 32768, 32768));
        device.take_held(2).into_iter().for_each(|(request, completion)| device.end(request, completion));
        for _ in 0..2 {
            assert_eq!(client.reply().0, 0);
            client.receive(32768);
        }
    }
    assert_eq!(device.reads().len(), 100);
    client.disconnect();
    // Nothing is read ahead where the device doesn't want it.
    let device = Arc::new(Device::new(0));
    let server = start(&device);
    read_in_order(&mut server.client(), 0..SIZE, READ_LEN);
    assert_eq!(device.reads().len(), SIZE / READ_LEN);
}

#[test]
fn what_was_read_ahead_is_not_told_after_a_change_of_any_client() {
    let device = Arc::new(Device::new(MIB));
    let server = start(&device);
    for own in [true, false] {
        for kind in [WRITE, ZERO, TRIM] {
            let (mut client, mut other) = (reader(&server, &device), server.client());
            let writer = if own { &mut client } else { &mut other };
            let at = 8 * READ_LEN as u64;
            writer.request(kind, 0, 1, at, 4096);
            writer.send(&[if kind == WRITE { &[7; 4096] } else { &[] }]);
            assert_eq!(writer.reply(), (0, 1));
            let read = client.read(at, READ_LEN);
            assert_eq!(read[..4096], [if kind == WRITE { 7 } else { 0 }; 4096]);
            assert!(read[4096..] == content()[at as usize + 4096..][..READ_LEN - 4096]);
            assert_eq!(device.reads(), [(at, READ_LEN)]);
            client.disconnect();
            other.write(2, at, &content()[at as usize..][..4096]);
            assert_eq!(other.reply(), (0, 2));
        }
    }
}

#[test]
fn nothing_is_read_ahead_while_a_change_is_under_way() {
    let device = Arc::new(Device::new(MIB));
    let server = start(&device);
    let (mut client, mut other) = (server.client(), server.client());
    device.hold();
    other.write(1, SIZE as u64 - 4096, &[1; 4096]);
    let held = device.take_held(1);
    read_in_order(&mut client, 0..20 * READ_LEN, READ_LEN);
    assert_eq!(device.reads().len(), 20);
    held.into_iter().for_each(|(request, completion)| device.end(request, completion));
    assert_eq!(other.reply(), (0, 1));
    read_in_order(&mut client, 20 * READ_LEN..21 * READ_LEN, READ_LEN);
    assert_eq!(device.await_reads(3).len(), 3, "two are read ahead");
}

#[test]
fn a_failure_of_what_nobody_has_asked_for_is_no_error() {
    let device = Arc::new(Device::new(MIB));
    let server = start(&device);
    let mut client = server.client();
    read_in_order(&mut client, 0..7 * READ_LEN, READ_LEN);
    device.hold();
    client.request(READ, 0, 1, 7 * READ_LEN as u64, READ_LEN);
    let mut held = device.take_held(3);
    let (request, completion) = held.pop_front().unwrap();
    device.end(request, completion);
    assert_eq!(client.reply(), (0, 1));
    client.receive(READ_LEN);
    device.reads();
    // One fails, and one is dropped.
    held.pop_front().unwrap().1.complete(Err(Error::new(Errno::Io, "a bad moment")), &mut Batch::default());
    assert!(client.read(8 * READ_LEN as u64, READ_LEN) == content()[8 * READ_LEN..9 * READ_LEN]);
    drop(held);
    assert!(client.read(9 * READ_LEN as u64, READ_LEN) == content()[9 * READ_LEN..10 * READ_LEN]);
    assert_eq!(device.reads(), [8, 9].map(|n| (n * READ_LEN as u64, READ_LEN)));
    client.disconnect();
    assert_eq!(server.stop().errors, 0);
}

#[test]
fn a_client_waits_for_what_is_on_its_way_and_no_longer() {
    let device = Arc::new(Device::new(MIB));
    let server = start(&device);
    let mut client = server.client();
    read_in_order(&mut client, 0..7 * READ_LEN, READ_LEN);
    device.hold();
    client.request(READ, 0, 1, 7 * READ_LEN as u64, READ_LEN);
    let mut held = device.take_held(3);
    let mut carry_out = || {
        let (request, completion) = held.pop_front().unwrap();
        device.end(request, completion);
    };
    carry_out();
    assert_eq!(client.reply(), (0, 1));
    client.receive(READ_LEN);
    // Of both pieces.
    client.request(READ, 0, 2, 8 * READ_LEN as u64 + 512, READ_LEN);
    carry_out();
    carry_out();
    assert_eq!(client.reply(), (0, 2));
    assert!(client.receive(READ_LEN) == content()[8 * READ_LEN + 512..][..READ_LEN]);
}

#[test]
fn nothing_is_told_from_memory_once_the_device_has_failed() {
    let device = Arc::new(Device::new(MIB));
    let server = start(&device);
    let mut client = reader(&server, &device);
    device.is_failed.store(true, Ordering::SeqCst);
    read_in_order(&mut client, 8 * READ_LEN..20 * READ_LEN, READ_LEN);
    assert_eq!(device.reads().len(), 12);
}

#[test]
fn what_is_read_ahead_leaves_room_for_requests_and_goes_where_they_need_it() {
    let device = Arc::new(Device::new(64 * MIB));
    let config = Config::default().with(|config| config.memory = 512 * KIB);
    let server = Running::queued(Arc::clone(&device), &ExportInfo::default(), config);
    let mut client = server.client();
    for _ in 0..3 {
        read_in_order(&mut client, 0..2 * MIB, READ_LEN);
        let longest = device.reads().iter().map(|(_, len)| *len).max();
        assert_eq!(longest, Some(128 * KIB), "both pieces together are half of the memory");
        // More than there is in all, right away.
        assert_eq!(client.read(2 * MIB as u64, 4 * MIB).len(), 4 * MIB);
        read_in_order(&mut client, 0..2 * MIB, READ_LEN);
        client.write(1, 0, &content()[..4 * MIB]);
        assert_eq!(client.reply(), (0, 1));
        device.reads();
    }
}

#[test]
fn zeroes_that_are_known_are_skipped_by_the_client_or_told_without_being_read() {
    let device = Arc::new(Device { knows_zeroes: true, ..Device::new(MIB) });
    let server = start(&device);
    let mut client = server.client();
    assert!(read_in_order(&mut client, 0..SIZE, READ_LEN) == content());
    for (at, len) in device.reads() {
        let (at, end) = (at as usize, at as usize + len);
        assert!(end <= DATA || at >= DATA, "{at} to {end} is both");
    }
    // From somewhere before the zeroes to somewhere behind their beginning.
    let mut client = server.client();
    read_in_order(&mut client, DATA - 2 * MIB..DATA, READ_LEN);
    device.reads();
    read_in_order(&mut client, SIZE - 3 * READ_LEN..SIZE, READ_LEN);
    assert!(device.reads().len() <= 2, "it is still a client that reads in order");
}

/// Each block holds how often it was written. What is read is never older than what was answered
/// before.
#[test]
fn a_reader_sees_all_that_was_answered_before_it_asked() {
    const BLOCK: usize = 4096;
    const BLOCKS: usize = 512;
    let device = Arc::new(Device::new(MIB));
    let server = start(&device);
    let mut client = server.client();
    client.write(1, 0, &vec![0; BLOCKS * BLOCK]);
    assert_eq!(client.reply(), (0, 1));
    let answered: Vec<AtomicU64> = (0..BLOCKS).map(|_| AtomicU64::new(0)).collect();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..2 {
            let (mut client, answered, is_done) = (server.client(), &answered, &is_done);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(writer);
                while !is_done.load(Ordering::Relaxed) {
                    // Each has its own blocks, and pauses now and then, so that something is read
                    // ahead.
                    let block = 2 * random.usize(..BLOCKS / 2) + writer as usize;
                    let count = answered[block].load(Ordering::SeqCst) + 1;
                    client.write(1, (block * BLOCK) as u64, &count.to_le_bytes().repeat(BLOCK / 8));
                    assert_eq!(client.reply(), (0, 1));
                    answered[block].store(count, Ordering::SeqCst);
                    (0..random.usize(..20_000)).for_each(|_| std::hint::spin_loop());
                }
            });
        }
        let (reading, check) = (&server, &answered);
        let readers: Vec<_> = (0..2_usize)
            .map(|reader| {
                scope.spawn(move || {
                    let (mut client, step) = (reading.client(), [4, 16][reader]);
                    for first in (0..BLOCKS).step_by(step).cycle().take(20 * BLOCKS / step) {
                        let before: Vec<_> =
                            check[first..first + step].iter().map(|n| n.load(Ordering::SeqCst)).collect();
                        let read = client.read((first * BLOCK) as u64, step * BLOCK);
                        for (block, before) in read.chunks(BLOCK).zip(before) {
                            let found = u64::from_le_bytes(block[..8].try_into().unwrap());
                            assert!(found >= before, "{found} where {before} was answered");
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_done.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
}
