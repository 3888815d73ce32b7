// SPDX-License-Identifier: MIT OR Apache-2.0
//! The events that many runs met, and the ends of these runs.

use std::collections::BTreeMap;
use std::fmt;

use crate::misfortune::{self, Event};
use crate::run::Outcome;

#[derive(Default)]
pub(crate) struct Tally {
    runs: usize,
    /// Ended without an error.
    closed: usize,
    /// Ended without the failure of all, so that what was answered had to be there.
    answered: usize,
    /// The events that were met, each with the number of runs that met it, and of those that
    /// failed.
    met: BTreeMap<String, (usize, usize)>,
    /// The reasons why seeds failed.
    pub(crate) wrong: BTreeMap<u64, String>,
}

impl Tally {
    pub(crate) fn add(&mut self, seed: u64, mut outcome: Outcome) {
        self.runs += 1;
        self.closed += usize::from(outcome.is_closed);
        self.answered += usize::from(outcome.is_answered);
        if let Some(wrong) = outcome.wrong.as_mut() {
            let met: Vec<_> = outcome.labels.iter().map(String::as_str).collect();
            *wrong = format!("{wrong}; it met {}", met.join(", "));
        }
        for label in outcome.labels {
            let (runs, failed) = self.met.entry(label).or_default();
            *runs += 1;
            *failed += usize::from(outcome.wrong.is_some());
        }
        self.wrong.extend(outcome.wrong.map(|wrong| (seed, wrong)));
    }

    /// Returns the events that no run met: they would be dead code of the model.
    pub(crate) fn never_met(&self) -> Vec<String> {
        let servers =
            ["bytes", "blocks of 512", "blocks of 4096", "closes after 1", "closes after 3", "no flush"];
        let faults = [
            "close after answer",
            "lose answer",
            "close",
            "reset",
            "carry out late",
            "answer early",
            "answer, not done",
            "answer, done",
            "answer, done in part",
            "answer, done late",
            "lose way",
            "no answer",
        ];
        let all = ["extents", "dirty extents"].map(str::to_owned).into_iter();
        let all = all.chain(servers.iter().map(|server| format!("server: {server}")));
        let all = all.chain(faults.iter().map(|fault| format!("fault: {fault}")));
        let all = all.chain(Event::NAMES.iter().map(|event| format!("event: {event}")));
        let all = all.chain(misfortune::statuses().map(|status| format!("status: {status}")));
        all.filter(|label| !self.met.contains_key(label)).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (seed, wrong) in &self.wrong {
            writeln!(f, "SEED={seed}: {wrong}")?;
        }
        let Self { runs, closed, answered, met, .. } = self;
        writeln!(
            f,
            "{runs} runs; {answered} did not fail for good, {closed} of them had no error at the end"
        )?;
        met.iter().try_for_each(|(label, (runs, failed))| {
            writeln!(f, "{runs:6} met {label}, of which {failed} failed")
        })
    }
}
