// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks of an engine through both doors: the fake engine with the real imageio daemon, and what becomes of disk and transfer.

#[path = "support/engine/commands.rs"]
mod commands;
#[path = "support/engine/faults.rs"]
mod faults;
#[path = "support/engine/resuming.rs"]
mod resuming;
#[path = "support/engine/serving.rs"]
mod serving;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use support::TestResult;
use support::tools::{IMAGEIO, NBDKIT, QEMU_IMG, QEMU_IO, QEMU_NBD, Tool, trial};

/// What all tests need.
const TOOLS: &[Tool] = &[IMAGEIO, NBDKIT, QEMU_IMG, QEMU_IO, QEMU_NBD];

type Test = (&'static str, fn() -> TestResult);

const TESTS: &[&[Test]] = &[serving::TESTS, commands::TESTS, faults::TESTS, resuming::TESTS];

fn main() -> ExitCode {
    let trials: Vec<Trial> = TESTS
        .iter()
        .copied()
        .flatten()
        .map(|&(name, run)| trial(name, TOOLS, move || run().map_err(|error| error.to_string().into())))
        .collect();
    let mut arguments = Arguments::from_args();
    // They wait most of the time: the engine is asked once a second.
    arguments.test_threads.get_or_insert(8);
    libtest_mimic::run(&arguments, trials).exit_code()
}
