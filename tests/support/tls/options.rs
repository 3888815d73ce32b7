// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options of TLS: what can't work is said in one line before anything is served, and what works is
//! found.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use fake_imageio::FakeServer;
use support::TestResult;
use support::door::built;
use support::pki::Pki;
use support::run::{Ended, imageio_nbd};

/// A name, and what it says is so.
type Test = (&'static str, fn() -> TestResult);

pub(crate) const TESTS: &[Test] = &[
    ("what_can_not_work_is_said_in_one_line", bad_options),
    ("files_that_are_no_certificates_are_named", bad_files),
    ("the_command_is_told_to_use_tls_where_it_must", uri),
    ("who_verifies_clients_and_admits_others_is_warned", warning),
    ("certificates_are_found_in_the_home_directory", home),
];

/// Runs it with these options as a user would who expects it to serve.
fn served(options: &[&str]) -> TestResult<Ended> {
    let (server, dir) = (FakeServer::builder().start()?, tempfile::tempdir()?);
    let url = format!("url={}", server.url());
    Ok(imageio_nbd(dir.path(), &[options, &[&url, "--run", "echo served at $uri"]].concat())?)
}

fn refused(options: &[&str], expected: &str) -> TestResult {
    let ended = served(options)?;
    if ended.code == 1 && ended.out.is_empty() && ended.err == format!("imageio-nbd: error: {expected}\n") {
        return Ok(());
    }
    Err(format!("{options:?}: {ended:?}\nexpected: {expected}").into())
}

fn bad_options() -> TestResult {
    let (dir, pki) = (tempfile::tempdir()?, Pki::new()?);
    let (empty, client) = (dir.path().display().to_string(), pki.client().display().to_string());
    let missing = |file: String| format!("cannot read {file}: No such file or directory (os error 2)");
    let certificates = ["--tls-certificates", &empty];
    for mode in [&[][..], &["--tls=on"], &["--tls=require"], &["--tls-verify-peer"]] {
        let expected = format!("--tls-certificates: {}", missing(format!("{empty}/ca-cert.pem")));
        refused(&[mode, &certificates].concat(), &expected)?;
    }
    let expected = format!("--tls-certificates: {}", missing(format!("{client}/server-cert.pem")));
    refused(&["--tls-certificates", &client], &expected)?;
    refused(
        &["--tls-psk", "keys.psk", "--tls=require"],
        "--tls-psk: TLS with pre-shared keys is not supported: use certificates (--tls-certificates DIR), and \
         --tls-verify-peer to admit only clients that have one",
    )?;
    refused(
        &["--tls-certificates", "https://host/images/e0f2f8f4-6f6c-4a40-9f3b-6f0f3c1d2e4a"],
        "--tls-certificates: a URL or a ticket is given, and none is expected",
    )?;
    let ended = served(&["--tls=perhaps"])?;
    if ended.code != 2 || !ended.err.contains("possible values: off, on, require") {
        return Err(format!("{ended:?}").into());
    }
    // A server without TLS needs no certificates.
    let ended = served(&["--tls=off", "--tls-certificates", &empty])?;
    if ended.code != 0 || !ended.err.is_empty() { Err(format!("{ended:?}").into()) } else { Ok(()) }
}

fn bad_files() -> TestResult {
    let other = Pki::new()?;
    let certificate = fs::read_to_string(other.server().join("server-cert.pem"))?;
    for (file, text, expected) in [
        ("server-cert.pem", "none", "DIR/server-cert.pem has no certificate in it: a PEM file is expected"),
        (
            "server-key.pem",
            &certificate,
            "DIR/server-key.pem has no private key in it: a PEM file is expected",
        ),
        ("server-cert.pem", &certificate, "DIR: server-key.pem is not the key of server-cert.pem"),
        (
            "server-key.pem",
            "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\nsecret!\n-----END PRIVATE KEY-----\n",
            "DIR/server-key.pem is not a valid PEM file",
        ),
        ("ca-cert.pem", "", "DIR/ca-cert.pem has no certificate in it: a PEM file is expected"),
        ("ca-crl.pem", &certificate, "DIR/ca-crl.pem has no revocation list in it: a PEM file is expected"),
    ] {
        let pki = Pki::new()?;
        let dir = pki.server().display().to_string();
        fs::write(pki.server().join(file), text)?;
        let options = ["--tls=require", "--tls-verify-peer", "--tls-certificates", &dir];
        refused(&options, &expected.replace("DIR", &dir))?;
    }
    Ok(())
}

fn uri() -> TestResult {
    let pki = Pki::new()?;
    let dir = pki.server().display().to_string();
    for (options, expected) in [
        (&["--tls=require", "-U", "-"][..], "served at nbds+unix:///?socket="),
        (&["--tls=require", "-p", "0"], "served at nbds://localhost:"),
        (&["--tls=on", "-p", "0"], "served at nbd://localhost:"),
        (&["-U", "-"], "served at nbd+unix:///?socket="),
    ] {
        let ended = served(&[options, &["--tls-certificates", &dir]].concat())?;
        if ended.code != 0 || !ended.out.starts_with(expected) || !ended.err.is_empty() {
            return Err(format!("{options:?}: {ended:?}").into());
        }
    }
    Ok(())
}

fn warning() -> TestResult {
    let pki = Pki::new()?;
    let dir = pki.server().display().to_string();
    let ended = served(&["--tls-verify-peer", "--tls-certificates", &dir])?;
    let expected = "imageio-nbd: warning: --tls-verify-peer: clients without TLS are admitted, too: add --tls=require to refuse them\n";
    if (ended.code, &*ended.err) != (0, expected) { Err(format!("{ended:?}").into()) } else { Ok(()) }
}

/// Checks that the certificates of a user who is not root are found where nbdkit finds them.
fn home() -> TestResult {
    let (server, home, pki) = (FakeServer::builder().start()?, tempfile::tempdir()?, Pki::new()?);
    fs::set_permissions(home.path(), Permissions::from_mode(0o755))?;
    // Another user may not come to where it was built.
    let program = home.path().join("imageio-nbd");
    fs::copy(built("imageio-nbd"), &program)?;
    let run = || -> TestResult<Ended> {
        let mut command = Command::new(&program);
        if rustix::process::geteuid().is_root() {
            command.uid(65534);
        }
        let command = command.env("HOME", home.path()).current_dir("/").arg("-v");
        let command = command.arg(format!("url={}", server.url())).args(["--run", "echo served"]);
        Ok(command.output()?.into())
    };
    let dir = home.path().join(".config/pki/nbdkit");
    let found = format!("TLS with the certificates in {}\n", dir.display());
    let without = run()?;
    fs::create_dir_all(&dir)?;
    for name in ["ca-cert.pem", "server-cert.pem", "server-key.pem"] {
        fs::copy(pki.server().join(name), dir.join(name))?;
    }
    let with = run()?;
    let is_served = |ended: &Ended| (ended.code, &*ended.out) == (0, "served\n");
    if !is_served(&without) || !is_served(&with) || without.err.contains("TLS") || !with.err.contains(&found)
    {
        return Err(format!("{without:?}\n{with:?}\nexpected: {found}").into());
    }
    Ok(())
}
