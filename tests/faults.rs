// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads to the real daemon over a network that fails. The image is the same in the end, or somebody is told.
//!
//! `ROUNDS=50 cargo test -p integration-tests --test faults` does each so often, with other data.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use fault_proxy::{Fault, Point, Proxy, Way};
use libtest_mimic::Arguments;
use support::daemon::{RealDaemon, Ticket};
use support::door::{Door, Served};
use support::image::{noise, same};
use support::namespace::{has_disks, has_networks, on_network, with_disk};
use support::process::PATIENCE;
use support::qemu::{QemuNbd, create_image};
use support::tools::{FAKETIME, IMAGEIO, IP, NBDCOPY, QEMU_IMG, QEMU_NBD, TC, Tool, trial};
use tempfile::TempDir;

type Run = fn(Door, u64);

const TESTS: &[(&str, Run)] = &[
    ("connections_killed_again_and_again", killed_again_and_again),
    ("connections_reset_again_and_again", reset_again_and_again),
    ("a_connection_that_falls_silent", falls_silent),
    ("a_connection_that_is_half_closed", half_closed),
    ("a_network_that_falters", falters),
    ("a_proxy_that_loses_the_server", proxy_loses_server),
    ("a_server_that_fails_once", server_fails_once),
    ("a_server_that_fails", server_fails),
    ("a_daemon_that_is_started_again", started_again),
    ("a_ticket_that_comes_back_late", ticket_comes_back_late),
    ("a_killed_connection_of_which_nothing_was_kept", nothing_kept),
    ("a_daemon_that_does_not_come_back", does_not_come_back),
    ("a_transfer_that_is_cancelled", cancelled),
    ("killed_in_the_middle_of_a_copy", killed_itself),
    ("a_clock_that_jumps", clock_jumps),
];

/// In namespaces, where the system lets us have them.
const ON_NETWORKS: &[(&str, Run)] = &[
    ("a_network_that_loses_packets", packets_are_lost),
    ("a_network_that_is_away_for_a_while", network_is_away),
];
const ON_DISKS: &[(&str, Run)] = &[("a_server_whose_disk_is_full", disk_is_full)];

const TOOLS: &[Tool] = &[IMAGEIO, QEMU_NBD, QEMU_IMG, NBDCOPY, FAKETIME, IP, TC];

fn main() -> ExitCode {
    let rounds = std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let sets = [(TESTS, true), (ON_NETWORKS, has_networks()), (ON_DISKS, has_disks())];
    let mut trials = Vec::new();
    for (door, (tests, possible)) in Door::ALL.into_iter().flat_map(|door| sets.map(|set| (door, set))) {
        for &(name, run) in tests {
            let name = format!("{}/{name}", door.name());
            let test = move || {
                (1..=rounds).for_each(|round| run(door, round));
                Ok(())
            };
            let trial = trial(name, &[door.tools(), TOOLS].concat(), test);
            trials.push(if possible { trial } else { trial.with_ignored_flag(true) });
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

const SIZE: usize = 48 << 20;
const HALF: usize = SIZE / 2;
const UUID: &str = "00000000-1111-4222-8333-444444444444";

/// An upload through the proxy.
struct Upload {
    proxy: Proxy,
    daemon: RealDaemon,
    qemu_nbd: QemuNbd,
    served: Served,
    nbdcopy: Option<Child>,
    disk: Vec<u8>,
    parameters: Vec<String>,
    image: PathBuf,
    dir: TempDir,
}

/// How an upload ended.
struct End {
    copied: bool,
    served: bool,
    said: String,
    faults: u64,
    image: Vec<u8>,
    disk: Vec<u8>,
}

impl Upload {
    fn start(door: Door, seed: u64, parameters: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        Self::start_in(dir, image, door, seed, parameters, &[])
    }

    fn start_in(
        dir: TempDir,
        image: PathBuf,
        door: Door,
        seed: u64,
        parameters: &[&str],
        environment: &[(&str, &OsStr)],
    ) -> Self {
        create_image(&image, "raw", SIZE as u64).unwrap();
        let qemu_nbd = QemuNbd::start(&image, "raw", dir.path().join("qemu.sock")).unwrap();
        let daemon = RealDaemon::start(None).unwrap();
        add_ticket(&daemon, &qemu_nbd);
        let proxy = Proxy::start(daemon.addr()).unwrap();
        let url = format!("url=http://{}/images/{UUID}", proxy.addr());
        // The daemon's unix socket would lead around the proxy.
        let mut all = vec![url, "unix-socket=false".into()];
        all.extend(parameters.iter().map(|parameter| (*parameter).to_owned()));
        let served = door.serve_with(dir.path(), &all, environment).unwrap();
        let disk = noise(SIZE, seed);
        Self { proxy, daemon, qemu_nbd, served, nbdcopy: None, disk, parameters: all, image, dir }
    }

    fn nbdcopy(&mut self, source: &OsStr) -> &mut Child {
        let nbdcopy = Command::new(NBDCOPY.path())
            .args(["--request-size=262144", "--flush"])
            .arg(source)
            .arg(self.served.uri())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        self.nbdcopy.insert(nbdcopy.unwrap())
    }

    /// Copies all of it, with as much at a time as nbdcopy likes.
    fn copy(mut self) -> End {
        let source = self.dir.path().join("source");
        fs::write(&source, &self.disk).unwrap();
        self.nbdcopy(source.as_os_str());
        self.end()
    }

    /// Gives a part of the source, of which nbdcopy writes 64 KiB at a time. nbdcopy may have given up: its exit status tells.
    fn give(&mut self, part: std::ops::Range<usize>) {
        let mut nbdcopy = self.nbdcopy.take().unwrap();
        let _ = nbdcopy.stdin.as_mut().unwrap().write_all(&self.disk[part]);
        self.nbdcopy = Some(nbdcopy);
    }

    /// Gives the first half, and waits until nearly all of it is on its way.
    fn give_half(&mut self) {
        self.nbdcopy("-".as_ref());
        self.give(0..HALF);
        assert!(self.proxy.has_carried(HALF as u64 - (4 << 20), PATIENCE));
    }

    /// Gives the second half while something is done that has to be done before all of it is taken.
    fn give_rest(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        let mut stdin = self.nbdcopy.as_mut().and_then(|nbdcopy| nbdcopy.stdin.take()).unwrap();
        let rest = self.disk[HALF..].to_vec();
        thread::scope(|scope| {
            let giving = thread::Builder::new().spawn_scoped(scope, move || stdin.write_all(&rest)).unwrap();
            meanwhile(self);
            giving.join().unwrap().unwrap();
        });
    }

    fn end(mut self) -> End {
        let mut nbdcopy = self.nbdcopy.take().unwrap();
        drop(nbdcopy.stdin.take());
        let copied = nbdcopy.wait().unwrap().success();
        let (status, said) = self.served.finish().unwrap();
        drop(self.daemon);
        self.qemu_nbd.stop().unwrap();
        let image = fs::read(&self.image).unwrap();
        let faults = self.proxy.faults();
        End { copied, served: status.success(), said, faults, image, disk: self.disk }
    }

    /// The daemon ends, as when it is killed, and another one takes its place; without the ticket.
    fn start_daemon_again(&mut self) {
        let daemon = RealDaemon::start(None).unwrap();
        drop(std::mem::replace(&mut self.daemon, daemon));
        self.proxy.lead_to(self.daemon.addr());
    }
}

fn add_ticket(daemon: &RealDaemon, qemu_nbd: &QemuNbd) {
    let ticket = Ticket {
        uuid: UUID.to_owned(),
        size: SIZE as u64,
        url: qemu_nbd.ticket_url(),
        writable: true,
        inactivity_timeout: None,
    };
    daemon.add_ticket(&ticket).unwrap();
}

impl End {
    #[track_caller]
    fn assert_well(self) {
        assert!(self.copied && self.served, "{}", self.said);
        same("the image", &self.image, &self.disk).unwrap();
    }

    /// After so many faults at least.
    #[track_caller]
    fn assert_well_after(self, faults: u64) {
        assert!(self.faults >= faults, "{} faults: {}", self.faults, self.said);
        self.assert_well();
    }

    /// The client was told, and nothing that it was told before is lost.
    #[track_caller]
    fn assert_refused(self, what: &str) {
        assert!(!self.copied && self.said.contains(what), "{}", self.said);
    }

    #[track_caller]
    fn assert_told(self, what: &str) {
        assert!(!self.copied && !self.served, "{}", self.said);
        assert!(self.said.contains(what), "{}", self.said);
    }
}

fn killed_again_and_again(door: Door, seed: u64) {
    let upload = Upload::start(door, seed, &[]);
    // Not a multiple of a request, so that it happens at other places each time.
    upload.proxy.fault_again(Point::Byte(Way::ToServer, (3 << 20) + 70_007), Fault::Kill);
    upload.copy().assert_well_after(10);
}

fn reset_again_and_again(door: Door, seed: u64) {
    let upload = Upload::start(door, seed, &[]);
    upload.proxy.fault_again(Point::Byte(Way::ToServer, (3 << 20) + 70_007), Fault::Reset);
    upload.copy().assert_well_after(10);
}

fn half_closed(door: Door, seed: u64) {
    let upload = Upload::start(door, seed, &[]);
    // In an answer: what is sent afterwards never arrives.
    upload.proxy.fault_again(Point::Byte(Way::ToClient, 207), Fault::HalfClose(Way::ToServer));
    upload.copy().assert_well_after(10);
}

fn proxy_loses_server(door: Door, seed: u64) {
    for status in [502, 504] {
        let upload = Upload::start(door, seed, &[]);
        upload.proxy.fault_again(Point::Byte(Way::ToServer, (3 << 20) + 70_007), Fault::Answer(status));
        upload.copy().assert_well_after(10);
    }
}

fn server_fails_once(door: Door, seed: u64) {
    let upload = Upload::start(door, seed, &[]);
    upload.proxy.fault(Point::Byte(Way::ToServer, (5 << 20) + 70_007), Fault::Answer(500));
    upload.copy().assert_well_after(1);
}

fn server_fails(door: Door, seed: u64) {
    let upload = Upload::start(door, seed, &[]);
    upload.proxy.fault_again(Point::Byte(Way::ToServer, 70_007), Fault::Answer(500));
    upload.copy().assert_refused("500");
}

fn falls_silent(door: Door, seed: u64) {
    let upload = Upload::start(door, seed, &["timeout=0.5"]);
    upload.proxy.fault(Point::Byte(Way::ToServer, (5 << 20) + 70_007), Fault::BlackHole);
    upload.copy().assert_well_after(1);
}

fn falters(door: Door, seed: u64) {
    let upload = Upload::start(door, seed, &[]);
    upload
        .proxy
        .fault_again(Point::Byte(Way::ToServer, (1 << 20) + 70_007), Fault::Delay(Duration::from_millis(5)));
    upload.copy().assert_well_after(10);
}

fn started_again(door: Door, seed: u64) {
    let mut upload = Upload::start(door, seed, &[]);
    upload.give_half();
    upload.start_daemon_again();
    add_ticket(&upload.daemon, &upload.qemu_nbd);
    upload.give(HALF..SIZE);
    upload.end().assert_well();
}

fn ticket_comes_back_late(door: Door, seed: u64) {
    let mut upload = Upload::start(door, seed, &[]);
    upload.give_half();
    upload.start_daemon_again();
    let before = upload.proxy.carried();
    upload.give_rest(|upload| {
        // Somebody has asked the new one, and was refused.
        assert!(upload.proxy.has_carried(before + 1, PATIENCE));
        add_ticket(&upload.daemon, &upload.qemu_nbd);
    });
    upload.end().assert_well();
}

fn nothing_kept(door: Door, seed: u64) {
    let upload = Upload::start(door, seed, &["replay-buffer=0"]);
    upload.proxy.fault(Point::Byte(Way::ToServer, (5 << 20) + 70_007), Fault::Kill);
    upload.copy().assert_told("data may be lost");
}

fn does_not_come_back(door: Door, seed: u64) {
    let mut upload = Upload::start(door, seed, &["reconnect-timeout=0.5"]);
    upload.give_half();
    // Nobody listens there.
    upload.proxy.lead_to(([127, 0, 0, 1], 1).into());
    upload.proxy.fault_again(Point::Byte(Way::ToServer, 1), Fault::Kill);
    upload.give(HALF..SIZE);
    upload.end().assert_told("data may be lost");
}

fn cancelled(door: Door, seed: u64) {
    let mut upload = Upload::start(door, seed, &[]);
    upload.give_half();
    upload.daemon.remove_ticket(UUID).unwrap();
    upload.give(HALF..SIZE);
    upload.end().assert_told("403");
}

fn killed_itself(door: Door, seed: u64) {
    let mut upload = Upload::start(door, seed, &[]);
    upload.give_half();
    // The socket of the killed one is where it was.
    let dir = tempfile::tempdir().unwrap();
    let next = door.serve(dir.path(), &upload.parameters).unwrap();
    std::mem::replace(&mut upload.served, next).kill().unwrap();
    let mut nbdcopy = upload.nbdcopy.take().unwrap();
    drop(nbdcopy.stdin.take());
    assert!(!nbdcopy.wait().unwrap().success());
    upload.copy().assert_well();
}

/// The time of day, which only matters to certificates, goes a year ahead and two back.
fn clock_jumps(door: Door, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let (image, clock) = (dir.path().join("image"), dir.path().join("clock"));
    let jump = |to: &str| fs::write(&clock, to).unwrap();
    jump("+0");
    let library =
        Command::new(FAKETIME.path()).args(["-f", "+0", "printenv", "LD_PRELOAD"]).output().unwrap();
    let library = String::from_utf8(library.stdout).unwrap();
    let environment = [
        ("LD_PRELOAD", OsStr::new(library.trim())),
        ("FAKETIME_TIMESTAMP_FILE", clock.as_os_str()),
        ("FAKETIME_NO_CACHE", "1".as_ref()),
        ("DONT_FAKE_MONOTONIC", "1".as_ref()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".as_ref()),
    ];
    let year = || {
        let date = Command::new("date").arg("+%Y").envs(environment).output().unwrap();
        String::from_utf8(date.stdout).unwrap().trim().parse::<i32>().unwrap()
    };
    let mut upload = Upload::start_in(dir, image, door, seed, &[], &environment);
    let now = year();
    upload.give_half();
    jump("+366d");
    assert_eq!(year(), now + 1);
    upload.proxy.fault_again(Point::Byte(Way::ToServer, (3 << 20) + 70_007), Fault::Kill);
    upload.give(HALF..HALF + (8 << 20));
    jump("-366d");
    assert_eq!(year(), now - 1);
    upload.give(HALF + (8 << 20)..SIZE);
    upload.end().assert_well_after(3);
}

fn packets_are_lost(door: Door, seed: u64) {
    on_network(|network| {
        let upload = Upload::start(door, seed, &[]);
        network.congest().unwrap();
        upload.copy().assert_well();
        assert!(network.lost().unwrap() > 0);
    });
}

fn network_is_away(door: Door, seed: u64) {
    on_network(|network| {
        let mut upload = Upload::start(door, seed, &["timeout=0.5"]);
        upload.give_half();
        network.fail().unwrap();
        upload.give_rest(|upload| {
            upload.served.wait_for("opening a connection again").unwrap();
            network.recover().unwrap();
        });
        upload.end().assert_well();
    });
}

fn disk_is_full(door: Door, seed: u64) {
    let disk = tempfile::tempdir().unwrap();
    with_disk(disk.path(), HALF as u64, || {
        let (dir, image) = (tempfile::tempdir().unwrap(), disk.path().join("image"));
        Upload::start_in(dir, image, door, seed, &[], &[]).copy().assert_refused("500");
    });
}
