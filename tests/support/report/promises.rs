// SPDX-License-Identifier: MIT OR Apache-2.0
//! The promises of `imageio-nbd`, and whether they hold. Machines are noisy, so it is told, and
//! nothing fails.

use super::table::{header, number, or_dash, render};
use super::{IMAGEIO_NBD, Row, Summary};

/// The figures that a row is to show.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    /// The row's name.
    pub row: &'static str,
    throughput: AtLeast,
    /// The most CPU of the process alone, as a multiple of the baseline's.
    cpu: Option<f64>,
}

/// The least throughput.
#[derive(Debug, Clone, Copy)]
enum AtLeast {
    /// The throughput is a multiple of the baseline's.
    OfBaseline(f64),
    /// The throughput is a part of what the link carries.
    OfLink(f64),
}

use AtLeast::{OfBaseline, OfLink};

const fn promise(row: &'static str, throughput: f64, cpu: f64) -> Promise {
    Promise { row, throughput: OfBaseline(throughput), cpu: Some(cpu) }
}

/// Promises to be as fast as `ovirt-img`, for less CPU.
const fn of_engine(row: &'static str) -> Promise {
    promise(row, 1.00, 0.70)
}

/// All that is promised.
pub const PROMISES: &[Promise] = &[
    promise("real/http/virt-v2v", 1.12, 0.70),
    promise("real/unix/virt-v2v", 1.12, 0.70),
    promise("real/https/virt-v2v", 1.13, 0.75),
    promise("real/http/nbdcopy-4m-64", 1.35, 0.72),
    promise("real/unix/nbdcopy-4m-64", 1.35, 0.72),
    promise("real/https/nbdcopy-4m-64", 1.20, 0.76),
    promise("real/http/nbdcopy-256k", 2.00, 0.40),
    promise("real/unix/nbdcopy-256k", 2.00, 0.40),
    promise("real/https/nbdcopy-256k", 1.80, 0.42),
    promise("real/http-5ms/nbdcopy-4m", 1.20, 0.80),
    promise("real/http-10ms/nbdcopy-4m", 1.20, 0.80),
    promise("real/http-20ms/nbdcopy-4m", 1.20, 0.80),
    promise("real/http-10ms/nbdcopy-256k", 8.00, 0.40),
    Promise { row: "real/http-100mib/nbdcopy-4m", throughput: OfLink(0.97), cpu: None },
    of_engine("engine/http/upload-qcow2"),
    of_engine("engine/http/upload-raw"),
    of_engine("engine/http/download-qcow2"),
    of_engine("engine/http/download-raw"),
    of_engine("engine/https/upload-qcow2"),
    of_engine("engine/https/upload-raw"),
    of_engine("engine/https/download-qcow2"),
    of_engine("engine/https/download-raw"),
];

impl Promise {
    /// Returns the promise of this row, if there is one.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        PROMISES.iter().copied().find(|promise| promise.row == row.name)
    }

    /// Tells if it holds, or what is missing; nothing if `imageio-nbd` has no figures.
    #[must_use]
    pub fn verdict(&self, row: &Row) -> Option<String> {
        let summary = row.summary(IMAGEIO_NBD)?;
        let (least, throughput) = self.throughput(&summary);
        let slow = Some(least - throughput?).filter(|missing| *missing > 0.0);
        let cpu = self.cpu.map(|most| Some(summary.cpu_to_baseline? - most));
        let costly = if let Some(cpu) = cpu { Some(cpu?).filter(|more| *more > 0.0) } else { None };
        let misses = [
            slow.map(|missing| format!("throughput {missing:.3} too low")),
            costly.map(|more| format!("CPU {more:.3} too high")),
        ];
        let misses: Vec<String> = misses.into_iter().flatten().collect();
        Some(if misses.is_empty() { "holds".into() } else { misses.join(", ") })
    }

    /// The least, and what it is.
    fn throughput(&self, summary: &Summary) -> (f64, Option<f64>) {
        match self.throughput {
            OfBaseline(least) => (least, summary.to_baseline),
            OfLink(least) => (least, summary.to_link),
        }
    }

    fn line(&self, row: &Row) -> Option<Vec<String>> {
        let (verdict, summary) = (self.verdict(row)?, row.summary(IMAGEIO_NBD)?);
        let (least, throughput) = self.throughput(&summary);
        let baseline = row.baseline.short_name();
        let of = match self.throughput {
            OfBaseline(_) => baseline,
            OfLink(_) => "link",
        };
        let cpu = self.cpu.map(|most| format!("{most:.2} x {baseline}"));
        Some(vec![
            row.name.clone(),
            format!("{least:.2} x {of}"),
            number(throughput),
            or_dash(cpu),
            number(summary.cpu_to_baseline),
            verdict,
        ])
    }
}

/// Returns a table of what is promised of these rows, and what was measured. None if nothing is.
#[must_use]
pub fn table(rows: &[Row]) -> Option<String> {
    let heads = ["imageio-nbd", "throughput, at least", "measured", "CPU, at most", "measured", ""];
    let mut table = vec![header(&heads)];
    table.extend(rows.iter().filter_map(|row| Promise::of(row)?.line(row)));
    (table.len() > 1).then(|| render(&table))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::{engine_row, row, run};
    use super::super::{PLUGIN, PYTHON};
    use super::*;

    /// With these multiples of the Python plugin's figures.
    fn measured(name: &str, throughput: f64, cpu: f64) -> Row {
        let runs = BTreeMap::from([
            (PYTHON, vec![run(0.5, 2.0)]),
            (IMAGEIO_NBD, vec![run(0.5 * throughput, 2.0 * cpu)]),
        ]);
        Row { name: name.into(), runs, ..row() }
    }

    fn verdict(row: &Row) -> String {
        Promise::of(row).unwrap().verdict(row).unwrap()
    }

    #[test]
    fn a_promise_holds_or_it_is_told_by_how_much_not() {
        for (throughput, cpu, told) in [
            (2.0, 0.25, "holds"),
            (1.75, 0.25, "throughput 0.250 too low"),
            (2.5, 0.5, "CPU 0.100 too high"),
            (1.0, 0.5, "throughput 1.000 too low, CPU 0.100 too high"),
        ] {
            assert_eq!(verdict(&measured("real/unix/nbdcopy-256k", throughput, cpu)), told);
        }
    }

    #[test]
    fn a_narrow_link_is_to_be_full_whatever_python_does() {
        let row = Row { link: Some(1.0), ..measured("real/http-100mib/nbdcopy-4m", 1.5, 9.0) };
        assert_eq!(verdict(&row), "throughput 0.220 too low");
        assert_eq!(verdict(&Row { link: Some(0.75), ..row }), "holds");
    }

    #[test]
    fn who_did_not_run_has_kept_nothing_and_broken_nothing() {
        let mut row = measured("real/unix/nbdcopy-256k", 1.0, 1.0);
        row.runs.remove(PYTHON);
        assert_eq!(Promise::of(&row).unwrap().verdict(&row), None);
        row.runs = BTreeMap::from([(PLUGIN, vec![run(1.0, 1.0)])]);
        assert_eq!(table(&[row]), None);
        assert_eq!(table(&[measured("real/http/fio-4k-depth-1", 1.0, 1.0)]), None);
    }

    #[test]
    fn the_table_has_what_is_promised_and_what_was_measured() {
        let table = table(&[measured("real/unix/nbdcopy-256k", 2.5, 0.3)]).unwrap();
        let line = table.lines().nth(2).unwrap();
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(
            cells,
            ["real/unix/nbdcopy-256k", "2.00 x Python", "2.50", "0.40 x Python", "0.30", "holds"]
        );
    }

    #[test]
    fn the_commands_are_promised_to_be_as_fast_as_those_of_ovirt_img() {
        assert_eq!(verdict(&engine_row(1.0, 0.5)), "holds");
        assert_eq!(verdict(&engine_row(0.75, 0.75)), "throughput 0.250 too low, CPU 0.050 too high");
        let table = table(&[engine_row(1.0, 0.5)]).unwrap();
        assert!(table.contains(" 1.00 x ovirt-img ") && table.contains(" 0.70 x ovirt-img "), "{table}");
    }

    #[test]
    fn each_row_has_one_promise_at_most() {
        for (n, promise) in PROMISES.iter().enumerate() {
            assert!(PROMISES[..n].iter().all(|other| other.row != promise.row), "{}", promise.row);
        }
    }
}
