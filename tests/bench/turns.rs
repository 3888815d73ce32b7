// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rounds, in each of which everyone takes a turn.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use support::report::Run;

use crate::client::Stop;

/// The settings that all rows' rounds have in common.
pub(crate) struct Turns<'a> {
    stop: &'a Stop,
    /// The number of rounds that count. One that warms up comes before.
    rounds: u32,
    bar: ProgressBar,
    /// A line for each contender that has failed, with the work at which it did.
    failures: Vec<String>,
}

impl<'a> Turns<'a> {
    pub(crate) fn new(stop: &'a Stop, rounds: u32, rows: usize) -> Result<Self> {
        let template = "{wide_bar} {pos}/{len} {elapsed}, {eta} to go: {msg}";
        let bar = ProgressBar::new(rows as u64 * u64::from(rounds + 1))
            .with_style(ProgressStyle::with_template(template)?);
        Ok(Self { stop, rounds, bar, failures: Vec::new() })
    }

    /// Shows which row is at work.
    pub(crate) fn begin(&self, row: &str) {
        self.bar.set_message(row.to_owned());
    }

    /// Tells why a row isn't measured.
    pub(crate) fn skip(&self, row: &str, missing: &str) -> Result<()> {
        self.bar.suspend(|| writeln!(io::stderr(), "without {row}: {missing}"))?;
        self.bar.inc(u64::from(self.rounds + 1));
        Ok(())
    }

    /// The runs of those who did not fail. `run` is told whether it is the round that warms up.
    pub(crate) fn take<C: Copy>(
        &mut self,
        row: &str,
        contenders: &[C],
        name: fn(C) -> &'static str,
        mut run: impl FnMut(C, bool) -> Result<Run>,
    ) -> Result<BTreeMap<&'static str, Vec<Run>>> {
        let mut able = contenders.to_vec();
        let mut runs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for round in 0..=self.rounds {
            let mut still_able = Vec::new();
            for contender in able {
                match run(contender, round == 0) {
                    Ok(_) if round == 0 => {}
                    Ok(run) => runs.entry(name(contender)).or_default().push(run),
                    Err(error) => {
                        self.fail(row, name(contender), &error)?;
                        runs.remove(name(contender));
                        continue;
                    }
                }
                still_able.push(contender);
            }
            able = still_able;
            self.bar.inc(1);
        }
        Ok(runs)
    }

    /// Tells of a contender that has no figures in this row. An error if it failed because it is
    /// time to go.
    fn fail(&mut self, row: &str, contender: &str, error: &anyhow::Error) -> Result<()> {
        self.stop.check()?;
        let failure = format!("{row}: {contender}: {error:#}");
        self.bar.suspend(|| writeln!(io::stderr(), "{failure}"))?;
        self.failures.push(failure);
        Ok(())
    }

    /// All rows are done: who failed at what.
    pub(crate) fn finish(self) -> Vec<String> {
        self.bar.finish_and_clear();
        self.failures
    }
}
