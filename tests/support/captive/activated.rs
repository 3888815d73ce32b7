// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets that are passed to the server.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use fake_imageio::FakeServer;
use nbd::client::{NbdClient, handshake};
use support::door::built;
use support::process::Daemon;
use support::run::{Ended, imageio_nbd};
use support::tools::SYSTEMD_SOCKET_ACTIVATE;
use tempfile::TempDir;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("systemd_passes_a_unix_and_a_tcp_socket_and_both_serve", &[SYSTEMD_SOCKET_ACTIVATE], by_systemd),
    ("the_file_of_a_socket_that_was_passed_stays", &[], file_stays),
    ("options_that_tell_where_to_listen_are_refused_with_passed_sockets", &[], refused_options),
    ("sockets_that_were_meant_for_another_process_are_left_alone", &[], for_another),
    ("what_was_passed_and_does_not_listen_is_told_in_one_line", &[], no_listeners),
];

fn server_and_url() -> (FakeServer, String) {
    let server = FakeServer::builder().start().unwrap();
    let url = format!("url={}", server.url());
    (server, url)
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn by_systemd() {
    let ((server, _), dir) = (server_and_url(), dir());
    // The tool says what it runs, so the URL is not to be in there; and it takes no port 0.
    fs::write(dir.path().join("url"), server.url() + "\n").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(SYSTEMD_SOCKET_ACTIVATE.path());
    command.args(["-l", &dir.path().join("sock").display().to_string(), "-l", &format!("127.0.0.1:{port}")]);
    command.arg(built("imageio-nbd")).args(["-v", "url=+url"]).current_dir(dir.path());
    let mut served = Daemon::spawn(&mut command).unwrap();
    let mut unix = served.retry(|| UnixStream::connect(dir.path().join("sock"))).unwrap();
    let export = handshake(&mut unix, b"").unwrap();
    NbdClient::new(unix, &export).write_all(&[7; 512]).unwrap();
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(handshake(&mut tcp, b"").unwrap().size, server.size());
    drop(tcp);
    // It has taken the tool's place, and stays in the foreground.
    assert!(served.terminate().unwrap().success(), "{:?}", served.said());
    assert!(served.said().iter().any(|line| line.contains("signal 15")), "{:?}", served.said());
    assert_eq!(server.contents().unwrap()[..512], [7; 512]);
    assert_eq!(server.log().lost_unflushed(), 0);
}

/// Runs the server with this at descriptor 3, for a minute at most. It is the process that the
/// variables tell of.
fn activated(dir: &Path, third: Stdio, setting: &str, arguments: &[&str]) -> Ended {
    let mut command = Command::new("timeout");
    let script = format!("{setting} exec \"$0\" \"$@\" 3<&0 </dev/null");
    command.args(["60", "sh", "-c", &script]).arg(built("imageio-nbd")).args(arguments);
    command.stdin(third).current_dir(dir).output().unwrap().into()
}

const FOR_US: &str = "LISTEN_PID=$$ LISTEN_FDS=1";

fn listener(dir: &TempDir) -> Stdio {
    UnixListener::bind(dir.path().join("sock"))
        .map(|socket| Stdio::from(std::os::fd::OwnedFd::from(socket)))
        .unwrap()
}

fn file_stays() {
    let ((_server, url), dir) = (server_and_url(), dir());
    let script = format!("{FOR_US} exec \"$0\" \"$@\" 3<&0 </dev/null");
    let mut command = Command::new("sh");
    let mut served = command
        .args(["-c", &script])
        .arg(built("imageio-nbd"))
        .args(["-v", &url])
        .stdin(listener(&dir))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut client = UnixStream::connect(dir.path().join("sock")).unwrap();
    handshake(&mut client, b"").unwrap();
    let id = nix::unistd::Pid::from_raw(served.id().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(served.wait().unwrap().success());
    assert!(dir.path().join("sock").exists(), "it is not ours");
}

fn refused_options() {
    let (_server, url) = server_and_url();
    for option in [&["-U", "x"][..], &["-U", "-"], &["-p", "0"], &["-i", "::1"], &["-s"], &["--run", "true"]]
    {
        let dir = dir();
        let ended = activated(dir.path(), listener(&dir), FOR_US, &[option, &[&url]].concat());
        assert_eq!(ended.code, 1, "{option:?}: {ended:?}");
        assert_eq!(
            ended.err,
            "imageio-nbd: error: LISTEN_FDS: sockets to listen on were passed to this process: leave out -U, -p, -i, \
             -s and --run\n"
        );
    }
}

fn for_another() {
    let (_server, url) = server_and_url();
    for setting in ["LISTEN_PID=1 LISTEN_FDS=1", "LISTEN_FDS=1", "LISTEN_PID= LISTEN_FDS=1", "LISTEN_PID=$$"]
    {
        let dir = dir();
        let ended = activated(dir.path(), listener(&dir), setting, &[&url, "--run", "exit 9"]);
        assert_eq!(ended.code, 9, "{setting}: {ended:?}");
    }
    // A child of the process that they were meant for.
    let ended = imageio_nbd(dir().path(), &[&url, "--run", "echo ${LISTEN_PID-unset}"]).unwrap();
    assert_eq!((ended.code, ended.out.as_str()), (0, "unset\n"));
}

fn no_listeners() {
    let ((_server, url), dir) = (server_and_url(), dir());
    let (connected, _other) = UnixStream::pair().unwrap();
    let connected = || Stdio::from(std::os::fd::OwnedFd::from(connected.try_clone().unwrap()));
    let cases = [
        (Stdio::null(), FOR_US, "file descriptor 3 is not a unix or TCP socket"),
        (connected(), FOR_US, "the socket 3 is connected, and one that listens is expected"),
        (connected(), "LISTEN_PID=$$ LISTEN_FDS=none", "the number of sockets"),
        (connected(), "LISTEN_PID=$$ LISTEN_FDS=0", "the number of sockets"),
        (connected(), "LISTEN_PID=$$ LISTEN_FDS=99999999999", "the number of sockets"),
        (listener(&dir), "LISTEN_PID=$$ LISTEN_FDS=2", "file descriptor 4 is not a unix or TCP socket"),
    ];
    for (third, setting, expected) in cases {
        let ended = activated(dir.path(), third, setting, &[&url]);
        assert_eq!(ended.code, 1, "{setting}: {ended:?}");
        assert!(ended.err.contains(expected) && ended.err.lines().count() == 1, "{setting}: {ended:?}");
    }
}
