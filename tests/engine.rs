// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks of an engine through both doors: the fake engine with the real imageio daemon, and what
//! becomes of disk and transfer.

#[path = "support/engine/commands.rs"]
mod commands;
#[path = "support/engine/cut.rs"]
mod cut;
#[path = "support/engine/devices.rs"]
mod devices;
#[path = "support/engine/faults.rs"]
mod faults;
#[path = "support/engine/hopeless_uploads.rs"]
mod hopeless_uploads;
#[path = "support/engine/hosts.rs"]
mod hosts;
#[path = "support/engine/jobs.rs"]
mod jobs;
#[path = "support/engine/resumed_uploads.rs"]
mod resumed_uploads;
#[path = "support/engine/resuming.rs"]
mod resuming;
#[path = "support/engine/secrets.rs"]
mod secrets;
#[path = "support/engine/serving.rs"]
mod serving;
#[path = "support/engine/signals.rs"]
mod signals;
#[path = "support/engine/silence.rs"]
mod silence;
#[path = "support/engine/targets.rs"]
mod targets;
#[path = "support/engine/unread.rs"]
mod unread;
#[path = "support/engine/unsound_images.rs"]
mod unsound_images;

use std::process::ExitCode;

use libtest_mimic::Trial;
use support::installation::{Test, run_trials, trials};
use support::loop_device::has_loop_devices;
use support::namespace::has_etc;
use support::tools::{
    CURL, IMAGEIO, LOSETUP, NBDKIT, OVIRT_IMG, OVIRT_SDK, QEMU_IMG, QEMU_IO, QEMU_NBD, Tool,
};

/// The tools that all tests need.
const TOOLS: &[Tool] = &[CURL, IMAGEIO, NBDKIT, OVIRT_IMG, OVIRT_SDK, QEMU_IMG, QEMU_IO, QEMU_NBD];

const TESTS: &[&[Test]] = &[
    serving::TESTS,
    commands::TESTS,
    unsound_images::TESTS,
    cut::TESTS,
    faults::TESTS,
    resuming::TESTS,
    resumed_uploads::TESTS,
    hopeless_uploads::TESTS,
    signals::TESTS,
    silence::TESTS,
    hosts::TESTS,
    secrets::TESTS,
    targets::TESTS,
    unread::TESTS,
];

fn main() -> ExitCode {
    let mut all = trials(TOOLS, TESTS);
    // For root alone.
    all.extend(trials_if(has_etc(), TOOLS, hosts::ON_A_HOST));
    all.extend(trials_if(has_loop_devices(), &[TOOLS, &[LOSETUP]].concat(), devices::TESTS));
    run_trials(all)
}

/// Tests that are ignored where the system doesn't let us run them.
fn trials_if(is_possible: bool, tools: &[Tool], tests: &[Test]) -> impl Iterator<Item = Trial> {
    let trials = trials(tools, &[tests]).into_iter();
    trials.map(move |trial| if is_possible { trial } else { trial.with_ignored_flag(true) })
}
