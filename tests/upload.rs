// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads of which something is special: a source that stalls, a server that fails meanwhile,
//! little memory.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use fake_imageio::{Backend, Builder, ClosedBy, FakeServer, Fault, Log, Op, What};
use libtest_mimic::Arguments;
use nbd::client::{NbdClient, handshake};
use support::door::{Door, Served};
use support::image::{SIZE, guest_disk, noise};
use support::process::PATIENCE;
use support::run::Ended;
use support::tools::{NBDCOPY, NBDSH, Tool, trial};
use tempfile::TempDir;

type Test = (&'static str, &'static [Tool], fn(Door));

const TESTS: &[Test] = &[
    ("a_source_that_stalls_for_three_timeouts_loses_nothing_and_no_connection", &[NBDCOPY], stalling_source),
    (
        "without_the_keeper_all_that_may_be_lost_is_written_again",
        &[NBDCOPY],
        stalling_source_with_replay_alone,
    ),
    ("without_either_the_same_copy_fails", &[NBDCOPY], stalling_source_with_nothing),
    ("a_failed_keep_alive_makes_the_copy_fail", &[NBDCOPY], failed_keep_alive),
    ("servers_without_flush_stay_usable_after_a_pause", &[], pause_without_flush),
    ("read_only_tickets_stay_usable_after_a_pause", &[], pause_of_a_read_only_ticket),
    ("requests_of_64_mib_the_longest_of_libnbd_are_carried_out", &[NBDSH], longest_requests),
];

fn main() -> ExitCode {
    let test = |door: Door, (name, tools, run): &Test| {
        let run = *run;
        trial(format!("{}/{name}", door.name()), &[door.tools(), *tools].concat(), move || {
            run(door);
            Ok(())
        })
    };
    let mut trials: Vec<_> =
        Door::ALL.into_iter().flat_map(|door| TESTS.iter().map(move |spec| test(door, spec))).collect();
    // nbdkit's own memory isn't ours to bound.
    let memory: Test =
        ("little_memory_at_rest_and_bounded_memory_at_work", &[NBDCOPY], |_| memory_is_bounded());
    trials.push(test(Door::ImageioNbd, &memory));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// After which the server closes an idle connection; the keeper is eight times as fast.
const INACTIVITY: Duration = Duration::from_secs(2);
const KEEP_ALIVE: &str = "keep-alive=0.25";

/// A copy whose source the test has in its hands.
struct StallingCopy {
    server: FakeServer,
    served: Served,
    nbdcopy: Child,
    disk: Vec<u8>,
    _dir: TempDir,
}

impl StallingCopy {
    /// Copies half of the disk, and waits until the server has some of it.
    fn half_way(door: Door, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = FakeServer::builder().size(SIZE).inactivity_timeout(Some(INACTIVITY)).start().unwrap();
        let mut parameters = vec![format!("url={}", server.url())];
        parameters.extend(more.iter().map(|parameter| (*parameter).to_owned()));
        let served = door.serve(dir.path(), &parameters).unwrap();
        let mut nbdcopy = Command::new(NBDCOPY.path())
            .args(["--flush", "-", &served.uri()])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let disk = guest_disk(1);
        nbdcopy.stdin.as_mut().unwrap().write_all(&disk[..disk.len() / 2]).unwrap();
        assert!(server.wait_for(PATIENCE, |log| log.of(Op::Put).any(|put| put.end.is_some())));
        Self { server, served, nbdcopy, disk, _dir: dir }
    }

    /// Gives the rest. Whether nbdcopy and the server then end well.
    fn finish(mut self) -> (bool, bool, FakeServer, Vec<u8>) {
        let mut source = self.nbdcopy.stdin.take().unwrap();
        // It may have given up already: its exit status tells.
        let _ = source.write_all(&self.disk[self.disk.len() / 2..]);
        drop(source);
        let copied = self.nbdcopy.wait().unwrap().success();
        let (status, _) = self.served.finish().unwrap();
        (copied, status.success(), self.server, self.disk)
    }
}

fn stalling_source(door: Door) {
    let copy = StallingCopy::half_way(door, &[KEEP_ALIVE]);
    // The keeper's requests tell the time: 24 of them on one connection take three timeouts.
    let stalled = |log: &Log| {
        log.connections
            .iter()
            .any(|connection| log.on(connection.id).filter(|request| request.op == Op::Flush).count() >= 24)
    };
    assert!(copy.server.wait_for(PATIENCE, stalled));
    let (copied, ended, server, disk) = copy.finish();
    assert!(copied && ended);
    assert!(server.contents().unwrap() == disk);
    let log = server.log();
    assert_eq!(log.lost_unflushed(), 0);
    assert!(log.connections.iter().all(|connection| connection.closed_by != Some(ClosedBy::Inactivity)));
    // One for OPTIONS, four in the pool: not one of them had to be opened again.
    assert!(server.accepted() <= 5, "{:?}", log.connections);
}

fn stalling_source_with_replay_alone(door: Door) {
    let copy = StallingCopy::half_way(door, &["keep-alive=0"]);
    assert!(copy.server.wait_for(PATIENCE, |log| log.open().count() == 0));
    assert!(copy.server.log().lost_unflushed() > 0);
    let (copied, ended, server, disk) = copy.finish();
    assert!(copied && ended);
    assert!(server.contents().unwrap() == disk);
}

fn stalling_source_with_nothing(door: Door) {
    let copy = StallingCopy::half_way(door, &["keep-alive=0", "replay-buffer=0"]);
    assert!(copy.server.wait_for(PATIENCE, |log| log.open().count() == 0));
    let (copied, ended, ..) = copy.finish();
    assert!(!copied && !ended);
}

fn failed_keep_alive(door: Door) {
    let copy = StallingCopy::half_way(door, &[KEEP_ALIVE, "replay-buffer=0"]);
    copy.server.fault(Fault::on(Op::Flush).then(What::Status { status: 500, text: "disk full".into() }));
    let failed = |log: &Log| log.of(Op::Flush).any(|flush| flush.status == Some(500));
    assert!(copy.server.wait_for(PATIENCE, failed));
    let (copied, ended, ..) = copy.finish();
    assert!(!copied && !ended);
}

/// A figure of `/proc/PID/status` in KiB.
fn memory(pid: u32, figure: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn memory_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    // nbdcopy's threads take 128 MiB each: this is work for all four.
    let size = 512 << 20;
    // A server slow enough for the clients to have as much in flight as they are let.
    let slow = Fault::on(Op::Put).every().then(What::Delay(Duration::from_millis(10)));
    let server = FakeServer::builder().size(size).backend(Backend::Null).fault(slow).start().unwrap();
    let served = Door::ImageioNbd.serve(dir.path(), &[format!("url={}", server.url())]).unwrap();
    let at_rest = memory(served.id(), "VmRSS");
    assert!(at_rest < 16 << 10, "{at_rest} KiB at rest");
    // virt-v2v's settings: up to four NBD connections, sixteen requests of 4 MiB on each.
    let image = dir.path().join("image");
    fs::write(&image, noise(size as usize, 1)).unwrap();
    let settings = [
        "--request-size=4194304",
        "--requests=16",
        "--connections=4",
        "--threads=4",
        "--allocated",
        "--flush",
    ];
    let status = Command::new(NBDCOPY.path()).args(settings).arg(&image).arg(served.uri()).status().unwrap();
    assert!(status.success());
    let written: u64 = server.log().of(Op::Put).map(|put| put.size).sum();
    assert_eq!(written, size);
    let at_most = memory(served.id(), "VmHWM");
    assert!(at_most < 96 << 10, "{at_most} KiB at most");
    assert!(served.finish().unwrap().0.success());
}

fn longest_requests(door: Door) {
    // Each 4 KiB differ from their neighbours, so that a piece in the wrong place shows.
    let script = "
import struct
def content(first):
    return b''.join(struct.pack('>Q', first + n) * 512 for n in range(16384))
size = 64 << 20
assert h.get_block_size(nbd.SIZE_MAXIMUM) == size
h.pwrite(content(1), 0)
h.pwrite(content(1 << 40), size + 512, nbd.CMD_FLAG_FUA)
assert h.pread(size, 0) == content(1)
h.flush()
h.shutdown()
";
    for max_request in ["max-request=2M", "max-request=0"] {
        let dir = tempfile::tempdir().unwrap();
        let server = FakeServer::builder().size(130 << 20).start().unwrap();
        let served = door.serve(dir.path(), &[format!("url={}", server.url()), max_request.into()]).unwrap();
        let mut nbdsh = Command::new(NBDSH.path());
        // Debian's nbdsh needs Debian's Python.
        nbdsh.env("PATH", "/usr/bin:/bin").args(["-u", &served.uri(), "-c", script]);
        let ended = Ended::from(nbdsh.output().unwrap());
        let (status, said) = served.finish().unwrap();
        assert!(ended.code == 0 && status.success(), "{ended:?}: {said}");
        let content = |first: u64| -> Vec<u8> {
            (first..first + 16384).flat_map(|n| n.to_be_bytes().repeat(512)).collect()
        };
        let written = [content(1), vec![0; 512], content(1 << 40), vec![0; (2 << 20) - 512]].concat();
        assert!(server.contents().unwrap() == written);
        assert_eq!(server.log().lost_unflushed(), 0);
    }
}

fn pause_without_flush(door: Door) {
    let server = FakeServer::builder().flush(false);
    survives_a_pause(door, server, &[], |client| {
        client.write_all(&[7; 512]).unwrap();
        client.read_exact(&mut [0; 512]).unwrap();
    });
}

fn pause_of_a_read_only_ticket(door: Door) {
    let server = FakeServer::builder().read_only(true);
    survives_a_pause(door, server, &["-r"], |client| client.read_exact(&mut [0; 512]).unwrap());
}

/// Works, waits for three timeouts, and works again.
fn survives_a_pause(door: Door, server: Builder, options: &[&str], work: fn(&mut NbdClient<UnixStream>)) {
    let dir = tempfile::tempdir().unwrap();
    let server = server.inactivity_timeout(Some(INACTIVITY)).start().unwrap();
    let mut parameters = vec![format!("url={}", server.url()), KEEP_ALIVE.into()];
    parameters.extend(options.iter().map(ToString::to_string));
    let served = door.serve(dir.path(), &parameters).unwrap();
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    let export = handshake(&mut stream, b"").unwrap();
    let mut client = NbdClient::new(stream, &export);
    work(&mut client);
    let pause_is_over = |log: &Log| log.of(Op::Get).filter(|get| get.size == 1).count() >= 25;
    assert!(server.wait_for(PATIENCE, pause_is_over));
    work(&mut client);
    let log = server.log();
    // The connections of OPTIONS are closed: there are two where a ticket turns out to be for
    // reading.
    let mut closed = log.connections.iter().filter(|connection| connection.closed.is_some());
    assert!(closed.all(|connection| connection.closed_by == Some(ClosedBy::Client)), "{:?}", log.connections);
    assert_eq!(log.of(Op::Flush).count(), 0);
    drop(client);
    let (status, said) = served.finish().unwrap();
    assert!(status.success(), "{said}");
}
