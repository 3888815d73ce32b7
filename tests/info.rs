// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd info`.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use fake_imageio::{Builder, Certificate, DEFAULT_TICKET, Done, FakeServer, Fault, Op, OptionsMode, What};
use serde_json::{Value, json};
use support::door::built;
use support::run::{Ended, imageio_nbd};

const BLOCK: u64 = 64 << 10;
const SIZE: u64 = 16 * BLOCK;

/// Two blocks of data; one of them is dirty, and so is a block without.
fn backup() -> Builder {
    let contents = [vec![0; BLOCK as usize], vec![7; 2 * BLOCK as usize]].concat();
    FakeServer::builder()
        .size(SIZE)
        .contents(contents)
        .read_only(true)
        .dirty(vec![2 * BLOCK..3 * BLOCK, 3 * BLOCK..4 * BLOCK])
}

fn info(server: &FakeServer, arguments: &[&str]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("url={}", server.url());
    imageio_nbd(dir.path(), &[&["info", &url], arguments].concat()).unwrap()
}

fn json(server: &FakeServer, arguments: &[&str]) -> Value {
    let ended = info(server, &[&["--json"], arguments].concat());
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
    serde_json::from_str(&ended.out).unwrap()
}

/// An error of one line, and nothing else.
#[track_caller]
fn assert_fails(ended: &Ended, expected: &str) {
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{ended:?}");
    assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    assert!(ended.err.starts_with("imageio-nbd: error: ") && ended.err.contains(expected), "{}", ended.err);
    assert!(!ended.err.contains(DEFAULT_TICKET));
}

#[test]
fn people_are_told_in_lines() {
    let server = backup().start().unwrap();
    let ended = info(&server, &[]);
    let expected = format!(
        "url           http://{}/images/TICKET\n\
         size          1.0 MiB (1048576 bytes)\n\
         access        read\n\
         features      extents, checksum\n\
         connections   up to 8 read, up to 8 write\n\
         unix socket   no\n\
         extents       3\n  \
           data        128.0 KiB (131072 bytes)\n  \
           zero        896.0 KiB (917504 bytes)\n  \
           holes       832.0 KiB (851968 bytes)\n\
         dirty         128.0 KiB (131072 bytes) in 2 extents\n  \
           data        64.0 KiB (65536 bytes)\n  \
           zero        64.0 KiB (65536 bytes)\n",
        server.addr()
    );
    assert_eq!((ended.code, ended.err.as_str(), ended.out), (0, "", expected));
}

#[test]
fn programs_are_told_in_json() {
    let server = backup().tls(Certificate::default()).unix_socket("\0none").start().unwrap();
    let cafile = format!("cafile={}", server.cafile().unwrap().display());
    let expected = json!({
        "url": format!("https://{}/images/TICKET", server.addr()),
        "size": SIZE,
        "read_only": true,
        "features": {"zero": false, "flush": false, "extents": true, "checksum": true},
        "max_readers": 8,
        "max_writers": 8,
        "unix_socket": true,
        "extents": {"count": 3, "data": 2 * BLOCK, "zero": 14 * BLOCK, "hole": 13 * BLOCK},
        "dirty": {"count": 2, "dirty": 2 * BLOCK, "data": BLOCK, "zero": BLOCK},
    });
    assert_eq!(json(&server, &[&cafile]), expected);
    assert!(server.wait_for(support::process::PATIENCE, |log| log.open().count() == 0));
}

#[test]
fn what_a_server_has_not_is_null() {
    let server = FakeServer::builder().size(SIZE).start().unwrap();
    let told = json(&server, &[]);
    assert_eq!((&told["dirty"], &told["extents"]["zero"]), (&Value::Null, &SIZE.into()), "{told}");
    assert_eq!((&told["read_only"], &told["features"]["flush"]), (&false.into(), &true.into()));
    for server in
        [FakeServer::builder().extents(false), FakeServer::builder().options(OptionsMode::NoContent)]
    {
        let server = server.start().unwrap();
        let told = json(&server, &[]);
        assert_eq!((&told["dirty"], &told["extents"]), (&Value::Null, &Value::Null), "{told}");
        assert!(info(&server, &[]).out.ends_with("\nextents       none are told\n"));
        assert_eq!(server.log().of(Op::Extents).count() + server.log().of(Op::DirtyExtents).count(), 0);
    }
}

#[test]
fn a_connection_that_breaks_is_opened_again() {
    for op in [Op::Extents, Op::DirtyExtents] {
        let server = backup().start().unwrap();
        server.fault(Fault::on(op).then(What::LoseAnswer));
        assert_eq!(json(&server, &[])["dirty"]["data"], BLOCK);
        assert_eq!(server.log().of(op).count(), 2);
        server.fault(Fault::on(op).every().then(What::Close { after: 9 }));
        assert_fails(&info(&server, &["--json"]), "the connection to the server was lost");
    }
}

#[test]
fn errors_are_one_line_and_status_1() {
    let server = backup().start().unwrap();
    assert_fails(&info(&server, &["size=512K"]), "extents end at 1048576, and the disk at 524288: the size");
    assert_fails(&info(&server, &["colour=red"]), "unknown parameter 'colour'");
    let answer =
        |text: &str| What::Answer { status: 200, text: text.to_owned(), done: Done::Not, close: false };
    let no = What::Status { status: 500, text: format!("no {DEFAULT_TICKET}") };
    for (what, expected) in [
        (no, "dirty extents: 500 Internal Server Error: no "),
        (answer("nonsense"), "dirty extents: the server's answer makes no sense: "),
        (answer(r#"[{"start":0,"length":1048577,"dirty":true}]"#), "extents end at 1048577"),
        (answer(r#"[{"start":0,"length":1048576}]"#), "doesn't tell whether it is dirty"),
    ] {
        server.fault(Fault::on(Op::DirtyExtents).then(what));
        assert_fails(&info(&server, &[]), expected);
    }
    server.fault(Fault::on(Op::Extents).then(What::NoAnswer));
    assert_fails(
        &info(&server, &["operation-timeout=0.2"]),
        "zero extents: the server made no progress for 0.2 s",
    );
    server.cancel_ticket();
    assert_fails(&info(&server, &["--json"]), "403 Forbidden");
    let dir = tempfile::tempdir().unwrap();
    assert_fails(&imageio_nbd(dir.path(), &["info"]).unwrap(), "url is missing");
    let ended = info(&server, &["--jason"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.starts_with("imageio-nbd: error: unexpected argument '--jason'"), "{}", ended.err);
}

#[test]
fn the_url_may_come_from_standard_input_and_standard_output_may_be_full() {
    let server = backup().start().unwrap();
    let told = |out: Stdio| {
        let mut command = Command::new(built("imageio-nbd"));
        command.args(["info", "--json", "url=-"]).stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let line = server.url() + "\n";
        process.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
        Ended::from(process.wait_with_output().unwrap())
    };
    let ended = told(Stdio::piped());
    assert_eq!(serde_json::from_str::<Value>(&ended.out).unwrap()["size"], SIZE, "{ended:?}");
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_fails(&told(full.into()), "cannot write to standard output: No space left on device");
}

#[test]
fn help_tells_the_parameters_and_verbose_tells_no_ticket() {
    let server = backup().start().unwrap();
    let help = info(&server, &["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.out.contains("--json") && help.out.contains("cafile=FILE"), "{}", help.out);
    let ended = info(&server, &["-vv"]);
    assert_eq!(ended.code, 0);
    assert!(ended.err.contains("imageio-nbd: info: "), "{}", ended.err);
}
