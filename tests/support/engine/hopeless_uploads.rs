// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads that were interrupted, and can't go on.

use std::fs;

use support::TestResult;
use support::installation::STORAGE_DOMAIN;
use support::process::PATIENCE;

use crate::Test;
use crate::commands::run_with;
use crate::resumed_uploads::{KILL_IN_THE_SECOND, KILLED, NEW, image, only_transfer, upload};
use crate::serving::site;
use crate::signals::follow_documentation;

pub(crate) const TESTS: &[Test] = &[
    ("an_upload_that_was_finalized_by_somebody_else_is_told", finalized_by_somebody_else),
    ("what_can_not_go_on_is_told", what_can_not_go_on_is_told),
];

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
        (&["--resume", "new", "/dev/null", "-s", STORAGE_DOMAIN], "XXX"),
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
