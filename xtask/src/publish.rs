// SPDX-License-Identifier: MIT OR Apache-2.0
//! Publishes the crates. Cargo finds their order, and builds every package against those of the
//! others as if these were published. It works on a copy of the last commit: the address of the
//! repository isn't known before somebody publishes, and each package needs the texts of the
//! licences.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

/// The line of the root manifest that every crate takes its repository from.
const NO_REPOSITORY: &str = "repository = \"\"\n";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Upload the packages, for good. Without it, they are made and built, and nothing is uploaded
    #[arg(long, requires = "repository")]
    execute: bool,
    /// The address of the repository, which every crate then names
    #[arg(long, value_name = "URL", env = "IMAGEIO_NBD_REPOSITORY")]
    repository: Option<String>,
    /// A crate that is published already, in this version. May be given several times
    #[arg(long, value_name = "CRATE")]
    exclude: Vec<String>,
}

pub(crate) fn run(sh: &Shell, arguments: &Arguments) -> Result<()> {
    let directory = crate::target_dir(sh)?.join("publish");
    let sources = directory.join("sources");
    copy_last_commit(sh, &sources)?;
    if let Some(repository) = &arguments.repository {
        let manifest = sources.join("Cargo.toml");
        sh.write_file(&manifest, with_repository(&sh.read_file(&manifest)?, repository)?)?;
    }
    add_licences(sh, &sources)?;
    let cargo_home = sh.var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    forget_unpacked(sh, &cargo_home.context("CARGO_HOME is not known")?, &sources)?;
    let _copy = sh.push_dir(&sources);
    let target_dir = directory.join("target");
    let dry_run = (!arguments.execute).then_some("--dry-run");
    let excluded = arguments.exclude.iter().flat_map(|name| ["--exclude", name]);
    cmd!(sh, "cargo publish --workspace --locked --target-dir {target_dir} {dry_run...} {excluded...}")
        .run()?;
    Ok(())
}

fn copy_last_commit(sh: &Shell, sources: &Path) -> Result<()> {
    sh.remove_path(sources)?;
    sh.create_dir(sources)?;
    let archive = sources.with_extension("tar");
    cmd!(sh, "git archive --output {archive} HEAD").run()?;
    cmd!(sh, "tar --extract --file {archive} --directory {sources}").run()?;
    sh.remove_path(archive)?;
    Ok(())
}

fn with_repository(manifest: &str, url: &str) -> Result<String> {
    let is_url =
        url.starts_with("https://") && !url.contains(['"', '\\']) && !url.contains(char::is_whitespace);
    ensure!(is_url, "--repository: {url:?} is no address that begins with https://");
    let (before, after) =
        manifest.split_once(NO_REPOSITORY).context("Cargo.toml has no line repository = \"\"")?;
    Ok(format!("{before}repository = \"{url}\"\n{after}"))
}

fn add_licences(sh: &Shell, sources: &Path) -> Result<()> {
    for package in sh.read_dir(sources.join("crates"))? {
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            sh.copy_file(sources.join(licence), package.join(licence))?;
        }
    }
    Ok(())
}

/// Has Cargo unpack the packages that it makes. It puts them into a registry of the file system,
/// and would build against those of an earlier run: it knows them by name and version alone.
fn forget_unpacked(sh: &Shell, cargo_home: &Path, sources: &Path) -> Result<()> {
    let registries = cargo_home.join("registry/src");
    if !sh.path_exists(&registries) {
        return Ok(());
    }
    let crates: Vec<_> = sh.read_dir(sources.join("crates"))?.iter().map(|path| file_name(path)).collect();
    // A registry without a host is one of the file system.
    let local = sh.read_dir(registries)?.into_iter().filter(|path| file_name(path).starts_with('-'));
    for registry in local {
        for package in sh.read_dir(registry)? {
            let name = file_name(&package);
            let name = name.rsplit_once('-').map(|(name, _version)| name);
            if crates.iter().any(|ours| Some(&**ours) == name) {
                sh.remove_path(package)?;
            }
        }
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_gets_the_repository_of_whoever_publishes() {
        let sh = Shell::new().unwrap();
        let manifest = sh.read_file(crate::project_root().join("Cargo.toml")).unwrap();
        let filled_in = with_repository(&manifest, "https://example.com/imageio-nbd").unwrap();
        assert!(filled_in.contains("\nrepository = \"https://example.com/imageio-nbd\"\n"));
        assert_eq!(filled_in.lines().count(), manifest.lines().count());
    }

    #[test]
    fn packages_of_an_earlier_run_are_forgotten_and_nothing_else() {
        let (sh, dir) = (Shell::new().unwrap(), tempfile::tempdir().unwrap());
        let (home, sources) = (dir.path().join("home"), dir.path().join("sources"));
        let _ = sh.create_dir(sources.join("crates/nbd-wire")).unwrap();
        let package = |registry: &str, package: &str| {
            let path = home.join("registry/src").join(registry).join(package);
            sh.write_file(path.join("Cargo.toml"), "").unwrap();
            path
        };
        let old = package("-af346dedfd5d23f0", "nbd-wire-0.1.0");
        let kept = [
            package("-af346dedfd5d23f0", "nbd-wire-2-0.1.0"),
            package("-af346dedfd5d23f0", "bytes-1.0.0"),
            package("index.crates.io-1949cf8c6b5b557f", "nbd-wire-0.1.0"),
        ];
        forget_unpacked(&sh, &home, &sources).unwrap();
        assert!(!old.exists());
        assert!(kept.iter().all(|path| path.exists()));
        forget_unpacked(&sh, &dir.path().join("nowhere"), &sources).unwrap();
    }

    #[test]
    fn an_address_that_would_spoil_the_manifest_is_refused() {
        for url in ["example.com", "https://example.com/\"", "https://example.com/a b", ""] {
            let error = with_repository(NO_REPOSITORY, url).unwrap_err().to_string();
            assert!(error.starts_with("--repository: "), "{error}");
        }
        assert!(with_repository("[package]\n", "https://example.com").is_err());
    }
}
