// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packages of the release build: a `.deb`, and an archive that works wherever it is unpacked.

mod deb;
mod licences;

use std::path::{Path, PathBuf};

use anyhow::Result;
use xshell::{Shell, cmd};

/// What was made.
pub(crate) struct Packages {
    pub(crate) archive: PathBuf,
    /// Where there are Debian's tools.
    pub(crate) deb: Option<PathBuf>,
}

impl Packages {
    /// Byte for byte.
    pub(crate) fn contents(&self, sh: &Shell) -> Result<Vec<Vec<u8>>> {
        let files = std::iter::once(&self.archive).chain(&self.deb);
        files.map(|file| Ok(sh.read_binary_file(file)?)).collect()
    }
}

/// Builds, and fills `target/packages`.
pub(crate) fn run(sh: &Shell) -> Result<Packages> {
    crate::build::run(sh)?;
    let target = crate::target_dir(sh)?;
    let (built, packages) = (target.join("dist"), target.join("packages"));
    sh.remove_path(&packages)?;
    sh.create_dir(&packages)?;
    sh.write_file(built.join("doc/THIRD-PARTY-LICENCES"), licences::collect(sh)?)?;
    let date = date(sh);
    let archive = archive(sh, &built, &packages, &date)?;
    eprintln!("made {}", archive.display());
    if let Some(missing) = deb::missing_tool() {
        eprintln!("no .deb: {missing} is missing: apt-get install dpkg-dev");
        return Ok(Packages { archive, deb: None });
    }
    let deb = deb::make(sh, &built, &packages, &date)?;
    eprintln!("made {}", deb.display());
    Ok(Packages { archive, deb: Some(deb) })
}

/// The version of all crates.
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Seconds since 1970 that all files get, so that equal sources make equal packages.
fn date(sh: &Shell) -> String {
    let committed = || cmd!(sh, "git log -1 --format=%ct").quiet().ignore_stderr().read();
    sh.var("SOURCE_DATE_EPOCH").or_else(|_| committed()).unwrap_or_else(|_| "0".into())
}

fn archive(sh: &Shell, built: &Path, packages: &Path, date: &str) -> Result<PathBuf> {
    let name = format!("imageio-nbd-{}-{}-linux", version(), std::env::consts::ARCH);
    let archive = packages.join(format!("{name}.tar.gz"));
    let rename = format!("s,^\\.,{name},S");
    // The fake server is for tests.
    cmd!(
        sh,
        "tar --create --file {archive} --use-compress-program 'gzip -9n' --sort=name --owner=0 --group=0
             --numeric-owner --mtime=@{date} --mode=go=rX,u+rw --exclude=./bin/fake-imageio
             --transform={rename} --directory {built} ."
    )
    .quiet()
    .run()?;
    Ok(archive)
}
