// SPDX-License-Identifier: MIT OR Apache-2.0
//! Long WRITEs, and clients that send one request at a time.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use block_device_traits::{
    Batch, BlockDevice, Capabilities, Completion, Errno, Error, MemoryDevice, QueuedDevice, Request,
};
use common::*;
use nbd_frontend::{Config, ExportInfo};

const PIECE: usize = 64 << 10;
const SIZE: usize = 16 * PIECE;

/// Takes writes of a certain length in bytes at most, and hands everything to the test.
struct Device(Mutex<Sender<Submitted>>, usize);

struct Submitted {
    request: Request,
    completion: Box<dyn Completion>,
    /// By a caller that waits until this is dropped.
    waiting: Option<Sender<()>>,
}

impl Submitted {
    fn end(self, result: block_device_traits::Result<()>) {
        self.completion.complete(result, &mut Batch::default());
    }

    fn is_waited_for(&self) -> bool {
        self.waiting.is_some()
    }

    fn offset(&self) -> u64 {
        match self.request {
            Request::Write { offset, .. } | Request::Read { offset } | Request::Zero { offset, .. } => offset,
            _ => 0,
        }
    }
}

impl Device {
    fn hand_over(&self, request: Request, completion: Box<dyn Completion>, waiting: Option<Sender<()>>) {
        self.0.lock().unwrap().send(Submitted { request, completion, waiting }).unwrap();
    }
}

impl QueuedDevice for Device {
    fn size(&self) -> u64 {
        SIZE as u64
    }

    fn capabilities(&self) -> Capabilities {
        MemoryDevice::new(0).capabilities()
    }

    fn submit(&self, request: Request, completion: Box<dyn Completion>) {
        self.hand_over(request, completion, None);
    }

    fn carry_out(&self, request: Request, completion: Box<dyn Completion>) {
        let (waiting, ended) = channel();
        self.hand_over(request, completion, Some(waiting));
        let _ = ended.recv();
    }

    fn longest_write(&self) -> u64 {
        self.1 as u64
    }
}

fn start(config: Config) -> (Running, Receiver<Submitted>) {
    start_with(config, PIECE)
}

fn start_with(config: Config, longest_write: usize) -> (Running, Receiver<Submitted>) {
    let (submit, submitted) = channel();
    let device = Arc::new(Device(Mutex::new(submit), longest_write));
    (Running::queued(device, &ExportInfo::default(), config), submitted)
}

fn next(submitted: &Receiver<Submitted>) -> Submitted {
    submitted.recv_timeout(PATIENCE).unwrap()
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn each_piece_of_a_long_write_is_submitted_as_soon_as_it_is_there() {
    let (server, submitted) = start(Config::default());
    let mut client = server.client();
    let data = data(2 * PIECE + 3);
    client.request(WRITE, 0, 5, 100, data.len());
    let mut pieces = Vec::new();
    // Each ends at the end of a block, so that no two share one.
    let (first, others) = data.split_at(PIECE - 100);
    let mut at = 100;
    for part in [first].into_iter().chain(others.chunks(PIECE)) {
        // Before the next is sent.
        client.send(&[part]);
        let piece = next(&submitted);
        let expected = Request::Write { offset: at as u64, data: part.to_vec().into(), fua: false };
        assert!(piece.request == expected && !piece.is_waited_for(), "the piece at {at}");
        at += part.len();
        pieces.push(piece);
    }
    client.request(FLUSH, 0, 6, 0, 0);
    next(&submitted).end(Ok(()));
    assert_eq!(client.reply(), (0, 6), "the write isn't answered before all of it is written");
    // In any order, in any thread.
    for piece in pieces.into_iter().rev() {
        thread::scope(|scope| drop(scope.spawn(|| piece.end(Ok(())))));
    }
    assert_eq!(client.reply(), (0, 5));
    let written = data.len() as u64;
    // A write that must be durable is one request to the device, too.
    client.request(WRITE, 1, 7, 0, data.len());
    client.send(&[&data]);
    let whole = next(&submitted);
    assert!(whole.request == Request::Write { offset: 0, data: data.into(), fua: true });
    whole.end(Ok(()));
    assert_eq!(client.reply(), (0, 7));
    client.disconnect();
    let outcome = server.stop();
    assert_eq!((outcome.requests, outcome.errors, outcome.bytes_written), (3, 0, 2 * written));
}

#[test]
fn parts_of_blocks_at_the_ends_of_a_long_write_are_pieces_of_their_own() {
    const LONG: usize = 512 << 10;
    let (server, submitted) = start_with(Config::default(), LONG);
    let mut client = server.client();
    let data = data(LONG);
    client.write(1, 512, &data);
    let mut at = 512;
    let pieces = [4096, LONG, LONG + 512].map(|end| {
        let part = data[at - 512..end - 512].to_vec();
        let expected = Request::Write { offset: at as u64, data: part.into(), fua: false };
        at = end;
        let piece = next(&submitted);
        assert!(piece.request == expected, "the piece up to {end}");
        piece
    });
    pieces.into_iter().for_each(|piece| piece.end(Ok(())));
    assert_eq!(client.reply(), (0, 1));
    client.disconnect();
}

#[test]
fn a_write_of_which_a_piece_fails_or_is_dropped_is_an_error_once_all_have_ended() {
    let (server, submitted) = start(Config::default());
    let mut client = server.client();
    for dropped in [false, true] {
        for which in 0..3 {
            client.write(1, 0, &data(3 * PIECE));
            let mut pieces: Vec<_> = (0..3).map(|_| next(&submitted)).collect();
            let bad = pieces.remove(which);
            if dropped {
                drop(bad);
            } else {
                bad.end(Err(Error::new(Errno::NoSpc, "full")));
            }
            pieces.remove(0).end(Err(Error::new(Errno::Perm, "this one is not told")));
            pieces.remove(0).end(Ok(()));
            assert_eq!(client.reply(), (if dropped { EPERM } else { ENOSPC }, 1));
            // Of these, only one is dropped.
            client.write(2, 0, &data(3 * PIECE));
            for n in 0..3 {
                let piece = next(&submitted);
                if dropped && n == which { drop(piece) } else { piece.end(Ok(())) }
            }
            assert_eq!(client.reply(), (if dropped { EIO } else { 0 }, 2));
        }
    }
    client.disconnect();
    assert_eq!(server.stop().errors, 9);
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_long_write_leaves_nothing_behind() {
    let (server, submitted) = start(Config::default());
    let (mut gone, mut other) = (server.client(), server.client());
    gone.request(WRITE, 0, 1, 0, 3 * PIECE);
    gone.send(&[&data(PIECE + 1)]);
    let piece = next(&submitted);
    drop(gone);
    other.request(FLUSH, 0, 2, 0, 0);
    next(&submitted).end(Ok(()));
    assert_eq!(other.reply(), (0, 2));
    piece.end(Ok(()));
    other.disconnect();
    let outcome = server.stop();
    assert_eq!((outcome.requests, outcome.errors), (2, 1));
    assert!(submitted.try_recv().is_err(), "what didn't come whole is not written");
}

#[test]
fn long_writes_take_no_more_memory_than_the_session_has() {
    let (server, submitted) = start(Config::default().with(|config| config.memory = 2 * PIECE));
    let mut client = server.client();
    thread::scope(|scope| {
        scope.spawn(|| client.write(1, 0, &data(5 * PIECE)));
        let mut held = vec![next(&submitted), next(&submitted)];
        for n in 2..5 {
            assert!(submitted.try_recv().is_err(), "there is no room for another");
            held.remove(0).end(Ok(()));
            let piece = next(&submitted);
            assert_eq!(piece.offset(), (n * PIECE) as u64);
            held.push(piece);
        }
        held.into_iter().for_each(|piece| piece.end(Ok(())));
    });
    assert_eq!(client.reply(), (0, 1));
    client.disconnect();
}

#[test]
fn the_session_itself_carries_out_what_comes_alone_once_more_and_is_short() {
    let (server, submitted) = start(Config::default());
    // Requests that may take long are for the device's threads.
    let ninth = [(READ, 512, true), (WRITE, PIECE, true), (READ, PIECE + 1, false), (ZERO, 512, false)];
    for (kind, len, is_for_the_session) in ninth {
        let mut client = server.client();
        for n in 0..9 {
            let (kind, len) = if n < 8 { (WRITE, 512) } else { (kind, len) };
            client.request(kind, 0, n, 0, len);
            client.send(&[&data(if kind == WRITE { len } else { 0 })]);
            let request = next(&submitted);
            assert_eq!(request.is_waited_for(), n == 8 && is_for_the_session, "{n} before {kind} of {len}");
            request.end(Ok(()));
            assert_eq!(client.reply(), (0, n));
            client.receive(if kind == READ { len } else { 0 });
        }
        client.disconnect();
    }
}

#[test]
fn a_client_that_sends_more_meanwhile_is_found_out() {
    let (server, submitted) = start(Config::default());
    let mut client = server.client();
    for _ in 0..9 {
        client.request(READ, 0, 1, 0, 512);
        let request = next(&submitted);
        // The device takes its time with the ninth; so the client asks for two more in vain.
        if request.is_waited_for() {
            (2..4).for_each(|cookie| client.request(READ, 0, cookie, 0, 512));
        }
        request.end(Ok(()));
        assert_eq!(client.reply(), (0, 1));
        client.receive(512);
    }
    for cookie in 2..4 {
        let request = next(&submitted);
        assert!(!request.is_waited_for());
        request.end(Ok(()));
        assert_eq!(client.reply(), (0, cookie));
        client.receive(512);
    }
    client.disconnect();
}
