// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd upload` and `download` whose output nobody gets.

use std::fs::OpenOptions;
use std::io::pipe;
use std::process::Stdio;

use fake_engine::DiskStatus;
use support::TestResult;
use support::run::Ended;

use crate::Test;
use crate::serving::{assert_all_well, site};
use support::installation::{Installation, STORAGE_DOMAIN};

pub(crate) const TESTS: &[Test] = &[
    ("the_disk_of_an_upload_whose_output_is_lost_is_told_as_an_error", upload),
    ("a_download_whose_output_is_lost_fails", download),
];

/// Runs it with such a standard output.
fn run(site: &Installation, arguments: &[&str], output: Stdio) -> TestResult<Ended> {
    let mut command = site.imageio_nbd(arguments);
    Ok(command.args(["-c", "lab"]).stdout(output).stderr(Stdio::piped()).spawn()?.wait_with_output()?.into())
}

fn full() -> TestResult<Stdio> {
    Ok(OpenOptions::new().write(true).open("/dev/full")?.into())
}

/// The reader has gone.
fn closed() -> TestResult<Stdio> {
    Ok(pipe()?.1.into())
}

fn upload() -> TestResult {
    let site = site()?;
    for (number, (output, format)) in
        [(full()?, "text"), (full()?, "json"), (closed()?, "text"), (closed()?, "json")]
            .into_iter()
            .enumerate()
    {
        let (state, name) = (format!("state-{number}"), format!("disk-{number}"));
        let resume: &[&str] = if number == 0 { &["--resume", &state] } else { &[] };
        let what = ["upload", "disk.img", "-s", STORAGE_DOMAIN, "--disk-name", &name, "--output", format];
        let ended = run(&site, &[&what[..], resume].concat(), output)?;
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        let disk = site.engine.disks().pop().ok_or("no disk")?;
        assert!(ended.err.contains(&format!("disk {} is complete", disk.id)), "{ended:?}");
        assert_eq!((disk.name.as_str(), disk.status), (name.as_str(), DiskStatus::Ok));
        site.assert_same("disk.img", "raw", &disk)?;
        assert!(!site.path(&state).exists(), "there is nothing to be resumed");
    }
    assert_all_well(&site);
    Ok(())
}

fn download() -> TestResult {
    let site = site()?;
    run(&site, &["upload", "disk.img", "-s", STORAGE_DOMAIN], Stdio::piped())?;
    let ended = run(&site, &["download", "disk", "copy", "--output", "json"], full()?)?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    assert!(ended.err.contains("the download is complete"), "{ended:?}");
    site.assert_same("copy", "qcow2", &site.disk()?)?;
    // There is nothing to be told.
    let ended = run(&site, &["download", "disk", "copy"], full()?)?;
    assert_eq!((ended.code, &*ended.err), (0, ""), "{ended:?}");
    Ok(())
}
