// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network or a file system that only one test sees: its thread, and the processes and threads
//! that it starts.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::tools::{IP, TC};

/// Returns true if this system lets us have networks of our own: for root.
#[must_use]
pub fn has_networks() -> bool {
    IP.find().is_some() && TC.find().is_some() && within(Network::enter).is_ok()
}

/// Returns true if this system lets us have file systems of our own: for root.
#[must_use]
pub fn has_disks() -> bool {
    within(|| enter(CloneFlags::CLONE_NEWNS)).is_ok()
}

/// A loopback interface for one test, on which packets are as small as on Ethernet.
#[derive(Debug)]
pub struct Network(());

/// Runs a test on a network of its own.
///
/// # Panics
/// If there is none; and as `test` does.
pub fn on_network<T: Send>(test: impl FnOnce(Network) -> T + Send) -> T {
    within(|| test(Network::enter().expect("has_networks was asked before")))
}

impl Network {
    fn enter() -> io::Result<Self> {
        enter(CloneFlags::CLONE_NEWNET)?;
        run(Command::new(IP.path()).args(["link", "set", "lo", "up", "mtu", "1500"]))?;
        Ok(Self(()))
    }

    /// From now on, nothing arrives, and nobody is told. (An interface that was down keeps some
    /// ways blocked when it is up again.)
    ///
    /// # Errors
    /// If `tc` fails.
    pub fn fail(&self) -> io::Result<()> {
        self.queue("replace", &["blackhole"])
    }

    /// It is well again.
    ///
    /// # Errors
    /// If `tc` fails.
    pub fn recover(&self) -> io::Result<()> {
        self.queue("delete", &[])
    }

    /// From now on, it takes a gigabit a second, and loses packets of whoever sends more.
    ///
    /// # Errors
    /// If `tc` fails.
    pub fn congest(&self) -> io::Result<()> {
        self.queue("replace", &["tbf", "rate", "1gbit", "burst", "16kb", "limit", "40kb"])
    }

    fn queue(&self, change: &str, kind: &[&str]) -> io::Result<()> {
        let mut tc = Command::new(TC.path());
        run(tc.args(["qdisc", change, "dev", "lo", "root"]).args(kind)).map(drop)
    }

    /// Returns the number of packets that it has lost since then.
    ///
    /// # Errors
    /// If `tc` fails.
    pub fn lost(&self) -> io::Result<u64> {
        let shown = run(Command::new(TC.path()).args(["-s", "-j", "qdisc", "show", "dev", "lo"]))?;
        let shown: serde_json::Value = serde_json::from_slice(&shown)?;
        shown[0]["drops"].as_u64().ok_or_else(|| io::Error::other(format!("no drops in {shown}")))
    }
}

/// Runs a test in whose eyes `place` is an empty file system of so many bytes.
///
/// # Panics
/// If there is no such file system; and as `test` does.
pub fn with_disk<T: Send>(place: &Path, size: u64, test: impl FnOnce() -> T + Send) -> T {
    within(|| {
        enter(CloneFlags::CLONE_NEWNS).expect("has_disks was asked before");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("it is the root");
        let size = format!("size={size}");
        mount(Some("disk"), place, Some("tmpfs"), MsFlags::empty(), Some(&*size)).expect("it is a directory");
        test()
    })
}

/// Returns true if this system lets us have files of our own in `/etc`: for root.
#[must_use]
pub fn has_etc() -> bool {
    within(|| tempfile::tempdir().and_then(|dir| add_to_etc(dir.path()))).is_ok()
}

/// Runs a test in whose eyes `/etc` has this file, too.
///
/// # Panics
/// If there is no such file system; and as `test` does.
pub fn with_file_in_etc<T: Send>(name: &str, content: &str, test: impl FnOnce() -> T + Send) -> T {
    let place = tempfile::tempdir().expect("a directory can be made");
    within(|| {
        add_to_etc(place.path()).expect("has_etc was asked before");
        let file = Path::new("/etc").join(name);
        file.parent().map_or(Ok(()), fs::create_dir_all).expect("it can be written");
        fs::write(&file, content).expect("it can be written");
        test()
    })
}

/// Puts what is written to `/etc` from now on into a file system at `place`, where nobody else sees
/// it.
fn add_to_etc(place: &Path) -> io::Result<()> {
    enter(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    // A directory of a file system that is layered itself, as that of a container, can't be a
    // layer.
    mount(Some("etc"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let (upper, work) = (place.join("upper"), place.join("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let layers = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("etc"), "/etc", Some("overlay"), MsFlags::empty(), Some(&*layers))?;
    Ok(())
}

/// In a thread that ends afterwards, and whatever it has entered with it.
fn within<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("namespace".into()).spawn_scoped(scope, work);
        thread.expect("a thread can be had").join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn enter(what: CloneFlags) -> io::Result<()> {
    Ok(unshare(what)?)
}

fn run(command: &mut Command) -> io::Result<Vec<u8>> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}
