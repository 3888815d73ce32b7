// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads that were interrupted, and can't go on.

use std::fs;

use fake_engine::Phase;
use support::TestResult;
use support::installation::{STORAGE_DOMAIN, succeed};
use support::process::PATIENCE;
use support::tools::QEMU_IO;

use crate::Test;
use crate::commands::{COPY, cancel, copy_after, run_with};
use crate::jobs::{Job, site_with_disk};
use crate::resumed_uploads::{KILL_IN_THE_SECOND, KILLED, NEW, image, only_transfer, upload};
use crate::serving::site;
use crate::signals::follow_documentation;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_disk_that_nothing_was_written_to_is_released_though_a_user_has_paused",
        paused_before_the_first_write,
    ),
    ("an_upload_that_is_cancelled_meanwhile_is_not_advised_to_go_on", cancelled_meanwhile),
    ("an_upload_that_was_finalized_by_somebody_else_is_told", finalized_by_somebody_else),
    ("what_can_not_go_on_is_told", what_can_not_go_on_is_told),
];

/// Whoever cancels such a transfer loses a good disk.
fn paused_before_the_first_write() -> TestResult {
    let site = site_with_disk()?;
    let disks = site.engine.disks();
    let (code, said) =
        copy_after(&site, &mut Job::UploadInto.command(&site), ["", "exit 3"], |site, transfer| {
            site.engine.pause_transfer(&transfer.id);
            Ok(())
        })?;
    assert_eq!(code, Some(1), "{said:?}");
    assert!(said.iter().any(|line| line.contains("nothing was written to disk")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("relied on")), "{said:?}");
    let transfer = site.engine.transfers().pop().ok_or("there is no transfer")?;
    assert_eq!((transfer.phase, site.engine.disks()), (Phase::FinishedSuccess, disks), "{said:?}");
    Ok(())
}

fn cancelled_meanwhile() -> TestResult {
    let write = format!("{} -f raw -c 'write 0 64k' $last >&2", QEMU_IO.path().display());
    for copying in [COPY, [&write, "exit 3"]] {
        let site = site_with_disk()?;
        let mut upload = Job::Upload.command(&site);
        let (code, said) = copy_after(&site, upload.args(["--resume", "state"]), copying, cancel)?;
        assert_eq!(code, Some(1), "{said:?}");
        let last = said.last().ok_or("nothing is said")?;
        assert!(last.contains("the engine has ended transfer"), "{said:#?}");
        assert!(!last.contains("goes on") && !site.path("state").exists(), "{said:#?}");
        succeed(upload.env("PATH", std::env::var("PATH")?).output()?.into())?;
    }
    Ok(())
}

/// The engine takes such a disk for a good one.
fn finalized_by_somebody_else() -> TestResult {
    let site = site()?;
    image(&site)?;
    assert_eq!(upload(&site, &NEW, KILL_IN_THE_SECOND)?.code, KILLED);
    let transfer = only_transfer(&site)?;
    follow_documentation(&site, "imagetransfers/ID/finalize", &transfer.id)?;
    let is_finished = |_: &_| only_transfer(&site).is_ok_and(|transfer| transfer.phase.is_finished());
    assert!(site.engine.wait_for(PATIENCE, is_finished));
    let ended = upload(&site, &NEW, "")?;
    let advice = format!("disk {} has only a part of the image: remove it in the engine", transfer.disk);
    assert!(ended.code == 1 && ended.err.contains(&advice), "{ended:?}");
    Ok(())
}

fn what_can_not_go_on_is_told() -> TestResult {
    let site = site()?;
    image(&site)?;
    fs::write(site.path("other"), "something else")?;
    for (what, expected) in [
        (&["--resume", "other", "big.img", "-s", STORAGE_DOMAIN][..], "it isn't what an upload has noted"),
        (&["--resume", "new"], "nothing was noted of an upload yet: give its FILE"),
        (&["--resume", "new", "big.img"], "nothing was noted of an upload yet: give its --storage-domain"),
        (
            &["--resume", "new", "/dev/null", "-s", STORAGE_DOMAIN],
            "/dev/null: only of files can be told whether they change: leave out --resume",
        ),
    ] {
        let ended = run_with(&site, &[&["upload"], what].concat(), &[])?;
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        assert!(ended.err.contains(expected) && !site.path("new").exists(), "{ended:?}");
    }
    assert_eq!(fs::read_to_string(site.path("other"))?, "something else");

    assert_eq!(upload(&site, &NEW, KILL_IN_THE_SECOND)?.code, KILLED);
    let ended = upload(&site, &["disk.img", "--storage-domain", STORAGE_DOMAIN], "")?;
    assert!(ended.code == 1 && ended.err.contains("the upload was begun with /"), "{ended:?}");
    let transfer = only_transfer(&site)?;
    for other in [["--disk", "another"], ["--storage-domain", "another"]] {
        let ended = upload(&site, &[&["big.img"], &other[..]].concat(), "")?;
        let told = format!("{}: the upload was begun into disk {}", other[0], transfer.disk);
        assert!(ended.code == 1 && ended.err.contains(&told), "{ended:?}");
    }
    site.engine.pause_transfer(&transfer.id);
    let anew = ["upload", "disk.img", "--disk-name", "big", "--storage-domain", STORAGE_DOMAIN];
    let ended = run_with(&site, &anew, &[])?;
    let left = format!("disk {} of the same name waits for the rest of an upload", transfer.disk);
    assert!(ended.code == 0 && ended.err.contains(&left), "{ended:?}");
    let ended = run_with(&site, &["upload", "big.img", "--disk", &transfer.disk], &[])?;
    assert!(
        ended.err.contains("(paused_system) has the disk: if nobody goes on with it, cancel it"),
        "{ended:?}"
    );

    site.engine.cancel_transfer(&transfer.id);
    let ended = upload(&site, &NEW, "")?;
    assert!(ended.code == 1 && ended.err.contains("the upload can't go on: if the transfer"), "{ended:?}");
    assert!(ended.err.contains("to begin anew: the engine has"), "{ended:?}");
    Ok(())
}
