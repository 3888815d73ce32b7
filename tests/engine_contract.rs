// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fake engine with the real imageio daemon, and the engine's real clients: what these do with it, they do with an engine.

#[path = "support/engine_contract/installation.rs"]
mod installation;
#[path = "support/engine_contract/ovirt_img.rs"]
mod ovirt_img;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use support::TestResult;
use support::tools::{IMAGEIO, OVIRT_IMG, OVIRT_SDK, QEMU_IMG, QEMU_IO, QEMU_NBD, Tool, trial};

/// What all tests need.
const TOOLS: &[Tool] = &[IMAGEIO, OVIRT_IMG, OVIRT_SDK, QEMU_IMG, QEMU_IO, QEMU_NBD];

type Test = (&'static str, fn() -> TestResult);

const TESTS: &[&[Test]] = &[ovirt_img::TESTS];

fn main() -> ExitCode {
    let trials: Vec<Trial> = TESTS
        .iter()
        .copied()
        .flatten()
        .map(|&(name, run)| trial(name, TOOLS, move || run().map_err(|error| error.to_string().into())))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
