// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: everyone who can copy to or from an imageio server, side by side; and
//! commands that copy disks of an engine.

mod client;
mod contender;
mod engine;
mod facts;
mod limit;
mod measure;
mod options;
mod output;
mod rows;
mod server;
mod sparse;
mod turns;
mod work;

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use support::daemon::Daemons;
use support::image::noise;
use support::report::promises::PROMISES;
use support::report::{Baseline, PYTHON, Row};
use support::tools::{IMAGEIO, QEMU_NBD, Tool};

use client::Stop;
use contender::{Bench, CONTENDERS, Contender};
use engine::{COPIERS, Copier, EngineRow};
use options::Options;
use rows::{ROWS, RowKind, Server};
use server::{Target, work_dir};
use turns::Turns;

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
    let mut wanted = Wanted::rows(options);
    ensure!(!wanted.names().is_empty(), "no row is called so: see cargo xtask bench --list");
    if options.list {
        return wanted.names().iter().try_for_each(|name| Ok(writeln!(io::stdout(), "{name}")?));
    }
    wanted.find_contenders(options)?;
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
    let report = measure(options, &bench, &wanted)?;
    output::give(options, &report, size)
}

/// Fails if something is promised of a row that isn't there.
fn check_promises() -> Result<()> {
    let names: Vec<String> =
        ROWS.iter().map(RowKind::name).chain(engine::ROWS.iter().map(EngineRow::name)).collect();
    let is_row = |name: &str| names.iter().any(|row| row == name);
    match PROMISES.iter().find(|promise| !is_row(promise.row)) {
        Some(promise) => bail!("{} is promised something, and is no row", promise.row),
        None => Ok(()),
    }
}

/// The rows to be measured, and the contenders that are there for it.
struct Wanted {
    rows: Vec<RowKind>,
    contenders: Vec<Contender>,
    engine_rows: Vec<EngineRow>,
    copiers: Vec<Copier>,
}

impl Wanted {
    fn rows(options: &Options) -> Self {
        // A row that was named is measured with --quick, too. An engine's rows have to be asked for
        // then: they take a while.
        let is_wanted = |name: &str, is_quick: bool| {
            let is_named = options.only.iter().any(|text| name.contains(text));
            if options.only.is_empty() { is_quick || !options.quick } else { is_named }
        };
        let rows = ROWS.iter().filter(|row| !options.engine && is_wanted(&row.name(), row.quick));
        let engine_rows =
            engine::ROWS.iter().filter(|row| is_wanted(&row.name(), row.quick && options.engine));
        Self {
            rows: rows.copied().collect(),
            contenders: Vec::new(),
            engine_rows: engine_rows.copied().collect(),
            copiers: Vec::new(),
        }
    }

    fn names(&self) -> Vec<String> {
        self.rows.iter().map(RowKind::name).chain(self.engine_rows.iter().map(EngineRow::name)).collect()
    }

    /// Leaves out the rows for which nobody was asked for or is there.
    fn find_contenders(&mut self, options: &Options) -> Result<()> {
        if !self.rows.is_empty() {
            self.contenders = find_contenders(options)?;
        }
        self.copiers = COPIERS.into_iter().filter(|copier| is_wanted(options, copier.name())).collect();
        if self.contenders.is_empty() {
            self.rows.clear();
        }
        if self.copiers.is_empty() {
            self.engine_rows.clear();
        }
        ensure!(!self.names().is_empty(), "no contender is called so");
        Ok(())
    }
}

fn is_wanted(options: &Options, contender: &str) -> bool {
    options.contender.is_empty() || options.contender.iter().any(|text| contender.contains(text))
}

/// Finds the contenders that were asked for, and whose programs are there. Without the Python
/// plugin there is nothing to compare with.
fn find_contenders(options: &Options) -> Result<Vec<Contender>> {
    let mut found = Vec::new();
    let is_asked_for = |contender: &Contender| {
        is_wanted(options, contender.name()) && (contender.is_regular() || !options.contender.is_empty())
    };
    for contender in CONTENDERS.into_iter().filter(is_asked_for) {
        match contender.tools().iter().find(|tool| tool.find().is_none()) {
            None => found.push(contender),
            Some(tool) if contender.name() == PYTHON => bail!("{} is missing: {}", tool.name, tool.install),
            Some(tool) => {
                let name = contender.name();
                writeln!(io::stderr(), "without {name}: {} is missing: {}", tool.name, tool.install)?;
            }
        }
    }
    Ok(found)
}

/// Measures all rows that can be; a contender that fails in one is told of, and has no figures
/// there.
fn measure(options: &Options, bench: &Bench<'_>, wanted: &Wanted) -> Result<output::Report> {
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 5 });
    let daemons = Daemons::default();
    let mut turns = Turns::new(bench.stop, rounds, wanted.names().len())?;
    let mut rows = Vec::new();
    for row in &wanted.rows {
        turns.begin(&row.name());
        match missing(*row) {
            Some(missing) => turns.skip(&row.name(), &missing)?,
            None => rows.push(measure_row(bench, &daemons, *row, &wanted.contenders, &mut turns)?),
        }
    }
    for row in &wanted.engine_rows {
        turns.begin(&row.name());
        match first_missing(engine::TOOLS) {
            Some(missing) => turns.skip(&row.name(), &missing)?,
            None => rows.push(row.measure(bench, &wanted.copiers, &mut turns)?),
        }
    }
    Ok(output::Report { rounds, rows, failures: turns.finish() })
}

fn missing(row: RowKind) -> Option<String> {
    let server = if row.server == Server::Real { &[IMAGEIO, QEMU_NBD][..] } else { &[] };
    let client = row.work.tool();
    first_missing(server).or_else(|| first_missing(&[client]))
}

fn first_missing(tools: &[Tool]) -> Option<String> {
    let missing = tools.iter().find(|tool| tool.find().is_none())?;
    Some(format!("{} is missing: {}", missing.name, missing.install))
}

/// All rounds of a row, in each of which everyone takes a turn.
fn measure_row(
    bench: &Bench<'_>,
    daemons: &Daemons,
    row: RowKind,
    contenders: &[Contender],
    turns: &mut Turns<'_>,
) -> Result<Row> {
    let bench = &bench.part(row.part)?;
    let target = Target::start(daemons, row, bench).context("the server")?;
    let able: Vec<Contender> = contenders.iter().copied().filter(|one| one.can(row)).collect();
    let runs = turns.take(&row.name(), &able, Contender::name, |contender, is_warm_up| {
        contender.run(bench, row, &target, is_warm_up)
    })?;
    let amount = row.work.amount(bench.source.len() as u64, bench.quick);
    let disk = bench.source.len() as u64;
    let rate = row.link.and_then(|link| link.rate);
    let link = rate.map(|rate| rate.get() as f64 / row.work.unit().throughput_base());
    let baseline = Baseline::PythonPlugin;
    Ok(Row { name: row.name(), amount, disk, link, unit: row.work.unit(), baseline, runs })
}
