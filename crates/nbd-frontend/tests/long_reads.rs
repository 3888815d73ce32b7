// SPDX-License-Identifier: MIT OR Apache-2.0
//! Long READs, which go to the device in pieces.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use block_device_traits::{
    Batch, BlockDevice as _, Capabilities, Completion, Errno, Error, MemoryDevice, QueuedDevice, Request,
};
use common::*;
use nbd_frontend::{Config, ExportInfo};

const PIECE: usize = 64 << 10;
const SIZE: usize = 16 * PIECE;
const DF: u16 = 4;
const DONE: u16 = 1;
const NONE: u16 = 0;
const OFFSET_DATA: u16 = 1;
const OFFSET_HOLE: u16 = 2;
const ERROR_OFFSET: u16 = 0x8002;

/// Reads one piece at most, and hands everything to the test.
struct Device(Mutex<Sender<Piece>>);

/// Its offset, and whoever is told.
struct Piece(u64, Box<dyn Completion>);

impl Piece {
    fn len(&mut self) -> usize {
        self.1.buffer().len()
    }

    fn end(mut self, value: u8) {
        self.1.buffer().fill(value);
        self.1.complete(Ok(()), &mut Batch::default());
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
        let Request::Read { offset } = request else { panic!("{request:?}") };
        self.0.lock().unwrap().send(Piece(offset, completion)).unwrap();
    }

    fn longest_read(&self) -> u64 {
        PIECE as u64
    }
}

fn start(config: Config) -> (Running, Receiver<Piece>) {
    let (submit, submitted) = channel();
    (Running::queued(Arc::new(Device(Mutex::new(submit))), &ExportInfo::default(), config), submitted)
}

fn next(submitted: &Receiver<Piece>) -> Piece {
    submitted.recv_timeout(PATIENCE).unwrap()
}

/// A client that gets chunks.
fn client(server: &Running) -> Client {
    let mut client = server.connect();
    client.greet(3);
    client.option(8, b"");
    assert_eq!(client.option_reply(8), (1, vec![]));
    client.option(7, &[0; 6]);
    assert_eq!(client.option_reply(7).1.len(), 12);
    assert_eq!(client.option_reply(7), (1, vec![]));
    client
}

/// Flags, type, cookie, payload.
fn chunk(client: &mut Client) -> (u16, u16, u64, Vec<u8>) {
    let head = client.receive(20);
    assert_eq!(head[..4], [0x66, 0x8e, 0x33, 0xef]);
    let short = |at: usize| u16::from_be_bytes(head[at..at + 2].try_into().unwrap());
    let cookie = u64::from_be_bytes(head[8..16].try_into().unwrap());
    let length = u32::from_be_bytes(head[16..].try_into().unwrap());
    (short(4), short(6), cookie, client.receive(length as usize))
}

fn data(offset: usize, value: u8, len: usize) -> Vec<u8> {
    [&(offset as u64).to_be_bytes()[..], &vec![value; len]].concat()
}

#[test]
fn each_piece_goes_to_the_client_as_soon_as_it_is_there() {
    let (server, submitted) = start(Config::default());
    let mut client = client(&server);
    client.request(READ, 0, 5, 100, 2 * PIECE + 3);
    let mut pieces: Vec<_> = (0..3).map(|_| next(&submitted)).collect();
    let places: Vec<_> = pieces.iter_mut().map(|piece| (piece.0 as usize, piece.len())).collect();
    // They end between blocks.
    assert_eq!(places, [(100, PIECE - 100), (PIECE, PIECE), (2 * PIECE, 103)]);
    for at in [1, 0] {
        pieces.remove(at).end(at as u8);
        let (offset, len) = places[at];
        assert_eq!(chunk(&mut client), (0, OFFSET_DATA, 5, data(offset, at as u8, len)));
    }
    let mut last = pieces.remove(0);
    last.1.buffer().fill(3);
    last.1.fill_zeroes(0..100);
    last.1.complete(Ok(()), &mut Batch::default());
    let hole = [&(2 * PIECE as u64).to_be_bytes()[..], &[0, 0, 0, 100]].concat();
    assert_eq!(chunk(&mut client), (0, OFFSET_HOLE, 5, hole));
    assert_eq!(chunk(&mut client), (0, OFFSET_DATA, 5, data(2 * PIECE + 100, 3, 3)));
    assert_eq!(chunk(&mut client), (DONE, NONE, 5, vec![]));
    client.disconnect();
    let outcome = server.stop();
    assert_eq!((outcome.requests, outcome.errors, outcome.bytes_read), (1, 0, 2 * PIECE as u64 + 3));
}

#[test]
fn one_chunk_is_one_request_and_so_is_a_simple_reply() {
    let (server, submitted) = start(Config::default());
    let mut chunks = client(&server);
    chunks.request(READ, DF, 6, 0, 3 * PIECE);
    next(&submitted).end(1);
    assert_eq!(chunk(&mut chunks), (DONE, OFFSET_DATA, 6, data(0, 1, 3 * PIECE)));
    let mut simple = server.client();
    simple.request(READ, 0, 7, 0, 3 * PIECE);
    next(&submitted).end(2);
    assert_eq!(simple.reply(), (0, 7));
    assert_eq!(simple.receive(3 * PIECE), vec![2; 3 * PIECE]);
}

#[test]
fn a_piece_that_fails_is_told_by_its_offset_once_all_have_ended() {
    let (server, submitted) = start(Config::default());
    let mut client = client(&server);
    for which in 0..3 {
        client.request(READ, 0, 8, 0, 3 * PIECE);
        let mut pieces: Vec<_> = (0..3).map(|_| next(&submitted)).collect();
        let bad = pieces.remove(which);
        let offset = bad.0;
        bad.1.complete(Err(Error::new(Errno::NoMem, "worn out")), &mut Batch::default());
        for piece in pieces {
            let place = piece.0 as usize;
            piece.end(4);
            assert_eq!(chunk(&mut client), (0, OFFSET_DATA, 8, data(place, 4, PIECE)));
        }
        let text = b"worn out";
        let error =
            [&12_u32.to_be_bytes()[..], &(text.len() as u16).to_be_bytes(), text, &offset.to_be_bytes()];
        assert_eq!(chunk(&mut client), (DONE, ERROR_OFFSET, 8, error.concat()));
        // Of these, one is dropped.
        client.request(READ, 0, 9, 0, 3 * PIECE);
        for n in 0..3 {
            let piece = next(&submitted);
            if n == which {
                drop(piece);
            } else {
                piece.end(5);
                assert_eq!(chunk(&mut client).1, OFFSET_DATA);
            }
        }
        let (flags, _, _, payload) = chunk(&mut client);
        assert_eq!((flags, &payload[..4]), (DONE, &EIO.to_be_bytes()[..]));
    }
    client.disconnect();
    assert_eq!(server.stop().errors, 6);
}

#[test]
fn long_reads_take_no_more_memory_than_the_session_has() {
    let (server, submitted) = start(Config::default().with(|config| config.memory = 2 * PIECE));
    let mut client = client(&server);
    client.request(READ, 0, 1, 0, 5 * PIECE);
    let mut held = vec![next(&submitted), next(&submitted)];
    for n in 2..5 {
        assert!(submitted.try_recv().is_err(), "there is no room for another");
        held.remove(0).end(1);
        assert_eq!(chunk(&mut client).1, OFFSET_DATA);
        let piece = next(&submitted);
        assert_eq!(piece.0, (n * PIECE) as u64);
        held.push(piece);
    }
    held.into_iter().for_each(|piece| piece.end(1));
    (0..2).for_each(|_| assert_eq!(chunk(&mut client).1, OFFSET_DATA));
    assert_eq!(chunk(&mut client), (DONE, NONE, 1, vec![]));
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_long_read_harms_nobody() {
    let (server, submitted) = start(Config::default().with(|config| config.memory = 2 * PIECE));
    let (mut gone, mut other) = (client(&server), client(&server));
    gone.request(READ, 0, 1, 0, 5 * PIECE);
    let held = [next(&submitted), next(&submitted)];
    drop(gone);
    other.request(READ, 0, 2, 0, 512);
    next(&submitted).end(3);
    assert_eq!(chunk(&mut other), (DONE, OFFSET_DATA, 2, data(0, 3, 512)));
    held.into_iter().for_each(|piece| piece.end(1));
    (0..3).for_each(|_| next(&submitted).end(1));
    other.disconnect();
    assert_eq!(server.stop().requests, 2);
}
