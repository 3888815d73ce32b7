// SPDX-License-Identifier: MIT OR Apache-2.0
//! Refusals of what can't work: they come in one line, with exit status 1, before anything is
//! served, and alike from both doors.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use fake_imageio::{Certificate, DEFAULT_TICKET, FakeServer, OptionsMode, Pki};
use support::door::built;
use support::run::{Ended, imageio_nbd};
use support::tools::NBDKIT;
use tempfile::TempDir;

/// Runs each door as a user would who expects it to serve. The shell command of `--run` must not be
/// reached.
fn refused(dir: &Path, parameters: &[&str], expected: &str) {
    refused_by_program(dir, parameters, expected);
    if let Some(ended) = nbdkit(dir, parameters) {
        assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{ended:?}");
        // Before its plugin is configured, nbdkit says its own name, then the plugin's too.
        let line = ended.err.strip_prefix("nbdkit: ").expect(&ended.err).trim_start_matches("imageio: ");
        assert_eq!(line, format!("error: {expected}\n"));
        assert!(!ended.err.contains(DEFAULT_TICKET));
    }
}

/// Asserts that the program refuses this, where it is about an option or differs between the doors.
fn refused_by_program(dir: &Path, arguments: &[&str], expected: &str) {
    let ended = imageio_nbd(dir, &[&RUN[..], arguments].concat()).unwrap();
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{ended:?}");
    assert_eq!(ended.err, format!("imageio-nbd: error: {expected}\n"));
    assert!(!ended.err.contains(DEFAULT_TICKET));
}

const RUN: [&str; 2] = ["--run", "echo served"];

/// The plugin in nbdkit; none where nbdkit is missing, which is told.
fn nbdkit(dir: &Path, parameters: &[&str]) -> Option<Ended> {
    let Some(nbdkit) = NBDKIT.find() else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{}", NBDKIT.install);
        eprintln!("not tested with nbdkit: {}", NBDKIT.install);
        return None;
    };
    let mut command = Command::new("timeout");
    command.args(["--foreground", "60"]).arg(nbdkit).args(["-U", "-"]).args(RUN);
    let command = command.arg(built("libnbdkit_imageio_plugin.so")).args(parameters).current_dir(dir);
    Some(command.output().unwrap().into())
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn https(certificate: Certificate) -> FakeServer {
    FakeServer::builder().tls(certificate).start().unwrap()
}

/// `url=` and `cafile=` for a server that can be trusted, if the URL's host is right.
fn trusting(server: &FakeServer) -> [String; 2] {
    [format!("url={}", server.url()), format!("cafile={}", server.cafile().unwrap().display())]
}

#[test]
fn an_unknown_parameter() {
    let url = "url=http://h/images/t";
    refused(dir().path(), &["colour=red", url], "unknown parameter 'colour': --help lists all parameters");
    let expected = "unknown parameter 'cafiel': did you mean cafile? --help lists all parameters";
    refused(dir().path(), &["cafiel=ca.pem", url], expected);
}

#[test]
fn a_ticket_in_the_wrong_place() {
    let url = format!("https://h/images/{DEFAULT_TICKET}");
    let good = "url=http://h/images/t";
    let hidden = "what is given (it isn't shown, as it could be a ticket)";
    for (argument, expected) in [
        (
            format!("size={url}"),
            format!("size: {hidden} is not a size: a number of bytes is expected, such as 1073741824 or 1G"),
        ),
        (format!("insecure={url}"), format!("insecure: {hidden} is neither true nor false")),
        (format!("cafile={url}"), "cafile: a file name is expected, not a URL or a ticket".to_owned()),
        (format!("url=+{url}"), "url: a file name is expected, not a URL or a ticket".to_owned()),
        (format!("unix-socket-user={url}"), format!("unix-socket-user: {hidden} is not a user of this host")),
    ] {
        refused(dir().path(), &[good, &argument], &expected);
    }
    for (option, expected) in [
        ("-P", "-P: a URL or a ticket is given, and none is expected"),
        ("-i", "-i: a URL or a ticket is given, and none is expected"),
    ] {
        refused_by_program(dir().path(), &[option, &url, good], expected);
    }
    let ended = imageio_nbd(dir().path(), &["-p", &url, good]).unwrap();
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(
        ended.err.starts_with("imageio-nbd: error: invalid value '…' for '--port <PORT>'"),
        "{}",
        ended.err
    );
}

#[test]
fn a_url_longer_than_a_request_may_be() {
    refused(
        dir().path(),
        &[&format!("url=http://h/images/{}", "t".repeat(70_000))],
        "bad transfer URL: the path is longer than 61440 bytes, which no server takes",
    );
}

#[test]
fn no_url() {
    refused(
        dir().path(),
        &["size=1G"],
        "url is missing: give url=https://HOST:54322/images/TICKET, or url=+FILE with that in its first line, or disk=NAME for a disk of an engine",
    );
}

#[test]
fn a_url_of_another_scheme() {
    refused(
        dir().path(),
        &["url=ftp://h/images/t"],
        "bad transfer URL: the scheme must be https or http, not ftp",
    );
}

#[test]
fn a_url_without_a_ticket() {
    refused(
        dir().path(),
        &["url=https://h:54322"],
        "bad transfer URL: the path is missing: https://HOST:54322/images/TICKET is expected",
    );
}

#[test]
fn what_is_no_url() {
    let expected = "bad transfer URL: https://HOST:54322/images/TICKET is expected";
    refused(dir().path(), &["url=transfer.url"], expected);
    // nbdkit puts the name before a word alone.
    let reason = "is neither NAME=VALUE, nor a URL, nor +FILE: see --help";
    refused_by_program(dir().path(), &["transfer.url"], &format!("'transfer.url' {reason}"));
    refused_by_program(dir().path(), &["uplaod", "disk.img"], &format!("'uplaod' {reason}"));
}

#[test]
fn a_url_file_without_a_url() {
    let dir = dir();
    let path = dir.path().join("url");
    for contents in ["", "\n", "\u{feff}\r\n"] {
        fs::write(&path, contents).unwrap();
        let expected =
            format!("cannot read the transfer URL from {}: the first line is empty", path.display());
        refused(dir.path(), &["url=+url"], &expected);
    }
}

#[test]
fn standard_input_without_a_url() {
    refused(
        dir().path(),
        &["url=-"],
        "cannot read the transfer URL from standard input: the first line is empty",
    );
}

#[test]
fn a_url_file_that_is_missing() {
    let dir = dir();
    let path = dir.path().join("url");
    let expected = format!(
        "cannot read the transfer URL from {}: No such file or directory (os error 2)",
        path.display()
    );
    refused(dir.path(), &["url=+url"], &expected);
}

#[test]
fn a_cafile_that_can_not_be_read() {
    let dir = dir();
    let path = dir.path().join("ca.pem");
    let expected =
        format!("the CA file {} can't be used: No such file or directory (os error 2)", path.display());
    refused(dir.path(), &["url=https://127.0.0.1:1/images/t", "cafile=ca.pem"], &expected);
}

#[test]
fn a_cafile_without_a_certificate() {
    let dir = dir();
    for contents in ["", "not PEM at all\n"] {
        let path = dir.path().join("ca.pem");
        fs::write(&path, contents).unwrap();
        let expected = format!(
            "the CA file {} can't be used: it has no certificate in it: a PEM file with the engine's CA is expected",
            path.display()
        );
        refused(dir.path(), &["url=https://127.0.0.1:1/images/t", "cafile=ca.pem"], &expected);
    }
}

#[test]
fn a_server_that_another_ca_signed() {
    let (dir, server) = (dir(), https(Certificate::default()));
    let other = Pki::generate(&Certificate::default()).unwrap();
    fs::write(dir.path().join("ca.pem"), other.ca_pem).unwrap();
    let expected = format!(
        "TLS to {} failed: the server's certificate is not signed by a CA that is trusted here: give the engine's CA with cafile=FILE",
        server.addr()
    );
    refused(dir.path(), &[&format!("url={}", server.url()), "cafile=ca.pem"], &expected);
}

#[test]
fn a_server_with_another_name() {
    let server = https(Certificate::wrong_host());
    let [url, cafile] = trusting(&server);
    let expected = format!(
        "TLS to {} failed: the server's certificate is for another host name: use in the URL the name that the certificate \
         holds (it is for wrong.example.com)",
        server.addr()
    );
    refused(dir().path(), &[&url, &cafile], &expected);
}

#[test]
fn a_server_named_only_by_the_common_name() {
    let server = https(Certificate::CommonNameOnly("127.0.0.1".into()));
    let [url, cafile] = trusting(&server);
    let expected = format!(
        "TLS to {} failed: the server's certificate names no host in its subjectAltName (a CN alone is not used): the host \
         needs a new certificate",
        server.addr()
    );
    refused(dir().path(), &[&url, &cafile], &expected);
}

#[test]
fn a_server_that_uses_a_ca_certificate_as_its_own() {
    let server = https(Certificate::CaAsServer(vec!["127.0.0.1".into()]));
    let [url, cafile] = trusting(&server);
    let expected = format!(
        "TLS to {} failed: the server uses a CA certificate as its own, which is refused: it needs a certificate signed by \
         that CA",
        server.addr()
    );
    refused(dir().path(), &[&url, &cafile], &expected);
}

#[test]
fn a_server_that_does_not_speak_tls() {
    let server = FakeServer::builder().start().unwrap();
    let url = format!("url={}", server.url().replace("http:", "https:"));
    let expected = format!(
        "TLS to {} failed: the server doesn't speak TLS there: should the URL be http, or the port another?",
        server.addr()
    );
    refused(dir().path(), &[&url, "insecure=false", "cafile=/dev/null"], {
        "the CA file /dev/null can't be used: it has no certificate in it: a PEM file with the engine's CA is expected"
    });
    let ended = imageio_nbd(dir().path(), &[&url, "insecure=true", "--run", "echo served"]).unwrap();
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    let (warning, error) = ended.err.trim_end().split_once('\n').unwrap();
    assert!(warning.starts_with("imageio-nbd: warning: the server's certificate is not verified"));
    assert_eq!(error, format!("imageio-nbd: error: {expected}"));
}

#[test]
fn a_server_that_speaks_tls_where_the_url_has_http() {
    let server = https(Certificate::default());
    let url = format!("url={}", server.url().replace("https:", "http:"));
    let ended = imageio_nbd(dir().path(), &[url.as_str(), "--run", "echo served"]).unwrap();
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(ended.err.ends_with(": should the URL be https, or the port another?\n"), "{}", ended.err);
}

#[test]
fn a_server_that_is_not_there() {
    // Bound, but not listening: nobody else can take the port.
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    let expected = format!(
        "cannot connect to {address}: Connection refused (os error 111): see that the imageio server runs there, and that \
         a firewall lets this host through"
    );
    refused(dir().path(), &[&format!("url=http://{address}/images/t")], &expected);
}

#[test]
fn a_ticket_that_the_server_does_not_know() {
    let server = FakeServer::builder().start().unwrap();
    let url = format!("url=http://{}/images/another-ticket", server.addr());
    let ended = imageio_nbd(dir().path(), &[url.as_str(), "--run", "echo served"]).unwrap();
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(ended.err.starts_with("imageio-nbd: error: OPTIONS: 403 Forbidden: "), "{}", ended.err);
    assert_eq!(ended.err.lines().count(), 1);
    assert!(!ended.err.contains("another-ticket"), "{}", ended.err);
}

#[test]
fn an_answer_that_is_not_json() {
    let server = FakeServer::builder().options(OptionsMode::Malformed).start().unwrap();
    let ended =
        imageio_nbd(dir().path(), &[&format!("url={}", server.url()), "--run", "echo served"]).unwrap();
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(
        ended.err.starts_with("imageio-nbd: error: OPTIONS: the server's answer makes no sense: "),
        "{}",
        ended.err
    );
    assert_eq!(ended.err.lines().count(), 1);
}

#[test]
fn a_size_that_is_no_number() {
    for size in ["-1", "ten", "1e6", "1.5M", "1KB", "0x10", "1048576 bytes?"] {
        let expected =
            format!("size: '{size}' is not a size: a number of bytes is expected, such as 1073741824 or 1G");
        refused(dir().path(), &["url=http://h/images/t", &format!("size={size}")], &expected);
    }
}

#[test]
fn a_port_in_use() {
    let (server, taken) = (FakeServer::builder().start().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = taken.local_addr().unwrap().port().to_string();
    refused_by_program(
        dir().path(),
        &[&format!("url={}", server.url()), "-i", "127.0.0.1", "-p", &port],
        &format!("cannot listen on 127.0.0.1:{port}: Address already in use (os error 98)"),
    );
}

#[test]
fn nowhere_to_listen() {
    let server = FakeServer::builder().start().unwrap();
    let ended = imageio_nbd(dir().path(), &[format!("url={}", server.url())]).unwrap();
    let expected = "imageio-nbd: error: where shall it listen? Add -U SOCKET, or -p PORT for TCP, or --run COMMAND, or -s\n";
    assert_eq!((ended.code, &*ended.err), (1, expected));
}

#[test]
fn a_socket_path_that_is_taken() {
    let (server, dir) = (FakeServer::builder().start().unwrap(), dir());
    let path = dir.path().join("sock");
    let _taken = UnixListener::bind(&path).unwrap();
    refused_by_program(
        dir.path(),
        &[&format!("url={}", server.url()), "-U", "sock"],
        &format!(
            "{} exists: stop the server that listens there, or remove what it left behind",
            path.display()
        ),
    );
    assert!(path.exists(), "it belongs to somebody else");
}

#[test]
fn a_ticket_for_reading_opened_for_writing() {
    let server = FakeServer::builder().read_only(true).start().unwrap();
    let url = format!("url={}", server.url());
    refused_by_program(
        dir().path(),
        &[&url],
        "the ticket allows reading only: open it read-only (-r), or ask for a transfer that allows upload",
    );
    let ended = imageio_nbd(dir().path(), &["-r", &url, "--run", "echo served"]).unwrap();
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, "served\n", ""));
}

#[test]
fn a_command_line_that_can_not_be_understood() {
    for arguments in [&["--colour"][..], &["-p", "99999"], &["-t", "1025"], &["-U", "a", "-p", "1"]] {
        let ended = imageio_nbd(dir().path(), arguments).unwrap();
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.err.starts_with("imageio-nbd: error: "), "{ended:?}");
        assert!(ended.err.ends_with(": see --help\n") && ended.err.lines().count() == 1, "{ended:?}");
    }
}

#[test]
fn a_pid_file_that_can_not_be_written() {
    let server = FakeServer::builder().start().unwrap();
    let dir = dir();
    let expected =
        "imageio-nbd: error: cannot write the pid file no/pid: No such file or directory (os error 2)\n";
    for mode in [&["-f"][..], &[]] {
        let arguments = ["-P", "no/pid", "-U", "sock", &format!("url={}", server.url())];
        let ended = imageio_nbd(dir.path(), &[mode, &arguments].concat()).unwrap();
        assert_eq!((ended.code, ended.err.as_str()), (1, expected));
    }
}
