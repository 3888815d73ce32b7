// SPDX-License-Identifier: MIT OR Apache-2.0
//! The errors that clients get when something goes wrong.

use fake_imageio::{FakeServer, Fault, Op, What};

use crate::support::{Served, assert_all_closed, attempt, has, nbdsh, run, tool};

const WRITE: &str = "h.pwrite(b'x' * 512, 0)";
/// More than fits into the buffers of a connection.
const BIG_WRITE: &str = "h.pwrite(b'x' * (16 << 20), 0)";

fn status(status: u16, text: &str) -> What {
    What::Status { status, text: text.to_owned() }
}

#[test]
fn each_errno_reaches_the_client_and_each_reason_the_log() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let reset = What::Reset { after: 1 << 20 };
    let early = What::AnswerEarly { status: 403, text: "Transfer was canceled %s%n".to_owned() };
    for (op, what, request, errno, reason) in [
        (Op::Put, status(403, "no such ticket"), WRITE, "EPERM", "no such ticket"),
        (Op::Put, status(416, "past the end"), WRITE, "ENOSPC", "past the end"),
        (Op::Put, status(500, "disk on fire"), WRITE, "EIO", "disk on fire"),
        (Op::Put, early, BIG_WRITE, "EPERM", "canceled %s%n"),
        (Op::Put, reset, BIG_WRITE, "EIO", "data may be lost"),
        (Op::Put, What::NoAnswer, BIG_WRITE, "EIO", "no progress"),
        (Op::Get, status(400, "bad range"), "h.pread(512, 0)", "EINVAL", "bad range"),
        (Op::Zero, status(500, "no zeroes"), "h.zero(512, 0)", "EIO", "no zeroes"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        // The first GET asks for the size.
        let nth = if op == Op::Get { 2 } else { 1 };
        // Some requests are sent again.
        let fault = Fault::on(op).nth(nth).every().then(what);
        let server = FakeServer::builder().size(64 << 20).fault(fault).start().unwrap();
        let ended = nbdsh(dir.path(), &[&server.url(), "timeout=1", "replay-buffer=0"], &attempt(request));
        assert_eq!((ended.code, ended.out.trim()), (Some(0), errno), "{request}: {}", ended.err);
        assert!(ended.err.contains(reason) && ended.err.contains("bytes at 0"), "{}", ended.err);
    }
}

#[test]
fn lost_data_is_told_at_the_end_and_is_a_failure() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().size(1 << 20).start().unwrap();
    server.fault(Fault::on(Op::Flush).then(status(500, "disk on fire")));
    let mut nbdkit = Served::start(dir.path(), &[], &[&server.url(), "keep-alive=0", "replay-buffer=0"]);
    let uri = "nbd+unix:///?socket=sock";
    let wrote = run(tool(dir.path(), "nbdsh").args(["-u", uri, "-c", WRITE]));
    assert_eq!(wrote.code, Some(0), "{}", wrote.err);
    let status = nbdkit.terminate();
    let said = nbdkit.said.iter().find(|line| line.contains("error: the disk may be incomplete"));
    assert!(said.is_some_and(|line| line.contains("data may be lost") && line.contains("disk on fire")));
    assert_eq!(status.code(), Some(1));
    assert_all_closed(&server);
}

#[test]
fn after_a_loss_every_request_fails() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().size(1 << 20).start().unwrap();
    server.fault(Fault::on(Op::Put).then(What::LoseAnswer));
    let script = [WRITE, WRITE, "h.pread(512, 0)", "h.flush()"].map(attempt).concat();
    let ended = nbdsh(dir.path(), &[&server.url(), "replay-buffer=0"], &script);
    assert_eq!(ended.out.split_whitespace().collect::<Vec<_>>(), ["EIO"; 4], "{}", ended.err);
    // nbdkit gives the status of the command of --run, whatever its own is: the message remains.
    assert!(ended.err.contains("error: the disk may be incomplete: data may be lost"), "{}", ended.err);
}
