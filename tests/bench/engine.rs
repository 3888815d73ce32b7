// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that copy disks of an engine: ours and oVirt's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use fake_engine::FakeEngine;
use support::door::built;
use support::installation::{Installation, STORAGE_DOMAIN};
use support::report::{self, Baseline, Row, Run, Unit};
use support::target::Via;
use support::tools::{IMAGEIO, OVIRT_IMG, QEMU_IMG, QEMU_NBD, Tool};
use tempfile::TempDir;

use crate::client;
use crate::contender::Bench;
use crate::measure::{cpu, cpu_of_all};
use crate::server::work_dir;
use crate::sparse::{RUNS, SparseDisk, sparse_size};
use crate::turns::Turns;

/// The tools that such a row needs.
pub(crate) const TOOLS: &[Tool] = &[IMAGEIO, OVIRT_IMG, QEMU_IMG, QEMU_NBD];

/// The engine takes less to remove a disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// One line of the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineRow {
    via: Via,
    direction: Direction,
    /// Of the disk, and of the file that it is downloaded to.
    format: &'static str,
    /// Measured with `--quick`.
    pub(crate) quick: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Upload,
    Download,
}

use Direction::{Download, Upload};
use Via::{Http, Https};

const fn row(via: Via, direction: Direction, format: &'static str) -> EngineRow {
    EngineRow { via, direction, format, quick: false }
}

const fn quick(via: Via, direction: Direction, format: &'static str) -> EngineRow {
    EngineRow { quick: true, ..row(via, direction, format) }
}

pub(crate) const ROWS: &[EngineRow] = &[
    quick(Http, Upload, "qcow2"),
    row(Http, Upload, "raw"),
    quick(Http, Download, "qcow2"),
    row(Http, Download, "raw"),
    row(Https, Upload, "qcow2"),
    row(Https, Upload, "raw"),
    row(Https, Download, "qcow2"),
    row(Https, Download, "raw"),
];

/// The program whose command is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copier {
    OvirtImg,
    ImageioNbd,
}

/// In the order in which they take turns.
pub(crate) const COPIERS: [Copier; 2] = [Copier::OvirtImg, Copier::ImageioNbd];

impl Copier {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OvirtImg => report::OVIRT_IMG,
            Self::ImageioNbd => report::IMAGEIO_NBD,
        }
    }

    fn program(self) -> PathBuf {
        match self {
            Self::OvirtImg => OVIRT_IMG.path(),
            Self::ImageioNbd => built("imageio-nbd"),
        }
    }

    /// The name of its command.
    fn subcommand(self, direction: Direction) -> &'static str {
        match (self, direction) {
            (Self::OvirtImg, Upload) => "upload-disk",
            (Self::OvirtImg, Download) => "download-disk",
            (Self::ImageioNbd, Upload) => "upload",
            (Self::ImageioNbd, Download) => "download",
        }
    }
}

impl EngineRow {
    pub(crate) fn name(&self) -> String {
        let direction = match self.direction {
            Upload => "upload",
            Download => "download",
        };
        format!("engine/{}/{direction}-{}", self.via.name(), self.format)
    }

    /// All rounds of this row.
    pub(crate) fn measure(self, bench: &Bench<'_>, copiers: &[Copier], turns: &mut Turns<'_>) -> Result<Row> {
        let site = Site::start(bench, self).context("the engine")?;
        let runs = turns.take(&self.name(), copiers, Copier::name, |copier, is_warm_up| {
            bench.stop.check()?;
            site.run(copier, is_warm_up)
        })?;
        Ok(Row {
            name: self.name(),
            amount: site.image.data(),
            disk: sparse_size(bench.source.len() as u64),
            link: None,
            unit: Unit::Gib,
            baseline: Baseline::OvirtImg,
            runs,
        })
    }
}

/// An installation of oVirt with its disks in memory, and what is copied.
struct Site<'a> {
    bench: &'a Bench<'a>,
    row: EngineRow,
    image: SparseDisk,
    installation: Installation,
    // Last: the engine uses it to its end.
    dir: TempDir,
}

impl<'a> Site<'a> {
    fn start(bench: &'a Bench<'a>, row: EngineRow) -> Result<Self> {
        let dir = work_dir()?;
        let image = SparseDisk::make(bench.dir, bench.source, RUNS)?;
        let disks = dir.path().join("disks");
        fs::create_dir(&disks)?;
        let installation = Installation::with_remote_clients(row.via == Https, |builder| builder.dir(disks));
        let installation = installation.map_err(|error| anyhow!(error))?;
        let site = Self { bench, row, image, installation, dir };
        if row.direction == Download {
            client::run(&mut site.upload_by(Copier::ImageioNbd), bench.stop)?;
        }
        Ok(site)
    }

    /// Copies the image once. The run that warms up proves that it is copied.
    fn run(&self, copier: Copier, is_warm_up: bool) -> Result<Run> {
        let copy = self.dir.path().join("copy");
        let mut command = match self.row.direction {
            Upload => {
                self.remove_disks()?;
                self.upload_by(copier)
            }
            Download => {
                if copy.exists() {
                    fs::remove_file(&copy)?;
                }
                self.download_by(copier, &copy)?
            }
        };
        let run = self.time(&mut command)?;
        if is_warm_up {
            let copy = if self.row.direction == Download { copy } else { self.disk()?.1 };
            self.compare(&copy)?;
        }
        Ok(run)
    }

    fn upload_by(&self, copier: Copier) -> Command {
        let mut command = self.command(copier, Upload);
        command.args(["--storage-domain", STORAGE_DOMAIN]).arg(self.image.path());
        self.finish(copier, command)
    }

    fn download_by(&self, copier: Copier, copy: &Path) -> Result<Command> {
        let mut command = self.command(copier, Download);
        command.arg(self.disk()?.0).arg(copy);
        Ok(self.finish(copier, command))
    }

    fn command(&self, copier: Copier, direction: Direction) -> Command {
        let mut command = Command::new(copier.program());
        command.arg(copier.subcommand(direction)).args(["--config", "lab", "--format", self.row.format]);
        command.env("XDG_CONFIG_HOME", self.installation.path("")).current_dir(self.dir.path());
        command
    }

    /// Adds what comes last, and is for us only.
    fn finish(&self, copier: Copier, mut command: Command) -> Command {
        if copier == Copier::ImageioNbd {
            command.args(self.bench.parameters);
        }
        command
    }

    /// Runs the command, and tells what it has used.
    fn time(&self, command: &mut Command) -> Result<Run> {
        let daemon = [self.installation.daemon.id()];
        // The command, and what the engine starts, are children of this process.
        let children = || Ok::<_, anyhow::Error>(cpu(std::process::id())?.children);
        let (daemon_before, children_before) = (cpu_of_all(&daemon)?, children()?);
        let ended = client::run(command, self.bench.stop)?;
        let daemon_cpu = cpu_of_all(&daemon)? - daemon_before;
        let all_cpu = daemon_cpu + children()? - children_before;
        let amount = self.image.data() as f64;
        let cpu_base = amount / Unit::Gib.cpu_base();
        Ok(Run {
            throughput: amount / Unit::Gib.throughput_base() / ended.time.as_secs_f64(),
            plugin_cpu: Some((ended.cpu.own + ended.cpu.children) / cpu_base),
            all_cpu: all_cpu / cpu_base,
            memory: ended.memory,
        })
    }

    /// The only disk: its id, and the file of its image.
    fn disk(&self) -> Result<(String, PathBuf)> {
        let disk = self.installation.disk().map_err(|error| anyhow!(error))?;
        let file = self.installation.engine.image_file(&disk);
        Ok((disk.id, file))
    }

    fn remove_disks(&self) -> Result<()> {
        let engine = &self.installation.engine;
        engine.disks().iter().try_for_each(|disk| engine.remove_disk(&disk.id))?;
        let is_empty = |engine: &FakeEngine| engine.disks().is_empty();
        ensure!(engine.wait_for(PATIENCE, is_empty), "the engine does not remove the disks");
        Ok(())
    }

    /// Fails unless a copy holds what the image does.
    fn compare(&self, copy: &Path) -> Result<()> {
        let mut command = Command::new(QEMU_IMG.path());
        command.args(["compare", "-f", "raw", "-F", self.row.format]).arg(self.image.path()).arg(copy);
        client::run(&mut command, self.bench.stop).context("the copy differs from the image").map(drop)
    }
}
