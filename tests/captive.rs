// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd` started by its client, or by systemd: with sockets that listen, or on standard
//! input and output.

#![allow(clippy::unwrap_used)]

#[path = "support/captive/activated.rs"]
mod activated;
#[path = "support/captive/client.rs"]
mod client;
#[path = "support/captive/single.rs"]
mod single;
#[path = "support/captive/units.rs"]
mod units;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use support::daemon::Daemons;
use support::target::{Kind, Via};
use support::tools::{Tool, trial};

/// A test of its own servers.
type Test = (&'static str, &'static [Tool], fn());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // The daemons end when this is dropped, after the last trial.
    let daemons = Arc::new(Daemons::default());
    let mut trials: Vec<Trial> = Vec::new();
    for kind in Kind::ALL {
        for case in client::CASES {
            let name = format!("{}/{}", kind.name(), case.name);
            let tools = [kind.tools(), case.tools].concat();
            let daemons = Arc::clone(&daemons);
            let run = move || {
                client::run(&daemons, kind, Via::Http, case).map_err(|error| error.to_string().into())
            };
            trials.push(trial(name, &tools, run));
        }
    }
    for (name, tools, run) in [client::TESTS, activated::TESTS, single::TESTS, units::TESTS].concat() {
        trials.push(trial(name, tools, move || {
            run();
            Ok(())
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
