// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: everyone who can upload to an imageio server, side by side.

mod client;
mod contender;
mod facts;
mod limit;
mod measure;
mod options;
mod output;
mod rows;
mod server;
mod sparse;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use support::daemon::Daemons;
use support::image::noise;
use support::report::promises::PROMISES;
use support::report::{PYTHON, Row};
use support::tools::{IMAGEIO, QEMU_NBD};

use client::Stop;
use contender::{Bench, CONTENDERS, Contender};
use options::Options;
use rows::{ROWS, RowKind, Server};
use server::{Target, work_dir};

#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench")]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Cargo's sign that it shall measure, and not only be built
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        let _ = writeln!(io::stderr(), "nothing is measured: use cargo xtask bench");
        return ExitCode::SUCCESS;
    }
    match run(&arguments.options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    check_promises()?;
    let rows: Vec<RowKind> = ROWS.iter().copied().filter(|row| is_wanted(options, row)).collect();
    ensure!(!rows.is_empty(), "no row is called so: see cargo xtask bench --list");
    if options.list {
        return rows.iter().try_for_each(|row| Ok(writeln!(io::stdout(), "{}", row.name())?));
    }
    let contenders = find_contenders(options)?;
    let stop = Stop::on_signals()?;
    let dir = work_dir()?;
    let size = options.size.unwrap_or(if options.quick { 256 << 20 } else { 1 << 30 });
    let source = noise(usize::try_from(size)?, 1);
    let image = dir.path().join("source.img");
    fs::write(&image, &source)?;
    let bench = Bench {
        stop: &stop,
        dir: dir.path(),
        image,
        source: &source,
        quick: options.quick,
        parameters: &options.parameter,
    };
    let report = measure(options, &bench, &rows, &contenders)?;
    output::give(options, &report, size)
}

/// Fails if something is promised of a row that isn't there.
fn check_promises() -> Result<()> {
    let is_row = |name: &str| ROWS.iter().any(|row| row.name() == name);
    match PROMISES.iter().find(|promise| !is_row(promise.row)) {
        Some(promise) => bail!("{} is promised something, and is no row", promise.row),
        None => Ok(()),
    }
}

fn is_wanted(options: &Options, row: &RowKind) -> bool {
    let named = options.only.iter().any(|text| row.name().contains(text));
    // A row that was named is measured with --quick, too.
    if options.only.is_empty() { row.quick || !options.quick } else { named }
}

/// Those that were asked for, and whose programs are there. Without the Python plugin there is nothing to compare with.
fn find_contenders(options: &Options) -> Result<Vec<Contender>> {
    let mut found = Vec::new();
    let wanted =
        |name: &str| options.contender.is_empty() || options.contender.iter().any(|text| name.contains(text));
    for contender in CONTENDERS.into_iter().filter(|contender| wanted(contender.name())) {
        match contender.tools().iter().find(|tool| tool.find().is_none()) {
            None => found.push(contender),
            Some(tool) if contender.name() == PYTHON => bail!("{} is missing: {}", tool.name, tool.install),
            Some(tool) => {
                let name = contender.name();
                writeln!(io::stderr(), "without {name}: {} is missing: {}", tool.name, tool.install)?;
            }
        }
    }
    ensure!(!found.is_empty(), "no contender is called so");
    Ok(found)
}

/// Measures all rows that can be; a contender that fails in one is told of, and has no figures there.
fn measure(
    options: &Options,
    bench: &Bench<'_>,
    rows: &[RowKind],
    contenders: &[Contender],
) -> Result<output::Report> {
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 5 });
    let daemons = Daemons::default();
    let bar = ProgressBar::new(rows.len() as u64 * u64::from(rounds + 1))
        .with_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed}, {eta} to go: {msg}")?);
    let mut report = output::Report { rounds, ..Default::default() };
    for row in rows {
        bar.set_message(row.name());
        match missing(*row) {
            Some(missing) => {
                bar.suspend(|| writeln!(io::stderr(), "without {}: {missing}", row.name()))?;
                bar.inc(u64::from(rounds + 1));
            }
            None => report.rows.push(measure_row(
                bench,
                &daemons,
                *row,
                contenders,
                rounds,
                &bar,
                &mut report.failures,
            )?),
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

fn missing(row: RowKind) -> Option<String> {
    let server = if row.server == Server::Real { &[IMAGEIO, QEMU_NBD][..] } else { &[] };
    let client = row.work.tool();
    let missing = server.iter().chain([&client]).find(|tool| tool.find().is_none())?;
    Some(format!("{} is missing: {}", missing.name, missing.install))
}

/// All rounds of a row, in each of which everyone takes a turn.
fn measure_row(
    bench: &Bench<'_>,
    daemons: &Daemons,
    row: RowKind,
    contenders: &[Contender],
    rounds: u32,
    bar: &ProgressBar,
    failures: &mut Vec<String>,
) -> Result<Row> {
    let bench = &bench.part(row.part)?;
    let target = Target::start(daemons, row, bench).context("the server")?;
    let mut able: Vec<Contender> = contenders.iter().copied().filter(|one| one.can(row)).collect();
    let mut runs: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for round in 0..=rounds {
        let mut failed = Vec::new();
        for contender in &able {
            match contender.run(bench, row, &target, round == 0) {
                Ok(_) if round == 0 => {}
                Ok(run) => runs.entry(contender.name()).or_default().push(run),
                Err(error) => {
                    bench.stop.check()?;
                    failed.push(*contender);
                    let failure = format!("{}: {}: {error:#}", row.name(), contender.name());
                    bar.suspend(|| writeln!(io::stderr(), "{failure}"))?;
                    failures.push(failure);
                }
            }
        }
        able.retain(|contender| !failed.contains(contender));
        failed.iter().for_each(|contender| drop(runs.remove(contender.name())));
        bar.inc(1);
    }
    let amount = row.work.amount(bench.source.len() as u64, bench.quick);
    let disk = bench.source.len() as u64;
    let rate = row.link.and_then(|link| link.rate);
    let link = rate.map(|rate| rate.get() as f64 / row.work.unit().throughput_base());
    Ok(Row { name: row.name(), amount, disk, link, unit: row.work.unit(), runs })
}
