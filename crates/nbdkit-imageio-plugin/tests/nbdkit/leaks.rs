// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plugin under valgrind: no bad access, and no leak that grows.

use std::fs;
use std::path::Path;

use fake_imageio::{Certificate, FakeServer, Op};

use crate::support::{Served, URI, assert_uploaded, has, run, tool};

/// ring's AES-GCM (`gcm_ghash_avx`) clears a register by what is, to valgrind, a calculation with
/// an undefined value: it then takes each record's tag, which the peer verifies, for undefined.
/// Payloads are watched over http.
const NO_FALSE_ALARMS_OF_RING: &str = "--undef-value-errors=no";

const BLOCK: usize = 4096;

/// Clients that come and go. Each does one request of each kind.
const CYCLES: &str = "import nbd, sys\nfor i in range(int(sys.argv[1])):\n  \
    h = nbd.NBD()\n  h.connect_uri(sys.argv[2])\n  h.pwrite(b'x' * 4096, i * 4096)\n  \
    h.zero(4096, 1 << 20)\n  h.flush()\n  assert h.pread(4096, i * 4096) == b'x' * 4096\n  h.shutdown()\n";

/// Serves so many clients under valgrind; gives its report.
fn report(dir: &Path, server: &FakeServer, clients: usize) -> String {
    let cafile = server.cafile().map(|file| format!("cafile={}", file.display()));
    let url = server.url();
    let parameters: Vec<_> = std::iter::once(&*url).chain(cafile.as_deref()).collect();
    let valgrind = ["valgrind", "--leak-check=full", "--show-leak-kinds=all", "--num-callers=40"];
    let undefined: &[_] = if cafile.is_some() { &[NO_FALSE_ALARMS_OF_RING] } else { &[] };
    let program = [&valgrind[..], undefined, &["--log-file=report", "nbdkit"]].concat();
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

/// Returns the number of blocks that were never freed: lost, or still reachable.
fn blocks_in_use_at_exit(report: &str) -> u64 {
    let (_, line) = report.split_once(" in use at exit: ").unwrap();
    let (_, blocks) = line.split_once(" bytes in ").unwrap();
    blocks.split_once(" blocks").unwrap().0.replace(',', "").parse().unwrap()
}

fn assert_no_leak_grows(start: impl Fn() -> FakeServer) {
    let [few, many] = [2, 20].map(|clients| {
        let dir = tempfile::tempdir().unwrap();
        let report = report(dir.path(), &start(), clients);
        // A block that is definitely or possibly lost counts as an error, too.
        assert!(report.contains("ERROR SUMMARY: 0 errors from 0 contexts"), "{report}");
        report
    });
    // A leak would be a block at least for each of the 18 clients more; threads that end in another
    // order are not.
    assert!(blocks_in_use_at_exit(&many) < blocks_in_use_at_exit(&few) + 9, "{few}\n{many}");
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
