// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kinds of machine that packages are for, and how one builds for them whatever machine one
//! has.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use xshell::{Shell, cmd};

use super::elf::Version;
use crate::tools::CARGO_ZIGBUILD;

/// The newest glibc that a program may ask for: that of Enterprise Linux 8, the oldest system that
/// hosts of oVirt 4.4 and 4.5 run on (oVirt's installation guide).
pub(crate) const OLDEST_GLIBC: Version = Version(2, 28);

/// A kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    #[value(name = "x86_64-unknown-linux-gnu")]
    X86_64,
    #[value(name = "aarch64-unknown-linux-gnu")]
    Aarch64,
}

/// The names of a target.
pub(crate) struct Names {
    /// By Rust.
    pub(crate) triple: &'static str,
    /// By the kernel, and by rpm.
    pub(crate) machine: &'static str,
    /// By dpkg.
    pub(crate) debian: &'static str,
    /// By Debian, whose directory of libraries is called so.
    pub(crate) multiarch: &'static str,
}

impl Target {
    /// This machine's, if packages are made for such.
    pub(crate) fn of_this_machine() -> Option<Self> {
        let all = Self::value_variants().iter().copied();
        all.into_iter().find(|target| target.names().machine == std::env::consts::ARCH)
    }

    pub(crate) fn names(self) -> Names {
        match self {
            Self::X86_64 => Names {
                triple: "x86_64-unknown-linux-gnu",
                machine: "x86_64",
                debian: "amd64",
                multiarch: "x86_64-linux-gnu",
            },
            Self::Aarch64 => Names {
                triple: "aarch64-unknown-linux-gnu",
                machine: "aarch64",
                debian: "arm64",
                multiarch: "aarch64-linux-gnu",
            },
        }
    }

    /// Builds what packages have in them, against [`OLDEST_GLIBC`]. Returns where it is.
    pub(crate) fn build(self, sh: &Shell) -> Result<PathBuf> {
        let Some(zigbuild) = CARGO_ZIGBUILD.find() else {
            bail!(
                "packages for all systems are linked by zig, which is missing: {}\n(`cargo xtask build` builds for this \
                 system alone, and needs no zig)",
                CARGO_ZIGBUILD.install
            );
        };
        let triple = self.names().triple;
        ensure!(self.has_standard_library(sh)?, "Rust can't build for {triple}: rustup target add {triple}");
        let _zig = push_zig(sh, &zigbuild);
        // The packages have no debugging information anyway; that of other architectures is beyond
        // this machine's strip(1).
        let _strip = sh.push_env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
        let target = format!("{triple}.{OLDEST_GLIBC}");
        cmd!(
            sh,
            "{zigbuild} zigbuild --release --locked --target {target} --package imageio-nbd --package exec-redirect"
        )
        .run()?;
        // `build::programs` makes the plugin in the same way.
        cmd!(sh, "{zigbuild} rustc --release --locked --target {target} --package nbdkit-imageio-plugin --lib --crate-type cdylib")
            .run()?;
        Ok(crate::target_dir(sh)?.join(triple).join("release"))
    }

    fn has_standard_library(self, sh: &Shell) -> Result<bool> {
        let triple = self.names().triple;
        let libraries = cmd!(sh, "rustc --print target-libdir --target {triple}").quiet().read()?;
        Ok(Path::new(&libraries).exists())
    }
}

/// Lets cargo-zigbuild use the zig of its own virtual environment, if it is in one.
fn push_zig<'sh>(sh: &'sh Shell, zigbuild: &Path) -> Option<xshell::PushEnv<'sh>> {
    let zig = zigbuild.with_file_name("python-zig");
    zig.exists().then(|| sh.push_env("CARGO_ZIGBUILD_ZIG_PATH", zig))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_install_the_same_zig() {
        let (_, versions) = CARGO_ZIGBUILD.install.split_once("pip install ").unwrap();
        for file in [".ci/run", ".github/workflows/packages.yml", "docs/install.md"] {
            let text = std::fs::read_to_string(crate::project_root().join(file)).unwrap();
            assert!(text.contains(versions), "{file} doesn't install {versions}");
        }
    }

    #[test]
    fn each_target_is_what_rust_calls_it() {
        for target in Target::value_variants() {
            let value = target.to_possible_value().unwrap();
            assert_eq!(value.get_name(), target.names().triple);
        }
    }
}
