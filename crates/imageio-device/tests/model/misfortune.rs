// SPDX-License-Identifier: MIT OR Apache-2.0
//! Misfortune at random.

use std::time::Duration;

use fake_imageio::{Done, Fault, Gate, Op, What};
use fastrand::Rng;

use crate::scenario::{Scenario, choose};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    PowerCut,
    ConnectionsClosed,
    ConnectionReset(u64),
    LateRequestsAreCarriedOut,
    /// Of one connection, or all.
    WayLost(Option<u64>, u16),
}

impl Event {
    /// Of all of them.
    pub(crate) const NAMES: &[&str] = &[
        "power cut",
        "connections closed",
        "connection reset",
        "late requests",
        "way lost",
        "all ways lost",
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[match self {
            Self::PowerCut => 0,
            Self::ConnectionsClosed => 1,
            Self::ConnectionReset(_) => 2,
            Self::LateRequestsAreCarriedOut => 3,
            Self::WayLost(Some(_), _) => 4,
            Self::WayLost(None, _) => 5,
        }]
    }
}

/// The statuses of a proxy that has lost the way to the host.
const LOST_WAY: &[u16] = &[500, 502, 502, 503];

/// By these, a server says that it has not carried a request out and will not.
const SURELY_NOT_DONE: &[u16] = &[401, 404, 405, 411, 416];
/// By these, it says no more than that it will not do anything later.
const NOT_LATER: &[u16] = &[400, 403];
/// By these, it says nothing.
const IN_DOUBT: &[u16] = &[202, 204, 302, 408, 413, 429, 500, 502, 503, 504];

/// All that a client may be told instead of success.
pub(crate) fn statuses() -> impl Iterator<Item = u16> {
    [SURELY_NOT_DONE, NOT_LATER, IN_DOUBT].into_iter().flatten().copied()
}

impl Scenario {
    /// Returns true if the server may lose what it has acknowledged.
    pub(crate) fn has_losses(&self) -> bool {
        let is_loss = |event: &Event| matches!(event, Event::PowerCut | Event::WayLost(..));
        let loses = |fault: &Fault| fault.what().name() == "lose way";
        self.events.iter().any(|(_, event)| is_loss(event)) || self.faults.iter().any(loses)
    }
}

pub(crate) fn event(rng: &mut Rng) -> Event {
    match rng.u8(..12) {
        0..3 => Event::PowerCut,
        3 => Event::ConnectionsClosed,
        4 => Event::ConnectionReset(rng.u64(1..8)),
        5..9 => Event::WayLost(rng.bool().then(|| rng.u64(1..8)), choose(rng, LOST_WAY)),
        _ => Event::LateRequestsAreCarriedOut,
    }
}

pub(crate) fn faults(rng: &mut Rng, gate: &Gate, has_blocks: bool) -> Vec<Fault> {
    let mut faults: Vec<_> = (0..rng.usize(..6)).map(|_| fault(rng, gate)).collect();
    if has_blocks && rng.bool() {
        // Long enough for others to come in between.
        let delay = What::DelayBlock(Duration::from_millis(1));
        faults.extend([Op::Put, Op::Zero].map(|op| Fault::on(op).every().then(delay.clone())));
    }
    faults
}

/// Returns the faults of the first requests for extents.
pub(crate) fn extents_faults(rng: &mut Rng, op: Op) -> Vec<Fault> {
    let fault = |rng: &mut Rng| match rng.u8(..6) {
        0 => What::LoseAnswer,
        1 => What::Close { after: rng.u64(..100) },
        2 => What::Reset { after: rng.u64(..100) },
        3 => What::Delay(Duration::from_millis(2)),
        4 => What::NoAnswer,
        _ => What::answer(choose(rng, &[403, 404, 405, 500]), Done::Not),
    };
    (1..=rng.u64(1..3)).map(|nth| Fault::on(op).nth(nth).then(fault(rng))).collect()
}

/// The first answer to a request for extents takes a moment.
pub(crate) fn slow_extents(rng: &mut Rng, op: Op) -> Fault {
    Fault::on(op).then(What::Delay(Duration::from_millis(rng.u64(1..6))))
}

fn fault(rng: &mut Rng, gate: &Gate) -> Fault {
    let op = choose(rng, &[Op::Put, Op::Put, Op::Put, Op::Zero, Op::Flush, Op::Get]);
    let after = rng.u64(..10_000);
    let what = match rng.u8(..32) {
        0..4 => What::LoseAnswer,
        4..6 => What::Close { after },
        6..8 => What::Reset { after },
        8..11 => What::CloseAfterAnswer,
        11..15 if matches!(op, Op::Put | Op::Zero) => What::CarryOutLate(gate.clone()),
        15 => What::NoAnswer,
        16 => What::AnswerEarly { status: choose(rng, &[400, 403, 413, 500]), text: "early".to_owned() },
        17..20 => {
            let (status, all) = (choose(rng, LOST_WAY), rng.bool());
            // The choice is made of what the others are drawn from, so that old seeds stay what
            // they were.
            let done = if after.is_multiple_of(2) { Done::Late(gate.clone()) } else { Done::Not };
            What::LoseWay { status, all, done }
        }
        20 => What::Delay(Duration::from_millis(1)),
        _ => answer(rng, gate),
    };
    Fault::on(op).nth(rng.u64(1..12)).then(what)
}

fn answer(rng: &mut Rng, gate: &Gate) -> What {
    let statuses = match rng.u8(..8) {
        0 => SURELY_NOT_DONE,
        1 => NOT_LATER,
        _ => IN_DOUBT,
    };
    let done = match rng.u8(..6) {
        _ if statuses == SURELY_NOT_DONE => Done::Not,
        0 => Done::Not,
        1 => Done::Yes,
        2 => Done::Part(rng.u64(..10_000)),
        _ if statuses == NOT_LATER => Done::Not,
        _ => Done::Late(gate.clone()),
    };
    let (status, close) = (choose(rng, statuses), rng.u8(..4) == 0);
    What::Answer { status, text: "for a reason".to_owned(), done, close }
}
