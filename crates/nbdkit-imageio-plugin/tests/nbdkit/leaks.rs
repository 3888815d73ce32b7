// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plugin under valgrind: no bad access, and no leak that grows.

use std::fs;
use std::path::Path;

use fake_imageio::{Certificate, FakeServer, Op};

use crate::support::{Served, URI, assert_uploaded, has, run, tool};

/// False alarms over TLS; the file tells why.
const SUPPRESSIONS: &str = concat!("--suppressions=", env!("CARGO_MANIFEST_DIR"), "/tests/nbdkit/ring.supp");

const BLOCK: usize = 4096;

/// Clients that come and go. Each does one request of each kind; a block takes few TLS records.
const CYCLES: &str = "import nbd, sys\nfor i in range(int(sys.argv[1])):\n  \
    h = nbd.NBD()\n  h.connect_uri(sys.argv[2])\n  h.pwrite(b'x' * 4096, i * 4096)\n  \
    h.zero(4096, 1 << 20)\n  h.flush()\n  assert h.pread(4096, i * 4096) == b'x' * 4096\n  h.shutdown()\n";

/// Serves so many clients under valgrind; gives its report.
fn report(dir: &Path, server: &FakeServer, clients: usize) -> String {
    let cafile = server.cafile().map(|file| format!("cafile={}", file.display()));
    let url = server.url();
    let parameters: Vec<_> = std::iter::once(&*url).chain(cafile.as_deref()).collect();
    let valgrind = ["valgrind", "--leak-check=full", "--show-leak-kinds=all", SUPPRESSIONS];
    let program = [&valgrind[..], &["--num-callers=40", "--log-file=report", "nbdkit"]].concat();
    let mut nbdkit = Served::start_by(dir, &program, &["-t", "2"], &parameters);
    fs::write(dir.join("cycles.py"), CYCLES).unwrap();
    let ended = run(tool(dir, "python3").args(["cycles.py", &clients.to_string(), URI]));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(nbdkit.terminate().success(), "{:#?}", nbdkit.said);
    let mut data = vec![0; server.size() as usize];
    data[..clients * BLOCK].fill(b'x');
    assert_uploaded(server, &data);
    assert!(server.log().of(Op::Flush).count() >= clients);
    fs::read_to_string(dir.join("report")).unwrap()
}

/// Bytes and blocks that were never freed: those that are lost and those that are still reachable.
fn in_use_at_exit(report: &str) -> [u64; 2] {
    let (_, line) = report.split_once(" in use at exit: ").unwrap();
    let (bytes, line) = line.split_once(" bytes in ").unwrap();
    let (blocks, _) = line.split_once(" blocks").unwrap();
    [bytes, blocks].map(|number| number.replace(',', "").parse().unwrap())
}

fn assert_no_leak_grows(start: impl Fn() -> FakeServer) {
    let [few, many] = [2, 20].map(|clients| {
        let dir = tempfile::tempdir().unwrap();
        let report = report(dir.path(), &start(), clients);
        // What is definitely or possibly lost counts as an error, too.
        assert!(report.contains("ERROR SUMMARY: 0 errors from 0 contexts"), "{report}");
        report
    });
    let ([bytes, blocks], [more_bytes, more_blocks]) = (in_use_at_exit(&few), in_use_at_exit(&many));
    assert!(more_bytes <= bytes && more_blocks <= blocks, "{few}\n{many}");
}

#[test]
fn nothing_leaks_over_http() {
    if !has(&["nbdkit", "nbdsh", "python3", "valgrind"]) {
        return;
    }
    assert_no_leak_grows(|| FakeServer::builder().size(2 << 20).start().unwrap());
}

#[test]
fn nothing_leaks_over_https() {
    if !has(&["nbdkit", "nbdsh", "python3", "valgrind"]) {
        return;
    }
    let builder = || FakeServer::builder().size(2 << 20).tls(Certificate::default());
    assert_no_leak_grows(|| builder().start().unwrap());
}
