// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks of an engine through both doors: the fake engine with the real imageio daemon, and what becomes of disk and transfer.

#[path = "support/engine/commands.rs"]
mod commands;
#[path = "support/engine/faults.rs"]
mod faults;
#[path = "support/engine/hosts.rs"]
mod hosts;
#[path = "support/engine/jobs.rs"]
mod jobs;
#[path = "support/engine/resuming.rs"]
mod resuming;
#[path = "support/engine/serving.rs"]
mod serving;
#[path = "support/engine/signals.rs"]
mod signals;
#[path = "support/engine/silence.rs"]
mod silence;

use std::process::ExitCode;

use support::installation::{Test, run_tests};
use support::tools::{CURL, IMAGEIO, NBDKIT, QEMU_IMG, QEMU_IO, QEMU_NBD, Tool};

/// What all tests need.
const TOOLS: &[Tool] = &[CURL, IMAGEIO, NBDKIT, QEMU_IMG, QEMU_IO, QEMU_NBD];

const TESTS: &[&[Test]] = &[
    serving::TESTS,
    commands::TESTS,
    faults::TESTS,
    resuming::TESTS,
    signals::TESTS,
    silence::TESTS,
    hosts::TESTS,
];

fn main() -> ExitCode {
    run_tests(TOOLS, TESTS)
}
