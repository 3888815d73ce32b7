// SPDX-License-Identifier: MIT OR Apache-2.0
//! One client on standard input and output.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use fake_imageio::{FakeServer, Fault, Op, What};
use nbd::client::{NbdClient, handshake};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::door::built;
use support::process::PATIENCE;
use support::run::{Ended, imageio_nbd};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("one_socket_is_one_client_and_its_end_is_that_of_the_server", &[], one_socket),
    ("two_pipes_are_one_client", &[], two_pipes),
    ("a_client_that_vanishes_loses_nothing_that_was_acknowledged", &[], vanished),
    ("a_client_that_reads_no_more_ends_the_server", &[], reads_no_more),
    ("what_could_not_be_flushed_is_an_exit_status_of_1", &[], failed_flush),
    ("sigterm_ends_a_single_session_in_good_order", &[], sigterm),
    ("messages_do_not_get_among_the_replies_of_a_socket_that_is_standard_error_too", &[], inetd),
    ("nothing_but_replies_is_on_standard_output", &[], silent_output),
    ("what_does_not_go_with_a_single_client_is_refused", &[], refusals),
];

/// The server of one client.
struct Single {
    process: Child,
    imageio: FakeServer,
}

impl Single {
    fn start(input: Stdio, output: Stdio) -> Self {
        Self::start_with(FakeServer::builder().start().unwrap(), input, output)
    }

    fn start_with(imageio: FakeServer, input: Stdio, output: Stdio) -> Self {
        let mut command = Command::new(built("imageio-nbd"));
        command.args(["-s", "-v", &format!("url={}", imageio.url())]).stdin(input).stdout(output);
        let process = command.stderr(Stdio::piped()).spawn().unwrap();
        Self { process, imageio }
    }

    /// With a socket for both, as inetd and libnbd have it.
    fn on_a_socket() -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let stdio = || Stdio::from(OwnedFd::from(theirs.try_clone().unwrap()));
        (Self::start(stdio(), stdio()), ours)
    }

    fn on_pipes() -> (Self, Pipes) {
        let mut single = Self::start(Stdio::piped(), Stdio::piped());
        let to = single.process.stdin.take().unwrap();
        let from = single.process.stdout.take().unwrap();
        (single, Pipes { to, from })
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
    }

    /// Returns what it said until its end, and checks that it has let go of the transfer.
    fn end(self) -> (Ended, FakeServer) {
        let ended: Ended = self.process.wait_with_output().unwrap().into();
        assert!(self.imageio.wait_for(PATIENCE, |log| log.open().count() == 0));
        (ended, self.imageio)
    }

    fn end_well(self) -> FakeServer {
        let (ended, imageio) = self.end();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert_eq!(imageio.log().lost_unflushed(), 0);
        imageio
    }
}

struct Pipes {
    to: ChildStdin,
    from: ChildStdout,
}

impl Read for Pipes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer)
    }
}

impl Write for Pipes {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.to.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Writes through a client, which says goodbye when it is dropped.
fn write<T: Read + Write>(mut stream: T) -> NbdClient<T> {
    let export = handshake(&mut stream, b"").unwrap();
    let mut client = NbdClient::new(stream, &export);
    client.write_all(&[3; 100_000]).unwrap();
    client
}

fn is_written(imageio: &FakeServer) -> bool {
    imageio.contents().unwrap()[..100_000] == [3; 100_000]
}

fn one_socket() {
    let (single, socket) = Single::on_a_socket();
    drop(write(socket));
    assert!(is_written(&single.end_well()));
}

/// Some of what inetd starts has the socket three times. A socket that doesn't block makes no
/// difference.
fn inetd() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let stdio = || Stdio::from(OwnedFd::from(theirs.try_clone().unwrap()));
    let imageio = FakeServer::builder().start().unwrap();
    // It is told with each level of messages.
    imageio.fault(Fault::on(Op::Put).then(What::Status { status: 400, text: "for a reason".into() }));
    let mut command = Command::new(built("imageio-nbd"));
    command.args(["-s", "-v", &format!("url={}", imageio.url())]);
    let process = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
    drop((command, theirs));
    let single = Single { process, imageio };
    let mut stream = ours;
    let export = handshake(&mut stream, b"").unwrap();
    let mut client = NbdClient::new(stream, &export);
    client.write_all(&[3; 100_000]).unwrap_err();
    client.write_all(&[3; 100_000]).unwrap();
    drop(client);
    single.end();
}

fn two_pipes() {
    let (single, pipes) = Single::on_pipes();
    let mut client = write(pipes);
    let mut back = vec![0; 1 << 19];
    io::Seek::rewind(&mut client).unwrap();
    client.read_exact(&mut back).unwrap();
    assert!(back[..100_000] == [3; 100_000] && back[100_000..].iter().all(|byte| *byte == 0));
    drop(client);
    assert!(is_written(&single.end_well()));
}

fn vanished() {
    let (single, socket) = Single::on_a_socket();
    let raw = socket.try_clone().unwrap();
    let client = write(socket);
    // In the middle of a request, without a word.
    (&raw).write_all(&0x2560_9513_u32.to_be_bytes()).unwrap();
    raw.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(is_written(&single.end_well()));
    drop(client);
}

fn reads_no_more() {
    let (single, pipes) = Single::on_pipes();
    let Pipes { mut to, from } = pipes;
    drop(from);
    // Its greeting can't be sent; what is sent to it is of no use to anyone.
    let _ = to.write_all(&[0; 4]);
    single.end_well();
}

fn failed_flush() {
    let imageio = FakeServer::builder().start().unwrap();
    imageio.fault(Fault::on(Op::Flush).every().then(What::Status { status: 500, text: "no luck".into() }));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stdio = || Stdio::from(OwnedFd::from(theirs.try_clone().unwrap()));
    let single = Single::start_with(imageio, stdio(), stdio());
    drop(write(ours));
    let (ended, _) = single.end();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("imageio-nbd: error: the disk may be incomplete: "), "{ended:?}");
}

fn sigterm() {
    for single_and_client in [
        || {
            let (single, socket) = Single::on_a_socket();
            (single, Box::new(write(socket)) as Box<dyn std::any::Any>)
        },
        || {
            let (single, pipes) = Single::on_pipes();
            (single, Box::new(write(pipes)) as Box<dyn std::any::Any>)
        },
    ] {
        let (single, client) = single_and_client();
        single.signal(Signal::SIGTERM);
        assert!(is_written(&single.end_well()));
        drop(client);
    }
}

fn silent_output() {
    let (single, mut pipes) = Single::on_pipes();
    let export = handshake(&mut pipes, b"").unwrap();
    assert_eq!(export.size, 1 << 20);
    // NBD_CMD_DISC (section "Disconnect request" of the NBD document).
    let mut goodbye = [0; 28];
    goodbye[..4].copy_from_slice(&0x2560_9513_u32.to_be_bytes());
    goodbye[7] = 2;
    pipes.write_all(&goodbye).unwrap();
    let mut rest = Vec::new();
    pipes.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    single.end_well();
}

fn refusals() {
    let dir = tempfile::tempdir().unwrap();
    for option in [&["-U", "x"][..], &["-p", "0"], &["-i", "::1"], &["--run", "true"]] {
        let ended = imageio_nbd(dir.path(), &[option, &["-s", "url=http://h/images/t"]].concat()).unwrap();
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.err.contains("cannot be used with '--single'"), "{ended:?}");
    }
    let ended = imageio_nbd(dir.path(), &["-s", "url=-"]).unwrap();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(
        ended.err,
        "imageio-nbd: error: url=-: standard input is the NBD client's with -s: use url=+FILE\n"
    );
}
