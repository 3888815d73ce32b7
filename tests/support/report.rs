// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures of a benchmark: from single runs to medians, ratios, tables and a plot.

pub mod plot;
pub mod promises;
pub mod table;

use std::collections::BTreeMap;

use serde::Serialize;

/// One contender doing one piece of work once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Run {
    /// In units per second: see [`Unit`].
    pub throughput: f64,
    /// CPU-seconds per [`Unit::cpu_base`] of the process whose place is the plugin's, where there
    /// is one; in a row of an engine, of the command with its children.
    pub plugin_cpu: Option<f64>,
    /// The CPU time of everything: that process, the client, and the server.
    pub all_cpu: f64,
    /// Peak resident memory in bytes of the process whose place is the plugin's.
    pub memory: Option<u64>,
}

/// In what throughput is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// GiB/s; CPU per GiB.
    #[serde(rename = "GiB")]
    Gib,
    /// Requests per second; CPU per 100,000 of them.
    #[serde(rename = "I/O")]
    Iops,
}

impl Unit {
    /// Returns the number of counted units that are the base of CPU figures.
    #[must_use]
    pub fn cpu_base(self) -> f64 {
        match self {
            Self::Gib => f64::from(1 << 30),
            Self::Iops => 100_000.0,
        }
    }

    /// Returns the number of counted units that are 1 in throughput.
    #[must_use]
    pub fn throughput_base(self) -> f64 {
        match self {
            Self::Gib => f64::from(1 << 30),
            Self::Iops => 1.0,
        }
    }
}

/// The Python plugin's name.
pub const PYTHON: &str = "Python plugin";
/// The name of what no bridge can beat.
pub const LIMIT: &str = "limit";
/// The name of nbdcopy straight into nbdkit's null plugin.
pub const NULL: &str = "nbdkit null";
/// Our plugin's name.
pub const PLUGIN: &str = "our plugin";
/// The name of our program.
pub const IMAGEIO_NBD: &str = "imageio-nbd";
/// The name of our program with fixed sizes of requests and a fixed number of connections.
pub const FIXED: &str = "fixed";
/// The name of ovirt-imageio's own client.
pub const CLIENT: &str = "imageio client";
/// The name of oVirt's client of engines.
pub const OVIRT_IMG: &str = "ovirt-img";

/// The contender to which others are compared in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Baseline {
    /// [`PYTHON`]: everyone who can copy to or from an imageio server.
    #[serde(rename = "Python plugin")]
    PythonPlugin,
    /// [`OVIRT_IMG`]: commands that copy a disk of an engine.
    #[serde(rename = "ovirt-img")]
    OvirtImg,
}

impl Baseline {
    /// The name of the contender.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.contenders()[0]
    }

    /// The contender, for "so many times …".
    #[must_use]
    pub fn short_name(self) -> &'static str {
        match self {
            Self::PythonPlugin => "Python",
            Self::OvirtImg => OVIRT_IMG,
        }
    }

    /// All contenders of such a row, in the order in which they take turns and are shown: the one
    /// that others are compared to first.
    #[must_use]
    pub fn contenders(self) -> &'static [&'static str] {
        match self {
            Self::PythonPlugin => &[PYTHON, PLUGIN, IMAGEIO_NBD, CLIENT, LIMIT, NULL, FIXED],
            Self::OvirtImg => &[OVIRT_IMG, IMAGEIO_NBD],
        }
    }
}

/// One piece of work, and how everyone did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// `server/way/work`.
    pub name: String,
    /// The work that was done in each run: bytes, or requests.
    pub amount: u64,
    /// Size of the disk in bytes.
    pub disk: u64,
    /// The most that the link to the server carries, in the row's unit per second, where it is a
    /// narrow one.
    pub link: Option<f64>,
    /// The unit of throughput in this row.
    pub unit: Unit,
    /// The contender to which others are compared.
    pub baseline: Baseline,
    /// By contender, in the order of the rounds: runs of the same index were neighbours.
    pub runs: BTreeMap<&'static str, Vec<Run>>,
}

/// A median, and what it is the median of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the values are not above it.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// None of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) };
        Some(Self { median, min, max })
    }
}

/// The figures of one contender in one row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// In the row's unit per second.
    pub throughput: Spread,
    /// The median of the process alone.
    pub plugin_cpu: Option<f64>,
    /// The median of everything.
    pub all_cpu: f64,
    /// The greatest of all runs, in bytes.
    pub memory: Option<u64>,
    /// Throughput, as a multiple of the baseline's.
    pub to_baseline: Option<f64>,
    /// CPU of the process alone, as a multiple of the baseline's.
    pub cpu_to_baseline: Option<f64>,
    /// Throughput, as a multiple of the limit's.
    pub to_limit: Option<f64>,
    /// Throughput, as a multiple of the imageio client's.
    pub to_client: Option<f64>,
    /// Throughput, as a multiple of nbdcopy's straight into nbdkit's null plugin.
    pub to_null: Option<f64>,
    /// Throughput, as a multiple of our program's with fixed sizes.
    pub to_fixed: Option<f64>,
    /// Throughput, as a part of what the link carries.
    pub to_link: Option<f64>,
}

impl Row {
    /// None if the contender can't do this work.
    #[must_use]
    pub fn summary(&self, contender: &str) -> Option<Summary> {
        let runs = self.runs.get(contender)?;
        let throughput = |run: &Run| Some(run.throughput);
        Some(Summary {
            throughput: Spread::of(runs.iter().map(|run| run.throughput))?,
            plugin_cpu: median(runs.iter().map(|run| run.plugin_cpu)),
            all_cpu: Spread::of(runs.iter().map(|run| run.all_cpu))?.median,
            memory: runs.iter().filter_map(|run| run.memory).max(),
            to_baseline: self.ratio(runs, self.baseline.name(), throughput),
            cpu_to_baseline: self.ratio(runs, self.baseline.name(), |run| run.plugin_cpu),
            to_limit: self.ratio(runs, LIMIT, throughput),
            to_client: self.ratio(runs, CLIENT, throughput),
            to_null: self.ratio(runs, NULL, throughput),
            to_fixed: self.ratio(runs, FIXED, throughput),
            to_link: median(runs.iter().map(|run| Some(run.throughput / self.link?))),
        })
    }

    /// The median of the ratios of neighbours, as the machine's speed drifts during a benchmark.
    fn ratio(&self, runs: &[Run], to: &str, figure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        let neighbours = runs.iter().zip(self.runs.get(to)?);
        median(neighbours.map(|(run, other)| match (figure(run)?, figure(other)?) {
            // Less than a tick of the clock can't be compared with.
            (_, 0.0) => None,
            (figure, other) => Some(figure / other),
        }))
    }
}

/// None where any is missing.
fn median(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    Some(Spread::of(values.collect::<Option<Vec<f64>>>()?)?.median)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn run(throughput: f64, cpu: f64) -> Run {
        Run { throughput, plugin_cpu: Some(cpu), all_cpu: cpu * 3.0, memory: Some(50 << 20) }
    }

    pub(crate) fn row() -> Row {
        let without_memory = |throughput| Run { memory: None, ..run(throughput, 0.25) };
        let runs = BTreeMap::from([
            // The machine is half as fast in the second round, and has a hiccup in the third.
            (PYTHON, vec![run(0.4, 2.0), run(0.2, 2.2), run(0.01, 2.1)]),
            (PLUGIN, vec![run(0.8, 1.0), run(0.4, 1.1), run(0.7, 1.05)]),
            (LIMIT, vec![without_memory(1.0), without_memory(0.5), without_memory(0.9)]),
        ]);
        let name = "real/http/nbdcopy-256k".into();
        let baseline = Baseline::PythonPlugin;
        Row { name, amount: 1 << 30, disk: 1 << 30, link: None, unit: Unit::Gib, baseline, runs }
    }

    /// A row of an engine, in which our program has these multiples of the figures of `ovirt-img`.
    pub(crate) fn engine_row(throughput: f64, cpu: f64) -> Row {
        let runs = BTreeMap::from([
            (OVIRT_IMG, vec![run(0.5, 2.0)]),
            (IMAGEIO_NBD, vec![run(0.5 * throughput, 2.0 * cpu)]),
        ]);
        Row { name: "engine/http/upload-qcow2".into(), baseline: Baseline::OvirtImg, runs, ..row() }
    }

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two() {
        let spread = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!(spread, Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_those_of_neighbours() {
        let summary = row().summary(PLUGIN).unwrap();
        // Of the medians, 0.7 and 0.2, it would be 3.5.
        assert_eq!(summary.to_baseline, Some(2.0));
        assert_eq!(summary.cpu_to_baseline, Some(0.5));
        assert_eq!(summary.to_limit, Some(0.8));
        assert_eq!(row().summary(PYTHON).unwrap().to_baseline, Some(1.0));
    }

    #[test]
    fn a_row_has_its_own_baseline() {
        let summary = engine_row(1.5, 0.25).summary(IMAGEIO_NBD).unwrap();
        assert_eq!((summary.to_baseline, summary.cpu_to_baseline), (Some(1.5), Some(0.25)));
        for baseline in [Baseline::PythonPlugin, Baseline::OvirtImg] {
            assert_eq!(baseline.contenders()[0], baseline.name());
        }
        assert_eq!((Baseline::PythonPlugin.name(), Baseline::OvirtImg.name()), (PYTHON, OVIRT_IMG));
    }

    #[test]
    fn what_did_not_run_has_no_figures() {
        let row = row();
        assert_eq!(row.summary(NULL), None);
        assert_eq!(row.summary(PLUGIN).unwrap().to_null, None);
        assert_eq!(row.summary(LIMIT).unwrap().memory, None);
    }

    #[test]
    fn a_narrow_link_is_what_its_rows_are_compared_to() {
        let row = Row { link: Some(1.4), ..row() };
        assert_eq!(row.summary(PLUGIN).unwrap().to_link, Some(0.5));
    }
}
