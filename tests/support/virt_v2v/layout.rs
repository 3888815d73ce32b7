// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program as it is laid out on a disk, and a stand-in for virt-v2v to run it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use support::door::built;
use support::run::Ended;
use support::tools::NBDKIT;
use tempfile::TempDir;

/// What differs between versions of virt-v2v.
pub(crate) struct Version {
    pub(crate) script: &'static str,
    /// How it runs nbdkit for a disk.
    pub(crate) nbdkit: Nbdkit,
    pub(crate) options: &'static str,
}

pub(crate) enum Nbdkit {
    ByName,
    /// By the full path that was found when it was built.
    ByPath,
}

pub(crate) const VERSION_2_2: Version =
    Version { script: "rhv-upload-plugin.py", nbdkit: Nbdkit::ByName, options: "--threads 8" };
pub(crate) const VERSION_2_8: Version = Version {
    script: "ovirt-upload-plugin.py",
    nbdkit: Nbdkit::ByName,
    options: "--threads 8 -D nbdkit.backend.datapath=0 --verbose",
};
pub(crate) const VERSION_2_10: Version = Version {
    script: "ovirt-upload-plugin.py",
    nbdkit: Nbdkit::ByPath,
    options: "--threads 8 -D nbdkit.backend.datapath=0",
};

/// Of which `path:` is the layout's own.
pub(crate) const PATH: &str = "path:/usr/bin:/bin:/usr/sbin";

/// The program as it is laid out where it isn't installed, and a directory for `PATH`.
pub(crate) struct Layout {
    pub(crate) dir: TempDir,
}

impl Layout {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["bin", "libexec/imageio-nbd", "nbdkit", "nbdkit.d", "path", "v2v.x"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy(built("imageio-nbd"), root.join("bin/imageio-nbd")).unwrap();
        symlink("../../bin/imageio-nbd", root.join("libexec/imageio-nbd/nbdkit")).unwrap();
        symlink(built("libnbdkit_imageio_plugin.so"), root.join("nbdkit/nbdkit-imageio-plugin.so")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A program in `PATH`.
    pub(crate) fn add_script(&self, name: &str, text: &str) {
        self.add_program(&format!("path/{name}"), text);
    }

    pub(crate) fn add_program(&self, name: &str, text: &str) {
        let file = self.path().join(name);
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.command("bin/imageio-nbd", PATH).args(arguments).output().unwrap().into()
    }

    pub(crate) fn command(&self, program: &str, path: &str) -> Command {
        self.command_of(&self.path().join(program), path)
    }

    pub(crate) fn command_of(&self, program: &Path, path: &str) -> Command {
        let mut command = Command::new("/usr/bin/timeout");
        command.args(["--foreground", "60"]).arg(program).current_dir(self.path());
        // Absolute, as a relative directory in PATH changes its meaning with the working directory.
        let path = path.replace("path:", &format!("{}/path:", self.path().display()));
        command.env("PATH", path).env_remove("IMAGEIO_NBD_PLUGIN").env_remove("RUST_LOG");
        command
    }
}

/// What virt-v2v does with nbdkit (`lib/nbdkit.ml`, `output/output_rhv_upload.ml` there).
pub(crate) fn stand_in(layout: &Layout, version: &Version, disks: &[String; 2]) -> String {
    let script = layout.path().join("v2v.x").join(version.script);
    let nbdkit = match version.nbdkit {
        Nbdkit::ByName => "nbdkit".into(),
        Nbdkit::ByPath => NBDKIT.path(),
    };
    let [first, second] = disks;
    format!(
        "nbdkit={}\nscript={}\noptions='{}'\ndisk1='{first}'\ndisk2='{second}'\n{}",
        nbdkit.display(),
        script.display(),
        version.options,
        include_str!("../virt-v2v.sh"),
    )
}
