// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads to the real daemon over a network that fails. The image is the same in the end, or somebody is told.
//!
//! `ROUNDS=50 cargo test -p integration-tests --test faults` does each so often, with other data.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use fault_proxy::{Fault, Point, Proxy, Way};
use libtest_mimic::Arguments;
use support::daemon::{RealDaemon, Ticket};
use support::door::{Door, Served};
use support::image::{noise, same};
use support::process::PATIENCE;
use support::qemu::{QemuNbd, create_image};
use support::tools::{IMAGEIO, NBDCOPY, QEMU_IMG, QEMU_NBD, Tool, trial};
use tempfile::TempDir;

type Test = (&'static str, fn(Door, u64));

const TESTS: &[Test] = &[
    ("connections_killed_again_and_again", killed_again_and_again),
    ("a_connection_that_falls_silent", falls_silent),
    ("a_network_that_falters", falters),
    ("a_daemon_that_is_started_again", started_again),
    ("a_ticket_that_comes_back_late", ticket_comes_back_late),
    ("a_killed_connection_of_which_nothing_was_kept", nothing_kept),
    ("a_daemon_that_does_not_come_back", does_not_come_back),
    ("a_transfer_that_is_cancelled", cancelled),
];

const TOOLS: &[Tool] = &[IMAGEIO, QEMU_NBD, QEMU_IMG, NBDCOPY];

fn main() -> ExitCode {
    let rounds = std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let mut trials = Vec::new();
    for door in Door::ALL {
        for &(name, run) in TESTS {
            trials.push(trial(
                format!("{}/{name}", door.name()),
                &[door.tools(), TOOLS].concat(),
                move || {
                    (1..=rounds).for_each(|round| run(door, round));
                    Ok(())
                },
            ));
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
        create_image(&image, "raw", SIZE as u64).unwrap();
        let qemu_nbd = QemuNbd::start(&image, "raw", dir.path().join("qemu.sock")).unwrap();
        let daemon = RealDaemon::start(None).unwrap();
        add_ticket(&daemon, &qemu_nbd);
        let proxy = Proxy::start(daemon.addr()).unwrap();
        let url = format!("url=http://{}/images/{UUID}", proxy.addr());
        // The daemon's unix socket would lead around the proxy.
        let mut all = vec![url, "unix-socket=false".into()];
        all.extend(parameters.iter().map(|parameter| (*parameter).to_owned()));
        let served = door.serve(dir.path(), &all).unwrap();
        Self { proxy, daemon, qemu_nbd, served, nbdcopy: None, disk: noise(SIZE, seed), dir }
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

    fn end(mut self) -> End {
        let mut nbdcopy = self.nbdcopy.take().unwrap();
        drop(nbdcopy.stdin.take());
        let copied = nbdcopy.wait().unwrap().success();
        let (status, said) = self.served.finish().unwrap();
        drop(self.daemon);
        self.qemu_nbd.stop().unwrap();
        let image = fs::read(self.dir.path().join("image")).unwrap();
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
        assert!(self.faults >= faults, "{} faults", self.faults);
        self.assert_well();
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
    // As much as fits into the pipe.
    let then = HALF + (64 << 10);
    upload.give(HALF..then);
    // Somebody has asked the new one, and was refused.
    assert!(upload.proxy.has_carried(before + 1, PATIENCE));
    add_ticket(&upload.daemon, &upload.qemu_nbd);
    upload.give(then..SIZE);
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
