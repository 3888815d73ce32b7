// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients of libnbd that start their server.

use std::fs;
use std::process::Command;

use fake_imageio::{FakeServer, Fault, Op, What};
use support::TestResult;
use support::daemon::Daemons;
use support::door::built;
use support::image::{SIZE, guest_disk, same};
use support::process::PATIENCE;
use support::run::Ended;
use support::target::{Kind, Target, Via};
use support::tools::{NBDCOPY, NBDINFO, NBDSH, Tool};

use crate::Test;

/// A client and what it does.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) tools: &'static [Tool],
    /// Returns what the disk must hold in the end.
    run: fn(&Session) -> TestResult<Vec<u8>>,
}

pub(crate) const CASES: &[Case] = &[
    Case { name: "nbdcopy_starts_the_server_that_it_uploads_to", tools: &[NBDCOPY], run: nbdcopy },
    Case { name: "nbdinfo_starts_the_server_that_it_tells_of", tools: &[NBDINFO], run: nbdinfo },
    Case { name: "nbdsh_starts_a_server_that_listens", tools: &[NBDSH], run: nbdsh_activates },
    Case { name: "nbdsh_starts_a_server_on_a_socket_of_its_own", tools: &[NBDSH], run: nbdsh_single },
];

pub(crate) const TESTS: &[Test] = &[
    ("a_copy_whose_flush_fails_fails", &[NBDCOPY], failed_flush),
    ("a_client_is_told_in_one_line_why_its_server_does_not_start", &[NBDINFO], refused_ticket),
];

/// A transfer, and the server's command line for it.
struct Session {
    target: Target,
    /// The command line as an array of Python.
    python: String,
}

pub(crate) fn run(daemons: &Daemons, kind: Kind, via: Via, case: &Case) -> TestResult {
    let target = Target::new(daemons, kind, via)?;
    let words: Vec<_> = server(&target.parameters()).iter().map(|word| format!("{word:?}")).collect();
    let mut session = Session { target, python: words.join(", ") };
    let expected = (case.run)(&session)?;
    if let Some(fake) = &session.target.fake {
        // The client waits for its server, whose connections the other side sees end a little
        // later.
        assert!(fake.wait_for(PATIENCE, |log| log.open().count() == 0), "the server is left");
        assert_eq!(fake.log().lost_unflushed(), 0);
    }
    same("the server's disk", &session.target.contents()?, &expected)
}

fn server(parameters: &[String]) -> Vec<String> {
    [&[built("imageio-nbd").display().to_string()], parameters].concat()
}

/// Runs a client, for a minute at most, with the server in brackets as one of its arguments. Behind
/// `--`, options are the server's.
fn client(tool: Tool, before: &[&str], parameters: &[String], after: &[&str]) -> Ended {
    let mut command = Command::new("timeout");
    command.env("PATH", "/usr/bin:/bin").arg("60").arg(tool.path()).args(before);
    command.arg("[").args(server(parameters)).args(["--exit-with-parent", "]"]).args(after);
    command.output().unwrap().into()
}

impl Session {
    fn client(&self, tool: Tool, before: &[&str], after: &[&str]) -> TestResult<String> {
        succeeded(client(tool, before, &self.target.parameters(), after))
    }

    fn nbdsh(&self, script: &str) -> TestResult {
        let script = script.replace("SERVER", &self.python);
        let mut command = Command::new("timeout");
        // Debian's nbdsh needs Debian's Python.
        command.env("PATH", "/usr/bin:/bin").arg("60").arg(NBDSH.path()).args(["-c", &script]);
        succeeded(command.output()?.into()).map(drop)
    }
}

fn succeeded(ended: Ended) -> TestResult<String> {
    if ended.code == 0 { Ok(ended.out) } else { Err(format!("{ended:?}").into()) }
}

fn nbdcopy(session: &Session) -> TestResult<Vec<u8>> {
    let disk = guest_disk(5);
    let path = |name: &str| session.target.dir().join(name).display().to_string();
    fs::write(path("guest.img"), &disk)?;
    session.client(NBDCOPY, &["--flush", "--", &path("guest.img")], &[])?;
    session.client(NBDCOPY, &["--"], &[&path("back.img")])?;
    same("what nbdcopy reads back", &fs::read(path("back.img"))?, &disk)?;
    Ok(disk)
}

fn nbdinfo(session: &Session) -> TestResult<Vec<u8>> {
    let json = session.client(NBDINFO, &["--json", "--"], &[])?;
    let info: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(info["exports"][0]["export-size"], SIZE);
    let size = session.client(NBDINFO, &["--size", "--"], &[])?;
    assert_eq!(size.trim(), SIZE.to_string());
    Ok(vec![0; SIZE as usize])
}

fn nbdsh_activates(session: &Session) -> TestResult<Vec<u8>> {
    session.nbdsh(
        "
h.connect_systemd_socket_activation([SERVER])
assert h.can_multi_conn()
h.pwrite(b'a' * 100000, 1000)
assert h.pread(100, 1000) == b'a' * 100
h.shutdown()
",
    )?;
    Ok(written())
}

fn nbdsh_single(session: &Session) -> TestResult<Vec<u8>> {
    session.nbdsh(
        "
h.connect_command([SERVER, '--single'])
h.pwrite(b'a' * 100000, 1000)
assert h.pread(100, 1000) == b'a' * 100
h.shutdown()
",
    )?;
    Ok(written())
}

/// Nobody has asked for a flush: the server's end is one.
fn written() -> Vec<u8> {
    let mut disk = vec![0; SIZE as usize];
    disk[1000..101_000].fill(b'a');
    disk
}

fn failed_flush() {
    let server = FakeServer::builder().size(SIZE).start().unwrap();
    server.fault(Fault::on(Op::Flush).every().then(What::Status { status: 500, text: "no luck".into() }));
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("guest.img");
    fs::write(&image, guest_disk(5)).unwrap();
    let parameters = [format!("url={}", server.url()), "replay-buffer=0".to_owned()];
    let ended = client(NBDCOPY, &["--flush", "--", image.to_str().unwrap()], &parameters, &[]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("imageio-nbd: error: the disk may be incomplete: "), "{ended:?}");
}

fn refused_ticket() {
    let server = FakeServer::builder().start().unwrap();
    server.cancel_ticket();
    let ended = client(NBDINFO, &["--"], &[format!("url={}", server.url())], &[]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let lines: Vec<_> = ended.err.lines().filter(|line| line.starts_with("imageio-nbd: ")).collect();
    assert!(
        matches!(lines[..], [line] if line.contains("403") && line.contains("was canceled")),
        "{ended:?}"
    );
}
