// SPDX-License-Identifier: MIT OR Apache-2.0
//! A virtual machine of the fake engine with disks, and the directory of its backups.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use fake_engine::{BackupPhase, Builder, Delays, Disk, DiskFormat, DiskStatus, Phase};
use serde_json::Value;
use support::TestResult;
use support::door::built;
use support::image::guest_disk;
use support::run::Ended;

use support::installation::{Installation, STORAGE_DOMAIN, VM, succeed};

/// The directory of the backups.
pub(crate) const DIR: &str = "at:night";

pub(crate) struct Machine {
    pub(crate) site: Installation,
    /// The disks that are attached, in the order in which they were.
    pub(crate) disks: Vec<Disk>,
}

impl Machine {
    /// With a disk of each of these formats.
    pub(crate) fn new(formats: &[&str]) -> TestResult<Self> {
        Self::with(formats, |builder| builder)
    }

    /// Makes a machine with what else is chosen about the engine, which is quick.
    pub(crate) fn with(formats: &[&str], choose: impl FnOnce(Builder) -> Builder) -> TestResult<Self> {
        let none = Duration::ZERO;
        let delays = Delays::all(none);
        let site = Installation::with(|builder| choose(builder.delays(delays)))?;
        let mut machine = Self { site, disks: Vec::new() };
        formats.iter().try_for_each(|format| machine.attach(format))?;
        Ok(machine)
    }

    /// Makes a disk of this format, with a guest's data, and attaches it.
    pub(crate) fn attach(&mut self, format: &str) -> TestResult {
        let seed = self.disks.len() as u64 + 20;
        fs::write(self.site.path("guest.img"), guest_disk(seed))?;
        let name = format!("disk{}", self.disks.len());
        let what = ["upload", "guest.img", "-s", STORAGE_DOMAIN, "--format", format, "--disk-name", &name];
        let id = succeed(self.run(&[&what[..], &["-c", "lab"]].concat())?)?;
        self.site.engine.attach_disk(&self.site.vm(), id.trim())?;
        let all = self.site.engine.disks();
        self.disks.extend(all.into_iter().find(|disk| disk.id == id.trim()));
        Ok(())
    }

    /// `imageio-nbd`, which finds the engine in the configuration file.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.site.imageio_nbd(arguments)
    }

    /// Runs it, for a minute at most.
    pub(crate) fn run(&self, arguments: &[&str]) -> TestResult<Ended> {
        let program = built("imageio-nbd").display().to_string();
        let mut command = Command::new("timeout");
        command.args(["--foreground", "60", &program]).args(arguments);
        command.current_dir(self.site.path("")).env("XDG_CONFIG_HOME", self.site.path(""));
        let ended: Ended = command.output()?.into();
        self.site.assert_no_secret(&ended.out)?;
        self.site.assert_no_secret(&ended.err)?;
        Ok(ended)
    }

    pub(crate) fn back_up(&self, more: &[&str]) -> TestResult<Ended> {
        self.run(&[&["backup", VM, DIR, "-c", "lab"], more].concat())
    }

    /// Backs up, and tells the backup's id.
    pub(crate) fn back_up_well(&self, more: &[&str]) -> TestResult<String> {
        let ended = self.back_up(more)?;
        let out = succeed(ended)?;
        self.assert_engine_is_idle()?;
        Ok(out.lines().next().unwrap_or_default().to_owned())
    }

    /// Restores all disks of a backup, and tells them.
    pub(crate) fn restore(&self, backup: &str) -> TestResult<Vec<Disk>> {
        let arguments = ["restore", DIR, "--backup", backup, "-s", STORAGE_DOMAIN, "-c", "lab"];
        let out = succeed(self.run(&arguments)?)?;
        self.assert_engine_is_idle()?;
        let all = self.site.engine.disks();
        let ids = out.lines().filter_map(|line| line.split_whitespace().next());
        let disk = |id: &str| all.iter().find(|disk| disk.id == id).cloned();
        ids.map(|id| disk(id).ok_or_else(|| format!("no disk {id}").into())).collect()
    }

    /// Keeps what each disk holds now, under this name.
    pub(crate) fn keep(&self, name: &str) -> TestResult {
        for (number, disk) in self.disks.iter().enumerate() {
            let image = self.site.engine.image_file(disk).display().to_string();
            let format = if disk.format == DiskFormat::Raw { "raw" } else { "qcow2" };
            self.site.qemu_img(&[
                "convert",
                "-f",
                format,
                "-O",
                "raw",
                &image,
                &format!("{name}-{number}"),
            ])?;
        }
        Ok(())
    }

    /// The manifest, whose schema docs/backup-directory.md has.
    pub(crate) fn manifest(&self) -> TestResult<Value> {
        Ok(serde_json::from_slice(&fs::read(self.path("manifest.json"))?)?)
    }

    /// The ids of the backups in the manifest; none without one.
    pub(crate) fn backups(&self) -> TestResult<Vec<String>> {
        if !self.path("manifest.json").exists() {
            return Ok(Vec::new());
        }
        let manifest = self.manifest()?;
        let backups = manifest["backups"].as_array().ok_or("no backups")?;
        Ok(backups.iter().filter_map(|backup| backup["id"].as_str().map(str::to_owned)).collect())
    }

    /// A file of the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.site.path(DIR).join(name)
    }

    /// The names in the directory that are not the backups' and not the lock's.
    pub(crate) fn leftovers(&self) -> TestResult<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(""))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        let backups = self.backups()?;
        names.retain(|name| !backups.contains(name) && name != ".lock" && name != "manifest.json");
        Ok(names)
    }

    /// Nothing is under way, nobody is logged in, and all disks can be used.
    pub(crate) fn assert_engine_is_idle(&self) -> TestResult {
        let engine = &self.site.engine;
        let transfers = engine.transfers();
        if let Some(transfer) = transfers.iter().find(|transfer| !transfer.phase.is_finished()) {
            return Err(format!("a transfer is left: {transfer:?}").into());
        }
        if let Some(backup) = engine.backups().iter().find(|backup| backup.phase != BackupPhase::Succeeded) {
            return Err(format!("a backup is left: {backup:?}").into());
        }
        if let Some(disk) = engine.disks().iter().find(|disk| disk.status != DiskStatus::Ok) {
            return Err(format!("a disk can't be used: {disk:?}").into());
        }
        let sessions = engine.sessions();
        if sessions == 0 { Ok(()) } else { Err(format!("{sessions} sessions are left").into()) }
    }

    /// Returns the number of transfers that have come to a good end.
    pub(crate) fn good_transfers(&self) -> usize {
        let transfers = self.site.engine.transfers();
        transfers.iter().filter(|transfer| transfer.phase == Phase::FinishedSuccess).count()
    }
}
