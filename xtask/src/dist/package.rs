// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files in each package, whatever kind of package it becomes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use super::target::Names;

/// A package of the program or of the plugin.
pub(crate) struct Package {
    /// By Debian's habits.
    pub(crate) debian: &'static str,
    /// By the habits of Fedora and Enterprise Linux.
    pub(crate) rpm: &'static str,
    pub(crate) summary: &'static str,
    /// Paragraphs, in lines of less than 80 characters.
    pub(crate) description: &'static str,
    /// The files that were built, and where they go: see [`Places::resolve`]. A directory stands
    /// for the files in it.
    files: &'static [(&'static str, &'static str)],
    /// Symbolic links, and what they point at.
    pub(crate) links: &'static [(&'static str, &'static str)],
}

pub(crate) const PROGRAM: Package = Package {
    debian: "imageio-nbd",
    rpm: "imageio-nbd",
    summary: "oVirt disk transfers as NBD devices",
    description: "\
oVirt moves disks in and out by image transfers, over HTTP to a server called
imageio. This package offers such a disk as an NBD device, so that nbdcopy,
qemu-img and others can upload or read it. It also uploads, downloads, backs up
and restores disks by itself, where qemu-img is installed.

\"imageio-nbd virt-v2v\" runs the installed virt-v2v with this program in the
place of its Python plugin for oVirt.",
    files: &[
        ("bin/imageio-nbd", "usr/bin/imageio-nbd"),
        ("libexec/imageio-nbd/exec-redirect.so", "usr/libexec/imageio-nbd/exec-redirect.so"),
        ("man/man1/imageio-nbd.1", "usr/share/man/man1/imageio-nbd.1.gz"),
        ("completions/bash/imageio-nbd.bash", "usr/share/bash-completion/completions/imageio-nbd"),
        ("completions/fish/imageio-nbd.fish", "usr/share/fish/vendor_completions.d/imageio-nbd.fish"),
        ("completions/zsh/_imageio-nbd", "@ZSH@/_imageio-nbd"),
        ("systemd/imageio-nbd@.socket", "usr/lib/systemd/system/imageio-nbd@.socket"),
        ("systemd/imageio-nbd@.service", "usr/lib/systemd/system/imageio-nbd@.service"),
        ("doc/README.md", "@DOC@/README.md"),
        ("doc/docs", "@DOC@/docs"),
        ("doc/docs/decisions", "@DOC@/docs/decisions"),
        ("doc/CHANGELOG.md", "@DOC@/changelog.gz"),
    ],
    links: &[("usr/libexec/imageio-nbd/nbdkit", "../../bin/imageio-nbd")],
};

pub(crate) const PLUGIN: Package = Package {
    debian: "nbdkit-plugin-imageio",
    rpm: "nbdkit-imageio-plugin",
    summary: "oVirt disk transfers as NBD devices, by nbdkit",
    description: "\
oVirt moves disks in and out by image transfers, over HTTP to a server called
imageio. This plugin lets nbdkit offer such a disk as an NBD device.",
    files: &[
        ("nbdkit/nbdkit-imageio-plugin.so", "@PLUGINS@/nbdkit-imageio-plugin.so"),
        ("man/man1/nbdkit-imageio-plugin.1", "usr/share/man/man1/nbdkit-imageio-plugin.1.gz"),
        ("doc/CHANGELOG.md", "@DOC@/changelog.gz"),
    ],
    links: &[],
};

/// The oldest nbdkit that the plugin works with.
pub(crate) const OLDEST_NBDKIT: &str = "1.24";

/// The places, in a family of systems, of files that not all systems have in the same place.
pub(crate) struct Places {
    zsh: &'static str,
    plugins: String,
}

impl Places {
    /// By `nbdkit --dump-config` of Debian.
    pub(crate) fn of_debian(names: &Names) -> Self {
        let plugins = format!("usr/lib/{}/nbdkit/plugins", names.multiarch);
        Self { zsh: "usr/share/zsh/vendor-completions", plugins }
    }

    /// By `%{_libdir}` of all systems with 64 bits that have rpm.
    pub(crate) fn of_rpm() -> Self {
        Self { zsh: "usr/share/zsh/site-functions", plugins: "usr/lib64/nbdkit/plugins".into() }
    }

    fn resolve(&self, name: &str, path: &str) -> String {
        path.replace("@ZSH@", self.zsh).replace("@PLUGINS@", &self.plugins).replace("@DOC@", &doc(name))
    }
}

/// Returns the directory of the texts of a package of this name.
pub(crate) fn doc(name: &str) -> String {
    format!("usr/share/doc/{name}")
}

/// A file of a package.
pub(crate) struct File {
    /// From the root, without the slash.
    pub(crate) path: String,
    pub(crate) contents: Vec<u8>,
}

impl File {
    pub(crate) fn new(path: String, contents: impl Into<Vec<u8>>) -> Self {
        Self { path, contents: contents.into() }
    }

    /// Programs are executable, libraries are not.
    pub(crate) fn mode(&self) -> u16 {
        if self.path.starts_with("usr/bin/") { 0o755 } else { 0o644 }
    }
}

impl Package {
    /// Reads what was built. What ends with `.gz` is compressed.
    pub(crate) fn files(&self, sh: &Shell, built: &Path, name: &str, places: &Places) -> Result<Vec<File>> {
        let mut files = Vec::new();
        for (from, to) in self.files {
            let (from, to) = (built.join(from), places.resolve(name, to));
            for (from, to) in if from.is_dir() { files_in(sh, &from, &to)? } else { vec![(from, to)] } {
                let contents = sh.read_binary_file(from)?;
                let contents = if to.ends_with(".gz") { compressed(sh, &contents)? } else { contents };
                files.push(File::new(to, contents));
            }
        }
        Ok(files)
    }

    /// The programs and libraries among what was built.
    pub(crate) fn programs(&self, built: &Path) -> Vec<PathBuf> {
        let is_program = |from: &str| from.starts_with("bin/") || from.ends_with(".so");
        self.files.iter().filter(|(from, _)| is_program(from)).map(|(from, _)| built.join(from)).collect()
    }
}

/// The files in a directory, and where they go.
fn files_in(sh: &Shell, from: &Path, to: &str) -> Result<Vec<(PathBuf, String)>> {
    let files = sh.read_dir(from)?.into_iter().filter(|file| file.is_file());
    Ok(files
        .map(|file| (file.clone(), format!("{to}/{}", file.file_name().unwrap_or_default().display())))
        .collect())
}

/// Without a name or a time inside, so that the same becomes the same.
pub(crate) fn compressed(sh: &Shell, contents: &[u8]) -> Result<Vec<u8>> {
    let output = cmd!(sh, "gzip -9n").stdin(contents).quiet().output().context("cannot compress")?;
    Ok(output.stdout)
}
