// SPDX-License-Identifier: MIT OR Apache-2.0
//! The oldest Rust that is promised: `rust-version` of the workspace. It is no older than what any
//! dependency promises for itself, and is tested where this toolchain, or another that rustup has,
//! is of that version.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xshell::{Shell, cmd};

/// A version of Rust, such as 1.89.0.
type Version = (u64, u64, u64);

/// Compares, and tests if it can. Whether it could.
pub(crate) fn check(sh: &Shell) -> Result<bool> {
    let promised = compare(sh)?;
    let version = cmd!(sh, "rustc --version").quiet().read()?;
    if version.starts_with(&format!("rustc {promised}.")) {
        eprintln!("this is {version}: every step here tests it");
        return Ok(true);
    }
    let toolchains = cmd!(sh, "rustup toolchain list").quiet().ignore_stderr().read().unwrap_or_default();
    if !toolchains.lines().any(|toolchain| toolchain.starts_with(&promised)) {
        eprintln!("not tested: Rust {promised} is missing: rustup toolchain install {promised}");
        return Ok(false);
    }
    let toolchain = format!("+{promised}");
    cmd!(sh, "cargo {toolchain} check --workspace --all-targets --locked --target-dir target/oldest")
        .run()?;
    Ok(true)
}

/// Finds what is promised, and that the dependencies promise as much.
fn compare(sh: &Shell) -> Result<String> {
    // The dependencies of Windows, and of the models of threads, are never built for users.
    let metadata =
        cmd!(sh, "cargo metadata --format-version 1 --locked --filter-platform x86_64-unknown-linux-gnu");
    let metadata: Value = serde_json::from_str(&metadata.quiet().read()?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata tells no packages")?;
    let ours = packages.iter().find(|package| package["name"] == "imageio-nbd");
    let promised = ours.and_then(rust_version).context("Cargo.toml tells no rust-version")?;
    let newer = newer(packages.iter().filter(|package| package["source"].is_string()), parse(promised)?)?;
    ensure!(
        newer.is_empty(),
        "rust-version in Cargo.toml is {promised}, but {} needs more: raise it, or keep an older version of the dependency \
         in Cargo.lock",
        newer.join(", ")
    );
    Ok(promised.to_owned())
}

/// The packages that promise only newer versions of Rust.
fn newer<'a>(packages: impl Iterator<Item = &'a Value>, promised: Version) -> Result<Vec<String>> {
    let mut newer = Vec::new();
    for package in packages {
        let Some(needed) = rust_version(package) else { continue };
        if parse(needed)? > promised {
            let field = |name: &str| package[name].as_str().unwrap_or_default();
            newer.push(format!("{} {} (Rust {needed})", field("name"), field("version")));
        }
    }
    Ok(newer)
}

fn rust_version(package: &Value) -> Option<&str> {
    package["rust_version"].as_str()
}

/// `1.89` is `1.89.0`.
fn parse(version: &str) -> Result<Version> {
    let mut numbers = version.splitn(3, '.').map(str::parse);
    let mut next = || numbers.next().unwrap_or(Ok(0)).with_context(|| format!("{version} is no version"));
    Ok((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dependency_that_needs_a_newer_rust_is_named() {
        let packages = [
            json!({"name": "old", "version": "1.0.0", "rust_version": "1.9"}),
            json!({"name": "same", "version": "1.0.0", "rust_version": "1.89.0"}),
            json!({"name": "silent", "version": "1.0.0", "rust_version": null}),
            json!({"name": "later", "version": "2.1.0", "rust_version": "1.89.1"}),
            json!({"name": "new", "version": "3.0.0", "rust_version": "1.100"}),
        ];
        let newer = newer(packages.iter(), (1, 89, 0)).unwrap();
        assert_eq!(newer, ["later 2.1.0 (Rust 1.89.1)", "new 3.0.0 (Rust 1.100)"]);
        assert!(parse("1.x").is_err() && parse("").is_err());
    }

    #[test]
    fn no_dependency_needs_a_newer_rust_than_is_promised() {
        let sh = Shell::new().unwrap();
        sh.change_dir(crate::project_root());
        compare(&sh).unwrap();
    }
}
