// SPDX-License-Identifier: MIT OR Apache-2.0
//! The units for systemd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::door::built;
use support::run::Ended;
use support::tools::SYSTEMD_ANALYZE;
use tempfile::TempDir;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("systemd_understands_all_of_the_units", &[SYSTEMD_ANALYZE], verify),
    ("the_service_has_no_more_rights_than_it_needs", &[SYSTEMD_ANALYZE], exposure),
    ("the_service_starts_the_program_with_arguments_that_it_takes", &[], arguments),
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

/// As systemd would put it together.
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
