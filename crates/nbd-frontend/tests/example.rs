// SPDX-License-Identifier: MIT OR Apache-2.0
//! The README's example is the one in `examples/`, and real clients fill its disk sparsely and read
//! it back sparsely.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const EXAMPLE: &str = include_str!("../examples/memory.rs");
const README: &str = include_str!("../README.md");

const MIB: u64 = 1 << 20;
const SIZE: u64 = 16 * MIB;

/// The longest time that anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The directories in which tools are looked for.
const PATH: &str = "/usr/bin:/bin";

#[test]
fn the_readme_has_the_example_which_is_short() {
    let (_licence, code) = EXAMPLE.split_once('\n').unwrap();
    assert!(README.contains(&format!("```rust\n{code}```\n")), "copy it there");
    assert!(code.lines().count() <= 30, "{} lines", code.lines().count());
}

/// The example's program. `cargo test` builds it, beside the tests' directory.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/memory");
    assert!(program.exists(), "cargo build -p nbd-frontend --examples makes {}", program.display());
    program
}

/// The example with an empty disk. It ends with its standard input, also where a test panics.
struct Served {
    process: Child,
    dir: TempDir,
}

impl Served {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("sock");
        let mebibytes = (SIZE / MIB).to_string();
        let mut example = Command::new(example());
        let process = example.arg(&socket).arg(mebibytes).stdin(Stdio::piped()).spawn().unwrap();
        wait_until("it listens", || UnixStream::connect(&socket).is_ok());
        Self { process, dir }
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("timeout");
        let command = command.arg("60").arg(tool).args(arguments).env("PATH", PATH);
        let Output { status, stdout, stderr } = command.current_dir(self.dir.path()).output().unwrap();
        assert!(status.success(), "{tool} {arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    fn end(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
        assert!(!self.dir.path().join("sock").exists(), "its socket is removed");
    }
}

/// Looks again and again, with a moment in between.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let (_never, moment) = channel::<()>();
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        let _ = moment.recv_timeout(Duration::from_millis(5));
    }
}

/// Returns true if the tools are there. If not, it says so; with `CI` set, that is a failure.
fn has(tools: &[&str]) -> bool {
    let missing: Vec<_> = tools.iter().filter(|tool| !Path::new("/usr/bin").join(tool).exists()).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "missing: {missing:?}");
    let _ = writeln!(std::io::stderr(), "not tested: {missing:?} missing: apt-get install libnbd-bin");
    false
}

#[test]
fn nbdcopy_fills_it_sparsely_and_reads_it_back_sparsely() {
    const URI: &str = "nbd+unix:///?socket=sock";
    if !has(&["nbdcopy", "nbdinfo"]) {
        return;
    }
    let served = Served::start();
    let path = |name: &str| served.dir.path().join(name);
    let image = File::create(path("disk.img")).unwrap();
    image.set_len(SIZE).unwrap();
    // Two pieces of data in a disk of holes.
    let data: Vec<u8> = (0..MIB).map(|n| n as u8 | 1).collect();
    image.write_all_at(&data, 2 * MIB).unwrap();
    image.write_all_at(&data[..65536], 9 * MIB).unwrap();
    let is_sparse = |name: &str| path(name).metadata().unwrap().blocks() * 512 < 4 * MIB;
    assert!(is_sparse("disk.img"), "the file system has no holes");

    served.run("nbdcopy", &["--flush", "disk.img", URI]);
    let map: String = served
        .run("nbdinfo", &["--map", URI])
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n")
        .collect();
    assert_eq!(
        map,
        "0 2097152 3 hole,zero\n\
         2097152 1048576 0 data\n\
         3145728 6291456 3 hole,zero\n\
         9437184 65536 0 data\n\
         9502720 7274496 3 hole,zero\n"
    );
    served.run("nbdcopy", &[URI, "back.img"]);
    assert!(is_sparse("back.img"), "it is not sparse");
    assert!(fs::read(path("back.img")).unwrap() == fs::read(path("disk.img")).unwrap());
    let described = served.run("nbdinfo", &["--json", URI]);
    for expected in [r#""export-size": 16777216"#, r#""structured": true"#, r#""base:allocation""#] {
        assert!(described.contains(expected), "{expected} in {described}");
    }
    served.end();
}
