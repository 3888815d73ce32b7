// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests to the server when clients read: it is read ahead for those that read in order, and
//! for nobody else.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::ExitCode;

use fake_imageio::{FakeServer, Op};
use libtest_mimic::{Arguments, Trial};
use support::image::noise;
use support::run::imageio_nbd;
use support::tools::{NBDCOPY, NBDINFO, NBDSH, QEMU_IMG, Tool, trial};
use tempfile::TempDir;

const MIB: usize = 1 << 20;
const SIZE: usize = 24 * MIB;

/// Zero in between.
const ZEROES: std::ops::Range<usize> = 18 * MIB..22 * MIB;

/// A test, and the tools that it needs.
type Test = (&'static str, &'static [Tool], fn());

const TESTS: &[Test] = &[
    ("a_client_that_reads_in_order_finds_all_once", &[NBDCOPY], in_order),
    ("known_zeroes_are_not_read_ahead", &[NBDSH], known_zeroes),
    ("clients_that_look_here_and_there_cost_nothing_more", &[NBDINFO, NBDSH, QEMU_IMG], here_and_there),
    ("clients_with_many_requests_cost_nothing_more", &[NBDCOPY, QEMU_IMG], side_by_side),
    ("a_long_read_goes_in_pieces_over_all_connections", &[NBDSH], long_read),
];

fn main() -> ExitCode {
    let trials = TESTS.iter().map(|&(name, tools, run)| {
        trial(name, tools, move || {
            run();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect::<Vec<Trial>>()).exit_code()
}

/// A full disk but for the zeroes.
fn content() -> Vec<u8> {
    let mut content = noise(SIZE, 5);
    content[ZEROES].fill(0);
    content
}

/// A client that has run, and what the server saw of it.
struct Ran {
    dir: TempDir,
    out: String,
    /// Offset and length of what the server was asked to read.
    reads: Vec<(usize, usize)>,
    /// The number of connections that the reads took.
    connections: usize,
}

impl Ran {
    fn bytes(&self) -> usize {
        self.reads.iter().map(|(_, len)| len).sum()
    }
}

/// Runs a command with `$uri`, and the server with some parameters.
fn run(parameters: &[&str], command: &str) -> Ran {
    let (server, dir) =
        (FakeServer::builder().contents(content()).start().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("url={}", server.url());
    let ended =
        imageio_nbd(dir.path(), &[&["-U", "-", &url], parameters, &["--run", command]].concat()).unwrap();
    assert_eq!(ended.code, 0, "{command}: {}", ended.err);
    let log = server.log();
    // One byte is read to find the size.
    let gets: Vec<_> = log.of(Op::Get).filter(|get| get.size > 1).collect();
    let reads = gets.iter().map(|get| (get.offset as usize, get.size as usize)).collect();
    let mut connections: Vec<_> = gets.iter().map(|get| get.connection).collect();
    connections.sort_unstable();
    connections.dedup();
    Ran { dir, out: ended.out, reads, connections: connections.len() }
}

/// Runs some Python by nbdsh.
fn nbdsh(parameters: &[&str], script: &str) -> Ran {
    // Debian's nbdsh needs Debian's Python.
    run(parameters, &format!("PATH=/usr/bin:$PATH nbdsh -u \"$uri\" -c '{script}'"))
}

fn in_order() {
    const COPY: &str = "nbdcopy --no-extents --connections=1 --requests=1 --request-size=65536 \"$uri\" copy";
    // Or nbdcopy would read as much at a time as is preferred.
    const SIZES: &str = "preferred-block-size=4096";
    let ahead = run(&[SIZES], COPY);
    assert!(fs::read(ahead.dir.path().join("copy")).unwrap() == content());
    // Neither what isn't there, nor twice; what the client has asked for while something failed may
    // be.
    assert_eq!(ahead.bytes(), SIZE);
    let longest = ahead.reads.iter().map(|(_, len)| *len).max();
    assert_eq!(longest, Some(MIB), "half of read-ahead");
    assert!(ahead.reads.len() < 100, "{} reads", ahead.reads.len());
    let never = run(&["read-ahead=0", SIZES], COPY);
    assert!(never.reads.iter().all(|(_, len)| *len == 65536) && never.bytes() == SIZE);
    assert!(fs::read(never.dir.path().join("copy")).unwrap() == content());
}

fn known_zeroes() {
    let script = "
h2 = nbd.NBD(); h2.add_meta_context(\"base:allocation\"); h2.connect_uri(h.get_uri())
h2.block_status(4096, 0, lambda *args: None)
data = [h.pread(262144, at) for at in range(0, h.get_size(), 262144)]
print(sum(map(len, data)), data.count(bytes(262144)))";
    let ran = nbdsh(&[], script);
    assert_eq!(ran.out.trim(), format!("{SIZE} {}", ZEROES.len() / 262_144));
    assert_eq!(ran.bytes(), SIZE - ZEROES.len());
    let is_zero = |&(at, len): &(usize, usize)| at < ZEROES.end && ZEROES.start < at + len;
    assert!(!ran.reads.iter().any(is_zero), "{:?}", ran.reads);
    // A client that knows them doesn't read in order: it goes on behind them, and something is read
    // ahead there, too.
    let script = script.replace(
        "range(0, h.get_size(), 262144)",
        &format!("[*range(0, {}, 262144), *range({}, h.get_size(), 262144)]", ZEROES.start, ZEROES.end),
    );
    let ran = nbdsh(&[], &script);
    assert_eq!(ran.bytes(), SIZE - ZEROES.len());
    assert!(ran.reads.iter().any(|&(at, len)| at >= ZEROES.end && len == MIB), "{:?}", ran.reads);
}

/// The server is asked for what clients have asked for.
fn here_and_there() {
    for command in [
        "nbdinfo \"$uri\"",
        "nbdinfo --map --json \"$uri\"",
        "nbdinfo --list \"$uri\"",
        "qemu-img info -f raw \"$uri\"",
        "qemu-img info \"$uri\"",
        "qemu-img map -f raw \"$uri\"",
    ] {
        let (ahead, never) = (run(&[], command), run(&["read-ahead=0"], command));
        assert_eq!(ahead.reads, never.reads, "{command}");
        assert!(ahead.bytes() < MIB, "{command}: {:?}", ahead.reads);
    }
    let random = "import random\nfor n in range(300): h.pread(65536, 65536 * random.randrange(384))";
    let ran = nbdsh(&[], random);
    assert!(ran.reads.iter().all(|(_, len)| *len == 65536) && ran.reads.len() == 300);
}

fn side_by_side() {
    for command in [
        "nbdcopy --no-extents \"$uri\" null:",
        "nbdcopy --no-extents --connections=1 --request-size=262144 \"$uri\" null:",
        "qemu-img convert -f raw -O raw \"$uri\" copy",
    ] {
        let ran = run(&[], command);
        assert!(ran.bytes() <= SIZE, "{command}: {}", ran.bytes());
    }
}

fn long_read() {
    let script = "
data = h.pread(16777216, 1000)
print(data == b\"\".join(h.pread(1048576, 1000 + at * 1048576) for at in range(16)))";
    let ran = nbdsh(&["read-ahead=0"], script);
    assert_eq!(ran.out.trim(), "True");
    let pieces: Vec<_> = ran.reads.iter().filter(|(_, len)| *len != MIB).collect();
    assert_eq!(pieces.iter().map(|(_, len)| len).sum::<usize>(), 16 * MIB);
    assert!(pieces.iter().all(|(_, len)| *len <= 2 * MIB), "{pieces:?}");
    assert!(ran.connections > 1);
    let whole = nbdsh(&["max-request=0"], "h.pread(16777216, 0)");
    assert_eq!(whole.reads, [(0, 16 * MIB)]);
}
