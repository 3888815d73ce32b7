// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each fault of a network, at each step of the protocol, in each operation, over http and https:
//! the disk is the same in the end, or somebody is told. The same for each answer that is no
//! success. And faults at random.
//!
//! `SEEDS=100 cargo test -p imageio-device --test matrix random` tries more of these; `SEED=7`
//! tries that one.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod answer;
mod cell;
mod random;

use std::process::ExitCode;
use std::time::Duration;

use fault_proxy::{Drip, Fault, Point, Way};
use libtest_mimic::{Arguments, Trial};

use crate::cell::{Cell, Expected};

/// The time that this side waits at most.
const TIMEOUT: Duration = Duration::from_millis(600);

/// Longer in all than that, also if half of it drips the other way, and each pause shorter.
const DRIP: Drip = Drip::new(1, TIMEOUT.checked_div(3).expect("not by zero"), 9);

/// Much shorter.
const DELAY: Duration = TIMEOUT.checked_div(10).expect("not by zero");

const FAULTS: &[(&str, Fault)] = &[
    ("kill", Fault::Kill),
    ("reset", Fault::Reset),
    ("half_close_to_server", Fault::HalfClose(Way::ToServer)),
    ("half_close_to_client", Fault::HalfClose(Way::ToClient)),
    ("black_hole", Fault::BlackHole),
    ("drip", Fault::Drip(DRIP)),
    ("delay", Fault::Delay(DELAY)),
];

/// An operation that is asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// Opening the transfer: `OPTIONS`, and a read of one byte.
    Open,
    Read,
    Write,
    Zero,
    Flush,
    Extents,
}

const OPERATIONS: &[(&str, Operation)] = &[
    ("open", Operation::Open),
    ("read", Operation::Read),
    ("write", Operation::Write),
    ("zero", Operation::Zero),
    ("flush", Operation::Flush),
    ("extents", Operation::Extents),
];

/// A step of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    /// In the client's hello.
    Hello,
    /// In the server's certificate.
    Certificate,
    RequestHead,
    RequestBody,
    AnswerHead,
    AnswerBody,
}

const STEPS: &[(&str, Step)] = &[
    ("connect", Step::Connect),
    ("tls_hello", Step::Hello),
    ("tls_certificate", Step::Certificate),
    ("request_head", Step::RequestHead),
    ("request_body", Step::RequestBody),
    ("answer_head", Step::AnswerHead),
    ("answer_body", Step::AnswerBody),
];

impl Step {
    /// Returns the place of this step in an operation, counted from its start, if there is such a
    /// step.
    fn point(self, operation: Operation, tls: bool) -> Option<Point> {
        let in_data = 20_000;
        let point = match self {
            Self::Connect => Point::Connect,
            Self::Hello => Point::Byte(Way::ToServer, 50),
            Self::Certificate => Point::Byte(Way::ToClient, 200),
            // It comes behind a handshake of unknown length.
            _ if tls && operation == Operation::Open => return None,
            Self::RequestHead => Point::Byte(Way::ToServer, 10),
            Self::AnswerHead => Point::Byte(Way::ToClient, 10),
            Self::RequestBody if operation == Operation::Write => Point::Byte(Way::ToServer, in_data),
            Self::AnswerBody if operation == Operation::Read => Point::Byte(Way::ToClient, in_data),
            // In the same record as the head.
            _ if tls => return None,
            Self::RequestBody => Point::Body(Way::ToServer, 5),
            Self::AnswerBody => Point::Body(Way::ToClient, 5),
        };
        let has_body = match self {
            Self::RequestBody => matches!(operation, Operation::Write | Operation::Zero | Operation::Flush),
            Self::AnswerBody => matches!(operation, Operation::Open | Operation::Read | Operation::Extents),
            Self::Hello | Self::Certificate => tls,
            _ => true,
        };
        has_body.then_some(point)
    }
}

/// Returns the end that it has to come to.
fn expected(operation: Operation, step: Step, fault: Fault, tls: bool) -> Expected {
    match (fault, step) {
        (Fault::Delay(_), _) => Expected::Unnoticed,
        // Bytes come, if slowly.
        (Fault::Drip(_), Step::AnswerBody) if !tls => Expected::Unnoticed,
        // The server finds the body too short, says so, and is believed.
        (Fault::HalfClose(Way::ToServer), Step::RequestBody) => Expected::Told,
        // The answer is on its way, and needs nothing more from the client.
        (Fault::HalfClose(Way::ToServer), Step::AnswerHead | Step::AnswerBody) => Expected::Survived,
        // The handshake was done, as far as the client can tell.
        (Fault::HalfClose(Way::ToServer), Step::Certificate) if operation == Operation::Open => {
            Expected::Survived
        }
        // Nobody is waiting yet, so only what breaks is tried again.
        (Fault::Kill | Fault::Reset | Fault::HalfClose(_), _) if operation == Operation::Open && !tls => {
            Expected::Survived
        }
        // The reset comes before the handshake begins, and is tried again, or while it goes on.
        (Fault::Kill | Fault::Reset, Step::Connect) if operation == Operation::Open => {
            Expected::ToldOrSurvived
        }
        _ if matches!(operation, Operation::Open | Operation::Extents) => Expected::Told,
        _ => Expected::Survived,
    }
}

fn cells() -> impl Iterator<Item = (String, Cell)> {
    let schemes = [("http", false), ("https", true)].into_iter();
    let operations = schemes.flat_map(|scheme| OPERATIONS.iter().map(move |operation| (scheme, operation)));
    let steps =
        operations.flat_map(|(scheme, operation)| STEPS.iter().map(move |step| (scheme, operation, step)));
    steps.flat_map(|((scheme, tls), &(operation_name, operation), &(step_name, step))| {
        FAULTS.iter().filter_map(move |&(fault_name, fault)| {
            let point = step.point(operation, tls)?;
            let expected = expected(operation, step, fault, tls);
            let name = format!("{scheme}/{operation_name}/{step_name}/{fault_name}");
            Some((name, Cell { tls, operation, step, point, fault, expected }))
        })
    })
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They mostly wait.
    arguments.test_threads.get_or_insert(8);
    let mut trials: Vec<_> = cells()
        .map(|(name, cell)| {
            Trial::test(name, move || {
                cell.run();
                Ok(())
            })
        })
        .collect();
    assert!(trials.len() > 350, "{} cells", trials.len());
    let answers = answer::trials();
    assert!(answers.len() > 400, "{} answers", answers.len());
    trials.extend(answers);
    trials.extend(random::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}
