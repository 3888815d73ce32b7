// SPDX-License-Identifier: MIT OR Apache-2.0
//! The extents that clients see as zero, and reads that are saved by that.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use fake_imageio::{FakeServer, Fault, Gate, Op, What};

use crate::support::{
    PATIENCE, Served, URI, assert_all_closed, captive, has, nbdsh_at_sock, pattern, run, tool,
};

const MIB: usize = 1 << 20;

/// A disk of 64 MiB with data in two places.
fn sparse() -> (FakeServer, Vec<u8>) {
    let mut data = vec![0; 64 * MIB];
    data[3 * MIB..5 * MIB].copy_from_slice(&pattern(2 * MIB));
    data[40 * MIB..41 * MIB].copy_from_slice(&pattern(MIB));
    let server = FakeServer::builder().size(data.len() as u64).start().unwrap();
    for place in [3 * MIB..5 * MIB, 40 * MIB..41 * MIB] {
        server.write(place.start as u64, &data[place]).unwrap();
    }
    (server, data)
}

#[test]
fn the_map_is_that_of_the_server() {
    if !has(&["nbdkit", "nbdinfo"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = sparse();
    let ended = captive(dir.path(), &[&server.url()], "nbdinfo --map \"$uri\"");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let lines: Vec<Vec<_>> =
        ended.out.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    let expected = [
        ["0", "3145728", "2"],
        ["3145728", "2097152", "0"],
        ["5242880", "36700160", "2"],
        ["41943040", "1048576", "0"],
        ["42991616", "24117248", "2"],
    ];
    assert_eq!(lines, expected);
    assert_all_closed(&server);
    assert_eq!(server.log().of(Op::Extents).count(), 1);
}

#[test]
fn a_copy_reads_nothing_that_is_zero() {
    if !has(&["nbdkit", "nbdcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (server, data) = sparse();
    let ended = captive(dir.path(), &[&server.url()], "nbdcopy \"$uri\" back.img");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(fs::read(dir.path().join("back.img")).unwrap() == data, "the bytes are others");
    assert_all_closed(&server);
    let log = server.log();
    let read: u64 = log.of(Op::Get).filter(|get| get.size > 1).map(|get| get.size).sum();
    assert_eq!(read, 3 * MIB as u64);
    for get in log.of(Op::Get).filter(|get| get.size > 1) {
        let (start, end) = (get.offset as usize, (get.offset + get.size) as usize);
        assert!(data[start..end].iter().any(|byte| *byte != 0), "{get:?}");
    }
}

#[test]
fn what_is_written_is_told_as_data_and_what_is_zeroed_as_zero() {
    if !has(&["nbdkit", "nbdsh", "nbdinfo"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().size(4 * MIB as u64).start().unwrap();
    let mut nbdkit = Served::start(dir.path(), &[], &[&server.url()]);
    let map = || {
        let ended = run(tool(dir.path(), "nbdinfo").args(["--map", URI]));
        let words =
            |line: &str| line.split_whitespace().skip(1).take(2).map(str::to_owned).collect::<Vec<_>>();
        ended.out.lines().map(|line| words(line).join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(map(), ["4194304 2"]);
    let script = "h.pwrite(b'x' * 8192, 1048576)\nassert h.pread(8192, 1048576) == b'x' * 8192\n\
                  h.zero(4096, 1048576 + 4096)\nassert h.pread(4096, 1048576 + 4096) == bytes(4096)\n";
    assert_eq!(nbdsh_at_sock(dir.path(), script).code, Some(0));
    assert_eq!(map(), ["1048576 2", "4096 0", "3141632 2"]);
    assert!(nbdkit.terminate().success());
}

#[test]
fn a_server_without_extents_has_data_only() {
    if !has(&["nbdkit", "nbdinfo"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().size(MIB as u64).extents(false).start().unwrap();
    let ended = captive(dir.path(), &[&server.url()], "nbdinfo --map \"$uri\"");
    let words: Vec<_> = ended.out.split_whitespace().take(3).collect();
    assert_eq!((ended.code, words), (Some(0), vec!["0", "1048576", "0"]), "{}", ended.err);
    assert!(ended.err.contains("warning: the server doesn't tell what is zero"), "{}", ended.err);
}

/// A server that keeps its extents to itself, and `nbdinfo --map` that waits for them.
fn waiting_for_extents(dir: &Path) -> (FakeServer, Gate, Served, Child) {
    let (server, gate) = (sparse().0, Gate::new());
    server.fault(Fault::on(Op::Extents).then(What::Block(gate.clone())));
    let nbdkit = Served::start(dir, &[], &[&server.url()]);
    let mut map = tool(dir, "nbdinfo");
    let map = map.args(["--map", URI]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert!(gate.wait_reached(1, PATIENCE), "the server is asked");
    (server, gate, nbdkit, map)
}

#[test]
fn sigterm_does_not_wait_for_the_server_s_extents() {
    if !has(&["nbdkit", "nbdinfo"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (server, gate, mut nbdkit, mut map) = waiting_for_extents(dir.path());
    assert!(nbdkit.terminate().success(), "{:#?}", nbdkit.said);
    assert!(!map.wait().unwrap().success());
    let told = |line: &String| line.contains("nobody waits any more for what the server tells");
    assert!(nbdkit.said.iter().any(told), "{:#?}", nbdkit.said);
    gate.open();
    assert_all_closed(&server);
}

#[test]
fn a_client_that_does_not_wait_for_extents_keeps_them_from_no_other() {
    if !has(&["nbdkit", "nbdinfo"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (server, gate, mut nbdkit, mut map) = waiting_for_extents(dir.path());
    // It is the child of a program that ends it.
    rustix::process::kill_process(rustix::process::Pid::from_child(&map), rustix::process::Signal::TERM)
        .unwrap();
    map.wait().unwrap();
    nbdkit.wait_for_line("nobody waits any more for what the server tells");
    gate.open();
    let ended = run(tool(dir.path(), "nbdinfo").args(["--map", URI]));
    assert_eq!((ended.code, ended.out.lines().count()), (Some(0), 5), "{}", ended.out);
    assert!(nbdkit.terminate().success());
    assert_eq!(server.log().of(Op::Extents).count(), 1);
}
