// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program as it is laid out on a disk, and a stand-in for virt-v2v to run it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use support::door::built;
use support::run::Ended;
use support::tools::NBDKIT;
use tempfile::TempDir;

/// The differences between versions of virt-v2v.
pub(crate) struct Version {
    pub(crate) script: &'static str,
    /// The way in which it runs nbdkit for a disk.
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
pub(crate) const VERSION_2_6: Version =
    Version { options: "--threads 8 -D nbdkit.backend.datapath=0", ..VERSION_2_2 };
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
/// The version where SELinux is enabled. nbdkit takes the label nowhere else.
pub(crate) const VERSION_2_10_WITH_SELINUX: Version = Version {
    options: "--threads 8 --selinux-label system_u:object_r:svirt_socket_t:s0 -D nbdkit.backend.datapath=0",
    ..VERSION_2_10
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
        install(&built("imageio-nbd"), &root.join("bin/imageio-nbd"));
        symlink("../../bin/imageio-nbd", root.join("libexec/imageio-nbd/nbdkit")).unwrap();
        symlink(built("libexec_redirect.so"), root.join("libexec/imageio-nbd/exec-redirect.so")).unwrap();
        symlink(built("libnbdkit_imageio_plugin.so"), root.join("nbdkit/nbdkit-imageio-plugin.so")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Copies the programs, as they may be built where only root gets.
    pub(crate) fn copy_what_is_linked(&self) {
        for link in ["nbdkit/nbdkit-imageio-plugin.so", "libexec/imageio-nbd/exec-redirect.so"] {
            let link = self.path().join(link);
            let built = link.canonicalize().unwrap();
            fs::remove_file(&link).unwrap();
            install(&built, &link);
        }
    }

    /// A program in `PATH`.
    pub(crate) fn add_script(&self, name: &str, text: &str) {
        self.add_program(&format!("path/{name}"), text);
    }

    pub(crate) fn add_program(&self, name: &str, text: &str) {
        let written = self.path().join("script");
        fs::write(&written, format!("#!/bin/sh\n{text}\n")).unwrap();
        install(&written, &self.path().join(name));
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
        command.env("PATH", path).env_remove("IMAGEIO_NBD_PLUGIN").env_remove("IMAGEIO_NBD_DOOR");
        command.env_remove("RUST_LOG");
        command
    }
}

/// Makes an executable copy, by another process: a file that this one has open for writing can't be
/// executed, and a child that another test starts meanwhile has it open, too, for a moment.
pub(crate) fn install(from: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).args([from, to]).status().unwrap();
    assert!(status.success(), "{} is not installed", to.display());
}

/// Returns a script that does with nbdkit what virt-v2v does (`lib/nbdkit.ml`,
/// `output/output_rhv_upload.ml` there).
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
