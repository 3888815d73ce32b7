// SPDX-License-Identifier: MIT OR Apache-2.0
//! The packages that `cargo xtask dist` makes: installed or unpacked, used, and removed again.
//!
//! `cargo xtask test` tells where they are, and lets the `.deb` be installed in CI only.

#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use fake_imageio::FakeServer;
use libtest_mimic::{Arguments, Trial};
use support::image::{SIZE, guest_disk};
use support::process::PATIENCE;
use support::run::Ended;
use support::tools::{NBDCOPY, NBDKIT, trial};
use tempfile::TempDir;

fn main() -> ExitCode {
    let trials = vec![
        test("the_archive_works_where_it_is_unpacked", "IMAGEIO_NBD_ARCHIVE", archive),
        test("the_deb_is_installed_works_and_leaves_nothing", "IMAGEIO_NBD_DEB", deb),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A test of the package that a variable names; ignored without it.
fn test(name: &str, variable: &str, run: fn(&Path)) -> Trial {
    let Some(package) = std::env::var_os(variable) else {
        return Trial::test(format!("{name} ({variable} is not set)"), || Ok(())).with_ignored_flag(true);
    };
    trial(name, &[NBDKIT, NBDCOPY], move || {
        run(Path::new(&package));
        Ok(())
    })
}

fn archive(archive: &Path) {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new("tar").arg("-xf").arg(archive).current_dir(dir.path()));
    let unpacked: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [root] = &unpacked[..] else { panic!("{unpacked:?}") };
    let plugin = root.join("nbdkit/nbdkit-imageio-plugin.so");
    uploads_in_each_way(&root.join("bin/imageio-nbd"), plugin.to_str().unwrap());
    for file in [
        "doc/LICENSE-MIT",
        "doc/LICENSE-APACHE",
        "doc/THIRD-PARTY-LICENCES",
        "man/man1/imageio-nbd.1",
        "systemd/imageio-nbd@.service",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
}

/// A package that is installed until this is dropped.
struct Installed;

impl Installed {
    fn new(deb: &Path) -> Self {
        // Somebody's own is left alone.
        assert!(!Path::new("/usr/bin/imageio-nbd").exists(), "imageio-nbd is installed already");
        let installed = Self;
        run(Command::new("dpkg").arg("--install").arg(deb));
        installed
    }

    fn files() -> Vec<PathBuf> {
        let listed = run(Command::new("dpkg").args(["--listfiles", "imageio-nbd"]));
        listed.lines().map(PathBuf::from).filter(|path| !path.is_dir()).collect()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // Whatever has failed before is what matters.
        let _ = Command::new("dpkg").args(["--purge", "imageio-nbd"]).output();
    }
}

fn deb(deb: &Path) {
    let contents = run(Command::new("dpkg-deb").arg("--contents").arg(deb));
    for file in [
        "/usr/bin/imageio-nbd",
        "/nbdkit/plugins/nbdkit-imageio-plugin.so",
        "/usr/libexec/imageio-nbd/nbdkit -> ../../bin/imageio-nbd",
        "/usr/lib/systemd/system/imageio-nbd@.socket",
        "/usr/lib/systemd/system/imageio-nbd@.service",
        "/usr/share/man/man1/imageio-nbd.1.gz",
        "/usr/share/man/man1/nbdkit-imageio-plugin.1.gz",
        "/usr/share/doc/imageio-nbd/copyright",
        "/usr/share/doc/imageio-nbd/THIRD-PARTY-LICENCES.gz",
    ] {
        assert!(contents.lines().any(|line| line.ends_with(file)), "{file} is not in\n{contents}");
    }
    assert!(!contents.contains("fake-imageio"), "{contents}");
    for line in contents.lines() {
        let mode = if line.starts_with('d') { "drwxr-xr-x" } else { "-rw-r--r--" };
        let mode = if line.contains("/bin/imageio-nbd") { "-rwxr-xr-x" } else { mode };
        let is_right = line.starts_with(&format!("{mode} root/root ")) || line.starts_with('l');
        assert!(is_right, "{line}");
    }
    let field =
        |name: &str| run(Command::new("dpkg-deb").arg("--field").args([deb.as_os_str(), name.as_ref()]));
    assert!(field("Depends").contains("libc6 (>= ") && field("Recommends").contains("nbdkit"));
    let installed = Installed::new(deb);
    assert_eq!(run(Command::new("dpkg").args(["--verify", "imageio-nbd"])), "", "its checksums are right");
    let files = Installed::files();
    assert!(files.contains(&"/usr/bin/imageio-nbd".into()), "{files:?}");
    uploads_in_each_way(Path::new("/usr/bin/imageio-nbd"), "imageio");
    drop(installed);
    for file in files {
        assert!(fs::symlink_metadata(&file).is_err(), "{} is left", file.display());
    }
    assert!(!Path::new("/usr/libexec/imageio-nbd").exists());
}

/// By the program, by nbdkit with the plugin, and by virt-v2v's call of nbdkit.
fn uploads_in_each_way(program: &Path, plugin: &str) {
    let version: Ended = Command::new(program).arg("--version").output().unwrap().into();
    assert_eq!(version.out, concat!("imageio-nbd ", env!("CARGO_PKG_VERSION"), "\n"));
    let upload = Upload::new();
    upload.by(Command::new(program).args(["-U", "-"]).args(upload.arguments()));
    upload.by(Command::new(NBDKIT.path()).args(["-U", "-", plugin]).args(upload.arguments()));
    upload.add_virt_v2v();
    let path = format!("{}:{}", upload.dir.path().display(), std::env::var("PATH").unwrap());
    upload.by(Command::new(program).arg("virt-v2v").args(upload.arguments()).env("PATH", path));
}

/// A disk to upload.
struct Upload {
    dir: TempDir,
    disk: Vec<u8>,
    server: FakeServer,
}

impl Upload {
    fn new() -> Self {
        let (dir, disk) = (tempfile::tempdir().unwrap(), guest_disk(11));
        fs::write(dir.path().join("disk.img"), &disk).unwrap();
        Self { dir, disk, server: FakeServer::builder().size(SIZE).start().unwrap() }
    }

    fn arguments(&self) -> [String; 4] {
        let copy = "nbdcopy --flush disk.img \"$uri\"";
        [format!("url={}", self.server.url()), format!("size={SIZE}"), "--run".into(), copy.into()]
    }

    /// A virt-v2v that does what concerns us.
    fn add_virt_v2v(&self) {
        let file = self.dir.path().join("virt-v2v");
        fs::write(&file, "#!/bin/sh\nexec nbdkit -U - python script=x/rhv-upload-plugin.py \"$@\"\n")
            .unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    }

    fn by(&self, command: &mut Command) {
        // Another disk than before.
        let zeroes = vec![0; self.disk.len()];
        self.server.write(0, &zeroes).unwrap();
        run(command.current_dir(self.dir.path()).env_remove("IMAGEIO_NBD_PLUGIN"));
        assert!(self.server.wait_for(PATIENCE, |log| log.open().count() == 0));
        assert_eq!(self.server.log().lost_unflushed(), 0);
        assert!(self.server.contents().unwrap() == self.disk, "{command:?}");
    }
}

/// Runs it, which must succeed, and returns what it printed.
fn run(command: &mut Command) -> String {
    let ended: Ended = command.output().unwrap().into();
    assert_eq!(ended.code, 0, "{command:?}: {ended:?}");
    ended.out
}
