// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replies in chunks, and what is known of ranges. What goes over the wire is written in numbers.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::{Arc, Mutex};

use block_device_traits::{
    Batch, BlockDevice, Capabilities, Completion, Errno, Error, Extent, MemoryDevice, QueuedDevice, Request,
};
use bytes::Bytes;
use common::*;
use nbd_frontend::{Config, ExportInfo};

const BLOCK_STATUS: u16 = 7;
const CACHE: u16 = 5;
const REQ_ONE: u16 = 8;
const DF: u16 = 4;
const DONE: u16 = 1;
const EOVERFLOW: u32 = 75;

const ACK: u32 = 1;
const META_CONTEXT: u32 = 4;
const STRUCTURED_REPLY: u32 = 8;
const SET_META_CONTEXT: u32 = 10;
const EXTENDED_HEADERS: u32 = 11;

/// A chunk as the client reads it: flags, type, cookie, payload.
type Chunk = (u16, u16, u64, Vec<u8>);

trait ChunkClient {
    fn negotiate(&mut self, option: u32, contexts: &[&str]) -> Vec<u32>;
    fn chunk(&mut self) -> Chunk;
    fn extended_chunk(&mut self) -> (u64, Chunk);
    fn extended(&mut self, kind: u16, flags: u16, offset: u64, length: u64);
    fn status(&mut self, flags: u16, offset: u64, length: usize) -> Chunk;
}

impl ChunkClient for Client {
    /// Opens the default export with chunks and metadata contexts; the contexts' IDs.
    fn negotiate(&mut self, option: u32, contexts: &[&str]) -> Vec<u32> {
        self.greet(3);
        self.option(option, b"");
        assert_eq!(self.option_reply(option), (ACK, vec![]));
        let mut data = [vec![0; 4], (contexts.len() as u32).to_be_bytes().to_vec()].concat();
        for context in contexts {
            data.extend((context.len() as u32).to_be_bytes());
            data.extend(context.as_bytes());
        }
        let mut ids = Vec::new();
        self.option(SET_META_CONTEXT, &data);
        loop {
            match self.option_reply(SET_META_CONTEXT) {
                (ACK, _) => break,
                (META_CONTEXT, data) => ids.push(u32::from_be_bytes(data[..4].try_into().unwrap())),
                other => panic!("{other:?}"),
            }
        }
        self.option(7, &[0; 6]);
        assert_eq!(self.option_reply(7).1.len(), 12);
        assert_eq!(self.option_reply(7), (ACK, vec![]));
        ids
    }

    fn chunk(&mut self) -> Chunk {
        let head = self.receive(20);
        assert_eq!(head[..4], [0x66, 0x8e, 0x33, 0xef]);
        let short = |at: usize| u16::from_be_bytes(head[at..at + 2].try_into().unwrap());
        let cookie = u64::from_be_bytes(head[8..16].try_into().unwrap());
        let length = u32::from_be_bytes(head[16..].try_into().unwrap());
        (short(4), short(6), cookie, self.receive(length as usize))
    }

    /// The offset of the request, and the chunk.
    fn extended_chunk(&mut self) -> (u64, Chunk) {
        let head = self.receive(32);
        assert_eq!(head[..4], [0x6e, 0x8a, 0x27, 0x8c]);
        let short = |at: usize| u16::from_be_bytes(head[at..at + 2].try_into().unwrap());
        let long = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().unwrap());
        (long(16), (short(4), short(6), long(8), self.receive(long(24) as usize)))
    }

    fn extended(&mut self, kind: u16, flags: u16, offset: u64, length: u64) {
        let magic = [0x21, 0xe4, 0x1c, 0x71];
        let (flags, kind) = (flags.to_be_bytes(), kind.to_be_bytes());
        let numbers = [5, offset, length].map(u64::to_be_bytes);
        self.send(&[&magic, &flags, &kind, numbers.as_flattened()]);
    }

    fn status(&mut self, flags: u16, offset: u64, length: usize) -> Chunk {
        self.request(BLOCK_STATUS, flags, 3, offset, length);
        self.chunk()
    }
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn error_of((flags, kind, _, payload): Chunk) -> (u32, String) {
    assert_eq!((flags, kind), (DONE, 0x8001));
    let error = u32::from_be_bytes(payload[..4].try_into().unwrap());
    assert_eq!(u16::from_be_bytes(payload[4..6].try_into().unwrap()) as usize, payload.len() - 6);
    (error, String::from_utf8(payload[6..].to_vec()).unwrap())
}

/// A MiB in memory with data in one block.
fn memory() -> Running {
    let disk = MemoryDevice::new(MIB);
    disk.write(8192, Bytes::from_static(b"data"), false).unwrap();
    Running::start(&Arc::new(disk))
}

#[test]
fn replies_are_chunks_once_that_is_negotiated() {
    let server = memory();
    let mut client = server.connect();
    client.negotiate(STRUCTURED_REPLY, &[]);
    client.request(READ, 0, 1, 8190, 8);
    let payload = [&8190_u64.to_be_bytes()[..], b"\0\0data\0\0"].concat();
    assert_eq!(client.chunk(), (DONE, 1, 1, payload));
    client.write(2, 0, b"x");
    assert_eq!(client.chunk(), (DONE, 0, 2, vec![]));
    for kind in [FLUSH, CACHE] {
        client.request(kind, 0, 3, 0, if kind == FLUSH { 0 } else { 512 });
        assert_eq!(client.chunk(), (DONE, 0, 3, vec![]));
    }
    let mut refused = |kind, flags, length| {
        client.request(kind, flags, 9, 512, length);
        error_of(client.chunk())
    };
    let (error, text) = refused(READ, 0, MIB);
    assert_eq!((error, text.as_str()), (EINVAL, "refused READ of 1048576 bytes at 512, flags 0x0"));
    assert_eq!(refused(READ, 0, 65 * MIB).0, EINVAL, "it is past the end, too");
    assert_eq!(refused(ZERO, 0, MIB).0, ENOSPC);
    assert_eq!(refused(BLOCK_STATUS, 0, 512).0, EINVAL, "no context is selected");
    assert_eq!(refused(0x1234, 0, 512).0, EINVAL);
    client.disconnect();
    assert_eq!(server.stop().errors, 5);
}

#[test]
fn a_read_that_is_too_long_for_a_chunk_is_told_so() {
    let device = Asked::new(1 << 40, |_, _| Ok(()));
    let server = start(&device);
    let mut client = server.connect();
    client.negotiate(STRUCTURED_REPLY, &[]);
    client.request(READ, 0, 9, 0, 65 * MIB);
    assert_eq!(error_of(client.chunk()).0, EOVERFLOW);
    client.disconnect();
}

#[test]
fn the_device_tells_what_is_known_of_ranges() {
    let server = memory();
    let mut client = server.connect();
    let ids = client.negotiate(STRUCTURED_REPLY, &["base:allocation", "x:unknown"]);
    let [id] = ids[..] else { panic!("{ids:?}") };
    let mib = MIB as u32;
    let all = numbers(&[id, 8192, 3, 4096, 0, mib - 12288, 3]);
    assert_eq!(client.status(0, 0, MIB), (DONE, 5, 3, all));
    assert_eq!(client.status(0, 8192, 512), (DONE, 5, 3, numbers(&[id, 4096, 0])), "it may be longer");
    assert_eq!(client.status(REQ_ONE, 8192, 512), (DONE, 5, 3, numbers(&[id, 512, 0])));
    assert_eq!(client.status(REQ_ONE, 0, MIB), (DONE, 5, 3, numbers(&[id, 8192, 3])));
    for (offset, length) in [(MIB as u64 - 512, 1024), (0, 0), (u64::MAX, 512)] {
        assert_eq!(error_of(client.status(0, offset, length)).0, EINVAL);
    }
    client.disconnect();
}

#[test]
fn extended_headers_have_lengths_of_64_bits() {
    let device = Asked::new(1 << 40, |request, completion| {
        match request {
            Request::Extents { .. } => completion.extents(vec![Extent { length: 1 << 39, status: 3 }]),
            Request::Zero { len, .. } => assert_eq!(*len, 1 << 40),
            Request::Read { .. } => completion.buffer().fill(7),
            _ => {}
        }
        Ok(())
    });
    let server = start(&device);
    let mut client = server.connect();
    let ids = client.negotiate(EXTENDED_HEADERS, &["base:allocation", "x:depth"]);
    assert_eq!(ids.len(), 2);
    client.extended(READ, 0, 512, 2);
    let payload = [&512_u64.to_be_bytes()[..], &[7, 7]].concat();
    assert_eq!(client.extended_chunk(), (512, (DONE, 1, 5, payload)));
    client.extended(ZERO, 0, 0, 1 << 40);
    assert_eq!(client.extended_chunk(), (0, (DONE, 0, 5, vec![])));
    client.extended(WRITE, 32, 0, 4);
    client.send(&[b"data"]);
    assert_eq!(client.extended_chunk(), (0, (DONE, 0, 5, vec![])));
    let status = |id: u32| [numbers(&[id, 1]), (1_u64 << 39).to_be_bytes().into(), numbers(&[0, 3])].concat();
    client.extended(BLOCK_STATUS, 0, 512, 1 << 40);
    assert_eq!(error_of(client.extended_chunk().1).0, EINVAL, "it ends past the end");
    client.extended(BLOCK_STATUS, 0, 0, 1 << 40);
    assert_eq!(client.extended_chunk(), (0, (0, 6, 5, status(ids[0]))));
    assert_eq!(client.extended_chunk(), (0, (DONE, 6, 5, status(ids[1]))));
    // Only one of them, which the payload names.
    client.extended(BLOCK_STATUS, 32, 0, 12);
    client.send(&[&(1_u64 << 40).to_be_bytes(), &ids[1].to_be_bytes()]);
    assert_eq!(client.extended_chunk(), (0, (DONE, 6, 5, status(ids[1]))));
    client.extended(BLOCK_STATUS, 32, 0, 12);
    client.send(&[&512_u64.to_be_bytes(), &77_u32.to_be_bytes()]);
    assert_eq!(error_of(client.extended_chunk().1).0, EINVAL);
    client.extended(DISC, 0, 0, 0);
    client.assert_closed();
}

#[test]
fn what_is_known_to_be_zero_is_told_and_not_sent() {
    let device = Asked::new(1 << 20, |_, completion| {
        completion.buffer()[4..6].fill(7);
        completion.buffer()[8..].fill(8);
        completion.fill_zeroes(6..8);
        completion.fill_zeroes(0..4);
        Ok(())
    });
    let server = start(&device);
    let at = |offset: u64, rest: &[u8]| [&offset.to_be_bytes(), rest].concat();
    let mut client = server.connect();
    client.negotiate(STRUCTURED_REPLY, &[]);
    client.request(READ, 0, 1, 100, 10);
    assert_eq!(client.chunk(), (0, 2, 1, at(100, &[0, 0, 0, 4])));
    assert_eq!(client.chunk(), (0, 1, 1, at(104, &[7, 7])));
    assert_eq!(client.chunk(), (0, 2, 1, at(106, &[0, 0, 0, 2])));
    assert_eq!(client.chunk(), (DONE, 1, 1, at(108, &[8, 8])));
    let content = [0, 0, 0, 0, 7, 7, 0, 0, 8, 8];
    client.request(READ, DF, 1, 100, 10);
    assert_eq!(client.chunk(), (DONE, 1, 1, at(100, &content)), "in one piece");
    assert_eq!(server.client().read(100, 10), content);
    client.disconnect();
}

#[test]
fn all_contexts_are_told_or_none() {
    // The second is told first, from another thread; then it fails, or is dropped.
    let kept: Arc<Mutex<Option<Box<dyn Completion>>>> = Arc::default();
    let round = Mutex::new(0);
    let first = Arc::clone(&kept);
    let device = Asked::queued(1 << 20, move |request, mut completion| {
        let Request::Extents { context, .. } = request else { panic!("{request:?}") };
        if context == 0 {
            *first.lock().unwrap() = Some(completion);
            return;
        }
        let mut round = round.lock().unwrap();
        *round += 1;
        let (extents, result) = match *round {
            1 => (vec![Extent { length: 4096, status: 1 }], Ok(())),
            2 => (vec![], Err(Error::new(Errno::Io, "the disk is broken"))),
            3 => return drop(completion),
            _ => (vec![], Ok(())),
        };
        completion.extents(extents);
        completion.complete(result, &mut Batch::default());
    });
    let server = start(&device);
    let mut client = server.connect();
    let ids = client.negotiate(STRUCTURED_REPLY, &["base:allocation", "x:depth"]);
    let mut ask = || {
        client.request(BLOCK_STATUS, 0, 3, 0, 4096);
        let mut first = loop {
            match kept.lock().unwrap().take() {
                Some(first) => break first,
                None => std::thread::yield_now(),
            }
        };
        first.extents(vec![Extent { length: 4096, status: 2 }]);
        first.complete(Ok(()), &mut Batch::default());
        client.chunk()
    };
    assert_eq!(ask(), (0, 5, 3, numbers(&[ids[0], 4096, 2])));
    let dropped = "bug: the device has dropped a part of the request";
    let told = [ask(), ask(), ask()];
    let mut told = told.into_iter();
    assert_eq!(told.next().unwrap(), (DONE, 5, 3, numbers(&[ids[1], 4096, 1])));
    assert_eq!(error_of(told.next().unwrap()), (EIO, "the disk is broken".to_owned()));
    assert_eq!(error_of(told.next().unwrap()), (EIO, dropped.to_owned()));
    assert_eq!(error_of(client.chunk()), (EIO, "bug: the device tells no extent".to_owned()));
    client.disconnect();
}

/// A device with two contexts, which leaves each request to the test.
struct Asked {
    size: u64,
    contexts: Vec<String>,
    submit: Box<dyn Fn(Request, Box<dyn Completion>) + Send + Sync>,
}

impl Asked {
    fn new(
        size: u64,
        carry_out: impl Fn(&Request, &mut dyn Completion) -> block_device_traits::Result<()>
        + Send
        + Sync
        + 'static,
    ) -> Arc<Self> {
        Self::queued(size, move |request, mut completion| {
            let result = carry_out(&request, &mut *completion);
            completion.complete(result, &mut Batch::default());
        })
    }

    fn queued(size: u64, submit: impl Fn(Request, Box<dyn Completion>) + Send + Sync + 'static) -> Arc<Self> {
        let contexts = ["base:allocation", "x:depth"].map(str::to_owned).to_vec();
        Arc::new(Self { size, contexts, submit: Box::new(submit) })
    }
}

impl QueuedDevice for Asked {
    fn size(&self) -> u64 {
        self.size
    }

    fn capabilities(&self) -> Capabilities {
        MemoryDevice::new(0).capabilities()
    }

    fn contexts(&self) -> &[String] {
        &self.contexts
    }

    fn submit(&self, request: Request, completion: Box<dyn Completion>) {
        (self.submit)(request, completion);
    }
}

fn start(device: &Arc<Asked>) -> Running {
    let config = Config::default().with(|config| config.extended_headers = true);
    Running::queued(Arc::clone(device), &ExportInfo::default(), config)
}

#[test]
fn a_server_that_stops_tells_the_device_what_is_not_worth_waiting_for() {
    let device = Arc::new(Slow::default());
    let config = Config::default().with(|config| config.grace = PATIENCE);
    let server = Running::queued(Arc::clone(&device), &ExportInfo::default(), config);
    let mut client = server.connect();
    client.negotiate(STRUCTURED_REPLY, &["base:allocation"]);
    client.request(BLOCK_STATUS, 0, 3, 0, 4096);
    while device.waiting.lock().unwrap().is_none() {
        std::thread::yield_now();
    }
    let outcome = server.stop();
    assert_eq!((outcome.requests, outcome.errors), (1, 1));
}

/// A device that tells no extents until it is stopped.
#[derive(Default)]
struct Slow {
    waiting: Mutex<Option<Box<dyn Completion>>>,
    contexts: std::sync::OnceLock<Vec<String>>,
}

impl QueuedDevice for Slow {
    fn size(&self) -> u64 {
        MIB as u64
    }

    fn capabilities(&self) -> Capabilities {
        MemoryDevice::new(0).capabilities()
    }

    fn contexts(&self) -> &[String] {
        self.contexts.get_or_init(|| vec!["base:allocation".to_owned()])
    }

    fn submit(&self, _: Request, completion: Box<dyn Completion>) {
        *self.waiting.lock().unwrap() = Some(completion);
    }

    fn stopping(&self) {
        let waiting = self.waiting.lock().unwrap().take().expect("a client waits");
        waiting.complete(Err(Error::new(Errno::Shutdown, "it stops")), &mut Batch::default());
    }
}
