// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `.deb` packages, by Debian's own tools.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use super::elf::Version;
use super::package::{File, OLDEST_NBDKIT, PLUGIN, PROGRAM, Package, Places, compressed, doc};
use super::{Making, version};

const COPYRIGHT: &str = include_str!("copyright");
const MAINTAINER: &str = "The imageio-nbd contributors <imageio-nbd@localhost>";

/// Which of Debian's tools isn't there.
pub(crate) fn missing_tool() -> Option<&'static str> {
    ["dpkg-deb", "md5sum"].into_iter().find(|tool| which::which(tool).is_err())
}

/// Makes a package of what was built.
pub(crate) fn make(sh: &Shell, making: &Making<'_>, package: &Package) -> Result<PathBuf> {
    let (name, architecture) = (package.debian, making.names.debian);
    // Tells by a package's revision that Debian's changelog is apart from ours.
    let version = format!("{}-1", version());
    let mut files = package.files(sh, making.built, name, &Places::of_debian(&making.names))?;
    files.extend(texts(sh, making, name, &version)?);
    let root = tempfile::tempdir()?;
    let root = root.path();
    lay_out(root, package, &files)?;
    let needs = making.needs(package)?;
    let control = control(package, &version, architecture, &files, needs.glibc(super::target::OLDEST_GLIBC)?);
    sh.write_file(root.join("DEBIAN/control"), control)?;
    write_checksums(sh, root, &files)?;
    cmd!(sh, "chmod --recursive u=rwX,go=rX {root}").quiet().run()?;
    let made = making.packages.join(format!("{name}_{version}_{architecture}.deb"));
    let _date = sh.push_env("SOURCE_DATE_EPOCH", making.date);
    cmd!(sh, "dpkg-deb --root-owner-group --build {root} {made}").quiet().ignore_stdout().run()?;
    Ok(made)
}

/// Returns the texts that Debian's policy wants in each package.
fn texts(sh: &Shell, making: &Making<'_>, name: &str, version: &str) -> Result<[File; 3]> {
    let licence = sh.read_file("LICENSE-MIT")?;
    let licence: Vec<_> = licence
        .trim_end()
        .lines()
        .map(|line| if line.is_empty() { " .".into() } else { format!(" {line}") })
        .collect();
    let date = making.date;
    let date = cmd!(sh, "date --utc --rfc-email --date=@{date}").quiet().read()?;
    let changelog = format!(
        "imageio-nbd ({version}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- {MAINTAINER}  {date}\n"
    );
    let doc = doc(name);
    Ok([
        File::new(format!("{doc}/copyright"), COPYRIGHT.replace("@MIT@", &licence.join("\n"))),
        File::new(format!("{doc}/changelog.Debian.gz"), compressed(sh, changelog.as_bytes())?),
        File::new(
            format!("{doc}/THIRD-PARTY-LICENCES.gz"),
            compressed(sh, &sh.read_binary_file(making.built.join("doc/THIRD-PARTY-LICENCES"))?)?,
        ),
    ])
}

fn lay_out(root: &Path, package: &Package, files: &[File]) -> Result<()> {
    let place = |path: &str| -> Result<PathBuf> {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a file is in a directory")?)?;
        Ok(path)
    };
    for file in files {
        let path = place(&file.path)?;
        fs::write(&path, &file.contents)?;
        fs::set_permissions(path, Permissions::from_mode(file.mode().into()))?;
    }
    for (link, target) in package.links {
        symlink(target, place(link)?)?;
    }
    fs::create_dir(root.join("DEBIAN"))?;
    Ok(())
}

fn control(package: &Package, version: &str, architecture: &str, files: &[File], glibc: Version) -> String {
    // dpkg-gencontrol counts in the same way: in KiB, each file for itself.
    let size: usize = files.iter().map(|file| file.contents.len().div_ceil(1024)).sum();
    let lines = package.description.lines();
    let lines = lines.map(|line| if line.is_empty() { " .\n".into() } else { format!(" {line}\n") });
    let lines = lines.collect::<String>();
    let Package { debian: name, summary, .. } = package;
    let others = relations(package);
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {MAINTAINER}\n\
         Installed-Size: {size}\nDepends: libc6 (>= {glibc}){others}\nSection: utils\nPriority: optional\n\
         Description: {summary}\n{lines}"
    )
}

/// Returns what follows the first dependency.
fn relations(package: &Package) -> String {
    if package.debian == PLUGIN.debian {
        format!(", nbdkit (>= {OLDEST_NBDKIT})\nEnhances: nbdkit\nSuggests: {}", PROGRAM.debian)
    } else {
        format!("\nRecommends: libnbd-bin, qemu-utils\nSuggests: {}, virt-v2v", PLUGIN.debian)
    }
}

fn write_checksums(sh: &Shell, root: &Path, files: &[File]) -> Result<()> {
    let _here = sh.push_dir(root);
    let mut files: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    files.sort_unstable();
    let sums = cmd!(sh, "md5sum {files...}").quiet().read()?;
    sh.write_file("DEBIAN/md5sums", sums + "\n")?;
    Ok(())
}
