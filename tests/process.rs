// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd` as a process: its command, its signals, its parent, its end.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use fake_imageio::{Certificate, DEFAULT_TICKET, FakeServer, Fault, Gate, Op, What};
use nbd::client::{NbdClient, handshake};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::door::{Door, built};
use support::process::{Daemon, PATIENCE};
use support::run::imageio_nbd;
use tempfile::TempDir;

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn server() -> FakeServer {
    FakeServer::builder().start().unwrap()
}

fn url(server: &FakeServer) -> String {
    format!("url={}", server.url())
}

fn client(socket: &Path) -> NbdClient<UnixStream> {
    let mut stream = UnixStream::connect(socket).unwrap();
    let export = handshake(&mut stream, b"").unwrap();
    NbdClient::new(stream, &export)
}

#[test]
fn the_command_finds_the_server_and_its_status_is_passed_on() {
    let (server, dir) = (server(), dir());
    let command =
        r#"echo "uri=$uri socket=$unixsocket port=$port name=$exportname"; test -S "$unixsocket"; exit 7"#;
    let ended = imageio_nbd(dir.path(), &[&url(&server), "-e", "disk 1", "--run", command]).unwrap();
    assert_eq!(ended.code, 7, "{ended:?}");
    let socket = ended.out.split("socket=").nth(2).unwrap().split(' ').next().unwrap();
    assert_eq!(
        ended.out,
        format!("uri=nbd+unix:///disk%201?socket={socket} socket={socket} port= name=disk 1\n")
    );
    assert!(!Path::new(socket).exists() && !Path::new(socket).parent().unwrap().exists(), "nothing is left");
    assert_eq!(server.log().lost_unflushed(), 0);
}

#[test]
fn a_command_ended_by_a_signal_is_told_as_a_shell_does() {
    let server = server();
    let ended = imageio_nbd(dir().path(), &[&url(&server), "--run", "kill -KILL $$"]).unwrap();
    assert_eq!(ended.code, 128 + 9, "{ended:?}");
}

#[test]
fn port_zero_is_a_free_port_of_the_address_asked_for() {
    let server = server();
    let ended =
        imageio_nbd(dir().path(), &["-p", "0", "-i", "127.0.0.1", &url(&server), "--run", "echo $uri"])
            .unwrap();
    assert_eq!(ended.code, 0, "{ended:?}");
    let port = ended.out.trim().strip_prefix("nbd://127.0.0.1:").unwrap().trim_end_matches('/');
    assert_ne!(port.parse::<u16>().unwrap(), 0);
}

#[test]
fn tcp_is_for_this_host_alone_unless_it_is_told_otherwise() {
    let server = server();
    // Whoever listens on all addresses of the host does so on this one, too.
    let connect = r"exec 3<>/dev/tcp/127.0.0.2/$port";
    let run = format!("bash -c '{connect}' 2>/dev/null");
    let url = url(&server);
    for (address, is_reached) in [(&[][..], false), (&["-i", "any"], true)] {
        let arguments = [&["-p", "0", &url, "--run", &run], address].concat();
        let ended = imageio_nbd(dir().path(), &arguments).unwrap();
        assert_eq!(ended.code == 0, is_reached, "{address:?}: {ended:?}");
    }
}

#[test]
fn sigterm_finishes_what_is_in_flight_flushes_and_exits_with_0() {
    let (server, dir) = (server(), dir());
    let gate = Gate::new();
    server.fault(Fault::on(Op::Put).nth(2).then(What::Block(gate.clone())));
    let mut served = Daemon::spawn(
        Command::new(built("imageio-nbd"))
            .args(["-f", "-v", "-U", "sock", &url(&server)])
            .current_dir(dir.path()),
    )
    .unwrap();
    served.wait_for_line(|line| line.contains("listening: ").then_some(())).unwrap();
    let mut client = client(&dir.path().join("sock"));
    client.write_all(&[1; 4096]).unwrap();
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || client.write_all(&[2; 4096]));
        assert!(gate.wait_reached(1, PATIENCE));
        served.signal(Signal::SIGTERM).unwrap();
        served.wait_for_line(|line| line.contains("finishing the requests in flight").then_some(())).unwrap();
        gate.open();
        writing.join().unwrap().unwrap();
    });
    let status = served.wait().unwrap();
    assert!(status.success(), "{status}: {:?}", served.said());
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    assert_eq!(server.log().lost_unflushed(), 0);
    assert_eq!(server.contents().unwrap()[..8192], [[1; 4096], [2; 4096]].concat());
    assert!(!dir.path().join("sock").exists(), "the socket is removed");
}

#[test]
fn sigint_is_passed_on_to_the_command_whose_end_it_waits_for() {
    let server = server();
    // Whichever of the shell and its successor it meets is ended by it.
    let command = "kill -INT $PPID; exec sleep 50";
    let ended = imageio_nbd(dir().path(), &[&url(&server), "--run", command]).unwrap();
    assert_eq!(ended.code, 128 + 2, "{ended:?}");
}

#[test]
fn data_that_may_be_lost_is_an_exit_status_of_1_also_when_nobody_asks_for_a_flush() {
    let (server, dir) = (server(), dir());
    let parameters = [url(&server), "replay-buffer=0".to_owned()];
    let mut served = Door::ImageioNbd.serve(dir.path(), &parameters).unwrap();
    client(served.socket()).write_all(&[1; 4096]).unwrap();
    server.close_idle();
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    let (status, said) = served.finish().unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("imageio-nbd: error: the disk may be incomplete: data may be lost: "), "{said}");

    // The server refuses the flush at the end.
    server.fault(Fault::on(Op::Flush).every().then(What::Status { status: 500, text: "no luck".into() }));
    served = Door::ImageioNbd.serve(dir.path(), &[url(&server)]).unwrap();
    client(served.socket()).write_all(&[1; 4096]).unwrap();
    let (status, said) = served.finish().unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("flush: 500 Internal Server Error: no luck"), "{said}");
}

#[test]
fn a_daemon_serves_when_the_command_returns_and_ends_in_good_order() {
    let (server, dir) = (server(), dir());
    let ended = imageio_nbd(dir.path(), &["-U", "sock", "-P", "pid", &url(&server)]).unwrap();
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, "", ""));
    let socket = dir.path().join("sock");
    client(&socket).write_all(&[5; 1000]).unwrap();
    assert!(server.wait_for(PATIENCE, |log| log.of(Op::Put).any(|put| put.end.is_some())));
    let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
    kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGTERM).unwrap();
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    assert_eq!(server.log().lost_unflushed(), 0);
    assert_eq!(server.contents().unwrap()[..1000], [5; 1000]);
}

#[test]
fn the_pid_file_of_a_daemon_is_there_soon_and_never_empty() {
    let (server, dir) = (server(), dir());
    let mut served = Daemon::spawn(
        Command::new(built("imageio-nbd"))
            .args(["-f", "-P", "pid", "-U", "sock", &url(&server)])
            .current_dir(dir.path()),
    )
    .unwrap();
    let pid = served.retry(|| fs::read_to_string(dir.path().join("pid"))).unwrap();
    assert_eq!(pid, format!("{}\n", served.id()));
    // Whoever sees the file can connect.
    UnixStream::connect(dir.path().join("sock")).unwrap();
    assert!(served.terminate().unwrap().success());
}

#[test]
fn a_signal_as_soon_as_the_pid_file_is_there_is_heeded() {
    let server = server();
    for _ in 0..40 {
        let dir = dir();
        let mut served = Daemon::spawn(
            Command::new(built("imageio-nbd"))
                .args(["-f", "-P", "pid", "-U", "sock", &url(&server)])
                .current_dir(dir.path()),
        )
        .unwrap();
        served.retry(|| fs::read_to_string(dir.path().join("pid"))).unwrap();
        let status = served.terminate().unwrap();
        assert!(status.success(), "{status}: {:?}", served.said());
        assert!(!dir.path().join("sock").exists());
    }
}

#[test]
fn signals_that_come_together_are_one() {
    let (server, dir) = (server(), dir());
    let gate = Gate::new();
    server.fault(Fault::on(Op::Flush).then(What::Block(gate.clone())));
    let served = Door::ImageioNbd.serve(dir.path(), &[url(&server)]).unwrap();
    client(served.socket()).write_all(&[4; 512]).unwrap();
    let pid = Pid::from_raw(i32::try_from(served.id()).unwrap());
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
        kill(pid, signal).unwrap();
    }
    // The last flush is under way, and those signals have come.
    assert!(gate.wait_reached(1, PATIENCE));
    gate.open();
    let (status, said) = served.wait().unwrap();
    assert!(status.success(), "{said}");
    assert_eq!(server.log().lost_unflushed(), 0);
}

#[test]
fn who_insists_ends_it_in_the_middle_of_the_last_flush_and_is_told_so() {
    let (server, dir) = (server(), dir());
    server.fault(Fault::on(Op::Flush).every().then(What::NoAnswer));
    let mut served = Daemon::spawn(
        Command::new(built("imageio-nbd"))
            .args(["-f", "-v", "-U", "sock", &url(&server)])
            .current_dir(dir.path()),
    )
    .unwrap();
    served.wait_for_line(|line| line.contains("listening: ").then_some(())).unwrap();
    client(&dir.path().join("sock")).write_all(&[4; 512]).unwrap();
    assert_eq!(served.terminate_insistently().unwrap().code(), Some(1));
    let [.., error, figures] = served.said() else { panic!("{:?}", served.said()) };
    assert!(error.ends_with("signal 15 again: ending at once, the disk may be incomplete"), "{error}");
    assert!(figures.contains("info: from clients: "), "{figures}");
    assert_eq!(server.log().of(Op::Flush).count(), 1);
}

#[test]
fn it_ends_with_its_parent() {
    let (server, dir) = (server(), dir());
    let script = format!(
        "{} --exit-with-parent -v -U sock '{}' & echo started >&2; read line",
        built("imageio-nbd").display(),
        url(&server)
    );
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", &script]).current_dir(dir.path()).stdin(Stdio::piped());
    let mut shell = shell.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = io::BufReader::new(shell.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening: ") {
        line.clear();
        assert_ne!(io::BufRead::read_line(&mut said, &mut line).unwrap(), 0, "it ended too early");
    }
    client(&dir.path().join("sock")).write_all(&[9; 512]).unwrap();
    drop(shell.stdin.take());
    shell.wait().unwrap();
    // Both had this pipe: its end is the end of both.
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("signal 15"), "{rest}");
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    assert_eq!(server.log().lost_unflushed(), 0);
}

#[test]
fn the_ticket_is_in_no_message() {
    let server = FakeServer::builder().tls(Certificate::default()).start().unwrap();
    let dir = dir();
    fs::write(dir.path().join("url"), format!("{}\n", server.url())).unwrap();
    let cafile = format!("cafile={}", server.cafile().unwrap().display());
    let run = r#"test -S "$unixsocket""#;
    let ended = imageio_nbd(dir.path(), &["-v", "-v", "url=+url", &cafile, "--run", run]).unwrap();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.err.contains("/images/TICKET"), "{}", ended.err);
    server.cancel_ticket();
    let refused = imageio_nbd(dir.path(), &["-v", "-v", "url=+url", &cafile, "--run", run]).unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    for text in [ended.out, ended.err, refused.out, refused.err] {
        assert!(!text.contains(DEFAULT_TICKET), "{text}");
    }
}

#[test]
fn nohup_is_heeded() {
    let (server, dir) = (server(), dir());
    let mut served = Daemon::spawn(
        Command::new("nohup")
            .arg(built("imageio-nbd"))
            .args(["-f", "-v", "-U", "sock", &url(&server)])
            .stdout(Stdio::null())
            .current_dir(dir.path()),
    )
    .unwrap();
    served.wait_for_line(|line| line.contains("listening: ").then_some(())).unwrap();
    served.signal(Signal::SIGHUP).unwrap();
    // It would have ended before it served this client.
    let mut client = client(&dir.path().join("sock"));
    client.write_all(&[1; 512]).unwrap();
    client.flush().unwrap();
    drop(client);
    assert!(served.terminate().unwrap().success());
    assert!(!served.said().iter().any(|line| line.contains("signal 1:")), "{:?}", served.said());
    assert_eq!(server.contents().unwrap()[..512], [1; 512]);
}

#[test]
fn a_process_that_is_ended_while_it_starts_leaves_no_file_behind() {
    let (server, dir) = (server(), dir());
    let gate = Gate::new();
    server.fault(Fault::on(Op::Options).then(What::Block(gate.clone())));
    let mut served = Daemon::spawn(
        Command::new(built("imageio-nbd"))
            .args(["-f", "-P", "pid", "-U", "sock", &url(&server)])
            .current_dir(dir.path()),
    )
    .unwrap();
    assert!(gate.wait_reached(1, PATIENCE));
    served.signal(Signal::SIGKILL).unwrap();
    assert!(!served.wait().unwrap().success());
    gate.open();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn read_only_is_told_to_clients_and_kept() {
    let (server, dir) = (server(), dir());
    let served = Door::ImageioNbd.serve(dir.path(), &[url(&server), "-r".into()]).unwrap();
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    let export = handshake(&mut stream, b"").unwrap();
    assert!(export.readonly);
    let error = NbdClient::new(stream, &export).write_all(&[1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(served.finish().unwrap().0.success());
    assert_eq!(server.log().of(Op::Put).count(), 0);
}

#[test]
fn a_tcp_client_is_served() {
    let (server, dir) = (server(), dir());
    let mut served = Daemon::spawn(
        Command::new(built("imageio-nbd"))
            .args(["-f", "-v", "-p", "0", &url(&server)])
            .current_dir(dir.path()),
    )
    .unwrap();
    let uri = served.wait_for_line(|line| Some(line.split_once("listening: ")?.1.to_owned())).unwrap();
    let address = uri.trim_start_matches("nbd://").trim_end_matches('/').to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    let export = handshake(&mut stream, b"").unwrap();
    assert_eq!(export.size, server.size());
    NbdClient::new(stream, &export).write_all(&[3; 3]).unwrap();
    assert!(served.terminate().unwrap().success());
    assert_eq!(server.contents().unwrap()[..3], [3; 3]);
}

#[test]
fn version_and_help_are_printed() {
    let version = imageio_nbd(dir().path(), &["-V"]).unwrap();
    assert_eq!((version.code, version.out), (0, format!("imageio-nbd {}\n", env!("CARGO_PKG_VERSION"))));
    let help = imageio_nbd(dir().path(), &["--help"]).unwrap();
    assert_eq!(help.code, 0);
    for parameter in ["url=", "size=", "cafile=", "--run", "Exit status"] {
        assert!(help.out.contains(parameter), "{parameter}");
    }
}

#[test]
fn man_page_and_completions_are_made() {
    let dir = dir();
    assert_eq!(imageio_nbd(dir.path(), &["--generate", "out"]).unwrap().code, 0);
    let page = fs::read_to_string(dir.path().join("out/imageio-nbd.1")).unwrap();
    assert!(page.contains(r"\-\-exit\-with\-parent") && page.contains("operation"), "{page}");
    assert!(dir.path().join("out/imageio-nbd.bash").exists());
}
