// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real programs that tests of the whole use: where they are, and how to get them.

use std::path::{Path, PathBuf};

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// The name of its file.
    pub name: &'static str,
    /// How to get it, in one line.
    pub install: &'static str,
}

/// The real imageio daemon. `IMAGEIO_DAEMON` names it; else it is looked for in the virtual environment in the target
/// directory, then in `PATH`.
pub const IMAGEIO: Tool = Tool {
    name: "ovirt-imageio",
    install: "python3 -m venv target/ovirt-imageio && target/ovirt-imageio/bin/pip install ovirt-imageio==2.5.1",
};
/// Serves images over NBD.
pub const QEMU_NBD: Tool = Tool { name: "qemu-nbd", install: "apt-get install qemu-utils" };
/// Makes, converts and compares images.
pub const QEMU_IMG: Tool = Tool { name: "qemu-img", install: "apt-get install qemu-utils" };
/// Reads and writes patterns.
pub const QEMU_IO: Tool = Tool { name: "qemu-io", install: "apt-get install qemu-utils" };
/// Copies disks.
pub const NBDCOPY: Tool = Tool { name: "nbdcopy", install: "apt-get install libnbd-bin" };
/// Tells what a server offers.
pub const NBDINFO: Tool = Tool { name: "nbdinfo", install: "apt-get install libnbd-bin" };
/// Python with libnbd.
pub const NBDSH: Tool = Tool { name: "nbdsh", install: "apt-get install python3-libnbd" };
/// Makes load, and verifies it.
pub const FIO: Tool = Tool { name: "fio", install: "apt-get install fio" };
/// The NBD server whose place we take.
pub const NBDKIT: Tool = Tool { name: "nbdkit", install: "apt-get install nbdkit" };
/// All of them.
pub const TOOLS: &[Tool] = &[IMAGEIO, QEMU_NBD, QEMU_IMG, QEMU_IO, NBDCOPY, NBDINFO, NBDSH, FIO, NBDKIT];

impl Tool {
    /// Where it is, if it is installed.
    #[must_use]
    pub fn find(&self) -> Option<PathBuf> {
        if *self == IMAGEIO
            && let Some(daemon) = installed_imageio()
        {
            return Some(daemon);
        }
        which::which(self.name).ok()
    }
}

fn installed_imageio() -> Option<PathBuf> {
    if let Some(daemon) = std::env::var_os("IMAGEIO_DAEMON") {
        return Some(daemon.into());
    }
    // Whoever compiles this file is a folder of the workspace.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let daemon = workspace.join("target/ovirt-imageio/bin/ovirt-imageio");
    daemon.exists().then_some(daemon)
}
