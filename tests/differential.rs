// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our doors against the plugin in Python whose place they take: the same requests of a client
//! leave the same bytes, and the server sees the same, but for what `rules.rs` names.

#[path = "support/differential/client.rs"]
mod client;
#[path = "support/differential/faults.rs"]
mod faults;
#[path = "support/differential/observe.rs"]
mod observe;
#[path = "support/differential/rules.rs"]
mod rules;
#[path = "support/differential/script.rs"]
mod script;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use support::TestResult;
use support::door::Door;
use support::target::Via;
use support::tools::{NBDSH, trial};

use observe::{Observation, Setup, observe};
use script::{Features, Request, SCRIPTS, possible, random};

/// Scripts of random requests.
const SEEDS: std::ops::Range<u64> = 1..21;

/// A server with all features and room for all connections.
const FULL: Setup =
    Setup { via: Via::Http, features: Features { flush: true, zero: true }, writers: 8, fault: None };

fn main() -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), trials()).exit_code()
}

fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (server, setup) in setups() {
        for &(name, script) in SCRIPTS {
            let setup = setup.clone();
            trials.push(named(format!("{server}/{name}"), move || the_same_but_better(&setup, script())));
        }
    }
    // Each kind of server in turn.
    for (seed, (server, setup)) in SEEDS.zip(setups().into_iter().cycle()) {
        let name = format!("{server}/random_requests_of_seed_{seed}");
        trials.push(named(name, move || the_same_but_better(&setup, random(seed))));
    }
    for case in faults::CASES {
        trials.push(named(case.name.into(), move || faults::run(case)));
    }
    for status in faults::STATUSES {
        let name = format!("{status}_tells_its_reason_and_is_forgotten_where_nothing_is_unflushed");
        trials.push(named(name, move || faults::answers_become_errors(status)));
    }
    trials
}

/// The kinds of servers, and ways to them.
fn setups() -> [(&'static str, Setup); 6] {
    let features = |flush, zero| Setup { features: Features { flush, zero }, ..FULL };
    [
        ("http", FULL),
        ("https", Setup { via: Via::Https, ..FULL }),
        ("unix", Setup { via: Via::Unix, ..FULL }),
        ("without_zero", features(true, false)),
        ("without_flush", features(false, true)),
        ("one_connection_without_both", Setup { writers: 1, ..features(false, false) }),
    ]
}

fn named(name: String, run: impl FnOnce() -> TestResult + Send + 'static) -> Trial {
    let tools = [&[NBDSH], Door::Reference.tools()].concat();
    trial(name, &tools, move || run().map_err(|error| error.to_string().into()))
}

fn the_same_but_better(setup: &Setup, script: Vec<Request>) -> TestResult {
    let script = possible(script, setup.features);
    against_the_reference(setup, &script, |reference, ours| {
        for observation in [reference, ours] {
            rules::equal("errors", &observation.errors(), &vec!["ok"; script.len()])?;
        }
        rules::compare(setup, reference, ours)
    })
}

/// Lets the reference and each of our doors do the same, and compares.
fn against_the_reference(
    setup: &Setup,
    script: &[Request],
    compare: impl Fn(&Observation, &Observation) -> TestResult,
) -> TestResult {
    let observe = |door: Door| observe(door, setup, script).map_err(|e| format!("{}: {e}", door.name()));
    let reference = observe(Door::Reference)?;
    for door in Door::ALL {
        compare(&reference, &observe(door)?).map_err(|error| format!("{}: {error}", door.name()))?;
    }
    Ok(())
}
