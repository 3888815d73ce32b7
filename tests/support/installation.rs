// SPDX-License-Identifier: MIT OR Apache-2.0
//! An installation of oVirt: the fake engine, the real imageio daemon, and a place for its clients'
//! files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use fake_engine::{
    Builder, Certificate, ControlSocket, DEFAULT_PASSWORD, DEFAULT_USER, Disk, DiskFormat, FakeEngine, Pki,
};
use fault_proxy::Proxy;
use libtest_mimic::{Arguments, Trial};
use tempfile::TempDir;

use crate::TestResult;
use crate::daemon::RealDaemon;
use crate::door::built;
use crate::image::same;
use crate::run::Ended;
use crate::tools::{OVIRT_IMG, OVIRT_SDK, QEMU_IMG, QEMU_IO, Tool, trial};

/// The name of its storage domain.
pub const STORAGE_DOMAIN: &str = "data";

/// The name of its virtual machine.
pub const VM: &str = "guest";

/// The engine, the daemon, and files.
#[derive(Debug)]
pub struct Installation {
    /// The engine.
    pub engine: FakeEngine,
    /// The host's imageio daemon, which installations share: they know nothing of each other's
    /// tickets.
    // After the engine, which gives its tickets back.
    pub daemon: Arc<RealDaemon>,
    dir: TempDir,
}

impl Installation {
    /// With the engine's defaults.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn new() -> TestResult<Self> {
        Self::with(|builder| builder)
    }

    /// With what else is chosen about the engine.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn with(choose: impl FnOnce(Builder) -> Builder) -> TestResult<Self> {
        Self::by(|daemon| Ok([daemon.base(), daemon.base()]), choose)
    }

    /// Tells clients to reach the daemon elsewhere: `ways` are what transfer URLs and those of the
    /// proxy begin with.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn by(
        ways: impl FnOnce(&RealDaemon) -> TestResult<[String; 2]>,
        choose: impl FnOnce(Builder) -> Builder,
    ) -> TestResult<Self> {
        let daemon = shared_daemon()?;
        // All have the same CA, as in oVirt.
        let pki = daemon.pki().ok_or("the daemon has no certificates")?.clone();
        let ways = ways(&daemon)?;
        Self::start(pki, daemon, ways, choose)
    }

    /// Clients reach a daemon of its own by TCP alone, with TLS or without it. The engine has TLS
    /// in any case.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn with_remote_clients(tls: bool, choose: impl FnOnce(Builder) -> Builder) -> TestResult<Self> {
        let pki = Pki::generate(&Certificate::default())?;
        let daemon = RealDaemon::start_without_local_socket(tls.then(|| pki.clone()))?;
        let base = daemon.base();
        Self::start(pki, Arc::new(daemon), [base.clone(), base], choose)
    }

    /// Clients reach a daemon of its own by way of a proxy alone, with TLS or without it. The
    /// engine has TLS in any case.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn behind_proxy(tls: bool) -> TestResult<(Self, Proxy)> {
        let pki = Pki::generate(&Certificate::default())?;
        let daemon = RealDaemon::start_without_local_socket(tls.then(|| pki.clone()))?;
        let proxy = Proxy::start(daemon.addr())?;
        let base = daemon.base_by(proxy.addr());
        Ok((Self::start(pki, Arc::new(daemon), [base.clone(), base], |builder| builder)?, proxy))
    }

    /// `ways` are what transfer URLs and those of the engine's proxy begin with.
    fn start(
        pki: Pki,
        daemon: Arc<RealDaemon>,
        [transfer_url, proxy_url]: [String; 2],
        choose: impl FnOnce(Builder) -> Builder,
    ) -> TestResult<Self> {
        let dir = tempfile::Builder::new().prefix("engine-contract-").tempdir()?;
        fs::write(dir.path().join("ca.pem"), &pki.ca_pem)?;
        fs::write(dir.path().join("password"), DEFAULT_PASSWORD)?;
        fs::create_dir(dir.path().join("python"))?;
        fs::write(dir.path().join("python/sitecustomize.py"), include_str!("sitecustomize.py"))?;
        let imageio = ControlSocket::new(daemon.control_socket(), transfer_url, proxy_url);
        let builder = FakeEngine::builder(imageio).tls(pki).storage_domain(STORAGE_DOMAIN).vm(VM);
        let engine = choose(builder).start()?;
        fs::write(dir.path().join("ovirt-img.conf"), config(&engine.base(), &dir.path().join("ca.pem")))?;
        Ok(Self { engine, daemon, dir })
    }

    /// Returns the path of a file of this name.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `imageio-nbd` in the directory for files, which finds the engine and its user in the section
    /// `lab` of the configuration file.
    #[must_use]
    pub fn imageio_nbd(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(built("imageio-nbd"));
        command.args(arguments).current_dir(self.path("")).env("XDG_CONFIG_HOME", self.path(""));
        command
    }

    /// Puts a shell script in the place of a program: the value of `PATH` for those that are to
    /// find it.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn stand_in(&self, program: &str, script: &str) -> TestResult<String> {
        let file = self.path("bin").join(program);
        fs::create_dir_all(self.path("bin"))?;
        fs::write(&file, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        let path = std::env::var("PATH").unwrap_or_default();
        Ok(format!("{}:{path}", self.path("bin").display()))
    }

    /// The password, the tickets of the transfers, and the tokens of those who are logged in.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let transfers = self.engine.transfers();
        let tickets = transfers.iter().map(|transfer| transfer.ticket.secret().to_owned());
        tickets.chain(self.engine.tokens()).chain([DEFAULT_PASSWORD.to_owned()]).collect()
    }

    /// None of these secrets is in a text.
    ///
    /// # Errors
    /// If one of them is.
    pub fn assert_no_secret(&self, text: &str) -> TestResult {
        match self.secrets().iter().any(|secret| shows(text, secret)) {
            true => Err("a secret is told".into()),
            false => Ok(()),
        }
    }

    /// Runs a program in the directory for files, for a minute at most.
    ///
    /// # Errors
    /// If it can't be started, or shows the password.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> TestResult<Ended> {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "60"]).arg(program).args(arguments);
        command.current_dir(self.dir.path()).env("PYTHONPATH", self.path("python"));
        let ended: Ended = command.output()?.into();
        let is_secret_kept = !ended.err.contains(DEFAULT_PASSWORD) && !ended.out.contains(DEFAULT_PASSWORD);
        if is_secret_kept { Ok(ended) } else { Err("the password is shown".into()) }
    }

    /// Runs `ovirt-img` as the engine's user.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn ovirt_img(&self, arguments: &[&str]) -> TestResult<Ended> {
        let of_engine = ["--engine-url", &self.engine.base(), "--username", DEFAULT_USER];
        let files = ["--password-file", "password", "--cafile", "ca.pem"];
        self.run(&OVIRT_IMG.path(), [arguments, &of_engine, &files].concat())
    }

    /// Runs a script by the Python that has the engine's client.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn python(&self, script: &Path, arguments: &[&str]) -> TestResult<Ended> {
        let script = script.as_os_str();
        self.run(&OVIRT_SDK.path(), [script].into_iter().chain(arguments.iter().map(OsStr::new)))
    }

    /// Uploads an image, and tells of the disk that it has become.
    ///
    /// # Errors
    /// If `ovirt-img` fails.
    pub fn upload(&self, file: &str, format: &str) -> TestResult<Disk> {
        let before = self.engine.disks();
        let what = ["upload-disk", "--storage-domain", STORAGE_DOMAIN, "--format", format, file];
        succeed(self.ovirt_img(&what)?)?;
        let new = self.engine.disks().into_iter().find(|disk| before.iter().all(|known| known.id != disk.id));
        new.ok_or_else(|| "there is no new disk".into())
    }

    /// The identifier of its virtual machine.
    ///
    /// # Panics
    /// If the engine was told of none.
    #[must_use]
    pub fn vm(&self) -> String {
        self.engine.vms()[0].id.clone()
    }

    /// A virtual machine is at work on a disk, while nobody serves it.
    ///
    /// # Errors
    /// If `qemu-io` fails.
    pub fn guest_does(&self, disk: &Disk, commands: &[&str]) -> TestResult {
        let image = self.engine.image_file(disk).display().to_string();
        let mut arguments = vec!["-f", if disk.format == DiskFormat::Raw { "raw" } else { "qcow2" }];
        arguments.extend(commands.iter().flat_map(|command| ["-c", command]));
        arguments.push(&image);
        succeed(self.run(&QEMU_IO.path(), arguments)?)?;
        Ok(())
    }

    /// Runs `qemu-img`, and returns what it prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn qemu_img(&self, arguments: &[&str]) -> TestResult<String> {
        succeed(self.run(&QEMU_IMG.path(), arguments)?)
    }

    /// The only disk that there is.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn disk(&self) -> TestResult<Disk> {
        let disks = self.engine.disks();
        let [disk] = disks.as_slice() else { return Err(format!("one disk is expected: {disks:?}").into()) };
        Ok(disk.clone())
    }

    /// Compares what a file holds with what a virtual machine would see on a disk.
    ///
    /// # Errors
    /// If they differ, or can't be read.
    pub fn assert_same(&self, file: &str, format: &str, disk: &Disk) -> TestResult {
        let image = self.engine.image_file(disk).display().to_string();
        let stored = if disk.format == DiskFormat::Raw { "raw" } else { "qcow2" };
        self.qemu_img(&["convert", "-f", stored, "-O", "raw", &image, "stored.raw"])?;
        self.qemu_img(&["convert", "-f", format, "-O", "raw", file, "given.raw"])?;
        same(file, &fs::read(self.path("stored.raw"))?, &fs::read(self.path("given.raw"))?)
    }
}

/// The daemon of all installations that there are. The last one to go ends it.
fn shared_daemon() -> TestResult<Arc<RealDaemon>> {
    static DAEMON: Mutex<Weak<RealDaemon>> = Mutex::new(Weak::new());
    let mut daemon = DAEMON.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(daemon) = daemon.upgrade() {
        return Ok(daemon);
    }
    let started = Arc::new(RealDaemon::start(Some(Pki::generate(&Certificate::default())?))?);
    *daemon = Arc::downgrade(&started);
    Ok(started)
}

/// Returns the configuration of the engine that `ovirt-img` reads, as the section `lab`.
fn config(engine: &str, cafile: &Path) -> String {
    format!(
        "[lab]\nengine_url = {engine}\nusername = {DEFAULT_USER}\npassword = {DEFAULT_PASSWORD}\ncafile = {}\n",
        cafile.display()
    )
}

/// Returns true if a text has a secret, or what a line of a dump, which has 16 bytes, would show of
/// a long one.
#[must_use]
pub fn shows(text: &str, secret: &str) -> bool {
    const PART: usize = 10;
    let is_dumped = || {
        let parts = (0..=secret.len().saturating_sub(PART)).filter_map(|at| secret.get(at..at + PART));
        secret.len() > 2 * PART && parts.into_iter().any(|part| text.contains(part))
    };
    text.contains(secret) || is_dumped()
}

/// A test by its name.
pub type Test = (&'static str, fn() -> TestResult);

/// Runs tests that all need these tools, for the `main` of a test's program. Many at a time: they
/// wait for most of it, as the engine is asked once a second.
#[must_use]
pub fn run_tests(tools: &[Tool], tests: &[&[Test]]) -> ExitCode {
    run_trials(trials(tools, tests))
}

/// Tests that all need these tools.
#[must_use]
pub fn trials(tools: &[Tool], tests: &[&[Test]]) -> Vec<Trial> {
    let as_trial =
        |&(name, run): &Test| trial(name, tools, move || run().map_err(|error| error.to_string().into()));
    tests.iter().copied().flatten().map(as_trial).collect()
}

/// Runs them: see [`run_tests`].
#[must_use]
pub fn run_trials(trials: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(8);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Returns what a program has printed, if it succeeded.
///
/// # Errors
/// If the program failed: the error tells how it ended.
pub fn succeed(ended: Ended) -> TestResult<String> {
    if ended.code == 0 { Ok(ended.out) } else { Err(format!("{ended:?}").into()) }
}
