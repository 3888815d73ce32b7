// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading, forking, ending.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;

use fake_imageio::{Certificate, FakeServer, Op};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::support::{
    PATIENCE, URI, assert_all_closed, assert_uploaded, captive, has, nbdkit, pattern, run, tool,
};

#[test]
fn dump_plugin_needs_no_parameters() {
    if !has(&["nbdkit"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ended = nbdkit(dir.path(), &["--dump-plugin"], &[]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    for line in ended.out.lines() {
        assert!(line.contains('='), "{line}");
    }
    for line in [
        "name=imageio",
        "api_version=2",
        "thread_model=parallel",
        "magic_config_key=url",
        "has_cleanup=1",
        "has_block_size=1",
        "has_can_fua=1",
        "has_zero=1",
        "has_can_extents=1",
        "has_extents=1",
        concat!("imageio_version=", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(ended.out.lines().any(|printed| printed == line), "{line} is not in\n{}", ended.out);
    }
    assert!(!ended.out.contains("_v1=1"), "{}", ended.out);
    assert!(ended.out.contains("imageio_features=") && ended.out.contains("rustls_version="));
    assert_eq!(nbdkit(dir.path(), &["--dump-plugin"], &["size=1M", "is_ovirt_host=true"]).code, Some(0));
}

#[test]
fn help_has_the_parameters() {
    if !has(&["nbdkit"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ended = nbdkit(dir.path(), &["--help"], &[]);
    assert!(ended.out.contains("\nurl=URL|+FILE|-  (required, or disk= of an engine)\n"), "{}", ended.out);
    assert!(ended.out.contains("\nkeep-alive=SECONDS"), "{}", ended.out);
}

/// Enough to meet a rare race of threads that end while the plugin is unloaded.
const TIMES: u32 = 1000;
/// The number of plugins that are loaded at the same time: each mostly waits for nbdkit to start
/// and to end.
const AT_ONCE: u32 = 8;

#[test]
fn it_can_be_loaded_again_and_again() {
    if !has(&["nbdkit"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().size(1 << 20).start().unwrap();
    let url = server.url();
    let dump = |i| {
        let ended = nbdkit(dir.path(), &["--dump-plugin"], &[]);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "dump {i}");
    };
    let captive = |i| {
        let ended = captive(dir.path(), &[&url], "true");
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "run {i}");
    };
    thread::scope(|scope| {
        for first in 0..AT_ONCE {
            scope.spawn(move || {
                for i in (first..TIMES).step_by(AT_ONCE as usize) {
                    dump(i);
                    captive(i);
                }
            });
        }
    });
    assert_all_closed(&server);
}

/// A daemon, which is nobody's child, by a handle that can't become another's.
struct Daemon(OwnedFd);

impl Daemon {
    /// Starts nbdkit without `-f`; it has a client when this returns.
    fn start(dir: &Path, parameters: &[&str]) -> Self {
        let ended = nbdkit(dir, &["-P", "pid", "-U", "sock"], parameters);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
        let info = run(tool(dir, "nbdinfo").args(["--size", URI]));
        assert_eq!(info.code, Some(0), "{}", info.err);
        // It was written before the client was served.
        let pid: i32 = fs::read_to_string(dir.join("pid")).unwrap().trim().parse().unwrap();
        Self(pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap())
    }

    fn terminate(&self) {
        pidfd_send_signal(&self.0, Signal::TERM).unwrap();
        let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut ended = [PollFd::new(&self.0, PollFlags::IN)];
        assert_eq!(poll(&mut ended, Some(&timeout)).unwrap(), 1, "it doesn't end");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

#[test]
fn the_keeper_lives_in_a_daemon() {
    if !has(&["nbdkit", "nbdinfo", "nbdcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = pattern(4 << 20);
    fs::write(dir.path().join("disk.img"), &data).unwrap();
    let server = FakeServer::builder().size(4 << 20).tls(Certificate::default()).start().unwrap();
    // A relative name: the daemon is in another directory by the time it connects again.
    fs::copy(server.cafile().unwrap(), dir.path().join("ca.pem")).unwrap();
    let daemon = Daemon::start(dir.path(), &[&server.url(), "cafile=ca.pem", "keep-alive=0.1"]);
    let copied = run(tool(dir.path(), "nbdcopy").args(["disk.img", URI]));
    assert_eq!(copied.code, Some(0), "{}", copied.err);
    assert!(server.wait_for(PATIENCE, |log| log.of(Op::Flush).count() >= 2), "{:?}", server.log());
    daemon.terminate();
    assert_uploaded(&server, &data);
}

#[test]
fn sigterm_leaves_nothing_unflushed() {
    if !has(&["nbdkit", "nbdinfo", "nbdcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().size(16 << 20).start().unwrap();
    fs::write(dir.path().join("disk.img"), vec![7; 16 << 20]).unwrap();
    let daemon = Daemon::start(dir.path(), &[&server.url(), "keep-alive=0"]);
    let copied = run(tool(dir.path(), "nbdcopy").args(["disk.img", URI]));
    assert_eq!(copied.code, Some(0), "{}", copied.err);
    assert_eq!(server.log().of(Op::Flush).count(), 0, "nobody asked for it yet");
    daemon.terminate();
    assert_all_closed(&server);
    let log = server.log();
    assert_eq!(log.lost_unflushed(), 0);
    for connection in &log.connections {
        // A write for which there is no room in the replay buffer is flushed by itself.
        let last = log.on(connection.id).filter(|r| matches!(r.op, Op::Put | Op::Zero | Op::Flush)).last();
        let durable = last.is_none_or(|last| last.flush || last.op == Op::Flush);
        assert!(durable, "connection {}: {log:?}", connection.id);
    }
}
