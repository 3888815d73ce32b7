// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests of an NBD client, one after another.

use support::image::{SIZE, noise};

const KI: u64 = 1 << 10;
const MI: u64 = 1 << 20;

/// The number of NBD connections; requests take one each.
pub(crate) const CONNECTIONS: usize = 3;

/// The kinds of NBD requests that both plugins know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Read,
    Write,
    Zero,
    Flush,
}

/// One NBD request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) command: Command,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) fua: bool,
    pub(crate) no_hole: bool,
    /// Which of the client's connections it takes.
    pub(crate) connection: usize,
}

/// The features that a server offers to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    pub(crate) flush: bool,
    pub(crate) zero: bool,
}

impl Request {
    fn new(command: Command, offset: u64, len: u64) -> Self {
        Self { command, offset, len, fua: false, no_hole: false, connection: 0 }
    }

    pub(crate) fn fua(self) -> Self {
        Self { fua: true, ..self }
    }

    fn no_hole(self) -> Self {
        Self { no_hole: true, ..self }
    }

    pub(crate) fn changes_the_disk(&self) -> bool {
        matches!(self.command, Command::Write | Command::Zero)
    }

    /// Returns the data of a write: different for each place and size, so that a rewrite shows.
    pub(crate) fn data(&self) -> Vec<u8> {
        noise(self.len as usize, self.offset << 24 ^ self.len)
    }
}

pub(crate) fn read(offset: u64, len: u64) -> Request {
    Request::new(Command::Read, offset, len)
}

pub(crate) fn write(offset: u64, len: u64) -> Request {
    Request::new(Command::Write, offset, len)
}

pub(crate) fn zero(offset: u64, len: u64) -> Request {
    Request::new(Command::Zero, offset, len)
}

pub(crate) fn flush() -> Request {
    Request::new(Command::Flush, 0, 0)
}

/// A name, and what makes the requests.
type Script = (&'static str, fn() -> Vec<Request>);

/// The scripts that a person has thought of.
pub(crate) const SCRIPTS: &[Script] = &[
    ("nothing", Vec::new),
    ("writes_of_all_sizes", writes),
    ("rewrites_that_overlap", rewrites),
    ("writes_with_fua", fua_writes),
    ("zeroes", zeroes),
    ("zeroes_with_flags", flagged_zeroes),
    ("reads_of_all_sizes", reads),
    ("flushes", flushes),
    ("connections_in_turn", connections),
];

fn writes() -> Vec<Request> {
    let mut script = vec![
        write(0, 1),
        write(1, 511),
        write(512, 512),
        write(4 * KI - 1, 2),
        write(64 * KI, 64 * KI),
        write(256 * KI + 3, 256 * KI),
        write(4 * MI, 4 * MI),
        write(9 * MI + 5, 4 * MI),
        write(SIZE - 1, 1),
        write(SIZE - 4 * MI, 4 * MI),
    ];
    script.push(flush());
    script
}

fn rewrites() -> Vec<Request> {
    vec![
        write(MI, MI),
        write(MI + 1000, 4 * KI),
        write(MI - 1000, 2000),
        read(MI - 2000, 8 * KI),
        zero(MI + 2000, 2 * KI),
        write(MI + 3000, 10),
        write(MI, MI),
        zero(MI, MI),
        write(MI + 512 * KI, 1),
        read(MI - 1000, MI + 2000),
        flush(),
    ]
}

fn fua_writes() -> Vec<Request> {
    vec![
        write(0, 4 * KI).fua(),
        write(8 * KI, 4 * KI),
        write(8 * KI + 1, 1).fua(),
        write(MI, 4 * MI).fua(),
        write(SIZE - 1, 1).fua(),
        flush(),
        write(0, 512),
        flush(),
        write(512, 512),
        write(0, 512).fua(),
    ]
}

fn zeroes() -> Vec<Request> {
    vec![
        write(0, 4 * MI),
        zero(0, 64 * KI),
        zero(128 * KI + 7, 1),
        zero(256 * KI - 1, 128 * KI + 3),
        zero(512 * KI, 128 * KI),
        zero(MI, 2 * MI + 1),
        zero(SIZE - 1, 1),
        zero(8 * MI, 12 * MI),
        read(0, 4 * MI),
        flush(),
    ]
}

fn flagged_zeroes() -> Vec<Request> {
    vec![
        write(0, 2 * MI),
        zero(4 * KI, 4 * KI).fua(),
        zero(64 * KI, 4 * KI).no_hole(),
        zero(MI + 1, 300 * KI).fua().no_hole(),
        write(0, 100),
        zero(50, 100),
        flush(),
        zero(SIZE - 64 * KI, 64 * KI).no_hole(),
    ]
}

fn reads() -> Vec<Request> {
    vec![
        read(0, SIZE / 2),
        write(MI, MI + 11),
        read(MI, 1),
        read(MI - 1, 2),
        read(MI + 3, 70 * KI),
        read(MI, MI + 11),
        read(0, 512),
        read(SIZE - 1, 1),
        read(SIZE - 4 * MI, 4 * MI),
        read(MI, 1),
    ]
}

fn flushes() -> Vec<Request> {
    vec![
        flush(),
        flush(),
        read(0, 512),
        flush(),
        write(0, 512),
        read(0, 512),
        flush(),
        flush(),
        zero(0, 512),
        flush(),
        flush(),
        write(0, 512).fua(),
        flush(),
        // Unflushed in the end.
        write(100, 100),
    ]
}

fn connections() -> Vec<Request> {
    let mut script = Vec::new();
    for round in 0..3 {
        let at = round * MI;
        script.extend([
            write(at, 4 * KI),
            write(at + 100, 8 * KI),
            read(at, 12 * KI),
            flush(),
            zero(at + 1, KI),
            write(at + 5, 1).fua(),
            read(at, KI),
        ]);
    }
    in_turn(script)
}

/// Gives each request to the connection after that of the one before.
fn in_turn(mut script: Vec<Request>) -> Vec<Request> {
    for (n, request) in script.iter_mut().enumerate() {
        request.connection = n % CONNECTIONS;
    }
    script
}

/// The script without what a client of such a server can't ask for.
pub(crate) fn possible(script: Vec<Request>, features: Features) -> Vec<Request> {
    if features.flush {
        return script;
    }
    let kept = script.into_iter().filter(|request| request.command != Command::Flush);
    kept.map(|request| Request { fua: false, ..request }).collect()
}

/// Some sixty requests, the same for the same seed: many small ones, some large, close enough to
/// overlap.
pub(crate) fn random(seed: u64) -> Vec<Request> {
    let numbers = noise(60 * 6 * 8, seed);
    let numbers: Vec<u64> =
        numbers.chunks_exact(8).map(|bytes| bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b))).collect();
    numbers.chunks_exact(6).map(random_request).collect()
}

fn random_request(numbers: &[u64]) -> Request {
    let &[kind, size, fraction, place, flags, connection] = numbers else { unreachable!("six at a time") };
    let longest = [16, 512, 4 * KI, 64 * KI, 300 * KI, 4 * MI][(size % 6) as usize];
    let len = 1 + fraction % longest;
    // One in eight ends with the disk; of the rest, half lie in the first 64 KiB.
    let offset = match place % 8 {
        0 => SIZE - len,
        1..=4 => (place >> 8) % (64 * KI),
        _ => (place >> 8) % (SIZE - len + 1),
    };
    let request = match kind % 16 {
        0..=6 => write(offset, len),
        7..=9 => zero(offset, len),
        10..=13 => read(offset, len),
        _ => flush(),
    };
    Request {
        fua: request.changes_the_disk() && flags % 4 == 0,
        no_hole: request.command == Command::Zero && flags % 3 == 0,
        connection: (connection % CONNECTIONS as u64) as usize,
        ..request
    }
}
