// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd backup`, `backups`, `verify` and `restore`: the fake engine with the real imageio daemon, and what is in the
//! directory and in the engine after whatever happens.

#[path = "support/engine_backup/faults.rs"]
mod faults;
#[path = "support/engine_backup/generations.rs"]
mod generations;
#[path = "support/engine_backup/interruptions.rs"]
mod interruptions;
#[path = "support/engine_backup/machine.rs"]
mod machine;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use support::TestResult;
use support::tools::{IMAGEIO, NBDCOPY, QEMU_IMG, QEMU_IO, QEMU_NBD, Tool, trial};

/// What all tests need.
const TOOLS: &[Tool] = &[IMAGEIO, NBDCOPY, QEMU_IMG, QEMU_IO, QEMU_NBD];

type Test = (&'static str, fn() -> TestResult);

const TESTS: &[&[Test]] = &[generations::TESTS, faults::TESTS, interruptions::TESTS];

fn main() -> ExitCode {
    let trials: Vec<Trial> = TESTS
        .iter()
        .copied()
        .flatten()
        .map(|&(name, run)| trial(name, TOOLS, move || run().map_err(|error| error.to_string().into())))
        .collect();
    let mut arguments = Arguments::from_args();
    // They wait for most of the time, as the engine is asked once a second.
    arguments.test_threads.get_or_insert(8);
    libtest_mimic::run(&arguments, trials).exit_code()
}
