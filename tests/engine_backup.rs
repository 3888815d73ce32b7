// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd backup`, `backups`, `verify` and `restore`: the fake engine with the real imageio
//! daemon, and what is in the directory and in the engine after whatever happens.

#[path = "support/engine_backup/faults.rs"]
mod faults;
#[path = "support/engine_backup/generations.rs"]
mod generations;
#[path = "support/engine_backup/interruptions.rs"]
mod interruptions;
#[path = "support/engine_backup/machine.rs"]
mod machine;

use std::process::ExitCode;

use support::installation::{Test, run_tests};
use support::tools::{IMAGEIO, NBDCOPY, QEMU_IMG, QEMU_IO, QEMU_NBD, Tool};

/// The tools that all tests need.
const TOOLS: &[Tool] = &[IMAGEIO, NBDCOPY, QEMU_IMG, QEMU_IO, QEMU_NBD];

const TESTS: &[&[Test]] = &[generations::TESTS, faults::TESTS, interruptions::TESTS];

fn main() -> ExitCode {
    run_tests(TOOLS, TESTS)
}
