// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sockets at which clients connect to `imageio-nbd`, and how many of them are served.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use fake_imageio::FakeServer;
use nbd::client::{NbdClient, handshake};
use support::door::built;
use support::process::{Daemon, PATIENCE};
use tempfile::TempDir;

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// A server that is ready for clients.
struct Served {
    process: Daemon,
    port: Option<u16>,
    server: FakeServer,
    dir: TempDir,
}

impl Served {
    fn start(options: &[&str]) -> Self {
        let (server, dir) = (FakeServer::builder().start().unwrap(), tempfile::tempdir().unwrap());
        let mut command = Command::new(built("imageio-nbd"));
        command.args(["-f", "-v"]).args(options).arg(format!("url={}", server.url()));
        let mut process = Daemon::spawn(command.current_dir(dir.path())).unwrap();
        let uri = process.wait_for_line(|line| Some(line.split_once("listening: ")?.1.to_owned())).unwrap();
        let port = uri.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        Self { process, port, server, dir }
    }

    fn connect(&self, ip: IpAddr) -> TcpStream {
        patient(TcpStream::connect(SocketAddr::from((ip, self.port.unwrap()))).unwrap())
    }

    fn connect_unix(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Says nothing, and has a place.
    fn silent(&self, ip: IpAddr) -> TcpStream {
        let mut stream = self.connect(ip);
        stream.read_exact(&mut [0; 18]).unwrap();
        stream
    }

    /// A client that has negotiated.
    fn client(&self, ip: IpAddr) -> NbdClient<TcpStream> {
        negotiate(self.connect(ip))
    }

    fn end(mut self) -> Vec<String> {
        assert!(self.process.terminate().unwrap().success());
        assert_eq!(self.server.log().lost_unflushed(), 0);
        self.process.said().to_vec()
    }
}

/// A read that takes too long fails sooner than a silent client loses its place for its silence.
fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn negotiate<S: Read + Write>(mut stream: S) -> NbdClient<S> {
    let export = handshake(&mut stream, b"").unwrap();
    NbdClient::new(stream, &export)
}

fn assert_works<S: Read + Write>(mut client: NbdClient<S>) {
    client.read_exact(&mut [1; 512]).unwrap();
}

fn assert_refused(mut stream: TcpStream) {
    assert!(matches!(stream.read(&mut [0]), Ok(0)), "the connection is closed");
}

#[test]
fn a_port_alone_is_that_of_both_loopback_addresses() {
    let served = Served::start(&["-p", "0"]);
    for ip in LOOPBACK {
        if TcpListener::bind((ip, 0)).is_ok() {
            assert_works(served.client(ip));
        }
    }
    served.end();
}

#[test]
fn sixty_four_clients_that_say_nothing_keep_nobody_waiting() {
    let served = Served::start(&["-p", "0"]);
    let _silent: Vec<_> = (0..64).map(|_| served.silent(LOOPBACK[0])).collect();
    assert_works(served.client(LOOPBACK[0]));
    served.end();
}

#[test]
fn max_clients_are_served_and_half_of_them_from_one_address() {
    let served = Served::start(&["-p", "0", "--max-clients", "4"]);
    let clients = [served.client(LOOPBACK[0]), served.client(LOOPBACK[0])];
    (0..3).for_each(|_| assert_refused(served.connect(LOOPBACK[0])));
    clients.into_iter().for_each(assert_works);
    assert_works(served.client(LOOPBACK[0]));
    let said = served.end().join("\n");
    let lines = said.matches("a client is refused: 2 from 127.0.0.1 are connected").count();
    assert_eq!(lines, 1, "{said}");
}

#[test]
fn further_clients_of_a_unix_socket_wait_for_one_to_leave() {
    let served = Served::start(&["-U", "sock", "--max-clients", "2"]);
    let idle = [negotiate(served.connect_unix()), negotiate(served.connect_unix())];
    let waiting = served.connect_unix();
    let [first, second] = idle;
    assert_works(first);
    assert_works(negotiate(waiting));
    assert_works(second);
    served.end();
}
