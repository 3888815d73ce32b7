// SPDX-License-Identifier: MIT OR Apache-2.0
//! The output of the figures.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use support::TestResult;
use support::instructions::COUNTED;
use support::report::promises::{self, Promise};
use support::report::{Row, plot, table};

use crate::facts::Facts;
use crate::options::Options;

/// All that was measured.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) rounds: u32,
    pub(crate) rows: Vec<Row>,
    /// A line for each contender that has failed, with the work at which it did.
    pub(crate) failures: Vec<String>,
}

/// Prints, and writes the document of a whole run. Fails if anyone did.
pub(crate) fn give(options: &Options, report: &Report, size: u64) -> Result<()> {
    let facts = Facts::collect();
    let text = if options.json { json(report, &facts, size)? } else { tables(report, size) };
    io::stdout().write_all(text.as_bytes())?;
    if !report.failures.is_empty() {
        bail!("failed, so nothing is written:\n{}", report.failures.join("\n"));
    }
    let whole = !options.quick && !options.engine && options.only.is_empty() && options.contender.is_empty();
    if options.write || whole && options.parameter.is_empty() {
        write(options, report, &facts, size)?;
    }
    Ok(())
}

fn tables(report: &Report, size: u64) -> String {
    let mut text = table::ratios(&report.rows);
    if let Some(table) = promises::table(&report.rows) {
        text += "\n";
        text += &table;
    }
    text + &details(report, size)
}

/// All figures of each row.
fn details(report: &Report, size: u64) -> String {
    let mut text = String::new();
    for row in &report.rows {
        text += "\n";
        text += &table::details(row);
        if row.disk < size {
            let disk = row.disk >> 20;
            text += &format!("\nThe disk has {disk} MiB here, as a round would take too long.\n");
        }
    }
    text
}

fn json(report: &Report, facts: &Facts, size: u64) -> Result<String> {
    let rows: Vec<Value> = report.rows.iter().map(row_json).collect();
    let json = json!({
        "machine": facts,
        "rounds": report.rounds,
        "size": size,
        "rows": rows,
        "failures": report.failures,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&json)?))
}

fn row_json(row: &Row) -> Value {
    let summaries: BTreeMap<_, _> =
        row.baseline.contenders().iter().filter_map(|name| Some((name, row.summary(name)?))).collect();
    json!({
        "name": row.name,
        "amount": row.amount,
        "disk": row.disk,
        "link": row.link,
        "unit": row.unit,
        "baseline": row.baseline,
        "runs": row.runs,
        "summary": summaries,
        "promise": Promise::of(row).and_then(|promise| promise.verdict(row)),
    })
}

fn write(options: &Options, report: &Report, facts: &Facts, size: u64) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs");
    let mut text = introduction(options, report, facts, size);
    text += &table::ratios(&report.rows);
    text += "\n![the same as bars](benchmarks.svg)\n";
    if let Some(table) = promises::table(&report.rows) {
        text += "\n## What is promised\nFigures of one run on a noisy machine: what doesn't hold is measured again by itself.\n\n";
        text += &table;
    }
    text += "\n## All figures\n";
    text += &details(report, size);
    match instructions() {
        Ok(instructions) => text += &instructions,
        Err(error) => writeln!(io::stderr(), "without instructions: {error}")?,
    }
    for (name, text) in [("benchmarks.md", text), ("benchmarks.svg", plot::svg(&report.rows))] {
        let file = docs.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        writeln!(io::stderr(), "wrote {}", file.display())?;
    }
    Ok(())
}

/// Counts the instructions of the innermost loops, which no test of the whole can tell.
fn instructions() -> TestResult<String> {
    let counts = COUNTED.map(|counted| Ok((counted, counted.count()?)));
    let counts: Vec<_> = counts.into_iter().collect::<TestResult<_>>()?;
    let table = table::instructions(&counts);
    Ok(format!(
        "\n## Instructions\nCounted by callgrind; `tests/instructions.rs` fails if they become many more.\n\n{table}"
    ))
}

fn introduction(options: &Options, report: &Report, facts: &Facts, size: u64) -> String {
    let (rounds, size, facts) = (report.rounds, size >> 20, facts.text());
    let given = match &options.parameter[..] {
        [] => String::new(),
        parameters => format!(" Parameters of our plugin and imageio-nbd: `{}`.", parameters.join(" ")),
    };
    format!(
        "# Benchmarks\n\n\
         Made by `cargo xtask bench`; not to be edited.\n\n\
         All contenders take turns, A B C, A B C …, on one machine that everything shares: after one round that \
         warms up, and in which the server's data is compared with the source, {rounds} of them count. The disk has {size} MiB \
         that don't compress. Figures are medians; ratios are medians of the ratios within each round, as a machine's \
         speed drifts.{given}\n\n\
         {facts}\n\n\
         - **real**: the imageio daemon, with `qemu-nbd` and a raw image in memory. **fake-null**: `fake-imageio \
         --backend null`, which keeps nothing.\n\
         - **Python plugin**: virt-v2v's, in `nbdkit --threads 8`; **our plugin** is there in its place. **imageio \
         client**: `ovirt_imageio.client`, `upload` or `download`. **limit**: four plain sockets that send ready-made requests, with no \
         NBD. **nbdkit null**: the client straight into nbdkit's null plugin, with no imageio.\n\
         - **CPU** is of the process that is in the plugin's place alone, and of everything: it, the client, the \
         server. It is counted while the client runs. For the imageio client and the limit, it is the process that \
         sends.\n\
         - **http-20ms** is by way of a relay that delivers each byte 20 ms late, in each direction; **http-100mib** \
         by way of one that carries 100 MiB/s in each direction, 0.2 ms late. The relay's own CPU counts for nobody.\n\
         - **nbdcopy-4m** is as virt-v2v runs nbdcopy: 16 requests of 4 MiB; **nbdcopy-4m-64** has 64 of them on their \
         way, and **nbdcopy-256k** 64 of 256 KiB; **virt-v2v** is nbdcopy-4m with the doors called as virt-v2v calls \
         nbdkit, ours by `imageio-nbd virt-v2v`; \
         **nbdcopy-default** is told no size; **read** is nbdcopy from the device, of a disk full of data; \
         **read-in-order** is the same with one request at a time on its way; **sparse** is a disk of six times the size with a thirtieth of data, in pieces of 1 MiB, read into a sparse file; \
         **qemu-img** is `convert -n -W`; **fio** writes 4 KiB at random.\n\
         - **engine** is `imageio-nbd upload` and `download` beside `ovirt-img upload-disk` and `download-disk`: the fake engine, with the \
         imageio daemon and `qemu-nbd` behind it, and a disk of that format. The image is raw, and the file of a download is of the disk's \
         format. The image has six times the size of other disks, with a third of data in runs of 32 MiB, in memory; GiB are those \
         of data. Time is that of the whole command, from the login to the logout. CPU is of the command with its children, such as \
         `qemu-img`; and of everything: those, the daemon, and what the engine starts. In the round that warms up, \
         `qemu-img compare` finds the images identical.\n\n"
    )
}
