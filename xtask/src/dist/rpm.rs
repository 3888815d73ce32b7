// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `.rpm` packages, for Enterprise Linux 8 and all that is newer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rpm::{BuildConfig, CompressionType, Dependency, FileOptions, PackageBuilder};
use xshell::Shell;

use super::elf::Needs;
use super::package::{File, OLDEST_NBDKIT, PLUGIN, PROGRAM, Package, Places, doc};
use super::{Making, version};

/// The package's own revision.
const RELEASE: &str = "1";

/// Makes a package of what was built.
pub(crate) fn make(sh: &Shell, making: &Making<'_>, package: &Package) -> Result<PathBuf> {
    let (name, architecture) = (package.rpm, making.names.machine);
    let mut files = package.files(sh, making.built, name, &Places::of_rpm())?;
    files.extend(licences(sh, making.built, name)?);
    let date: u32 = making.date.parse().context("SOURCE_DATE_EPOCH is no number of seconds")?;
    let mut builder =
        PackageBuilder::new(name, version(), "MIT OR Apache-2.0", architecture, package.summary);
    builder
        // gzip is what the rpm of every system can read.
        .using_config(BuildConfig::v4().compression(CompressionType::Gzip).source_date(date))
        .build_host("localhost")
        .release(RELEASE)
        .description(package.description);
    for directory in own_directories(name, &files) {
        builder.with_dir_entry(FileOptions::dir(format!("/{directory}")))?;
    }
    let doc = doc(name);
    for file in files {
        let options = FileOptions::new(format!("/{}", file.path)).permissions(file.mode());
        let options = match &file.path {
            path if path.starts_with("usr/share/licenses/") => options.license(),
            path if path.starts_with(&doc) || path.starts_with("usr/share/man/") => options.doc(),
            _ => options,
        };
        builder.with_file_contents(file.contents, options)?;
    }
    for (link, target) in package.links {
        builder.with_symlink(FileOptions::symlink(format!("/{link}"), *target))?;
    }
    add_relations(&mut builder, package, &making.needs(package)?);
    let made = making.packages.join(format!("{name}-{}-{RELEASE}.{architecture}.rpm", version()));
    builder.build()?.write_file(&made)?;
    Ok(made)
}

fn licences(sh: &Shell, built: &Path, name: &str) -> Result<Vec<File>> {
    let texts = ["LICENSE-APACHE", "LICENSE-MIT", "THIRD-PARTY-LICENCES"].into_iter();
    texts
        .map(|text| {
            let contents = sh.read_binary_file(built.join("doc").join(text))?;
            Ok(File::new(format!("usr/share/licenses/{name}/{text}"), contents))
        })
        .collect()
}

/// The directories that nobody else has files in: they go when the package goes.
fn own_directories(name: &str, files: &[File]) -> BTreeSet<String> {
    let directories = files.iter().flat_map(|file| Path::new(&file.path).ancestors().skip(1));
    let own = directories.filter(|directory| directory.components().any(|part| part.as_os_str() == name));
    own.map(|parent| parent.display().to_string()).collect()
}

fn add_relations(builder: &mut PackageBuilder, package: &Package, needs: &Needs) {
    for requirement in requirements(needs) {
        builder.requires(Dependency::any(requirement));
    }
    if package.rpm == PLUGIN.rpm {
        builder.requires(Dependency::greater_eq("nbdkit-server", OLDEST_NBDKIT));
        builder.suggests(Dependency::any(PROGRAM.rpm));
    } else {
        builder.recommends(Dependency::any("libnbd")).recommends(Dependency::any("qemu-img"));
        builder.suggests(Dependency::any(PLUGIN.rpm)).suggests(Dependency::any("virt-v2v"));
    }
}

/// Writes what is needed as rpm's own elfdeps writes what a library offers.
fn requirements(needs: &Needs) -> Vec<String> {
    let libraries = needs.libraries();
    let of_library = libraries.flat_map(|(library, versions)| {
        let versions = versions.iter().map(move |version| format!("{library}({version})(64bit)"));
        std::iter::once(format!("{library}()(64bit)")).chain(versions)
    });
    of_library.collect()
}
