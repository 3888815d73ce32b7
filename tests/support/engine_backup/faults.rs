// SPDX-License-Identifier: MIT OR Apache-2.0
//! Engines that lose answers, are started again, refuse, or are old.

use std::fs::OpenOptions;
use std::process::Stdio;

use fake_engine::{Fault, OldEngine, What};
use support::TestResult;
use support::run::Ended;

use crate::Test;
use crate::machine::{DIR, Machine};
use support::installation::{STORAGE_DOMAIN, VM, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("an_answer_that_is_lost_makes_nothing_twice", lost_answers),
    ("an_engine_that_is_started_again_is_waited_for", restarts),
    ("a_refusal_leaves_the_last_good_state", refusals),
    ("a_busy_vm_is_told", busy),
    ("what_is_made_is_told_as_an_error_if_the_output_is_lost", unread),
    ("old_engines_are_understood", old_engines),
    ("a_refused_incremental_backup_becomes_a_full_one", mixed),
    ("disks_that_the_engine_refuses_are_left_out_and_told", left_out),
];

/// The requests of a backup that are sent again if their answer is lost.
const ACTIONS: &[&str] = &[
    "api/vms/*/backups",
    "api/imagetransfers",
    "api/imagetransfers/*/finalize",
    "api/vms/*/backups/*/finalize",
];

fn lost_answers() -> TestResult {
    for path in ACTIONS {
        let machine = Machine::new(&["qcow2"])?;
        machine.site.engine.fault(Fault::on("POST", path).then(What::LoseReply));
        machine.back_up_well(&[])?;
        assert_eq!(machine.site.engine.backups().len(), 1, "{path}");
        // One of them is the upload.
        assert_eq!(machine.site.engine.transfers().len(), 2, "{path}");
    }
    Ok(())
}

fn restarts() -> TestResult {
    for path in ACTIONS {
        let machine = Machine::new(&["qcow2"])?;
        machine.site.engine.fault(Fault::on("POST", path).then(What::Restart { done: true }));
        machine.back_up_well(&[])?;
        assert_eq!(machine.site.engine.backups().len(), 1, "{path}");
    }
    Ok(())
}

fn refusals() -> TestResult {
    let machine = Machine::new(&["qcow2", "qcow2"])?;
    let good = machine.back_up_well(&[])?;
    let refused =
        What::Status { status: 400, reason: "Operation Failed".to_owned(), detail: "[No.]".to_owned() };
    for (method, path, nth) in [
        ("GET", "api/vms", 1),
        ("GET", "api/vms/*/checkpoints", 1),
        ("POST", "api/vms/*/backups", 1),
        ("GET", "api/vms/*/backups/*/disks", 1),
        ("GET", "api/vms/*", 1),
        // Again and again, as one of these may mean that the engine is old.
        ("POST", "api/imagetransfers", 2),
    ] {
        machine.site.engine.fault(Fault::on(method, path).nth(nth).every().then(refused.clone()));
        let ended = machine.back_up(&[])?;
        assert_eq!(ended.code, 1, "{path}: {ended:?}");
        assert!(ended.err.contains("400: Operation Failed: No"), "{path}: {ended:?}");
        assert_eq!(machine.backups()?, std::slice::from_ref(&good), "{path}");
        assert_eq!(machine.leftovers()?, [""; 0], "{path}");
        machine.assert_engine_is_idle()?;
        machine.site.engine.clear_faults();
    }
    machine.back_up_well(&["--incremental"])?;
    Ok(())
}

fn busy() -> TestResult {
    let machine = Machine::new(&["qcow2"])?;
    let refused =
        What::Status { status: 409, reason: "Operation Failed".to_owned(), detail: "[Busy.]".to_owned() };
    machine.site.engine.fault(Fault::on("POST", "api/vms/*/backups").then(refused));
    let ended = machine.back_up(&[])?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    // The engine's words are all that is known.
    assert!(
        ended.err.contains("409: Operation Failed: Busy\n") && !ended.err.contains("may be"),
        "{ended:?}"
    );
    Ok(())
}

fn mixed() -> TestResult {
    let old = OldEngine::default().with(|engine| engine.refuses_mixed_backups = true);
    let mut machine = Machine::with(&["qcow2"], |builder| builder.old_engine(old))?;
    machine.back_up_well(&[])?;
    machine.attach("raw")?;
    let ended = machine.back_up(&[])?;
    let err = ended.err.clone();
    succeed(ended)?;
    assert!(err.contains("Mixing full and incremental backups is not supported"), "{err}");
    assert!(err.contains("a full backup is made in place of an incremental one"), "{err}");
    assert!(err.contains("\"disk0\" is backed up as a whole: the engine refuses an incremental"), "{err}");
    assert_eq!(machine.leftovers()?, [""; 0]);
    machine.assert_engine_is_idle()
}

fn left_out() -> TestResult {
    let machine = Machine::new(&["qcow2", "raw", "raw"])?;
    let (site, disks) = (&machine.site, &machine.disks);
    site.engine.set_disk_active(&site.vm(), &disks[1].id, false)?;
    site.engine.share_disk(&disks[2].id);
    let ended = machine.back_up(&[])?;
    let err = ended.err.clone();
    succeed(ended)?;
    assert!(err.contains("is not backed up: it is not active"), "{err}");
    assert!(err.contains("is not backed up: it is shareable"), "{err}");
    let manifest = machine.manifest()?;
    let saved = manifest["backups"][0]["disks"].as_array().ok_or("no disks")?;
    assert_eq!((saved.len(), &saved[0]["disk"]["id"]), (1, &disks[0].id.clone().into()));
    machine.assert_engine_is_idle()
}

fn unread() -> TestResult {
    let machine = Machine::new(&["qcow2", "raw"])?;
    let run = |arguments: &[&str]| -> TestResult<Ended> {
        let full = OpenOptions::new().write(true).open("/dev/full")?;
        let mut command = machine.command(arguments);
        Ok(command.stdout(full).stderr(Stdio::piped()).spawn()?.wait_with_output()?.into())
    };
    let ended = run(&["backup", VM, DIR, "-c", "lab"])?;
    let id = machine.backups()?.pop().ok_or("no backup")?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    assert!(ended.err.contains(&format!("backup {id} is complete")), "{ended:?}");

    let known = machine.site.engine.disks().len();
    let ended = run(&["restore", DIR, "-s", STORAGE_DOMAIN, "-c", "lab"])?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 2), "{ended:?}");
    for disk in &machine.site.engine.disks()[known..] {
        assert!(ended.err.contains(&format!("disk {} is complete", disk.id)), "{ended:?}");
    }
    machine.assert_engine_is_idle()
}

fn old_engines() -> TestResult {
    let old = OldEngine::default().with(|engine| {
        engine.removes_finished_transfers = true;
        engine.refuses_timeout_policy = true;
    });
    let machine = Machine::with(&["qcow2"], |builder| builder.old_engine(old))?;
    machine.keep("content")?;
    let id = machine.back_up_well(&[])?;
    machine.site.assert_same("content-0", "raw", &machine.restore(&id)?[0])?;
    succeed(machine.run(&["verify", crate::machine::DIR])?)?;
    Ok(())
}
