// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happens in one run: the settings, what each client does, and what goes wrong. All of it follows from the seed, but
//! for the order in which threads get on.

use std::time::Duration;

use fake_imageio::{Fault, Gate, Op, What};
use fastrand::Rng;

/// Size of the disk in bytes.
pub(crate) const SIZE: usize = 2048;

#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) setup: Setup,
    /// For each client.
    pub(crate) clients: Vec<Vec<Step>>,
    pub(crate) faults: Vec<Fault>,
    /// What else goes wrong, before which step of all clients together.
    pub(crate) events: Vec<(usize, Event)>,
    /// Late requests wait here.
    pub(crate) gate: Gate,
    pub(crate) end: End,
}

#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) door: Door,
    pub(crate) connections: u32,
    pub(crate) replay_buffer: u64,
    pub(crate) max_request: u64,
    pub(crate) keep_alive: Option<Duration>,
    /// What the server can do.
    pub(crate) zero: bool,
    pub(crate) flush: bool,
}

/// How clients use the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// As nbdkit does.
    Blocking,
    /// As the NBD frontend does.
    Queued,
}

/// A request of a client.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Read { offset: usize, len: usize },
    Write { offset: usize, len: usize, value: u8, fua: bool },
    Zero { offset: usize, len: usize, fua: bool },
    Flush,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    PowerCut,
    ConnectionsClosed,
    ConnectionReset(u64),
    LateRequestsAreCarriedOut,
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
        Self {
            setup: setup(rng),
            faults: (0..rng.usize(..6)).map(|_| fault(rng, &gate)).collect(),
            events: (0..rng.usize(..5)).map(|_| (rng.usize(..steps), event(rng))).collect(),
            end: if rng.u8(..3) == 0 { End::Crash } else { End::Close },
            clients,
            gate,
        }
    }

    pub(crate) fn has_power_cut(&self) -> bool {
        self.events.iter().any(|(_, event)| matches!(event, Event::PowerCut))
    }
}

fn choose<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

fn setup(rng: &mut Rng) -> Setup {
    Setup {
        door: choose(rng, &[Door::Blocking, Door::Queued]),
        connections: rng.u32(1..=4),
        // Nothing, next to nothing, or enough.
        replay_buffer: choose(rng, &[0, 12 << 10, 12 << 10, 40 << 10, 32 << 20, 32 << 20]),
        max_request: choose(rng, &[256, 4096]),
        keep_alive: (rng.u8(..4) == 0).then_some(Duration::from_millis(1)),
        zero: rng.u8(..8) != 0,
        flush: rng.u8(..12) != 0,
    }
}

fn clients(rng: &mut Rng) -> Vec<Vec<Step>> {
    let mut value = 0;
    let count = rng.usize(1..=6);
    // Many requests for the same few places, or for all of the disk.
    let room = choose(rng, &[SIZE / 16, SIZE]);
    (0..count).map(|_| (0..rng.usize(4..24)).map(|_| step(rng, room, &mut value)).collect()).collect()
}

fn step(rng: &mut Rng, room: usize, value: &mut u8) -> Step {
    let len = 1 + rng.usize(..room / 4);
    // Neighbours, too, so that there is something to merge.
    let offset = if rng.bool() { rng.usize(..=room - len) } else { rng.usize(..3) * (room / 4) };
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

fn fault(rng: &mut Rng, gate: &Gate) -> Fault {
    let op = choose(rng, &[Op::Put, Op::Put, Op::Put, Op::Zero, Op::Flush, Op::Get]);
    let after = rng.u64(..300);
    // An answer of the kind that a proxy gives, too, when it has lost the server.
    let status = |status| match op {
        Op::Put | Op::Zero if status >= 500 => What::FailAndCarryOutLate { status, gate: gate.clone() },
        _ => What::Status { status, text: "for a reason".to_owned() },
    };
    let what = match rng.u8(..24) {
        0..4 => What::LoseAnswer,
        4..6 => What::Close { after },
        6..8 => What::Reset { after },
        8..11 => What::CloseAfterAnswer,
        11..17 if matches!(op, Op::Put | Op::Zero) => What::CarryOutLate(gate.clone()),
        17 => What::NoAnswer,
        18 => status(500),
        19 => status(503),
        20 => status(502),
        21 => status(400),
        22 => What::AnswerEarly { status: 500, text: "for a reason".to_owned() },
        _ => What::Delay(Duration::from_millis(1)),
    };
    Fault::on(op).nth(rng.u64(1..12)).then(what)
}

fn event(rng: &mut Rng) -> Event {
    match rng.u8(..8) {
        0..3 => Event::PowerCut,
        3 => Event::ConnectionsClosed,
        4 => Event::ConnectionReset(rng.u64(1..8)),
        _ => Event::LateRequestsAreCarriedOut,
    }
}
