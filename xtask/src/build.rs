// SPDX-License-Identifier: MIT OR Apache-2.0
//! The release build, laid out for packaging.

use std::path::Path;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::readme::without_dead_links;

/// Builds all programs, and the plugin, into `target/release`.
pub(crate) fn programs(sh: &Shell) -> Result<()> {
    cmd!(sh, "cargo build --release --package imageio-nbd --package fake-imageio --package exec-redirect")
        .run()?;
    // Without the rlib that the crate's tests need, so that it is optimized as a whole.
    cmd!(sh, "cargo rustc --release --package nbdkit-imageio-plugin --lib --crate-type cdylib").run()?;
    Ok(())
}

/// Fills `target/dist` for this system.
pub(crate) fn run(sh: &Shell) -> Result<()> {
    programs(sh)?;
    let target = crate::target_dir(sh)?;
    let (release, dist) = (target.join("release"), target.join("dist"));
    lay_out(sh, &release, &dist)?;
    sh.copy_file(release.join("fake-imageio"), dist.join("bin"))?;
    write_generated(sh, &dist.join("bin/imageio-nbd"), &dist)?;
    eprintln!("built into {}", dist.display());
    Ok(())
}

/// Fills a directory with what was built into another.
pub(crate) fn lay_out(sh: &Shell, release: &Path, dist: &Path) -> Result<()> {
    sh.remove_path(dist)?;
    let bin = sh.create_dir(dist.join("bin"))?;
    sh.copy_file(release.join("imageio-nbd"), bin)?;
    sh.create_dir(dist.join("nbdkit"))?;
    sh.copy_file(release.join("libnbdkit_imageio_plugin.so"), dist.join("nbdkit/nbdkit-imageio-plugin.so"))?;
    // `imageio-nbd virt-v2v` puts the program into PATH by another name, and preloads the library.
    let shims = sh.create_dir(dist.join("libexec/imageio-nbd"))?;
    sh.copy_file(release.join("libexec_redirect.so"), shims.join("exec-redirect.so"))?;
    std::os::unix::fs::symlink("../../bin/imageio-nbd", shims.join("nbdkit"))?;
    let units = sh.create_dir(dist.join("systemd"))?;
    for unit in ["imageio-nbd@.socket", "imageio-nbd@.service"] {
        sh.copy_file(Path::new("crates/imageio-nbd/systemd").join(unit), &units)?;
    }
    let doc = sh.create_dir(dist.join("doc"))?;
    for text in ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"] {
        sh.copy_file(text, &doc)?;
    }
    copy_pages(sh, &doc)?;
    let readme = without_dead_links(&sh.read_file("README.md")?, |link| doc.join(link).exists());
    Ok(sh.write_file(doc.join("README.md"), readme)?)
}

/// The pages of the book, where the links of the readme and of each other lead.
fn copy_pages(sh: &Shell, doc: &Path) -> Result<()> {
    for dir in ["docs", "docs/decisions"] {
        let copies = sh.create_dir(doc.join(dir))?;
        let is_page = |file: &Path| file.extension().is_some_and(|end| end == "md" || end == "svg");
        for page in sh.read_dir(dir)?.iter().filter(|file| is_page(file)) {
            sh.copy_file(page, &copies)?;
        }
    }
    Ok(())
}

/// Has `imageio-nbd` write its man pages and completions.
pub(crate) fn write_generated(sh: &Shell, program: &Path, dist: &Path) -> Result<()> {
    let generated = dist.join("generated");
    cmd!(sh, "{program} --generate {generated}").quiet().run()?;
    for (file, dir) in [
        ("imageio-nbd.1", "man/man1"),
        ("nbdkit-imageio-plugin.1", "man/man1"),
        ("imageio-nbd.bash", "completions/bash"),
        ("imageio-nbd.fish", "completions/fish"),
        ("_imageio-nbd", "completions/zsh"),
    ] {
        let dir = sh.create_dir(dist.join(dir))?;
        sh.copy_file(generated.join(file), dir)?;
    }
    sh.remove_path(&generated)?;
    Ok(())
}
