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
use support::tools::{IMAGEIO, QEMU_IMG, QEMU_IO, QEMU_NBD, Tool, trial};

/// What all tests need.
const TOOLS: &[Tool] = &[IMAGEIO, QEMU_IMG, QEMU_IO, QEMU_NBD];

type Test = (&'static str, fn() -> TestResult);

const TESTS: &[&[Test]] = &[serving::TESTS, commands::TESTS, faults::TESTS, resuming::TESTS];

fn main() -> ExitCode {
    let trials: Vec<Trial> = TESTS
        .iter()
        .copied()
        .flatten()
        .map(|&(name, run)| trial(name, TOOLS, move || run().map_err(|error| error.to_string().into())))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
