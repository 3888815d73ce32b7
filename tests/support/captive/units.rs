// SPDX-License-Identifier: MIT OR Apache-2.0
//! The units for systemd.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::door::built;
use support::pki::Pki;
use support::process::Daemon;
use support::run::Ended;
use support::tools::{NBDINFO, SYSTEMD_ANALYZE};
use tempfile::TempDir;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("systemd_understands_all_of_the_units", &[SYSTEMD_ANALYZE], verify),
    ("the_service_has_no_more_rights_than_it_needs", &[SYSTEMD_ANALYZE], exposure),
    ("the_service_starts_the_program_with_arguments_that_it_takes", &[], arguments),
    ("systemd_understands_the_drop_ins_for_tls", &[SYSTEMD_ANALYZE], verify_tls),
    ("keys_that_are_credentials_serve_clients_with_certificates", &[NBDINFO], tls),
];

const UNITS: [&str; 2] = ["imageio-nbd@.socket", "imageio-nbd@.service"];

/// The units, with the program that was built.
fn units() -> (TempDir, [PathBuf; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/imageio-nbd/systemd");
    let program = built("imageio-nbd").display().to_string();
    let files = UNITS.map(|unit| {
        let text = fs::read_to_string(source.join(unit)).unwrap();
        let file = dir.path().join(unit);
        fs::write(&file, text.replace("/usr/bin/imageio-nbd", &program)).unwrap();
        file
    });
    (dir, files)
}

fn analyze(arguments: &[&str], units: &[PathBuf]) -> Ended {
    Command::new(SYSTEMD_ANALYZE.path()).args(arguments).args(units).output().unwrap().into()
}

fn verify() {
    let (dir, _) = units();
    let instances =
        ["imageio-nbd@disk1.socket", "imageio-nbd@disk1.service"].map(|unit| dir.path().join(unit));
    let ended = analyze(&["verify", "--man=no"], &instances);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
}

/// By the measure of systemd, from 0 to 10: 2 is said to be fine.
fn exposure() {
    let (_dir, [_, service]) = units();
    let ended = analyze(&["security", "--offline=yes", "--no-pager", "--threshold=20"], &[service]);
    assert_eq!(ended.code, 0, "{ended:?}");
}

/// The unit's command line works as systemd would put it together.
fn arguments() {
    let (dir, [_, service]) = units();
    let text = fs::read_to_string(service).unwrap();
    let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let server = fake_imageio::FakeServer::builder().read_only(true).start().unwrap();
    fs::write(dir.path().join("url"), server.url() + "\n").unwrap();
    let ended: Ended = Command::new("sh")
        .args(["-c", &format!("{command} --run 'echo $uri'")])
        .env("ARGUMENTS", "-r timeout=5")
        .env("CREDENTIALS_DIRECTORY", dir.path())
        .output()
        .unwrap()
        .into();
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.starts_with("nbd+unix:///"), "{ended:?}");
}

/// Returns the lines that the man page tells to put into a drop-in, from its first line to the
/// last.
fn drop_in(section: &str) -> String {
    const PAGE: &str = include_str!("../../../crates/imageio-nbd/man/imageio-nbd.1");
    let examples = PAGE.split(".EX\n").skip(1).filter_map(|example| example.split(".EE\n").next());
    let text = examples.filter(|example| example.starts_with(&format!("[{section}]\n"))).last();
    text.expect("there is one").replace("\\-", "-").replace("\\e\n", "\\\n")
}

fn verify_tls() {
    let (dir, _) = units();
    for (section, unit) in [("Service", "imageio-nbd@disk1.service"), ("Socket", "imageio-nbd@disk1.socket")]
    {
        let drop_ins = dir.path().join(format!("{unit}.d"));
        fs::create_dir(&drop_ins).unwrap();
        let program = built("imageio-nbd").display().to_string();
        let text = drop_in(section).replace("/usr/bin/imageio-nbd", &program);
        fs::write(drop_ins.join("override.conf"), text).unwrap();
        let ended = analyze(&["verify", "--man=no"], &[dir.path().join(unit)]);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{unit}: {ended:?}");
    }
}

/// Credentials work as systemd passes them: it copies files into a directory, which only the
/// service can read, and nobody can write.
fn tls() {
    let (dir, pki) = (tempfile::tempdir().unwrap(), Pki::new().unwrap());
    let server = fake_imageio::FakeServer::builder().read_only(true).start().unwrap();
    fs::write(dir.path().join("disk1.url"), server.url() + "\n").unwrap();
    let credentials = dir.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let unit = fs::read_to_string(&units().1[1]).unwrap().replace("%i", "disk1") + &drop_in("Service");
    for credential in unit.lines().filter_map(|line| line.strip_prefix("LoadCredential=")) {
        let (name, from) = credential.split_once(':').unwrap();
        let from = match from.strip_prefix("/etc/imageio-nbd/tls/") {
            Some(file) => pki.server().join(file),
            None => dir.path().join(from.strip_prefix("/etc/imageio-nbd/").unwrap()),
        };
        fs::copy(from, credentials.join(name)).unwrap();
        fs::set_permissions(credentials.join(name), Permissions::from_mode(0o400)).unwrap();
    }
    fs::set_permissions(&credentials, Permissions::from_mode(0o500)).unwrap();
    let command = unit.replace("\\\n", " ").lines().rev().find_map(|line| {
        Some(line.strip_prefix("ExecStart=")?.replace("/usr/bin/imageio-nbd", built("imageio-nbd").to_str()?))
    });
    // It listens by itself here.
    let script = format!("exec {} -v -U sock", command.unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(dir.path());
    shell.env("ARGUMENTS", "-f -r").env("CREDENTIALS_DIRECTORY", &credentials);
    let mut served = Daemon::spawn(&mut shell).unwrap();
    served.wait_for_line(|line| line.contains("listening: ").then_some(())).unwrap();
    let size = |client: &Path| -> Ended {
        let uri = format!("nbds+unix:///?socket=sock&tls-certificates={}", client.display());
        let mut nbdinfo = Command::new("timeout");
        nbdinfo.arg("60").arg(NBDINFO.path()).args(["--size", &uri]).current_dir(dir.path());
        nbdinfo.output().unwrap().into()
    };
    let welcome = size(&pki.client());
    assert_eq!((welcome.code, welcome.out), (0, format!("{}\n", server.size())), "{}", welcome.err);
    assert_ne!(size(&pki.nobody()).code, 0, "without a certificate");
    assert!(served.terminate().unwrap().success());
    // Whoever is not root could not remove it.
    fs::set_permissions(&credentials, Permissions::from_mode(0o700)).unwrap();
}
