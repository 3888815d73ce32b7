// SPDX-License-Identifier: MIT OR Apache-2.0
//! Under nbdkit's own filters.

use std::fs;
use std::path::Path;

use fake_imageio::{FakeServer, Fault, Log, Op, What};

use crate::support::{
    Served, URI, assert_all_closed, assert_uploaded, attempt, has, nbdsh_at_sock, pattern, run, tool,
};

const SIZE: usize = 4 << 20;

/// A pattern with a hole.
fn data() -> Vec<u8> {
    let mut data = pattern(SIZE);
    data[1 << 20..2 << 20].fill(0);
    data
}

fn empty() -> FakeServer {
    FakeServer::builder().size(SIZE as u64).start().unwrap()
}

/// Copies [`data`] to the server, by way of nbdkit with these filters.
fn upload(dir: &Path, server: &FakeServer, filters: &[&str], parameters: &[&str]) {
    let data = data();
    fs::write(dir.join("disk.img"), &data).unwrap();
    let url = server.url();
    let mut nbdkit = Served::start(dir, filters, &[&[&*url], parameters].concat());
    let copied = run(tool(dir, "nbdcopy").args(["disk.img", URI]));
    assert_eq!(copied.code, Some(0), "{}", copied.err);
    assert!(nbdkit.terminate().success(), "{:#?}", nbdkit.said);
    assert_uploaded(server, &data);
}

/// Offsets and sizes, in order.
fn ranges(log: &Log, op: Op) -> Vec<(u64, u64)> {
    let mut ranges: Vec<_> = log.of(op).map(|request| (request.offset, request.size)).collect();
    ranges.sort_unstable();
    ranges
}

/// Reads a range from a line of the log filter.
fn range(line: &str) -> (u64, u64) {
    let number = |key| {
        let (_, after) = line.split_once(key).unwrap();
        u64::from_str_radix(after.split(' ').next().unwrap(), 16).unwrap()
    };
    (number(" offset=0x"), number(" count=0x"))
}

/// With these parameters, the server sees what nbdkit sees.
const AS_THEY_ARE: [&str; 2] = ["max-request=0", "preferred-block-size=4096"];

#[test]
fn the_log_filter_shows_what_the_server_gets() {
    if !has(&["nbdkit", "nbdcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = empty();
    upload(dir.path(), &server, &["--filter=log"], &[&AS_THEY_ARE[..], &["logfile=log"]].concat());
    let logged = fs::read_to_string(dir.path().join("log")).unwrap();
    for (op, name) in [(Op::Put, " Write id="), (Op::Zero, " Zero id=")] {
        let mut seen: Vec<_> = logged.lines().filter(|line| line.contains(name)).map(range).collect();
        seen.sort_unstable();
        assert_eq!(seen, ranges(&server.log(), op), "{logged}");
        assert!(!seen.is_empty());
    }
}

#[test]
fn the_blocksize_filter_cuts_requests() {
    if !has(&["nbdkit", "nbdcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = empty();
    let parameters = [&AS_THEY_ARE[..], &["maxdata=64K", "maxlen=128K"]].concat();
    upload(dir.path(), &server, &["--filter=blocksize"], &parameters);
    let log = server.log();
    assert!(log.of(Op::Put).all(|put| put.size <= 64 << 10));
    assert!(log.of(Op::Zero).all(|zero| zero.size <= 128 << 10) && log.of(Op::Zero).count() >= 8);
}

#[test]
fn the_blocksize_filter_completes_blocks() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut data = pattern(SIZE);
    let server = FakeServer::builder().contents(data.clone()).start().unwrap();
    let mut nbdkit = Served::start(dir.path(), &["--filter=blocksize"], &[&server.url(), "minblock=4096"]);
    let ended = nbdsh_at_sock(dir.path(), "h.pwrite(b'x' * 5000, 1001)\nh.zero(10, 20001)");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(nbdkit.terminate().success(), "{:#?}", nbdkit.said);
    data[1001..6001].fill(b'x');
    data[20001..20011].fill(0);
    assert_uploaded(&server, &data);
    let log = server.log();
    let mut writes = log.of(Op::Put).chain(log.of(Op::Zero));
    assert!(writes.all(|write| write.offset % 4096 == 0 && write.size % 4096 == 0));
}

#[test]
fn under_the_cow_filter_nothing_is_written() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = pattern(SIZE);
    let server = FakeServer::builder().contents(data.clone()).start().unwrap();
    fs::write(dir.path().join("old"), &data[1 << 20..2 << 20]).unwrap();
    let mut nbdkit = Served::start(dir.path(), &["--filter=cow"], &[&server.url()]);
    let script = "h.pwrite(b'x' * 100000, 1000)\nh.pwrite(bytes(70000), 300000)\nh.flush()\n\
                  assert h.pread(100000, 1000) == b'x' * 100000\n\
                  assert h.pread(70000, 300000) == bytes(70000)\n\
                  assert h.pread(1 << 20, 1 << 20) == open('old', 'rb').read()";
    let ended = nbdsh_at_sock(dir.path(), script);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(nbdkit.terminate().success(), "{:#?}", nbdkit.said);
    assert_uploaded(&server, &data);
    assert_eq!(server.log().of(Op::Put).count() + server.log().of(Op::Zero).count(), 0);
}

/// The answer of a server that is in trouble for a moment.
fn trouble() -> What {
    What::Status { status: 500, text: "disk on fire".to_owned() }
}

/// Runs some Python under the retry filter, with a fault; gives what it printed, and nbdkit's exit
/// status.
fn retried(fault: Fault, script: &str) -> (FakeServer, String, Option<i32>) {
    let dir = tempfile::tempdir().unwrap();
    let server = empty();
    let url = server.url();
    let parameters = [&url, "keep-alive=0", "replay-buffer=0", "retries=1", "retry-delay=1"];
    let mut nbdkit = Served::start(dir.path(), &["--filter=retry"], &parameters);
    // Not before: nbdkit's start sends requests, too.
    server.fault(fault);
    let ended = nbdsh_at_sock(dir.path(), script);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let status = nbdkit.terminate();
    assert_all_closed(&server);
    (server, ended.out, status.code())
}

#[test]
fn a_refused_write_is_retried_with_nothing_at_stake() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let (server, _, status) =
        retried(Fault::on(Op::Put).then(trouble()), "h.pwrite(b'x' * 4096, 8192)\nh.flush()");
    assert_eq!((status, server.log().lost_unflushed()), (Some(0), 0));
    assert_eq!(ranges(&server.log(), Op::Put), [(8192, 4096), (8192, 4096)]);
    assert_eq!(server.read(8192, 4096).unwrap(), [b'x'; 4096]);
}

#[test]
fn a_failed_read_is_retried_after_writes_that_are_flushed() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let script = "h.pwrite(b'x' * 4096, 0)\nh.flush()\nassert h.pread(4096, 0) == b'x' * 4096";
    let (server, _, status) = retried(Fault::on(Op::Get).then(trouble()), script);
    assert_eq!((status, server.log().lost_unflushed()), (Some(0), 0));
    assert!(server.log().of(Op::Get).any(|get| get.status == Some(500)));
}

#[test]
fn no_retry_makes_a_loss_good() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    // A server that fails to write or to flush may have dropped what it acknowledged before.
    for (fault, second) in [
        (Fault::on(Op::Flush).then(trouble()), "h.flush()"),
        (Fault::on(Op::Put).nth(2).then(trouble()), "h.pwrite(b'x' * 4096, 0)"),
        // A server that fails to read may have dropped it, too: a proxy may have lost its way to
        // it.
        (Fault::on(Op::Get).then(trouble()), "h.pread(4096, 0)"),
    ] {
        let script = ["h.pwrite(b'x' * 4096, 0)", second, "h.flush()"].map(attempt).concat();
        let (_, out, status) = retried(fault, &script);
        let told: Vec<_> = out.lines().collect();
        assert_eq!((told, status), (vec!["no error", "EIO", "EIO"], Some(1)), "{second}");
    }
}

#[test]
fn the_error_filter_harms_only_its_own_requests() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = empty();
    let inject = format!("error-pwrite-file={}", dir.path().join("inject").display());
    let parameters = [&*server.url(), "error-pwrite=ENOSPC", "error-pwrite-rate=100%", &inject];
    let mut nbdkit = Served::start(dir.path(), &["--filter=error"], &parameters);
    let script = [
        "h.pwrite(b'a' * 4096, 0)",
        "open('inject', 'w').close(); h.pwrite(b'b' * 4096, 4096)",
        "h.pread(4096, 0)",
        "import os; os.unlink('inject'); h.pwrite(b'c' * 4096, 8192)",
    ];
    let ended = nbdsh_at_sock(dir.path(), &script.map(attempt).concat());
    assert_eq!(ended.out.lines().collect::<Vec<_>>(), ["no error", "ENOSPC", "no error", "no error"]);
    assert!(nbdkit.terminate().success(), "{:#?}", nbdkit.said);
    let mut data = vec![0; SIZE];
    data[..4096].fill(b'a');
    data[8192..12288].fill(b'c');
    assert_uploaded(&server, &data);
}

#[test]
fn the_delay_filter_only_delays() {
    if !has(&["nbdkit", "nbdcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    upload(dir.path(), &empty(), &["--filter=delay"], &["wdelay=10ms", "rdelay=10ms", "delay-close=10ms"]);
}
