// SPDX-License-Identifier: MIT OR Apache-2.0
//! Publishes the crates. Cargo finds their order, and builds every package against those of the
//! others as if these were published. It works on a copy of the last commit: the address of the
//! repository isn't known before somebody publishes, and each package needs the texts of the
//! licences.

use std::path::Path;

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
    fn an_address_that_would_spoil_the_manifest_is_refused() {
        for url in ["example.com", "https://example.com/\"", "https://example.com/a b", ""] {
            let error = with_repository(NO_REPOSITORY, url).unwrap_err().to_string();
            assert!(error.starts_with("--repository: "), "{error}");
        }
        assert!(with_repository("[package]\n", "https://example.com").is_err());
    }
}
