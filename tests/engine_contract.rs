// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fake engine with the real imageio daemon, and the engine's real clients: what these do with
//! it, they do with an engine.

#[path = "support/engine_contract/backup.rs"]
mod backup;
#[path = "support/engine_contract/faults.rs"]
mod faults;
#[path = "support/engine_contract/on_fakes.rs"]
mod on_fakes;
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

type Test = (&'static str, fn() -> TestResult);

/// The tools that the real daemon, and the disks behind it, need.
const DAEMON: &[Tool] = &[IMAGEIO, QEMU_IMG, QEMU_IO, QEMU_NBD];

/// Which tests need which tools, beside those.
const TESTS: &[(&[Tool], &[Test])] = &[
    (&[OVIRT_IMG, OVIRT_SDK], backup::TESTS),
    (&[], faults::TESTS),
    (&[OVIRT_IMG, OVIRT_SDK], ovirt_img::TESTS),
    (&[], rest::TESTS),
    (&[OVIRT_SDK, VIRT_V2V], virt_v2v::TESTS),
];

fn main() -> ExitCode {
    let test = |tools: &[Tool], &(name, run): &Test| {
        trial(name, tools, move || run().map_err(|error| error.to_string().into()))
    };
    let mut trials: Vec<Trial> = on_fakes::TESTS.iter().map(|one| test(&[], one)).collect();
    for (tools, tests) in TESTS {
        let tools = [DAEMON, tools].concat();
        trials.extend(tests.iter().map(|one| test(&tools, one)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
