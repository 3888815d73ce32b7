// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads of which something is special: a source that stalls, a server that fails meanwhile, little memory.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fake_imageio::{Backend, ClosedBy, FakeServer, Fault, Op, What};
use support::door::{Door, Served, built};
use support::image::{SIZE, guest_disk};
use support::process::{Daemon, PATIENCE};
use support::tools::NBDCOPY;
use tempfile::TempDir;

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
    fn half_way(keep_alive: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = FakeServer::builder().size(SIZE).inactivity_timeout(Some(INACTIVITY)).start().unwrap();
        let parameters = [format!("url={}", server.url()), keep_alive.to_owned()];
        let served = Door::ImageioNbd.serve(dir.path(), &parameters).unwrap();
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

    /// Gives the rest. Whether nbdcopy and imageio-nbd then end well.
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

#[test]
fn a_source_that_stalls_for_three_timeouts_loses_nothing_and_no_connection() {
    if NBDCOPY.find().is_none() {
        return eprintln!("not tested: nbdcopy is missing");
    }
    let copy = StallingCopy::half_way(KEEP_ALIVE);
    // The keeper's requests tell the time: 24 of them on one connection take three timeouts.
    let stalled = |log: &fake_imageio::Log| {
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

#[test]
fn without_the_keeper_the_same_copy_fails() {
    if NBDCOPY.find().is_none() {
        return eprintln!("not tested: nbdcopy is missing");
    }
    let copy = StallingCopy::half_way("keep-alive=0");
    assert!(copy.server.wait_for(PATIENCE, |log| log.open().count() == 0));
    let (copied, ended, ..) = copy.finish();
    assert!(!copied && !ended);
}

#[test]
fn a_failed_keep_alive_makes_the_copy_fail() {
    if NBDCOPY.find().is_none() {
        return eprintln!("not tested: nbdcopy is missing");
    }
    let copy = StallingCopy::half_way(KEEP_ALIVE);
    copy.server.fault(Fault::on(Op::Flush).then(What::Status { status: 500, text: "disk full".into() }));
    let failed = |log: &fake_imageio::Log| log.of(Op::Flush).any(|flush| flush.status == Some(500));
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

#[test]
fn little_memory_at_rest_and_bounded_memory_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let size = 1 << 30;
    let server = FakeServer::builder().size(size).backend(Backend::Null).start().unwrap();
    let served = Door::ImageioNbd.serve(dir.path(), &[format!("url={}", server.url())]).unwrap();
    let at_rest = memory(served.id(), "VmRSS");
    eprintln!("at rest: {at_rest} KiB");
    assert!(at_rest < 16 << 10, "{at_rest} KiB at rest");
    if NBDCOPY.find().is_none() {
        return eprintln!("not tested at work: nbdcopy is missing");
    }
    // virt-v2v's settings: up to four NBD connections, sixteen requests of 4 MiB on each.
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(size).unwrap();
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
    let at_most = memory(served.id(), "VmHWM");
    eprintln!("at most: {at_most} KiB");
    assert!(at_most < 128 << 10, "{at_most} KiB at most");
    assert!(served.finish().unwrap().0.success());
}

/// A server that can't flush, or a ticket that can't be written, and yet a transfer that survives a pause.
#[test]
fn servers_without_flush_and_read_only_tickets_stay_usable_after_a_pause() {
    for read_only in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let server = FakeServer::builder()
            .flush(false)
            .read_only(read_only)
            .inactivity_timeout(Some(INACTIVITY))
            .start()
            .unwrap();
        let mut command = Command::new(built("imageio-nbd"));
        command.args(["-f", "-v", "-U", "sock", KEEP_ALIVE, &format!("url={}", server.url())]);
        if read_only {
            command.arg("-r");
        }
        let mut served = Daemon::spawn(command.current_dir(dir.path())).unwrap();
        served.wait_for_line(|line| line.contains("listening: ").then_some(())).unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(dir.path().join("sock")).unwrap();
        let export = nbd::client::handshake(&mut stream, b"").unwrap();
        let mut client = nbd::client::NbdClient::new(stream, &export);
        let work = |client: &mut nbd::client::NbdClient<_>| {
            if !read_only {
                client.write_all(&[7; 512]).unwrap();
            }
            std::io::Read::read_exact(client, &mut [0; 512]).unwrap();
        };
        work(&mut client);
        let pause_is_over =
            |log: &fake_imageio::Log| log.of(Op::Get).filter(|get| get.size == 1).count() >= 25;
        assert!(server.wait_for(PATIENCE, pause_is_over));
        work(&mut client);
        let log = server.log();
        let closed = log.connections.iter().filter(|connection| connection.closed.is_some());
        assert_eq!(closed.count(), 1, "none but that of OPTIONS: {:?}", log.connections);
        assert_eq!(server.log().of(Op::Flush).count(), 0);
        drop(client);
        assert!(served.terminate().unwrap().success(), "{:?}", served.said());
    }
}
