// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks of an engine through both doors: the fake engine with the real imageio daemon, and what becomes of disk and transfer.

#[path = "support/engine/commands.rs"]
mod commands;
#[path = "support/engine/cut.rs"]
mod cut;
#[path = "support/engine/faults.rs"]
mod faults;
#[path = "support/engine/resumed_uploads.rs"]
mod resumed_uploads;
#[path = "support/engine/resuming.rs"]
mod resuming;
#[path = "support/engine/serving.rs"]
mod serving;

use std::process::ExitCode;

use support::installation::{Test, run_tests};
use support::tools::{IMAGEIO, NBDKIT, OVIRT_IMG, OVIRT_SDK, QEMU_IMG, QEMU_IO, QEMU_NBD, Tool};

/// What all tests need.
const TOOLS: &[Tool] = &[IMAGEIO, NBDKIT, OVIRT_IMG, OVIRT_SDK, QEMU_IMG, QEMU_IO, QEMU_NBD];

const TESTS: &[&[Test]] =
    &[serving::TESTS, commands::TESTS, cut::TESTS, faults::TESTS, resuming::TESTS, resumed_uploads::TESTS];

fn main() -> ExitCode {
    run_tests(TOOLS, TESTS)
}
