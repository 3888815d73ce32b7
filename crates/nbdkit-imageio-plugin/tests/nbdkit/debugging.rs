// SPDX-License-Identifier: MIT OR Apache-2.0
//! The debug flags.

use fake_imageio::FakeServer;

use crate::support::{Served, has, run, tool};

const FLAGS: [&str; 6] = ["-D", "imageio.requests=1", "-D", "imageio.pool=1", "-D", "imageio.stats=1"];

/// Returns nbdkit's messages about a small write and a keep-alive.
fn said(options: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder().size(1 << 20).start().unwrap();
    let mut nbdkit = Served::start(dir.path(), options, &[&server.url(), "keep-alive=0.1"]);
    let script = "h.pwrite(b'x' * 512, 1024, nbd.CMD_FLAG_FUA)";
    let wrote = run(tool(dir.path(), "nbdsh").args(["-u", "nbd+unix:///?socket=sock", "-c", script]));
    assert_eq!(wrote.code, Some(0), "{}", wrote.err);
    if !options.is_empty() {
        nbdkit.wait_for_line("debug: imageio: keeping an idle connection alive");
    }
    assert!(nbdkit.terminate().success());
    nbdkit.said.join("\n")
}

#[test]
fn they_show_requests_the_pool_and_a_table() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let said = said(&FLAGS);
    assert!(said.contains("debug: imageio: write of 512 bytes at 1024 fua: "), "{said}");
    let line = said.lines().find(|line| line.contains("imageio: write     ")).expect("the table");
    let words: Vec<_> = line.split_whitespace().skip_while(|word| *word != "write").take(4).collect();
    assert_eq!(words, ["write", "1", "512", "0"]);
    assert!(!said.contains("was not used") && !said.contains("does not contain a global variable"), "{said}");
}

#[test]
fn without_them_there_is_less() {
    if !has(&["nbdkit", "nbdsh"]) {
        return;
    }
    let said = said(&[]);
    assert!(
        !said.contains("of 512 bytes") && !said.contains("keeping") && !said.contains("mean ms"),
        "{said}"
    );
}
