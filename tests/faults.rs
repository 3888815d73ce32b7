// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads to the real daemon over a network that fails. The image is the same in the end, or
//! somebody is told.
//!
//! `ROUNDS=50 cargo test -p integration-tests --test faults` does each so often, with other data.

#![allow(clippy::unwrap_used)]

#[path = "support/faults/upload.rs"]
mod upload;

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, ExitCode};
use std::time::Duration;

use fault_proxy::{Fault, Point, Way};
use libtest_mimic::Arguments;
use support::door::Door;
use support::namespace::{has_disks, has_networks, on_network, with_disk};
use support::process::PATIENCE;
use support::tools::{FAKETIME, IMAGEIO, IP, NBDCOPY, QEMU_IMG, QEMU_NBD, TC, Tool, trial};
use upload::{HALF, SIZE, UUID, Upload, add_ticket};

/// The place of a write in its block, in bytes.
const SHIFT: usize = 512;

type Run = fn(Door, u64);

const TESTS: &[(&str, Run)] = &[
    ("connections_killed_again_and_again", killed_again_and_again),
    ("connections_reset_again_and_again", reset_again_and_again),
    ("writes_in_the_middle_of_blocks", middle_of_blocks),
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
    let mut arguments = Arguments::from_args();
    // They mostly wait.
    arguments.test_threads.get_or_insert(6);
    libtest_mimic::run(&arguments, trials).exit_code()
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

/// Each write begins in the middle of a block, as all of `qemu-img convert` do behind the first
/// 2 GiB of data. If a part of a block is cut off on its way, it may come later and undo the rest
/// of that block, so that the transfer has to fail. This is rare, as most parts have met before:
/// one of three copies gets through.
fn middle_of_blocks(door: Door, seed: u64) {
    let gets_through = |attempt| {
        let mut upload = Upload::start(door, 3 * seed + attempt, &[]);
        upload.proxy.fault_again(Point::Byte(Way::ToServer, (5 << 20) + 70_007), Fault::Reset);
        upload.disk[..SHIFT].fill(0);
        upload.disk[SIZE - SHIFT..].fill(0);
        let end = upload.convert(SHIFT..SIZE - SHIFT);
        let copied = end.copied;
        match copied {
            true => end.assert_well_after(8),
            false => end.assert_refused("part of the same block"),
        }
        copied
    };
    assert!((0..3).any(gets_through), "no copy gets through");
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
    let mut nbdcopy = upload.client.take().unwrap();
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
            upload.served.wait_for("a connection is opened again").unwrap();
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
