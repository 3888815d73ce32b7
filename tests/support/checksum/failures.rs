// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checksums that can't be had, or have to be waited for.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fake_imageio::{DEFAULT_TICKET, FakeServer, Fault, Gate, Op, OptionsMode, What};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use support::door::built;
use support::image::noise;
use support::process::PATIENCE;
use support::run::{Ended, imageio_nbd};
use support::tools::{NBDCOPY, NBDINFO, Tool};
use tempfile::TempDir;

use crate::{checksum, sums};

/// Its name, what it takes, and what it does.
type Test = (&'static str, &'static [Tool], fn());

pub(crate) const TESTS: &[Test] = &[
    ("servers_without_checksums_are_told_in_one_line", &[], not_offered),
    ("a_ticket_that_is_not_valid_is_told_in_one_line", &[], canceled),
    ("images_that_cannot_be_read_are_told_in_one_line", &[NBDINFO], unreadable),
    ("a_ticket_in_the_place_of_an_image_is_not_shown", &[], misplaced_ticket),
    ("a_server_that_is_silent_for_too_long_is_given_up", &[], silent_server),
    ("the_ticket_is_kept_alive_while_the_server_computes", &[], kept_alive),
    ("a_signal_ends_it_at_once", &[], interrupted),
    ("a_signal_ends_the_client_that_reads_the_image_too", &[NBDCOPY, NBDINFO], interrupted_with_nbdcopy),
    ("an_image_that_cannot_be_read_to_its_end_is_an_error", &[NBDCOPY, NBDINFO], broken_source),
    ("help_tells_of_the_options", &[], help),
];

/// A server with some data, and the same in a file.
fn disk() -> (FakeServer, TempDir, [String; 1]) {
    let (contents, dir) = (noise(3 << 20, 1), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("disk.img"), &contents).unwrap();
    let server = FakeServer::builder().contents(contents).start().unwrap();
    let parameters = [format!("url={}", server.url())];
    (server, dir, parameters)
}

fn refused(ended: &Ended, says: &str) {
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{ended:?}");
    assert!(ended.err.starts_with("imageio-nbd: error: ") && ended.err.contains(says), "{ended:?}");
    assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
}

fn not_offered() {
    let dir = tempfile::tempdir().unwrap();
    let server = FakeServer::builder();
    let not_found = Fault::on(Op::Checksum).then(What::Status { status: 404, text: "No handler".into() });
    for (server, says) in [
        (server.clone().checksum(false), "the server doesn't offer checksums"),
        (server.clone().options(OptionsMode::MethodNotAllowed), "the server doesn't offer checksums"),
        (server.fault(not_found), "checksums, as old ones do: read the disk back instead, with -r and --run"),
    ] {
        let server = server.start().unwrap();
        refused(&checksum(dir.path(), &[format!("url={}", server.url())], &[]), says);
    }
}

fn canceled() {
    let (server, dir, parameters) = disk();
    server.cancel_ticket();
    refused(&checksum(dir.path(), &parameters, &["--compare", "disk.img"]), "was canceled");
}

fn unreadable() {
    let (_server, dir, parameters) = disk();
    for (image, says) in [
        ("none.img", "--compare: cannot read none.img: No such file"),
        (".", "--compare: cannot read .: "),
        ("nbd+unix:///?socket=/nonexistent/sock", "--compare: nbdinfo: "),
        ("nbd://", "--compare: "),
    ] {
        let ended = checksum(dir.path(), &parameters, &["--compare", image]);
        assert!(ended.err.contains(says), "{image}: {ended:?}");
        refused(&ended, "");
    }
    fs::write(dir.path().join("empty.img"), "").unwrap();
    let ended = checksum(dir.path(), &parameters, &["--compare", "empty.img"]);
    refused(&ended, "the server's disk has 3145728 bytes, and empty.img has 0");
    // Without libnbd's tools.
    let (_directory, uri) = (tempfile::tempdir().unwrap(), "nbd+unix:///?socket=x");
    let mut command = Command::new(built("imageio-nbd"));
    let command = command.args(["checksum", &parameters[0], "--compare", uri]).env("PATH", "/nonexistent");
    refused(
        &command.output().unwrap().into(),
        "cannot run nbdinfo, which --compare needs for an NBD URI: install the package libnbd (Enterprise Linux, Fedora) or libnbd-bin (Debian)",
    );
}

fn misplaced_ticket() {
    let (server, dir, parameters) = disk();
    for arguments in [
        ["--compare", &server.url()],
        ["--compare", DEFAULT_TICKET],
        ["--algorithm", &server.url()],
        ["--block-size", DEFAULT_TICKET],
        ["--algorithm", DEFAULT_TICKET],
    ] {
        let ended = checksum(dir.path(), &parameters, &arguments);
        assert!(ended.code == 1 || ended.code == 2, "{ended:?}");
        assert!(!ended.err.contains(DEFAULT_TICKET), "{ended:?}");
    }
}

fn silent_server() {
    let (server, dir, parameters) = disk();
    server.fault(Fault::on(Op::Checksum).then(What::NoAnswer));
    let ended = checksum(dir.path(), &[&parameters[..], &["operation-timeout=0.2".into()]].concat(), &[]);
    refused(&ended, "checksum: the server made no progress for 0.2 s");
}

/// A run whose end isn't waited for yet.
fn start(dir: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(built("imageio-nbd"));
    command.arg("checksum").args(arguments).current_dir(dir).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn kept_alive() {
    let (server, dir, parameters) = disk();
    let gate = Gate::new();
    server.fault(Fault::on(Op::Checksum).then(What::Block(gate.clone())));
    let arguments = [&parameters[0], "keep-alive=0.05", "timeout=0.5", "--compare", "disk.img"];
    let running = start(dir.path(), &arguments);
    assert!(gate.wait_reached(1, PATIENCE));
    // Reads of a byte, on a connection of their own; the first was for the size.
    assert!(server.wait_for(PATIENCE, |log| log.of(Op::Get).filter(|get| get.end.is_some()).count() > 3));
    gate.open();
    let ended = Ended::from(running.wait_with_output().unwrap());
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(sums(&ended)[0], sums(&ended)[1]);
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
}

fn interrupted() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let (server, dir, parameters) = disk();
        let gate = Gate::new();
        server.fault(Fault::on(Op::Checksum).then(What::Block(gate.clone())));
        let running = start(dir.path(), &[&parameters[0], "--compare", "disk.img"]);
        assert!(gate.wait_reached(1, PATIENCE));
        kill(Pid::from_raw(running.id().try_into().unwrap()), signal).unwrap();
        let ended = Ended::from(running.wait_with_output().unwrap());
        assert_eq!((ended.code, &*ended.out, &*ended.err), (code, "", ""));
        gate.open();
    }
}

/// An NBD server that greets, and answers nothing.
struct Mute {
    listener: UnixListener,
    uri: String,
}

impl Mute {
    fn new(dir: &Path) -> Self {
        let path = dir.join("source.sock");
        let listener = UnixListener::bind(&path).unwrap();
        Self { listener, uri: format!("nbd+unix:///?socket={}", path.display()) }
    }

    /// Serves one client of a read-only export of so many bytes, by the old handshake (section
    /// "Oldstyle negotiation" of the NBD document), which libnbd takes, too.
    fn greet(&self, size: u64) -> UnixStream {
        let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Timespec::try_from(PATIENCE).ok().as_ref()), Ok(1), "nobody comes");
        let (mut client, _) = self.listener.accept().unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53").unwrap();
        client.write_all(&size.to_be_bytes()).unwrap();
        // It has flags, and is read-only.
        client.write_all(&3_u32.to_be_bytes()).unwrap();
        client.write_all(&[0; 124]).unwrap();
        client
    }
}

/// A comparison with an image whose server never answers the first request, which it has got.
fn start_reading(dir: &Path, url: &str) -> (Child, UnixStream) {
    let source = Mute::new(dir);
    let running = start(dir, &[url, "--compare", &source.uri]);
    // nbdinfo comes first.
    source.greet(3 << 20).read_to_end(&mut Vec::new()).unwrap();
    let mut nbdcopy = source.greet(3 << 20);
    nbdcopy.read_exact(&mut [0; 28]).unwrap();
    (running, nbdcopy)
}

fn interrupted_with_nbdcopy() {
    let (_server, dir, parameters) = disk();
    let (running, mut nbdcopy) = start_reading(dir.path(), &parameters[0]);
    kill(Pid::from_raw(running.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let ended = Ended::from(running.wait_with_output().unwrap());
    assert_eq!((ended.code, &*ended.out), (143, ""), "{ended:?}");
    // The end of nbdcopy: it would wait for an answer for ever.
    let _ = nbdcopy.read_to_end(&mut Vec::new());
}

fn broken_source() {
    let (_server, dir, parameters) = disk();
    let (running, nbdcopy) = start_reading(dir.path(), &parameters[0]);
    drop(nbdcopy);
    let ended = Ended::from(running.wait_with_output().unwrap());
    assert_eq!((ended.code, &*ended.out), (1, ""), "{ended:?}");
    assert!(
        ended.err.contains("imageio-nbd: error: --compare: nbdcopy failed (exit status: 1)"),
        "{ended:?}"
    );
}

fn help() {
    let dir = tempfile::tempdir().unwrap();
    let help = imageio_nbd(dir.path(), &["checksum", "--help"]).unwrap();
    assert_eq!(help.code, 0);
    for word in ["--compare <FILE|NBD-URI>", "--algorithm <NAME>", "sha3_512", "--block-size <BYTES>"] {
        assert!(help.out.contains(word), "{word}: {}", help.out);
    }
    assert_eq!(imageio_nbd(dir.path(), &["checksum"]).unwrap().code, 1);
}
