// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian's packages.

use std::fs;
use std::path::Path;
use std::process::Command;

use support::root::{Root, User};

use crate::{Packages, Upload, readme, run};

const FILES: &[&str] = &[
    "/usr/bin/imageio-nbd",
    "/usr/libexec/imageio-nbd/exec-redirect.so",
    "/usr/libexec/imageio-nbd/nbdkit -> ../../bin/imageio-nbd",
    "/usr/lib/systemd/system/imageio-nbd@.socket",
    "/usr/lib/systemd/system/imageio-nbd@.service",
    "/usr/share/bash-completion/completions/imageio-nbd",
    "/usr/share/man/man1/imageio-nbd.1.gz",
    "/usr/share/doc/imageio-nbd/README.md",
    "/usr/share/doc/imageio-nbd/docs/recipes.md",
    "/usr/share/doc/imageio-nbd/docs/decisions/index.md",
    "/usr/share/doc/imageio-nbd/copyright",
    "/usr/share/doc/imageio-nbd/changelog.Debian.gz",
    "/usr/share/doc/imageio-nbd/THIRD-PARTY-LICENCES.gz",
];

const PLUGIN_FILES: &[&str] = &[
    "/nbdkit/plugins/nbdkit-imageio-plugin.so",
    "/usr/share/man/man1/nbdkit-imageio-plugin.1.gz",
    "/usr/share/doc/nbdkit-plugin-imageio/copyright",
    "/usr/share/doc/nbdkit-plugin-imageio/THIRD-PARTY-LICENCES.gz",
];

pub(crate) fn contents(packages: &Packages) {
    for (name, files) in [("imageio-nbd", FILES), ("nbdkit-plugin-imageio", PLUGIN_FILES)] {
        let deb = packages.find(&format!("{name}_"), ".deb");
        let contents = run(Command::new("dpkg-deb").arg("--contents").arg(&deb));
        for file in files {
            assert!(contents.lines().any(|line| line.ends_with(file)), "{file} is not in\n{contents}");
        }
        assert!(!contents.contains("fake-imageio"), "{contents}");
        for line in contents.lines() {
            let mode = if line.starts_with('d') { "drwxr-xr-x" } else { "-rw-r--r--" };
            let mode = if line.ends_with("/bin/imageio-nbd") { "-rwxr-xr-x" } else { mode };
            let is_right = line.starts_with(&format!("{mode} root/root ")) || line.starts_with('l');
            assert!(is_right, "{line}");
        }
        let field = |name: &str| run(Command::new("dpkg-deb").arg("--field").arg(&deb).arg(name));
        if name == "imageio-nbd" {
            // All that the commands of README.md run.
            assert_eq!(field("Recommends").trim(), "libnbd-bin, qemu-utils");
        }
        let depends = field("Depends");
        let glibc = depends.strip_prefix("libc6 (>= 2.").unwrap().split(')').next().unwrap();
        assert!(glibc.parse::<u32>().unwrap() <= 28, "{depends}");
    }
}

pub(crate) fn installed_and_removed(packages: &Packages) {
    let root = Root::with(&["nbdkit", "libnbd-bin", "man-db", "qemu-utils"]).unwrap();
    let debs = ["imageio-nbd_", "nbdkit-plugin-imageio_"].map(|name| packages.find(name, ".deb"));
    fs::create_dir(root.path("work")).unwrap();
    for (deb, name) in debs.iter().zip(["program.deb", "plugin.deb"]) {
        fs::copy(deb, root.path("work").join(name)).unwrap();
    }
    let command = |program: &str| root.command(User::Root, "/work", program);
    run(command("dpkg").args(["--install", "program.deb", "plugin.deb"]));
    let names = ["imageio-nbd", "nbdkit-plugin-imageio"];
    assert_eq!(run(command("dpkg").arg("--verify").args(names)), "", "the checksums are right");
    let listed = run(command("dpkg").arg("--listfiles").args(names));
    let files: Vec<_> = listed.lines().filter(|path| !path.is_empty() && !root.path(path).is_dir()).collect();
    assert!(files.contains(&"/usr/bin/imageio-nbd"), "{listed}");
    for page in ["imageio-nbd", "nbdkit-imageio-plugin"] {
        let shown = run(command("man").args(["--pager=cat", page]));
        assert!(shown.contains("SYNOPSIS") && shown.contains(page), "{shown}");
    }
    uploads(&root, "imageio");
    readme::commands_work(&root);
    run(command("dpkg").arg("--purge").args(names));
    for file in files {
        assert!(fs::symlink_metadata(root.path(file)).is_err(), "{file} is left");
    }
    assert!(!root.path("usr/libexec/imageio-nbd").exists());
}

/// By what is installed there.
pub(crate) fn uploads(root: &Root, plugin: &str) {
    let upload = Upload::new(root.path("work"));
    let command = |program: &str| {
        let mut command = root.command(User::Root, "/work", program);
        command.env("PATH", "/work:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    };
    assert!(root.path(Path::new("/usr/bin/imageio-nbd")).exists());
    upload.by_program(|| command("imageio-nbd"));
    upload.by_nbdkit(command("nbdkit"), plugin);
}
