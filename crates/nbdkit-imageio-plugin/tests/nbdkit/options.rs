// SPDX-License-Identifier: MIT OR Apache-2.0
//! nbdkit's own options, which a plugin may hinder.

use std::fs;
use std::path::Path;

use fake_imageio::{ClosedBy, FakeServer, Fault, Op, What};

use crate::support::{
    Served, URI, assert_all_closed, assert_uploaded, attempt, captive, has, nbdkit, nbdsh_at_sock, pattern,
    plugin, run, tool,
};

const SIZE: usize = 4 << 20;

/// A server, and `disk.img` to fill it.
fn disk(dir: &Path) -> (FakeServer, Vec<u8>) {
    let data = pattern(SIZE);
    fs::write(dir.join("disk.img"), &data).unwrap();
    (FakeServer::builder().size(SIZE as u64).start().unwrap(), data)
}

#[test]
fn run_uploads_and_a_client_can_flush() {
    if !has(&["nbdkit", "nbdcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (server, data) = disk(dir.path());
    let parameters = [format!("url={}", server.url()), format!("size={SIZE}")];
    // The last command looks before nbdkit ends: what nbdcopy asked for is done by then.
    let command = "nbdcopy --flush disk.img \"$uri\" && echo flushed";
    let ended = captive(dir.path(), &parameters.each_ref().map(String::as_str), command);
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "flushed\n", ""));
    assert_uploaded(&server, &data);
    assert!(server.log().of(Op::Flush).count() > 0);
}

#[test]
fn exit_with_parent_leaves_nothing_unflushed() {
    if !has(&["nbdkit", "nbdcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (server, data) = disk(dir.path());
    let parent = ["sh", "-c", "\"$@\" & wait", "parent", "nbdkit", "--exit-with-parent"];
    let mut parent = Served::start_by(dir.path(), &parent, &[], &[&server.url(), "keep-alive=0"]);
    let copied = run(tool(dir.path(), "nbdcopy").args(["disk.img", URI]));
    assert_eq!(copied.code, Some(0), "{}", copied.err);
    assert_eq!(server.log().of(Op::Flush).count(), 0, "nobody asked for it yet");
    // The parent dies of it; this returns when nbdkit has closed its standard error, too.
    assert_eq!(parent.terminate().code(), None);
    assert_uploaded(&server, &data);
    assert!(server.log().of(Op::Flush).count() > 0);
}

#[test]
fn pidfile_has_the_process_that_serves() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = disk(dir.path());
    let mut nbdkit = Served::start(dir.path(), &["--pidfile", "pid"], &[&server.url()]);
    // It is written before a client is served.
    let ended = nbdsh_at_sock(dir.path(), "h.pread(512, 0)");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(fs::read_to_string(dir.path().join("pid")).unwrap().trim(), nbdkit.id().to_string());
    assert!(nbdkit.terminate().success());
    assert_all_closed(&server);
}

#[test]
fn selinux_label_does_what_it_does_with_nbdkits_own_plugin() {
    if !has(&["nbdkit"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = disk(dir.path());
    let (ours, url) = (plugin(), server.url());
    let try_label = |plugin: &[&str]| {
        let label = "--selinux-label=system_u:object_r:svirt_socket_t:s0";
        let options = [label, "-U", "sock", "--run", "echo served"];
        run(tool(dir.path(), "nbdkit").args(options).args(plugin))
    };
    let theirs = try_label(&["null"]);
    let ours = try_label(&[ours.to_str().unwrap(), &url]);
    // The outcome depends on the machine.
    assert_eq!((ours.code, ours.out, ours.err), (theirs.code, theirs.out, theirs.err));
    assert_all_closed(&server);
}

#[test]
fn with_readonly_nothing_is_written() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = pattern(SIZE);
    let server = FakeServer::builder().contents(data.clone()).start().unwrap();
    let mut nbdkit = Served::start(dir.path(), &["-r"], &[&server.url()]);
    // Sent although the client knows better.
    let look = "h.set_strict_mode(0)\nassert h.is_read_only()\nassert len(h.pread(4096, 0)) == 4096\n";
    let script = ["h.pwrite(b'x' * 512, 0)", "h.zero(512, 0)"].map(attempt).concat();
    let ended = nbdsh_at_sock(dir.path(), &(look.to_owned() + &script));
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "EPERM\nEPERM\n"), "{}", ended.err);
    assert!(nbdkit.terminate().success());
    assert_uploaded(&server, &data);
    assert_eq!(server.log().of(Op::Put).count() + server.log().of(Op::Zero).count(), 0);
}

#[test]
fn single_serves_one_client_and_ends() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (server, data) = disk(dir.path());
    let (plugin, url) = (plugin().display().to_string(), server.url());
    let command = ["nbdkit", "--exit-with-parent", "-s", &plugin, &url];
    // Such a list is one in Python, too.
    let script = format!(
        "h.connect_command({command:?})\ndata = open('disk.img', 'rb').read()\nh.pwrite(data, 0)\n\
         assert h.pread(len(data), 0) == data\nh.shutdown()\n"
    );
    let ended = run(tool(dir.path(), "nbdsh").args(["-c", &script]));
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert_uploaded(&server, &data);
    assert!(server.log().connections.iter().all(|connection| connection.closed_by == Some(ClosedBy::Client)));
}

#[test]
fn a_client_can_start_it_by_socket_activation() {
    if !has(&["nbdkit", "nbdcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (server, data) = disk(dir.path());
    let (plugin, url) = (plugin().display().to_string(), server.url());
    let copy = ["--", "disk.img", "[", "nbdkit", "--exit-with-parent", &plugin, &url, "]"];
    let ended = run(tool(dir.path(), "nbdcopy").args(copy));
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert_uploaded(&server, &data);
}

#[test]
fn what_nbdkit_made_is_removed_after_a_loss() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().size(1 << 20).start().unwrap();
    server.fault(Fault::on(Op::Put).then(What::LoseAnswer));
    let script = "nbdsh -u \"$uri\" -c \"h.pwrite(b'x', 0)\" 2>/dev/null; echo \"$unixsocket\"";
    let ended = nbdkit(dir.path(), &["-U", "-"], &[&server.url(), "replay-buffer=0", "--run", script]);
    assert!(ended.err.contains("error: the disk may be incomplete"), "{}", ended.err);
    let socket = Path::new(ended.out.trim());
    assert!(socket.is_absolute() && !socket.parent().unwrap().exists(), "{}", socket.display());
}
