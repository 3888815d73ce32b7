// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd` with each client over each transport: what they do in good order, and which error
//! they get for the rest.

#[path = "support/standalone/client.rs"]
mod client;
#[path = "support/standalone/layers.rs"]
mod layers;
#[path = "support/standalone/libnbd.rs"]
mod libnbd;
#[path = "support/standalone/qemu.rs"]
mod qemu;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use support::TestResult;
use support::image::same;
use support::tools::{Tool, trial};

use client::{Client, Way};

/// A client, and what it does.
struct Case {
    name: &'static str,
    tools: &'static [Tool],
    /// Options of `imageio-nbd`.
    options: &'static [&'static str],
    /// Over these transports.
    ways: &'static [Way],
    /// Returns what the disk must hold in the end.
    run: fn(&Client) -> TestResult<Vec<u8>>,
}

impl Case {
    const fn new(
        name: &'static str,
        tools: &'static [Tool],
        run: fn(&Client) -> TestResult<Vec<u8>>,
    ) -> Self {
        Self { name, tools, options: &[], ways: &[Way::Unix, Way::Tcp, Way::Tls], run }
    }
}

const CASES: &[&[Case]] = &[libnbd::CASES, qemu::CASES, layers::CASES];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = Vec::new();
    for case in CASES.iter().copied().flatten() {
        for &way in case.ways {
            let name = format!("{}/{}", way.name(), case.name);
            trials.push(trial(name, case.tools, move || run(case, way).map_err(|e| e.to_string().into())));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(case: &Case, way: Way) -> TestResult {
    let client = Client::new(way, case.options)?;
    let expected = (case.run)(&client);
    let (disk, said) = client.finish()?;
    let expected = expected.map_err(|error| format!("{error}\nthe server said:\n{said}"))?;
    same("the server's disk", &disk, &expected)
}
