// SPDX-License-Identifier: MIT OR Apache-2.0
//! The packages for Enterprise Linux, on a root directory that has Debian's files, and rpm's
//! database.

use std::fs;
use std::path::Path;
use std::process::Command;

use rpm::{Dependency, PackageBuilder};
use support::root::Root;
use support::run::Ended;
use support::tools::{RPM, UNSHARE};

use crate::deb::uploads;
use crate::{Packages, readme, run};

const NAMES: [&str; 2] = ["imageio-nbd", "nbdkit-imageio-plugin"];

pub(crate) fn installed_and_removed(packages: &Packages) {
    let root = Root::with(&["nbdkit", "libnbd-bin", "qemu-utils"]).unwrap();
    fs::create_dir(root.path("work")).unwrap();
    let [program, plugin] = NAMES.map(|name| packages.find(&format!("{name}-"), ".rpm"));
    glibc_of_el8(&root.path("work/glibc.rpm"));
    nbdkit(&root.path("work/nbdkit.rpm"));
    run(rpm(&root).arg("--install").arg(root.path("work/glibc.rpm")).arg(program));
    let refused: Ended = rpm(&root).arg("--install").arg(&plugin).output().unwrap().into();
    assert!(refused.code != 0 && refused.err.contains("nbdkit-server >= 1.24 is needed"), "{refused:?}");
    run(rpm(&root).arg("--install").arg(root.path("work/nbdkit.rpm")).arg(plugin));
    assert_eq!(run(rpm(&root).arg("--verify").args(NAMES)), "", "all is as it was packed");
    let recommended = run(rpm(&root).args(["--query", "--recommends", "imageio-nbd"]));
    assert_eq!(recommended.lines().collect::<Vec<_>>(), ["libnbd", "qemu-img"], "the commands run them");
    let listed = run(rpm(&root).args(["--query", "--list"]).args(NAMES));
    for file in [
        "/usr/bin/imageio-nbd",
        "/usr/lib64/nbdkit/plugins/nbdkit-imageio-plugin.so",
        "/usr/lib/systemd/system/imageio-nbd@.service",
        "/usr/share/man/man1/imageio-nbd.1.gz",
        "/usr/share/licenses/imageio-nbd/LICENSE-MIT",
        "/usr/share/licenses/nbdkit-imageio-plugin/THIRD-PARTY-LICENCES",
    ] {
        assert!(listed.lines().any(|line| line == file), "{file} is not in\n{listed}");
    }
    // nbdkit is Debian's, which looks elsewhere.
    uploads(&root, "/usr/lib64/nbdkit/plugins/nbdkit-imageio-plugin.so");
    readme::commands_work(&root);
    run(rpm(&root).arg("--erase").args(NAMES));
    for path in listed.lines() {
        assert!(fs::symlink_metadata(root.path(path)).is_err(), "{path} is left");
    }
}

/// This system's rpm, for that root directory.
fn rpm(root: &Root) -> Command {
    let mut command = Command::new(UNSHARE.path());
    command.args(["--map-root-user", "--mount"]).arg(RPM.path()).arg("--root").arg(root.path("/"));
    command
}

/// Stands in for Enterprise Linux 8's glibc: it offers the versions of symbols that one has, so
/// that rpm itself says whether more is asked for.
fn glibc_of_el8(file: &Path) {
    let mut glibc =
        PackageBuilder::new("glibc", "2.28", "LGPL-2.1-or-later", "noarch", "Stands in for glibc");
    for library in [
        "libc.so.6",
        "libm.so.6",
        "libdl.so.2",
        "libpthread.so.0",
        "librt.so.1",
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    ] {
        glibc.provides(Dependency::any(format!("{library}()(64bit)")));
        let versions = (2..=28).map(|minor| format!("2.{minor}"));
        let old = ["2.2.5", "2.2.6", "2.3.2", "2.3.3", "2.3.4"].map(String::from);
        for version in versions.chain(old) {
            glibc.provides(Dependency::any(format!("{library}(GLIBC_{version})(64bit)")));
        }
    }
    glibc.build().unwrap().write_file(file).unwrap();
}

/// Stands in for its nbdkit.
fn nbdkit(file: &Path) {
    let (name, licence) = ("nbdkit-server", "BSD-3-Clause");
    let mut nbdkit = PackageBuilder::new(name, "1.24.0", licence, "noarch", "Stands in for nbdkit");
    nbdkit.build().unwrap().write_file(file).unwrap();
}
