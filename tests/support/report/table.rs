// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables in Markdown that can be read as they are, too.

use super::{Baseline, CLIENT, FIXED, IMAGEIO_NBD, NULL, OVIRT_IMG, PLUGIN, PYTHON, Row, Summary, Unit};
use crate::instructions::Counted;

/// Of all rows: how often the contenders have the baseline's throughput, and its CPU. A table for
/// each baseline.
#[must_use]
pub fn ratios(rows: &[Row]) -> String {
    let of = |baseline| rows.iter().filter(|row| row.baseline == baseline).collect::<Vec<_>>();
    let (python, ovirt_img) = (of(Baseline::PythonPlugin), of(Baseline::OvirtImg));
    let tables = [
        (!python.is_empty()).then(|| ratios_to_python(&python)),
        (!ovirt_img.is_empty()).then(|| ratios_to_ovirt_img(&ovirt_img)),
    ];
    tables.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn ratios_to_ovirt_img(rows: &[&Row]) -> String {
    let heads = ["server/way/work", OVIRT_IMG, "imageio-nbd: x ovirt-img", "CPU x ovirt-img"];
    let mut table = vec![header(&heads)];
    table.extend(rows.iter().map(|row| {
        let (theirs, ours) = (row.summary(OVIRT_IMG), row.summary(IMAGEIO_NBD));
        vec![
            row.name.clone(),
            or_dash(theirs.map(|theirs| speed(row.unit, theirs))),
            number(ours.and_then(|ours| ours.to_baseline)),
            number(ours.and_then(|ours| ours.cpu_to_baseline)),
        ]
    }));
    render(&table)
}

fn ratios_to_python(rows: &[&Row]) -> String {
    let mut table = vec![header(&[
        "server/way/work",
        "Python plugin",
        "our plugin: x Python",
        "CPU x Python",
        "x limit",
        "imageio-nbd: x Python",
        "CPU x Python",
        "x limit",
        "imageio client: x Python",
    ])];
    table.extend(rows.iter().map(|row| {
        let python = row.summary(PYTHON);
        let mut line = vec![row.name.clone(), or_dash(python.map(|python| speed(row.unit, python)))];
        for contender in [PLUGIN, IMAGEIO_NBD] {
            let summary = row.summary(contender);
            line.push(number(summary.and_then(|summary| summary.to_baseline)));
            line.push(number(summary.and_then(|summary| summary.cpu_to_baseline)));
            line.push(number(summary.and_then(|summary| summary.to_limit)));
        }
        line.push(number(row.summary(CLIENT).and_then(|summary| summary.to_baseline)));
        line
    }));
    render(&table)
}

/// All figures of one row.
#[must_use]
pub fn details(row: &Row) -> String {
    let (throughput, cpu_base) = match row.unit {
        Unit::Gib => ("GiB/s", "CPU-s per GiB"),
        Unit::Iops => ("I/O per s", "CPU-s per 100,000 I/O"),
    };
    let mut heads = vec![row.name.as_str(), throughput, "min..max", cpu_base, "of everything", "peak MiB"];
    let baseline = row.baseline.short_name();
    let (to_baseline, cpu) = (format!("x {baseline}"), format!("CPU x {baseline}"));
    heads.extend([to_baseline.as_str(), &cpu]);
    heads.extend(more_ratios(row));
    heads.extend(row.runs.contains_key(NULL).then_some("x null"));
    heads.extend(row.runs.contains_key(FIXED).then_some("x fixed"));
    heads.extend(row.link.map(|_| "x link"));
    let mut table = vec![header(&heads)];
    for &contender in row.baseline.contenders() {
        let line = match row.summary(contender) {
            Some(summary) => figures(row, &summary),
            // It is told that it was there, and could not do this.
            None if ![NULL, FIXED].contains(&contender) => vec!["-".to_owned(); heads.len() - 1],
            None => continue,
        };
        table.push([vec![contender.to_owned()], line].concat());
    }
    render(&table)
}

/// Further columns of this row.
fn more_ratios(row: &Row) -> &'static [&'static str] {
    match row.baseline {
        Baseline::PythonPlugin => &["x limit", "x client"],
        Baseline::OvirtImg => &[],
    }
}

/// Returns a table of the work that was counted, and its instructions.
#[must_use]
pub fn instructions(counts: &[(Counted, u64)]) -> String {
    let mut table = vec![header(&["crate/benchmark", "work", "instructions"])];
    table.extend(counts.iter().map(|(counted, count)| {
        vec![format!("{}/{}", counted.package, counted.bench), counted.work.to_owned(), count.to_string()]
    }));
    render(&table)
}

fn figures(row: &Row, summary: &Summary) -> Vec<String> {
    let plain = |value| match row.unit {
        Unit::Gib => format!("{value:.2}"),
        Unit::Iops => format!("{value:.0}"),
    };
    let throughput = summary.throughput;
    let mut line = vec![
        plain(throughput.median),
        format!("{}..{}", plain(throughput.min), plain(throughput.max)),
        number(summary.plugin_cpu),
        number(Some(summary.all_cpu)),
        or_dash(summary.memory.map(|bytes| format!("{:.0}", bytes as f64 / f64::from(1 << 20)))),
        number(summary.to_baseline),
        number(summary.cpu_to_baseline),
    ];
    let more = [summary.to_limit, summary.to_client];
    line.extend(more.into_iter().take(more_ratios(row).len()).map(number));
    line.extend(row.runs.contains_key(NULL).then(|| number(summary.to_null)));
    line.extend(row.runs.contains_key(FIXED).then(|| number(summary.to_fixed)));
    line.extend(row.link.map(|_| number(summary.to_link)));
    line
}

fn speed(unit: Unit, summary: Summary) -> String {
    match unit {
        Unit::Gib => format!("{:.2} GiB/s", summary.throughput.median),
        Unit::Iops => format!("{:.0} I/O per s", summary.throughput.median),
    }
}

pub(super) fn number(value: Option<f64>) -> String {
    or_dash(value.map(|value| format!("{value:.2}")))
}

pub(super) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".into())
}

pub(super) fn header(heads: &[&str]) -> Vec<String> {
    heads.iter().map(ToString::to_string).collect()
}

/// The first line is the header, the first column is text, and all others are figures.
pub(super) fn render(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| table.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(|column| width(column).max(3)).collect();
    let mut text = String::new();
    for (n, line) in table.iter().enumerate() {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            text += &if column == 0 { format!("| {cell:width$} ") } else { format!("| {cell:>width$} ") };
        }
        text += "|\n";
        if n == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let rule = "-".repeat(width);
                text += &if column == 0 { format!("|-{rule}-") } else { format!("|-{rule}:") };
            }
            text += "|\n";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{engine_row, row};
    use super::*;
    use crate::instructions::COUNTED;

    #[test]
    fn the_ratios_are_in_one_line_of_each_row() {
        let table = ratios(&[row()]);
        let line = table.lines().nth(2).unwrap();
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(
            cells,
            ["real/http/nbdcopy-256k", "0.20 GiB/s", "2.00", "0.50", "0.80", "-", "-", "-", "-"]
        );
    }

    #[test]
    fn who_did_not_run_has_dashes_and_null_no_line() {
        let table = details(&row());
        assert!(table.lines().any(|line| line.starts_with("| our plugin") && line.contains("0.40..0.80")));
        let client = table.lines().find(|line| line.starts_with("| imageio client")).unwrap();
        assert_eq!(client.split('|').filter(|cell| cell.trim() == "-").count(), 9);
        assert!(!table.contains(NULL));
    }

    #[test]
    fn null_and_fixed_have_a_line_and_a_column_where_they_ran() {
        for (contender, column) in [(NULL, "x null"), (FIXED, "x fixed")] {
            let mut row = row();
            assert!(!details(&row).contains(column));
            row.runs.insert(contender, row.runs[PYTHON].clone());
            let table = details(&row);
            assert!(table.lines().next().unwrap().contains(column));
            let ours = table.lines().find(|line| line.starts_with("| our plugin")).unwrap();
            assert!(ours.trim_end_matches([' ', '|']).ends_with("2.00"));
        }
    }

    #[test]
    fn the_share_of_a_narrow_link_is_a_column_where_there_is_one() {
        let table = details(&Row { link: Some(1.4), ..row() });
        assert!(table.lines().next().unwrap().contains("x link"));
        let ours = table.lines().find(|line| line.starts_with("| our plugin")).unwrap();
        assert!(ours.trim_end_matches([' ', '|']).ends_with("0.50"));
        assert!(!details(&row()).contains("x link"));
    }

    #[test]
    fn rows_of_an_engine_have_their_own_table() {
        let table = ratios(&[row(), engine_row(1.5, 0.25)]);
        let line = table.lines().last().unwrap();
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells, ["engine/http/upload-qcow2", "0.50 GiB/s", "1.50", "0.25"]);
        assert_eq!(table.lines().filter(|line| line.starts_with("|--")).count(), 2);
        assert_eq!(ratios(&[row()]).lines().count(), 3);
        assert!(ratios(&[]).is_empty());
    }

    #[test]
    fn a_row_of_an_engine_has_no_other_contenders() {
        let table = details(&engine_row(1.5, 0.25));
        assert!(
            !table.contains("Python") && !table.contains("limit") && !table.contains("client"),
            "{table}"
        );
        let ours = table.lines().find(|line| line.starts_with("| imageio-nbd")).unwrap();
        assert!(ours.contains(" 1.50 ") && ours.trim_end_matches([' ', '|']).ends_with("0.25"), "{table}");
    }

    #[test]
    fn instructions_are_those_counted_and_not_those_recorded() {
        let [codec, _] = COUNTED;
        let table = instructions(&[(codec, 1)]);
        let line = table.lines().nth(2).unwrap();
        assert!(line.starts_with("| nbd-wire/codec ") && line.ends_with(" 1 |"), "{line}");
    }

    #[test]
    fn all_lines_of_a_table_are_equally_wide() {
        let table = ratios(&[row()]);
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    }
}
