// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fake engine with the real imageio daemon, and the engine's real clients: what these do with it, they do with an engine.

#[path = "support/engine_contract/backup.rs"]
mod backup;
#[path = "support/engine_contract/faults.rs"]
mod faults;
#[path = "support/engine_contract/installation.rs"]
mod installation;
#[path = "support/engine_contract/ovirt_img.rs"]
mod ovirt_img;
#[path = "support/engine_contract/rest.rs"]
mod rest;
#[path = "support/engine_contract/session.rs"]
mod session;
#[path = "support/engine_contract/virt_v2v.rs"]
mod virt_v2v;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use support::TestResult;
use support::tools::{IMAGEIO, OVIRT_IMG, OVIRT_SDK, QEMU_IMG, QEMU_IO, QEMU_NBD, Tool, VIRT_V2V, trial};

/// What all tests need.
const TOOLS: &[Tool] = &[IMAGEIO, OVIRT_IMG, OVIRT_SDK, QEMU_IMG, QEMU_IO, QEMU_NBD, VIRT_V2V];

type Test = (&'static str, fn() -> TestResult);

const TESTS: &[&[Test]] = &[backup::TESTS, faults::TESTS, ovirt_img::TESTS, rest::TESTS, virt_v2v::TESTS];

fn main() -> ExitCode {
    let trials: Vec<Trial> = TESTS
        .iter()
        .copied()
        .flatten()
        .map(|&(name, run)| trial(name, TOOLS, move || run().map_err(|error| error.to_string().into())))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
