// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages while a transfer goes on: that it stalls, how far it is, and all of that in JSON.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use fake_imageio::{FakeServer, Fault, Gate, Op, What};
use libtest_mimic::{Arguments, Trial};
use nbd::client::{NbdClient, handshake};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::door::{Door, built};
use support::process::{Daemon, PATIENCE};
use support::run::{Ended, imageio_nbd};
use support::tools::{NBDCOPY, NBDSH, Tool, trial};
use tempfile::TempDir;

type Test = (&'static str, &'static [Tool], fn());

const TESTS: &[Test] = &[
    ("json_has_all_messages_one_a_line", &[], all_in_json),
    ("a_terminal_shows_how_far_it_is_and_messages_are_whole", &[NBDCOPY], on_a_terminal),
    ("a_terminal_is_left_clean_also_by_a_signal", &[], terminal_left_clean),
    ("a_pipe_gets_no_line_of_progress", &[NBDCOPY], on_a_pipe),
];

fn main() -> ExitCode {
    let stalls = Door::ALL.into_iter().map(|door| {
        let test = move || {
            stalls(door);
            Ok(())
        };
        trial(
            format!("{}/a_transfer_that_stalls_says_why_and_when_it_goes_on", door.name()),
            &[door.tools(), &[NBDSH]].concat(),
            test,
        )
    });
    let others = TESTS.iter().map(|&(name, tools, run)| {
        let test = move || {
            run();
            Ok(())
        };
        trial(name, tools, test)
    });
    libtest_mimic::run(&Arguments::from_args(), stalls.chain(others).collect::<Vec<Trial>>()).exit_code()
}

fn server() -> (FakeServer, TempDir, String) {
    let server = FakeServer::builder().size(4 << 20).start().unwrap();
    let url = format!("url={}", server.url());
    (server, tempfile::tempdir().unwrap(), url)
}

fn client(socket: &Path) -> NbdClient<UnixStream> {
    let mut stream = UnixStream::connect(socket).unwrap();
    let export = handshake(&mut stream, b"").unwrap();
    NbdClient::new(stream, &export)
}

/// It takes the ten seconds twice that a stall has to last, as nothing shortens them for real
/// programs.
fn stalls(door: Door) {
    let (server, dir, url) = server();
    let mut served = door.serve(dir.path(), &[url, "keep-alive=1".into()]).unwrap();
    let mut client = client(served.socket());
    client.write_all(&[1; 4096]).unwrap();
    served.wait_for("waiting for the client, since 1").unwrap();
    let gate = Gate::new();
    server.fault(Fault::on(Op::Put).then(What::Block(gate.clone())));
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || client.write_all(&[2; 4096]));
        assert!(gate.wait_reached(1, PATIENCE));
        served.wait_for("the client goes on, after ").unwrap();
        served.wait_for("waiting for the server's answer to write (connection 1), since 1").unwrap();
        gate.open();
        writing.join().unwrap().unwrap();
    });
    served.wait_for("the server goes on, after ").unwrap();
    let (status, said) = served.finish().unwrap();
    assert!(status.success(), "{said}");
    let warnings: Vec<_> = said.lines().filter(|line| line.contains("warning: ")).collect();
    assert!(
        matches!(warnings[..], [waits, goes_on] if waits.contains("waiting for the server") && goes_on.contains("the server goes on")),
        "{said}"
    );
}

/// The messages of a process, each an object with all names.
fn messages(said: &str) -> Vec<Value> {
    let message = |line: &str| {
        let message: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let names: Vec<_> = message.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names.len(), 4, "{line}");
        let time = message["time"].as_str().unwrap();
        assert!(time.len() == "2026-01-02T03:04:05.678901Z".len() && time.ends_with('Z'), "{time}");
        assert!(message["target"].as_str().unwrap().contains("imageio") || time.contains('T'), "{line}");
        message
    };
    said.lines().map(message).collect()
}

fn all_in_json() {
    let (server, dir, url) = server();
    let run = |arguments: &[&str]| -> (Ended, Vec<Value>) {
        let ended = imageio_nbd(
            dir.path(),
            &[&["--log-format=json", "-U", "-", "--run", "true"], arguments].concat(),
        )
        .unwrap();
        let messages = messages(&ended.err);
        (ended, messages)
    };
    let (ended, told) = run(&[&url, "-v"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let summary =
        told.iter().find(|message| message["message"].as_str().unwrap().starts_with("from clients: "));
    assert_eq!(summary.unwrap()["level"], "info");
    assert!(told.iter().any(|message| message["target"] == "imageio_device::transfer"), "{told:?}");

    // A warning of the start, and an error at the exit.
    server.cancel_ticket();
    let https = url.replace("http:", "https:");
    let (ended, told) = run(&[&https, "insecure=true"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let levels: Vec<_> = told.iter().map(|message| message["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["warn", "error"], "{ended:?}");
    let (ended, told) = run(&[&url, "colour=\"red\nblue\""]);
    assert_eq!((ended.code, told.len()), (1, 1), "{ended:?}");
    let (ended, told) = run(&[&url]);
    assert_eq!((ended.code, told.len()), (1, 1), "{ended:?}");
    assert!(told[0]["message"].as_str().unwrap().contains("403"), "{ended:?}");
}

/// A terminal that is a program's standard error.
struct Terminal {
    drawn: String,
    more: Receiver<String>,
}

impl Terminal {
    /// Starts the program.
    fn spawn(command: &mut Command) -> (Child, Self) {
        let pty = openpty(None, None).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(pty.slave)).spawn();
        // It holds the other end of the terminal, too.
        command.stderr(Stdio::null());
        let (mut master, (sender, more)) = (File::from(pty.master), channel());
        let read = move || {
            let mut buffer = [0; 4096];
            // The end of the last other end is an error (EIO).
            while let Ok(n @ 1..) = master.read(&mut buffer) {
                let _ = sender.send(String::from_utf8_lossy(&buffer[..n]).into_owned());
            }
        };
        std::thread::Builder::new().spawn(read).unwrap();
        (child.unwrap(), Self { drawn: String::new(), more })
    }

    fn wait_for(&mut self, text: &str) {
        while !self.drawn.contains(text) {
            let more = self.more.recv_timeout(PATIENCE);
            self.drawn += &more.unwrap_or_else(|error| panic!("{error}, no '{text}' in {:?}", self.drawn));
        }
    }

    /// All that is drawn until the program has ended.
    fn finish(mut self, mut child: Child) -> (Option<i32>, String) {
        loop {
            match self.more.recv_timeout(PATIENCE) {
                Ok(more) => self.drawn += &more,
                Err(error) => {
                    assert_eq!(error, RecvTimeoutError::Disconnected, "it goes on: {:?}", self.drawn);
                    return (child.wait().unwrap().code(), self.drawn);
                }
            }
        }
    }
}

/// It serves until a program of this name has written 4 MiB.
fn program(dir: &Path, url: &str, options: &[&str]) -> Command {
    std::fs::write(dir.join("disk"), vec![7; 4 << 20]).unwrap();
    let mut command = Command::new("timeout");
    command.args(["--foreground", "60"]).arg(built("imageio-nbd")).args([
        "--progress",
        "-U",
        "nbd.sock",
        url,
    ]);
    // A terminal that knows what to do.
    command.args(options).env("TERM", "xterm").env_remove("NO_COLOR").current_dir(dir);
    command
}

const COPY: &[&str] = &["--run", "nbdcopy --flush disk \"$uri\""];

/// The sequence that wipes out a line.
const WIPED: &str = "\u{1b}[2K";

fn on_a_terminal() {
    let (server, dir, url) = server();
    let gate = Gate::new();
    server.fault(Fault::on(Op::Flush).then(What::Block(gate.clone())));
    let mut program = program(dir.path(), &url, &[&["-v"], COPY].concat());
    let (child, mut terminal) = Terminal::spawn(&mut program);
    terminal.wait_for("clients 4.0 MiB, server 4.0 MiB, waiting for 1 flush");
    gate.open();
    let (code, drawn) = terminal.finish(child);
    assert_eq!(code, Some(0), "{drawn}");
    // Messages begin where a line does: after the line was wiped out, or at the begin of a line.
    for (at, _) in drawn.match_indices("imageio-nbd: ") {
        let before = &drawn[..at];
        assert!(
            before.is_empty() || before.ends_with('\n') || before.ends_with(WIPED) || before.ends_with('\r'),
            "{drawn:?}"
        );
    }
    let last = drawn.rsplit("MiB, server ").next().unwrap();
    assert!(last.contains(WIPED) && last.contains("info: from clients: "), "{last:?}");
}

fn terminal_left_clean() {
    let (_server, dir, url) = server();
    let mut program = program(dir.path(), &url, &["-f", "-P", "pid"]);
    let (child, mut terminal) = Terminal::spawn(&mut program);
    terminal.wait_for("clients 0 B, server 0 B, waiting for nothing");
    // `timeout` passes it on, and makes its own status of it.
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let (_, drawn) = terminal.finish(child);
    let last = drawn.rsplit("waiting for").next().unwrap();
    assert!(last.contains(WIPED), "{drawn:?}");
    assert!(
        !drawn.contains("\u{1b}[?25l") || drawn.contains("\u{1b}[?25h"),
        "the cursor is shown: {drawn:?}"
    );
}

fn on_a_pipe() {
    let (_server, dir, url) = server();
    let ended: Ended = program(dir.path(), &url, COPY).output().unwrap().into();
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    // A daemon has no terminal either.
    let mut daemon = Daemon::spawn(&mut program(dir.path(), &url, &["-P", "pid"])).unwrap();
    assert!(daemon.wait().unwrap().success());
    assert_eq!(daemon.said(), [""; 0]);
    // A client that is served finds the file.
    drop(client(&dir.path().join("nbd.sock")));
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGTERM).unwrap();
}
