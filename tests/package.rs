// SPDX-License-Identifier: MIT OR Apache-2.0
//! The packages that `cargo xtask dist` makes: installed or unpacked, used, and removed again.
//!
//! `cargo xtask test` tells in which directory they are.

#![allow(clippy::unwrap_used)]

#[path = "support/package/container.rs"]
mod container;
#[path = "support/package/deb.rs"]
mod deb;
#[path = "support/package/readme.rs"]
mod readme;
#[path = "support/package/rpm.rs"]
mod rpm;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use fake_imageio::FakeServer;
use libtest_mimic::{Arguments, Trial};
use support::image::{SIZE, guest_disk};
use support::process::PATIENCE;
use support::root::can_be_entered;
use support::run::Ended;
use support::tools::{IMAGEIO, MAN, NBDCOPY, NBDKIT, QEMU_IMG, RPM, Tool, UNSHARE, trial};

/// The variable with the directory of the packages.
const DIRECTORY: &str = "IMAGEIO_NBD_PACKAGES";

/// A test of packages: its name, the tools that it needs, and its function.
type Test = (&'static str, &'static [Tool], fn(&Packages));

const ANYWHERE: &[Test] = &[
    ("the_archive_works_where_it_is_unpacked", &[NBDKIT, NBDCOPY], archive),
    ("the_debs_say_what_they_are", &[], deb::contents),
];

/// In root directories of their own.
const IN_ROOTS: &[Test] = &[
    (
        "the_debs_are_installed_work_and_leave_nothing",
        &[NBDKIT, NBDCOPY, MAN, UNSHARE, IMAGEIO, QEMU_IMG],
        deb::installed_and_removed,
    ),
    (
        "the_rpms_are_installed_where_glibc_is_that_of_el_8_and_leave_nothing",
        &[NBDKIT, NBDCOPY, RPM, UNSHARE, IMAGEIO, QEMU_IMG],
        rpm::installed_and_removed,
    ),
    (
        "the_job_uploads_a_disk_by_the_image_as_nobody_on_a_read_only_root",
        &[IMAGEIO, QEMU_IMG, UNSHARE],
        container::the_job_uploads,
    ),
];

fn main() -> ExitCode {
    let roots = can_be_entered();
    let anywhere = ANYWHERE.iter().map(|spec| test(spec, true));
    let trials = anywhere.chain(IN_ROOTS.iter().map(|spec| test(spec, roots)));
    libtest_mimic::run(&Arguments::from_args(), trials.chain(container::lints()).collect()).exit_code()
}

/// A test of the packages; ignored without them, or where it can't have what it needs.
fn test(&(name, tools, run): &Test, can_run: bool) -> Trial {
    let reason = match std::env::var_os(DIRECTORY) {
        Some(_) if !can_run => "this system lets us enter no root directory",
        Some(directory) => {
            return trial(name, tools, move || {
                run(&Packages(directory.into()));
                Ok(())
            });
        }
        None => "IMAGEIO_NBD_PACKAGES is not set",
    };
    Trial::test(format!("{name} ({reason})"), || Ok(())).with_ignored_flag(true)
}

/// The directory with the packages.
struct Packages(PathBuf);

impl Packages {
    /// The only one for this kind of machine whose name begins and ends so.
    fn find(&self, begin: &str, end: &str) -> PathBuf {
        let names = match std::env::consts::ARCH {
            "x86_64" => ["x86_64", "amd64"],
            "aarch64" => ["aarch64", "arm64"],
            other => [other, other],
        };
        let files = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let found: Vec<_> = files
            .filter(|file| {
                let name = file.file_name().unwrap().to_str().unwrap();
                name.starts_with(begin) && name.ends_with(end) && names.iter().any(|arch| name.contains(arch))
            })
            .collect();
        let [file] = &found[..] else { panic!("one {begin}…{end} is expected: {found:?}") };
        file.clone()
    }
}

fn archive(packages: &Packages) {
    let dir = tempfile::tempdir().unwrap();
    let archive = packages.find("imageio-nbd-", ".tar.gz");
    run(Command::new("tar").arg("-xf").arg(archive).current_dir(dir.path()));
    let unpacked: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [root] = &unpacked[..] else { panic!("{unpacked:?}") };
    for file in [
        "doc/LICENSE-MIT",
        "doc/LICENSE-APACHE",
        "doc/THIRD-PARTY-LICENCES",
        "man/man1/imageio-nbd.1",
        "systemd/imageio-nbd@.service",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    assert!(!root.join("bin/fake-imageio").exists(), "the fake server is for tests");
    let (program, plugin) = (root.join("bin/imageio-nbd"), root.join("nbdkit/nbdkit-imageio-plugin.so"));
    let work = dir.path().join("work");
    fs::create_dir(&work).unwrap();
    let upload = Upload::new(work);
    let command = |program: &Path| {
        let mut command = Command::new(program);
        let path = format!("{}:{}", upload.dir.display(), std::env::var("PATH").unwrap());
        command.current_dir(&upload.dir).env_remove("IMAGEIO_NBD_PLUGIN").env("PATH", path);
        command
    };
    upload.by_program(|| command(&program));
    upload.by_nbdkit(command(&NBDKIT.path()), plugin.to_str().unwrap());
}

/// A disk to upload, in a directory.
struct Upload {
    dir: PathBuf,
    disk: Vec<u8>,
    server: FakeServer,
}

impl Upload {
    fn new(dir: PathBuf) -> Self {
        let disk = guest_disk(11);
        fs::write(dir.join("disk.img"), &disk).unwrap();
        // A virt-v2v that does what concerns us.
        let virt_v2v = dir.join("virt-v2v");
        fs::write(&virt_v2v, "#!/bin/sh\nexec nbdkit -U - python script=x/rhv-upload-plugin.py \"$@\"\n")
            .unwrap();
        fs::set_permissions(&virt_v2v, Permissions::from_mode(0o755)).unwrap();
        Self { dir, disk, server: FakeServer::builder().size(SIZE).start().unwrap() }
    }

    /// By the program itself, and by virt-v2v's call of nbdkit. The directory is in `PATH`.
    fn by_program(&self, program: impl Fn() -> Command) {
        let version = run(program().arg("--version"));
        assert_eq!(version, concat!("imageio-nbd ", env!("CARGO_PKG_VERSION"), "\n"));
        self.by(program().args(["-U", "-"]).args(self.arguments()));
        self.by(program().arg("virt-v2v").args(self.arguments()));
    }

    fn by_nbdkit(&self, mut nbdkit: Command, plugin: &str) {
        self.by(nbdkit.args(["-U", "-", plugin]).args(self.arguments()));
    }

    fn arguments(&self) -> [String; 4] {
        let copy = "nbdcopy --flush disk.img \"$uri\"";
        [format!("url={}", self.server.url()), format!("size={SIZE}"), "--run".into(), copy.into()]
    }

    fn by(&self, command: &mut Command) {
        // Another disk than before.
        let zeroes = vec![0; self.disk.len()];
        self.server.write(0, &zeroes).unwrap();
        run(command);
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
