// SPDX-License-Identifier: MIT OR Apache-2.0
//! The real programs that tests of the whole use: where they are, and how to get them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A program, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// The name of its file.
    pub name: &'static str,
    /// The line that installs it.
    pub install: &'static str,
    place: Place,
}

/// The place in which a tool is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In `PATH`.
    Path,
    /// The place to which the variable points, else the target directory, else `PATH`.
    Target { variable: &'static str, file: &'static str },
    /// Among nbdkit's plugins.
    Plugin,
    /// The modules that the virtual environment's Python can import.
    Module,
}

/// The real imageio daemon, in a virtual environment.
pub const IMAGEIO: Tool = Tool {
    name: "ovirt-imageio",
    install: "python3 -m venv target/ovirt-imageio && target/ovirt-imageio/bin/pip install ovirt-imageio==2.5.1",
    place: Place::Target { variable: "IMAGEIO_DAEMON", file: "ovirt-imageio/bin/ovirt-imageio" },
};
/// Uploads and downloads disks by the engine.
pub const OVIRT_IMG: Tool = Tool {
    name: "ovirt-img",
    install: IMAGEIO.install,
    place: Place::Target { variable: "OVIRT_IMG", file: "ovirt-imageio/bin/ovirt-img" },
};
/// The engine's client for Python, in the same virtual environment: its place is that of the Python
/// that has it.
pub const OVIRT_SDK: Tool = Tool {
    name: "ovirtsdk4",
    install: "apt-get install python3-dev libxml2-dev libcurl4-openssl-dev libssl-dev gcc && target/ovirt-imageio/bin/pip install ovirt-engine-sdk-python==4.6.3",
    place: Place::Module,
};
/// Serves images over NBD.
pub const QEMU_NBD: Tool = in_path("qemu-nbd", "apt-get install qemu-utils");
/// Makes, converts and compares images.
pub const QEMU_IMG: Tool = in_path("qemu-img", "apt-get install qemu-utils");
/// Reads and writes patterns.
pub const QEMU_IO: Tool = in_path("qemu-io", "apt-get install qemu-utils");
/// Serves images, of which it is told while it runs.
pub const QEMU_STORAGE_DAEMON: Tool = in_path("qemu-storage-daemon", "apt-get install qemu-utils");
/// Copies disks.
pub const NBDCOPY: Tool = in_path("nbdcopy", "apt-get install libnbd-bin");
/// Tells what a server offers.
pub const NBDINFO: Tool = in_path("nbdinfo", "apt-get install libnbd-bin");
/// Python with libnbd.
pub const NBDSH: Tool = in_path("nbdsh", "apt-get install python3-libnbd");
/// Makes load, and verifies it.
pub const FIO: Tool = in_path("fio", "apt-get install fio");
/// The NBD server whose place we take.
pub const NBDKIT: Tool = in_path("nbdkit", "apt-get install nbdkit");
/// Lets nbdkit run plugins in Python.
pub const NBDKIT_PYTHON: Tool = Tool {
    name: "nbdkit-python-plugin.so",
    install: "apt-get install nbdkit-plugin-python",
    place: Place::Plugin,
};
/// Not to be run: the plugin whose place we take is text inside of it, as are the scripts for the
/// engine. Unpacked, as installing it brings libguestfs.
pub const VIRT_V2V: Tool = Tool {
    name: "virt-v2v",
    install: "mkdir -p target/virt-v2v && cd target/virt-v2v && apt-get download virt-v2v && dpkg-deb -x virt-v2v_*.deb .",
    place: Place::Target { variable: "VIRT_V2V", file: "virt-v2v/usr/bin/virt-v2v" },
};
/// Changes manifests of backups, as docs/backup-directory.md has it.
pub const JQ: Tool = in_path("jq", "apt-get install jq");
/// Asks an engine, as docs/engine.md has it.
pub const CURL: Tool = in_path("curl", "apt-get install curl");
/// Finds leaks and bad access.
pub const VALGRIND: Tool = in_path("valgrind", "apt-get install valgrind");
/// Checks man pages.
pub const MANDOC: Tool = in_path("mandoc", "apt-get install mandoc");
/// Sets networks up.
pub const IP: Tool = in_path("ip", "apt-get install iproute2");
/// Has the kernel lose and delay packets.
pub const TC: Tool = in_path("tc", "apt-get install iproute2");
/// Makes block devices of files.
pub const LOSETUP: Tool = in_path("losetup", "apt-get install mount");
/// Tells programs another time of day.
pub const FAKETIME: Tool = in_path("faketime", "apt-get install faketime");
/// Starts a program with sockets that listen, as systemd does.
pub const SYSTEMD_SOCKET_ACTIVATE: Tool = in_path("systemd-socket-activate", "apt-get install systemd");
/// Checks units.
pub const SYSTEMD_ANALYZE: Tool = in_path("systemd-analyze", "apt-get install systemd");
/// Runs fuzzers.
pub const CARGO_FUZZ: Tool = in_path("cargo-fuzz", "cargo install --locked cargo-fuzz");
/// Checks what we depend on.
pub const CARGO_DENY: Tool = in_path("cargo-deny", "cargo install --locked cargo-deny");
/// Links programs that run on older systems than this one.
pub const CARGO_ZIGBUILD: Tool = Tool {
    name: "cargo-zigbuild",
    install: "python3 -m venv target/zig && target/zig/bin/pip install cargo-zigbuild==0.24.0 ziglang==0.15.2",
    place: Place::Target { variable: "CARGO_ZIGBUILD", file: "zig/bin/cargo-zigbuild" },
};
/// Installs packages of Enterprise Linux.
pub const RPM: Tool = in_path("rpm", "apt-get install rpm");
/// Shows man pages.
pub const MAN: Tool = in_path("man", "apt-get install man-db");
/// Lets a test have a root directory of its own.
pub const UNSHARE: Tool = in_path("unshare", "apt-get install util-linux");

/// All of them.
pub const TOOLS: &[Tool] = &[
    IMAGEIO,
    OVIRT_IMG,
    OVIRT_SDK,
    QEMU_NBD,
    QEMU_IMG,
    QEMU_IO,
    QEMU_STORAGE_DAEMON,
    NBDCOPY,
    NBDINFO,
    NBDSH,
    FIO,
    NBDKIT,
    NBDKIT_PYTHON,
    VIRT_V2V,
    JQ,
    CURL,
    VALGRIND,
    MANDOC,
    IP,
    TC,
    LOSETUP,
    FAKETIME,
    SYSTEMD_SOCKET_ACTIVATE,
    SYSTEMD_ANALYZE,
    CARGO_FUZZ,
    CARGO_DENY,
    CARGO_ZIGBUILD,
    RPM,
    MAN,
    UNSHARE,
];

const fn in_path(name: &'static str, install: &'static str) -> Tool {
    Tool { name, install, place: Place::Path }
}

impl Tool {
    /// Returns the path of the tool, if it is installed.
    #[must_use]
    pub fn find(&self) -> Option<PathBuf> {
        let in_path = || which::which(self.name).ok();
        match self.place {
            Place::Path => in_path(),
            Place::Target { variable, file } => {
                let named = std::env::var_os(variable).map(PathBuf::from);
                named.or_else(|| in_target(file)).or_else(in_path)
            }
            Place::Module => python_with(self.name),
            Place::Plugin => Some(plugin_dir()?.join(self.name)).filter(|plugin| plugin.exists()),
        }
    }
}

fn in_target(file: &str) -> Option<PathBuf> {
    // Whoever compiles this file is a folder of the workspace.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    Some(workspace.join("target").join(file)).filter(|file| file.exists())
}

/// The Python of the virtual environment that the daemon is in, if it has this module. To import it
/// would take a second.
fn python_with(module: &str) -> Option<PathBuf> {
    let bin = IMAGEIO.find()?.parent()?.to_owned();
    let mut versions = bin.parent()?.join("lib").read_dir().ok()?.filter_map(Result::ok);
    let has_it = versions.any(|version| version.path().join("site-packages").join(module).exists());
    Some(bin.join("python")).filter(|python| has_it && python.exists())
}

fn plugin_dir() -> Option<PathBuf> {
    let config = Command::new(NBDKIT.find()?).arg("--dump-config").output().ok()?.stdout;
    let config = String::from_utf8(config).ok()?;
    config.lines().find_map(|line| line.strip_prefix("plugindir=")).map(PathBuf::from)
}
