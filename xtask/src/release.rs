// SPDX-License-Identifier: MIT OR Apache-2.0
//! A release: the packages of all machines with their checksums, which the workflow has made
//! before.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

/// The checksums of the packages, beside them.
const CHECKSUMS: &str = "SHA256SUMS";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The tag, which is the version of the crates after a v
    #[arg(long, value_name = "vVERSION")]
    tag: String,
    /// Publish the packages on GitHub, as a draft that somebody looks at. Needs gh
    #[arg(long)]
    publish: bool,
}

/// Writes the checksums of what is in `target/packages`, and publishes all of it if that is asked
/// for.
pub(crate) fn run(sh: &Shell, arguments: &Arguments) -> Result<()> {
    let version = version(&arguments.tag)?;
    let changes = changes(&sh.read_file("CHANGELOG.md")?, version)?;
    let packages = crate::dist::directory(sh)?;
    let checksums = write_checksums(sh, &packages)?;
    eprintln!("made {}", checksums.display());
    if arguments.publish {
        let files = sh.read_dir(&packages)?;
        let tag = &arguments.tag;
        cmd!(sh, "gh release create {tag} --draft --verify-tag --title {tag} --notes-file - {files...}")
            .stdin(changes)
            .run()?;
    }
    Ok(())
}

/// The version of a tag, if it is that of the crates.
fn version(tag: &str) -> Result<&str> {
    let version = crate::dist::version();
    ensure!(
        tag.strip_prefix('v') == Some(version),
        "the tag {tag} is not v{version}, the version in Cargo.toml"
    );
    Ok(version)
}

/// The section of the changelog about a version.
fn changes(changelog: &str, version: &str) -> Result<String> {
    let heading = format!("## [{version}]");
    let sections = changelog.split("\n## ").map(|section| format!("## {section}"));
    let section = sections.into_iter().find(|section| section.starts_with(&heading));
    let section = section.with_context(|| format!("CHANGELOG.md has no section {heading}"))?;
    let (_, changes) = section.split_once('\n').context("the section has no text")?;
    Ok(changes.trim().to_owned())
}

/// The checksums of all packages, for `sha256sum --check`.
fn write_checksums(sh: &Shell, packages: &Path) -> Result<PathBuf> {
    let checksums = packages.join(CHECKSUMS);
    sh.remove_path(&checksums)?;
    let files = sh.read_dir(packages)?;
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    ensure!(!names.is_empty(), "{} has no packages: cargo xtask dist", packages.display());
    let _packages = sh.push_dir(packages);
    sh.write_file(&checksums, cmd!(sh, "sha256sum {names...}").quiet().read()? + "\n")?;
    Ok(checksums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tag_of_this_version_is_released() {
        let own = format!("v{}", crate::dist::version());
        assert!(version(&own).is_ok());
        assert!(version(crate::dist::version()).is_err() && version(&format!("{own}.1")).is_err());
    }

    #[test]
    fn the_notes_are_the_section_of_the_version() {
        let changelog =
            "# Changelog\n\n## [1.1.0] - 2026-02-01\n\n### Added\n- New.\n\n## [1.0.0]\n- First.\n";
        assert_eq!(changes(changelog, "1.1.0").unwrap(), "### Added\n- New.");
        assert_eq!(changes(changelog, "1.0.0").unwrap(), "- First.");
        assert!(changes(changelog, "1.0").is_err());
    }

    #[test]
    fn checksums_are_those_of_the_packages() {
        let (sh, dir) = (Shell::new().unwrap(), tempfile::tempdir().unwrap());
        assert!(write_checksums(&sh, dir.path()).is_err());
        sh.write_file(dir.path().join("a.deb"), "a").unwrap();
        sh.write_file(dir.path().join("b.rpm"), "b").unwrap();
        for _ in 0..2 {
            let checksums = write_checksums(&sh, dir.path()).unwrap();
            assert_eq!(sh.read_file(checksums).unwrap().lines().count(), 2);
        }
        let _dir = sh.push_dir(dir.path());
        cmd!(sh, "sha256sum --check --status {CHECKSUMS}").run().unwrap();
        sh.write_file("a.deb", "other").unwrap();
        assert!(cmd!(sh, "sha256sum --check --status {CHECKSUMS}").quiet().run().is_err());
    }
}
