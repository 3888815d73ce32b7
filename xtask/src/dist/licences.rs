// SPDX-License-Identifier: MIT OR Apache-2.0
//! The licences of the crates that the programs are made of.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

/// All notices, crate by crate, of what is linked in on this kind of machine.
pub(crate) fn collect(sh: &Shell, triple: &str) -> Result<String> {
    let metadata = cmd!(sh, "cargo metadata --format-version 1 --locked").quiet().read()?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let used = used(sh, triple)?;
    let mut text = String::from("imageio-nbd and nbdkit-imageio-plugin.so contain these crates.\n");
    let mut found = 0;
    let mut told = HashMap::new();
    for package in metadata["packages"].as_array().context("cargo metadata tells no packages")? {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        let name = format!("{} v{}", field("name"), field("version"));
        // Ours are under the licences of the whole.
        if used.contains(&name) && package["source"].is_string() {
            found += 1;
            text += &format!("\n{}\n{name}: {}\n", "=".repeat(79), field("license"));
            text += &notices(&name, Path::new(field("manifest_path")), &mut told)?;
        }
    }
    anyhow::ensure!(found > 20, "the licences of {found} crates were found, which can't be all");
    Ok(text)
}

/// `NAME vVERSION` of each crate that is linked in.
fn used(sh: &Shell, triple: &str) -> Result<BTreeSet<String>> {
    let tree = cmd!(
        sh,
        "cargo tree --locked --target {triple} --package imageio-nbd --package exec-redirect
             --package nbdkit-imageio-plugin --edges normal --prefix none"
    );
    let tree = tree.quiet().read()?;
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Ok(tree.lines().map(name).collect())
}

/// The texts that a crate comes with. What was `told` before is not told again.
fn notices(name: &str, manifest: &Path, told: &mut HashMap<String, String>) -> Result<String> {
    let dir = manifest.parent().context("a manifest is in a directory")?;
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.is_file() && is_notice(file));
    files.sort();
    let mut text = String::new();
    for file in files {
        let title = file.file_name().unwrap_or_default().display();
        let notice = String::from_utf8_lossy(&fs::read(&file)?).trim_end().to_owned();
        match told.get(&notice) {
            Some(before) => text += &format!("\n--- {title}: the same as {before}\n"),
            None => {
                text += &format!("\n--- {title}\n{notice}\n");
                told.insert(notice, format!("{title} of {name}"));
            }
        }
    }
    Ok(text)
}

fn is_notice(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
        .iter()
        .any(|start| name.starts_with(start))
}
