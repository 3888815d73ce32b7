// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packages for all systems since Enterprise Linux 8: `.deb`, `.rpm`, and an archive that works
//! wherever it is unpacked.

mod deb;
mod elf;
mod licences;
mod package;
mod rpm;
mod target;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use elf::Needs;
use package::{PLUGIN, PROGRAM, Package};
use target::{Names, OLDEST_GLIBC, Target};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// The kind of machine that the packages are for [default: this one's]
    #[arg(long, value_name = "TRIPLE")]
    target: Option<Target>,
}

/// The packages that were made.
pub(crate) struct Packages {
    files: Vec<PathBuf>,
    /// The directory with the programs that they were made of.
    pub(crate) built: PathBuf,
}

impl Packages {
    /// Byte for byte.
    pub(crate) fn contents(&self, sh: &Shell) -> Result<Vec<Vec<u8>>> {
        self.files.iter().map(|file| Ok(sh.read_binary_file(file)?)).collect()
    }
}

/// The settings with which all packages are made.
struct Making<'a> {
    names: Names,
    built: &'a Path,
    packages: &'a Path,
    /// Seconds since 1970 that all files get, so that equal sources make equal packages.
    date: &'a str,
}

impl Making<'_> {
    fn needs(&self, package: &Package) -> Result<Needs> {
        Needs::of(package.programs(self.built).iter().map(PathBuf::as_path))
    }
}

/// Returns the directory of packages, of all targets.
pub(crate) fn directory(sh: &Shell) -> Result<PathBuf> {
    Ok(crate::target_dir(sh)?.join("packages"))
}

/// Builds, and fills [`directory`].
pub(crate) fn run(sh: &Shell, arguments: &Arguments) -> Result<Packages> {
    let target = arguments.target.or_else(Target::of_this_machine);
    let target = target.context("there are no packages for this kind of machine: see --target")?;
    let release = target.build(sh)?;
    let built = release.with_file_name("dist");
    crate::build::lay_out(sh, &release, &built)?;
    write_generated(sh, target, &built)?;
    let names = target.names();
    sh.write_file(built.join("doc/THIRD-PARTY-LICENCES"), licences::collect(sh, names.triple)?)?;
    let (packages, date) = (directory(sh)?, date(sh));
    remove_older(&packages, &names)?;
    sh.create_dir(&packages)?;
    let files = make(sh, &Making { names, built: &built, packages: &packages, date: &date })?;
    for file in &files {
        eprintln!("made {}", file.display());
    }
    Ok(Packages { files, built })
}

fn make(sh: &Shell, making: &Making<'_>) -> Result<Vec<PathBuf>> {
    for package in [PROGRAM, PLUGIN] {
        let glibc =
            making.needs(&package)?.glibc(OLDEST_GLIBC).context("this is no package for all systems")?;
        eprintln!("{} needs glibc {glibc}", package.rpm);
    }
    let mut files = vec![archive(sh, making)?];
    for package in [PROGRAM, PLUGIN] {
        files.push(rpm::make(sh, making, &package)?);
    }
    if let Some(missing) = deb::missing_tool() {
        eprintln!(
            "no .deb: {missing} is missing: apt-get install dpkg coreutils, or dnf install dpkg coreutils"
        );
        return Ok(files);
    }
    for package in [PROGRAM, PLUGIN] {
        files.push(deb::make(sh, making, &package)?);
    }
    Ok(files)
}

/// Man pages and completions are written by the program; that of another kind of machine can't be
/// run here.
fn write_generated(sh: &Shell, target: Target, built: &Path) -> Result<()> {
    if Some(target) == Target::of_this_machine() {
        return crate::build::write_generated(sh, &built.join("bin/imageio-nbd"), built);
    }
    cmd!(sh, "cargo build --locked --package imageio-nbd").run()?;
    crate::build::write_generated(sh, &crate::target_dir(sh)?.join("debug/imageio-nbd"), built)
}

/// Packages of other versions, so that what is there is of one.
fn remove_older(packages: &Path, names: &Names) -> Result<()> {
    let Ok(entries) = fs::read_dir(packages) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.contains(names.machine) || name.contains(names.debian) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The version of all crates.
pub(crate) fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn date(sh: &Shell) -> String {
    let committed = || cmd!(sh, "git log -1 --format=%ct").quiet().ignore_stderr().read();
    sh.var("SOURCE_DATE_EPOCH").or_else(|_| committed()).unwrap_or_else(|_| "0".into())
}

fn archive(sh: &Shell, making: &Making<'_>) -> Result<PathBuf> {
    let Making { names, built, packages, date } = making;
    let name = format!("imageio-nbd-{}-{}-linux", version(), names.machine);
    let archive = packages.join(format!("{name}.tar.gz"));
    let rename = format!("s,^\\.,{name},S");
    cmd!(
        sh,
        "tar --create --file {archive} --use-compress-program 'gzip -9n' --sort=name --owner=0 --group=0
             --numeric-owner --mtime=@{date} --mode=go=rX,u+rw --transform={rename} --directory {built} ."
    )
    .quiet()
    .run()?;
    Ok(archive)
}
