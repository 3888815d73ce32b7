// SPDX-License-Identifier: MIT OR Apache-2.0
//! The errors that clients get when the server refuses or fails.

use fake_imageio::{Fault, Op, What};
use support::TestResult;

use crate::observe::Setup;
use crate::rules::{compare_steps, equal};
use crate::script::{Request, flush, read, write, zero};
use crate::{FULL, against_the_reference};

/// The offset at which a request meets the fault, for requests that have a place. The size check is
/// elsewhere.
const PLACE: u64 = 1 << 20;

/// Refusals of the server. What it fails (500) is tried once more by us, and not by the reference.
pub(crate) const STATUSES: [u16; 2] = [403, 416];

/// A script with a fault, and what its requests end with.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    script: fn() -> Vec<Request>,
    fails: Op,
    status: u16,
    reference: &'static [&'static str],
    ours: &'static [&'static str],
}

/// Cases in which the reference goes on though data may be lost. With us every later request fails,
/// and so does the process, so that no copy counts as done.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_flush_that_failed_is_not_made_good_by_the_next",
        script: || vec![write(0, 512), flush(), flush(), read(0, 512)],
        fails: Op::Flush,
        status: 500,
        reference: &["ok", "EIO", "ok", "ok"],
        ours: &["ok", "EIO", "EIO", "EIO"],
    },
    // The server closes this connection with its answer. The reference opens another, whose flush
    // need not cover what was written on the first.
    Case {
        name: "a_refused_write_after_unflushed_ones_may_lose_them",
        script: || vec![write(0, 512), write(PLACE, 512), flush()],
        fails: Op::Put,
        status: 403,
        reference: &["ok", "EIO", "ok"],
        ours: &["ok", "EPERM", "EPERM"],
    },
    Case {
        name: "a_failed_write_after_unflushed_ones_may_lose_them",
        script: || vec![write(0, 512), write(PLACE, 512), flush()],
        fails: Op::Put,
        status: 500,
        reference: &["ok", "EIO", "ok"],
        ours: &["ok", "EIO", "EIO"],
    },
];

fn failing(op: Op, status: u16) -> Setup {
    let mut when = Fault::on(op);
    if op != Op::Flush {
        when = when.offset(PLACE);
    }
    let what = What::Status { status, text: "no".into() };
    Setup { fault: Some(when.then(what)), ..FULL }
}

pub(crate) fn run(case: &Case) -> TestResult {
    against_the_reference(&failing(case.fails, case.status), &(case.script)(), |reference, ours| {
        equal("errors of the reference", &reference.errors().as_slice(), &case.reference)?;
        equal("errors", &ours.errors().as_slice(), &case.ours)?;
        let ended_well = (reference.status.success(), ours.status.success());
        equal("whether the reference and ours end well", &ended_well, &(true, false))
    })
}

/// With nothing unflushed, and so nothing to lose: the client is told, and may go on.
pub(crate) fn answers_become_errors(status: u16) -> TestResult {
    let requests = [(Op::Put, write(PLACE, 512)), (Op::Get, read(PLACE, 512)), (Op::Zero, zero(PLACE, 512))];
    for (op, request) in requests {
        let setup = failing(op, status);
        let script = [write(0, 512), flush(), request, read(PLACE, 1)];
        against_the_reference(&setup, &script, |reference, ours| {
            let reason = error_that_tells_the_reason(op, status);
            equal("errors of the reference", &reference.errors(), &vec!["ok", "ok", "EIO", "ok"])?;
            equal("errors", &ours.errors(), &vec!["ok", "ok", reason, "ok"])?;
            compare_steps(&setup, reference, ours)
        })?;
    }
    Ok(())
}

/// To the reference's clients, all errors are EIO.
fn error_that_tells_the_reason(op: Op, status: u16) -> &'static str {
    match (op, status) {
        (_, 403) => "EPERM",
        (Op::Get, _) => "EINVAL",
        _ => "ENOSPC",
    }
}
