// SPDX-License-Identifier: MIT OR Apache-2.0
//! Data there and back.

use std::fs;

use fake_imageio::{Certificate, FakeServer, Op};

use crate::support::{assert_all_closed, captive, has, nbdkit, nbdsh, pattern};

const SIZE: usize = 24 << 20;

#[test]
fn a_disk_is_uploaded_and_read_back() {
    if !has(&["nbdkit", "nbdcopy"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().size(SIZE as u64).tls(Certificate::default()).start().unwrap();
    let data = pattern(SIZE);
    fs::write(dir.path().join("disk.img"), &data).unwrap();
    fs::write(dir.path().join("url"), server.url()).unwrap();
    fs::copy(server.cafile().unwrap(), dir.path().join("ca.pem")).unwrap();
    // virt-v2v does the same: it repeats what changed from disk to disk.
    let size = format!("size={SIZE}");
    let parameters = [
        "size=512",
        &size,
        "url=https://h/images/x",
        "url=+url",
        "cafile=ca.pem",
        "is_ovirt_host=1",
        // A write that finds no room to be kept goes with a flush of its own.
        "replay-buffer=128M",
    ];
    let ended = captive(
        dir.path(),
        &parameters,
        "nbdcopy --request-size=4194304 disk.img \"$uri\" && nbdcopy \"$uri\" back.img",
    );
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(server.contents().unwrap(), data);
    assert_eq!(fs::read(dir.path().join("back.img")).unwrap(), data);
    // Also without nbdcopy's --flush.
    assert_all_closed(&server);
    let log = server.log();
    assert_eq!(log.lost_unflushed(), 0);
    assert!(log.of(Op::Put).all(|put| !put.flush), "nobody asked for FUA");
}

#[test]
fn fua_is_native() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().size(1 << 20).start().unwrap();
    let script = "assert h.can_fua() and h.can_flush() and h.can_multi_conn() and h.can_zero()\n\
                  assert not h.can_trim() and not h.is_rotational() and not h.is_read_only()\n\
                  assert h.get_block_size(nbd.SIZE_PREFERRED) >= 4096\n\
                  h.pwrite(b'x' * 4096, 8192, nbd.CMD_FLAG_FUA)\n\
                  h.zero(4096, 65536, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)\n";
    let ended = nbdsh(dir.path(), &[&server.url()], script);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let log = server.log();
    let writes: Vec<_> =
        log.of(Op::Put).chain(log.of(Op::Zero)).map(|write| (write.offset, write.flush)).collect();
    assert_eq!(writes, [(8192, true), (65536, true)]);
    assert_eq!(log.of(Op::Flush).count(), 0, "nothing was left to flush");
}

#[test]
fn a_server_that_cannot_flush_is_flushed_with_each_write() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().size(1 << 20).flush(false).start().unwrap();
    let ended = nbdsh(
        dir.path(),
        &[&server.url()],
        "assert not h.can_fua() and not h.can_flush()\nh.pwrite(b'x' * 512, 0)\n",
    );
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(server.log().of(Op::Put).all(|put| put.flush));
}

#[test]
fn a_read_only_ticket_is_a_read_only_disk() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().contents(pattern(1 << 20)).read_only(true).start().unwrap();
    let script = "assert h.is_read_only()\nprint(h.get_size(), h.pread(4, 4).hex())\n";
    let ended = nbdsh(dir.path(), &[&server.url(), "size=4096"], script);
    assert_eq!((ended.code, ended.out.trim()), (Some(0), "4096 b179379e"), "{}", ended.err);
    assert!(ended.err.contains("warning: the ticket allows reading only"), "{}", ended.err);
    fs::write(dir.path().join("script.py"), script).unwrap();
    let command = "nbdsh -u \"$uri\" -c \"exec(open('script.py').read())\"";
    let ended = nbdkit(dir.path(), &["-r", "-U", "-"], &[&server.url(), "--run", command]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "with -r it is no surprise");
}

#[test]
fn a_writable_ticket_can_be_served_read_only() {
    if !has(&["nbdkit", "nbdinfo"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().size(1 << 20).start().unwrap();
    let parameters = [&server.url(), "--run", "nbdinfo --is readonly \"$uri\""];
    assert_eq!(nbdkit(dir.path(), &["-r", "-U", "-"], &parameters).code, Some(0));
}
