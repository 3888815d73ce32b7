// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other projects' tests of NBD, run with the servers that they are made for, and with
//! `imageio-nbd` in their place: over a real imageio daemon, over that very server. What passes
//! there and not here has its reason in docs/testing.md.

mod imageio;
mod iotests;
mod libnbd;
mod nbd;
mod place;
mod reasons;

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use xshell::{Shell, cmd};

use place::Place;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run these only: libnbd, iotests, imageio, nbd
    suites: Vec<String>,
}

/// Which server the tests meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    /// The one that they are made for.
    Real,
    /// Ours in front of it.
    Ours,
}

/// The outcome of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// It needs what is not here.
    LeftOut,
}

type Outcomes = BTreeMap<String, Outcome>;

/// Another project's tests.
struct Suite {
    name: &'static str,
    /// Gets and builds what they need.
    prepare: fn(&Shell, &Place) -> Result<()>,
    run: fn(&Shell, &Place, Server) -> Result<Outcomes>,
}

const SUITES: &[Suite] = &[
    Suite { name: "libnbd", prepare: libnbd::prepare, run: libnbd::run },
    Suite { name: "iotests", prepare: iotests::prepare, run: iotests::run },
    Suite { name: "imageio", prepare: imageio::prepare, run: imageio::run },
    Suite { name: "nbd", prepare: nbd::prepare, run: nbd::run },
];

/// Fails if a difference has no reason, or a reason no difference.
pub(crate) fn run(sh: &Shell, arguments: &Arguments) -> Result<()> {
    let is_chosen =
        |name: &str| arguments.suites.is_empty() || arguments.suites.iter().any(|suite| suite == name);
    if let Some(unknown) = arguments.suites.iter().find(|name| SUITES.iter().all(|suite| suite.name != *name))
    {
        bail!(
            "no suite {unknown}: there are {}",
            SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", ")
        );
    }
    cmd!(sh, "cargo build --workspace --bins").run()?;
    let reasons = reasons::read(sh)?;
    let mut unexplained = 0;
    for suite in SUITES.iter().filter(|suite| is_chosen(suite.name)) {
        let place = Place::new(sh, suite.name)?;
        (suite.prepare)(sh, &place)?;
        let (real, ours) = ((suite.run)(sh, &place, Server::Real)?, (suite.run)(sh, &place, Server::Ours)?);
        let told = reasons.get(suite.name).cloned().unwrap_or_default();
        unexplained += report(suite.name, &real, &ours, &told);
    }
    ensure!(unexplained == 0, "{unexplained} tests are not as docs/testing.md says");
    Ok(())
}

/// Prints what differs; how much of it is not told, or told and not so.
fn report(suite: &str, real: &Outcomes, ours: &Outcomes, told: &[String]) -> usize {
    let count = |outcomes: &Outcomes, outcome| outcomes.values().filter(|&&found| found == outcome).count();
    for (name, outcomes) in [("the real server", real), ("imageio-nbd", ours)] {
        let [passed, failed, left_out] =
            [Outcome::Passed, Outcome::Failed, Outcome::LeftOut].map(|outcome| count(outcomes, outcome));
        eprintln!("{suite} with {name}: {passed} passed, {failed} failed, {left_out} left out");
    }
    let differences = differences(real, ours);
    let untold: Vec<_> =
        differences.iter().filter(|test| !told.iter().any(|told| is_meant(test, told))).collect();
    // A test that fails with the real server this time may do so by chance.
    let passes =
        |told: &str| ours.iter().all(|(test, &outcome)| !is_meant(test, told) || outcome == Outcome::Passed);
    let gone: Vec<_> = told.iter().filter(|told| passes(told)).collect();
    for test in &untold {
        eprintln!("{suite}: {test} passes with the real server, and not with imageio-nbd");
    }
    for test in &gone {
        eprintln!("{suite}: {test} has a reason in docs/testing.md, and passes");
    }
    untold.len() + gone.len()
}

/// Returns true if a name means a test: that is its own, or what is before its parameters.
fn is_meant(test: &str, name: &str) -> bool {
    test.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
}

/// The tests that pass with the real server, and not with ours.
fn differences<'a>(real: &'a Outcomes, ours: &Outcomes) -> Vec<&'a str> {
    let passed = |outcomes: &Outcomes, test: &str| outcomes.get(test) == Some(&Outcome::Passed);
    real.keys().map(String::as_str).filter(|test| passed(real, test) && !passed(ours, test)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(all: &[(&str, Outcome)]) -> Outcomes {
        all.iter().map(|(name, outcome)| ((*name).to_owned(), *outcome)).collect()
    }

    #[test]
    fn what_fails_with_both_is_no_difference() {
        let real = outcomes(&[("a", Outcome::Passed), ("b[1]", Outcome::Passed), ("c", Outcome::Failed)]);
        let ours = outcomes(&[("a", Outcome::Passed), ("b[1]", Outcome::LeftOut), ("c", Outcome::Failed)]);
        assert_eq!(differences(&real, &ours), ["b[1]"]);
        assert_eq!(report("x", &real, &ours, &[]), 1);
        assert_eq!(report("x", &real, &ours, &["b".into()]), 0);
        assert_eq!(report("x", &real, &ours, &["b".into(), "c".into()]), 0);
        assert_eq!(report("x", &real, &ours, &["b".into(), "a".into()]), 1);
    }
}
