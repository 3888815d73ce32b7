// SPDX-License-Identifier: MIT OR Apache-2.0
//! The course of one run: the settings, what each client does, and what goes wrong. All of it
//! follows from the seed, but for the order in which threads get on.

use std::ops::Range;
use std::time::Duration;

use fake_imageio::{Fault, Gate, Op};
use fastrand::Rng;

use crate::misfortune::{self, Event};

/// The size of the blocks within which a device keeps changes apart, in bytes.
pub(crate) const BLOCK: usize = 4096;
/// Size of the disk in bytes.
pub(crate) const SIZE: usize = 24 * BLOCK;

#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) server: Server,
    pub(crate) setup: Setup,
    /// For each client.
    pub(crate) clients: Vec<Vec<Step>>,
    pub(crate) faults: Vec<Fault>,
    /// The other misfortunes, each with the step of all clients together that it comes before.
    pub(crate) events: Vec<(usize, Event)>,
    /// Late requests wait here.
    pub(crate) gate: Gate,
    /// Somebody asks for extents.
    pub(crate) has_extents: bool,
    /// Somebody asks what is dirty.
    pub(crate) has_dirty: bool,
    pub(crate) end: End,
}

/// The properties of the server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) zero: bool,
    pub(crate) flush: bool,
    /// Of a block device.
    pub(crate) block_size: Option<u64>,
    /// The number of answers after which it closes a connection, and true if it says so.
    pub(crate) close_after: Option<(u64, bool)>,
    /// The ranges that are dirty from the start, in bytes; whole blocks.
    pub(crate) dirty: Vec<Range<usize>>,
    /// Its bitmap takes note of changes.
    pub(crate) records_dirty: bool,
}

#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) door: Door,
    pub(crate) connections: u32,
    pub(crate) replay_buffer: u64,
    pub(crate) max_request: u64,
    pub(crate) keep_alive: Option<Duration>,
    /// The number of times that a client repeats a change that fails, as nbdkit's retry filter
    /// does.
    pub(crate) repetitions: u8,
}

/// The way in which clients use the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// A thread waits for each request, as in nbdkit.
    Blocking,
    /// Requests are submitted, as by the NBD frontend.
    Queued,
}

/// A request of a client.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Read { offset: usize, len: usize },
    Extents { offset: usize, len: usize },
    Dirty { offset: usize, len: usize },
    Write { offset: usize, len: usize, value: u8, fua: bool },
    Zero { offset: usize, len: usize, fua: bool },
    Flush,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The device is closed.
    Close,
    /// It is gone without a word, as after SIGKILL.
    Crash,
}

impl Scenario {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let gate = Gate::new();
        let clients = clients(rng);
        let steps: usize = clients.iter().map(Vec::len).sum();
        let server = server(rng);
        let mut setup = setup(rng);
        // By themselves, so that old seeds stay what they were.
        let other = &mut Rng::with_seed(!seed);
        setup.repetitions = choose(other, &[0, 0, 1, 3]);
        if other.u8(..3) == 0 {
            // Not in whole blocks.
            setup.max_request = 10_000;
        }
        let mut scenario = Self {
            setup,
            has_extents: false,
            has_dirty: false,
            faults: misfortune::faults(rng, &gate, server.block_size.is_some()),
            events: (0..rng.usize(..5)).map(|_| (rng.usize(..steps), misfortune::event(rng))).collect(),
            end: if rng.u8(..3) == 0 { End::Crash } else { End::Close },
            server,
            clients,
            gate,
        };
        let other = &mut Rng::with_seed(seed ^ EXTENTS);
        if other.u8(..3) == 0 {
            scenario.ask_for_extents(other);
        }
        let other = &mut Rng::with_seed(seed ^ DIRTY);
        if other.u8(..3) == 0 {
            scenario.ask_what_is_dirty(other);
        }
        scenario
    }

    /// Somebody asks for extents now and then, in between.
    fn ask_for_extents(&mut self, rng: &mut Rng) {
        self.has_extents = true;
        self.ask_in_between(rng, Op::Extents, |(offset, len)| Step::Extents { offset, len });
    }

    /// Somebody asks what is dirty now and then, in between.
    fn ask_what_is_dirty(&mut self, rng: &mut Rng) {
        self.has_dirty = true;
        self.server.records_dirty = rng.bool();
        for _ in 0..rng.usize(..3) {
            let start = rng.usize(..SIZE / BLOCK) * BLOCK;
            self.server.dirty.push(start..start + BLOCK);
        }
        self.ask_in_between(rng, Op::DirtyExtents, |(offset, len)| Step::Dirty { offset, len });
    }

    fn ask_in_between(&mut self, rng: &mut Rng, op: Op, step: fn((usize, usize)) -> Step) {
        for client in &mut self.clients {
            for _ in 0..rng.usize(..6) {
                let at = rng.usize(..=client.len());
                let place = choose(rng, &[(0, SIZE), (BLOCK, 2 * BLOCK), (1000, 3000)]);
                client.insert(at, step(place));
            }
        }
        let faults = match rng.u8(..4) {
            0 => misfortune::extents_faults(rng, op),
            // The answer is old by the time it comes.
            1..3 => vec![misfortune::slow_extents(rng, op)],
            _ => Vec::new(),
        };
        self.faults.extend(faults);
    }
}

/// The seed of all that is random about extents is another one, so that old seeds stay what they
/// were.
const EXTENTS: u64 = 0x6578_7465_6e74_7300;

/// The seed of all that is random about dirty ranges is one of its own as well.
const DIRTY: u64 = 0x6469_7274_7900_0000;

pub(crate) fn choose<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

fn server(rng: &mut Rng) -> Server {
    Server {
        zero: rng.u8(..8) != 0,
        flush: rng.u8(..12) != 0,
        block_size: choose(rng, &[None, None, Some(512), Some(4096)]),
        close_after: (rng.u8(..8) == 0).then(|| (choose(rng, &[1, 2, 3, 5, 8]), rng.bool())),
        dirty: Vec::new(),
        records_dirty: false,
    }
}

fn setup(rng: &mut Rng) -> Setup {
    Setup {
        door: choose(rng, &[Door::Blocking, Door::Queued]),
        connections: rng.u32(1..=4),
        // Nothing, next to nothing, or enough.
        replay_buffer: choose(rng, &[0, 16 << 10, 16 << 10, 64 << 10, 32 << 20, 32 << 20]),
        max_request: choose(rng, &[8 << 10, 64 << 10]),
        keep_alive: (rng.u8(..4) == 0).then_some(Duration::from_millis(1)),
        repetitions: 0,
    }
}

fn clients(rng: &mut Rng) -> Vec<Vec<Step>> {
    let mut value = 0;
    let count = rng.usize(1..=6);
    // Many requests for the same few blocks, or for all of the disk.
    let room = choose(rng, &[2 * BLOCK, 4 * BLOCK, SIZE]);
    (0..count).map(|_| (0..rng.usize(4..24)).map(|_| step(rng, room, &mut value)).collect()).collect()
}

fn step(rng: &mut Rng, room: usize, value: &mut u8) -> Step {
    let (offset, len) = range(rng, room);
    let fua = rng.u8(..8) == 0;
    match rng.u8(..16) {
        0..7 => {
            *value += 1;
            Step::Write { offset, len, value: *value, fua }
        }
        7..10 => Step::Zero { offset, len, fua },
        10..14 => Step::Read { offset, len },
        _ => Step::Flush,
    }
}

/// A place and a length: whole blocks most of the time.
fn range(rng: &mut Rng, room: usize) -> (usize, usize) {
    let blocks = room / BLOCK;
    match rng.u8(..8) {
        0..5 => {
            let len = rng.usize(1..=blocks.min(4));
            (rng.usize(..=blocks - len) * BLOCK, len * BLOCK)
        }
        // Pieces beside each other in one of the first blocks.
        5..7 => {
            let len = choose(rng, &[128, 512, 1024]);
            (rng.usize(..2) * BLOCK + rng.usize(..4) * len, len)
        }
        _ => {
            let len = rng.usize(1..=room / 2);
            (rng.usize(..=room - len), len)
        }
    }
}
