// SPDX-License-Identifier: MIT OR Apache-2.0
//! A URL that isn't on the command line: from standard input, or from a pipe.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use fake_imageio::FakeServer;
use support::door::{Door, built};

#[test]
fn the_url_may_come_from_standard_input() {
    let (server, dir) = (FakeServer::builder().start().unwrap(), tempfile::tempdir().unwrap());
    let url = dir.path().join("url");
    fs::write(&url, server.url() + "\n").unwrap();
    for door in Door::ALL {
        if !door.tools().iter().all(|tool| tool.find().is_some()) {
            continue;
        }
        let options = ["-U", "-"].map(OsStr::new);
        let parameters = ["url=-", "--run", "echo served"].map(str::to_owned);
        let mut command = door.command(dir.path(), &options, &parameters).unwrap();
        let ended = command.stdin(fs::File::open(&url).unwrap()).output().unwrap();
        assert_eq!((ended.status.code(), &ended.stdout[..]), (Some(0), &b"served\n"[..]), "{ended:?}");
    }
}

#[test]
fn standard_input_behind_the_url_is_the_command_s() {
    let (server, dir) = (FakeServer::builder().start().unwrap(), tempfile::tempdir().unwrap());
    let mut command = Command::new(built("imageio-nbd"));
    let command = command.args(["-U", "-", "url=-", "--run", "cat"]).current_dir(dir.path());
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(format!("{}\nand\nmore", server.url()).as_bytes()).unwrap();
    drop(stdin);
    let ended = process.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), &ended.stdout[..]), (Some(0), &b"and\nmore"[..]));
}

#[test]
fn a_url_that_can_be_read_once_opens_a_transfer_for_reading_only() {
    let (server, dir) =
        (FakeServer::builder().read_only(true).start().unwrap(), tempfile::tempdir().unwrap());
    let fifo = dir.path().join("url");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for door in Door::ALL {
        if !door.tools().iter().all(|tool| tool.find().is_some()) {
            continue;
        }
        for url in ["url=-".to_owned(), format!("url=+{}", fifo.display())] {
            let options = ["-U", "-", "-r"].map(OsStr::new);
            let parameters = [&url, "--run", "echo served"].map(str::to_owned);
            let mut command = door.command(dir.path(), &options, &parameters).unwrap();
            let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut process = command.spawn().unwrap();
            // With a reader's end, too: then nobody waits for the other side, whatever that does.
            let mut pipe = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
            let line = server.url() + "\n";
            if url == "url=-" {
                process.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
            } else {
                pipe.write_all(line.as_bytes()).unwrap();
            }
            let ended = process.wait_with_output().unwrap();
            assert_eq!((ended.status.code(), &ended.stdout[..]), (Some(0), &b"served\n"[..]), "{ended:?}");
        }
    }
}
