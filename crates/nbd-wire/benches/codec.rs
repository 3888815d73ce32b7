// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of the codec for each request. `tests/instructions.rs` counts its instructions.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::Instant;

use nbd_wire::consts::*;
use nbd_wire::{
    BadMagic, Export, Handshake, Negotiated, Progress, REQUEST_HEADER_LEN, RequestHeader, SizeConstraints,
    TransmissionFlags, simple_reply,
};

const SIZE: u64 = 1 << 30;

/// One of each kind, and one that is refused.
const REQUESTS: [(u16, u64, u32); 5] = [
    (NBD_CMD_READ, 0, 256 << 10),
    (NBD_CMD_WRITE, 4096, 256 << 10),
    (NBD_CMD_WRITE_ZEROES, 1 << 20, 64 << 20),
    (NBD_CMD_FLUSH, 0, 0),
    (NBD_CMD_WRITE, SIZE, 512),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo's own arguments aren't numbers.
    let iterations = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
    let flags = TransmissionFlags::SEND_FLUSH | TransmissionFlags::SEND_FUA;
    let flags = flags | TransmissionFlags::SEND_WRITE_ZEROES;
    let export = Export::new("disk", SIZE, flags, SizeConstraints::default())?;
    let exports = [export];
    let negotiated = negotiate(&exports).ok_or("the negotiation ends without an export")?;
    let headers = REQUESTS.map(header);
    let started = Instant::now();
    for _ in 0..iterations {
        for header in &headers {
            black_box(answer(&negotiated, black_box(header))?);
        }
    }
    let each = started.elapsed() / iterations;
    writeln!(io::stdout(), "codec: {each:?} for {} requests", REQUESTS.len())?;
    Ok(())
}

/// A client with simple replies.
fn negotiate(exports: &[Export]) -> Option<Negotiated<'_>> {
    let mut handshake = Handshake::new(exports);
    let mut input = &b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0"[..];
    loop {
        match handshake.feed(&mut input, &mut Vec::new()) {
            Progress::Transmission(negotiated) => return Some(negotiated),
            Progress::Continue if !input.is_empty() => {}
            _ => return None,
        }
    }
}

fn header((kind, offset, length): (u16, u64, u32)) -> [u8; REQUEST_HEADER_LEN] {
    let mut header = [0; REQUEST_HEADER_LEN];
    header[..4].copy_from_slice(&NBD_REQUEST_MAGIC.to_be_bytes());
    header[6..8].copy_from_slice(&kind.to_be_bytes());
    header[16..24].copy_from_slice(&offset.to_be_bytes());
    header[24..].copy_from_slice(&length.to_be_bytes());
    header
}

/// Answers a request as a session does, but doesn't carry it out.
fn answer(negotiated: &Negotiated<'_>, header: &[u8; REQUEST_HEADER_LEN]) -> Result<impl Sized, BadMagic> {
    let request = RequestHeader::decode(header)?;
    let command = black_box(request.check(negotiated));
    Ok(simple_reply(request.cookie, command.err()))
}
