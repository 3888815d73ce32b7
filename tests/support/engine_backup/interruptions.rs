// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals in each phase of a backup.

use std::fs;
use std::process::Command;

use fake_engine::{BackupPhase, Fault, Gate, What};
use nix::sys::signal::Signal;
use support::TestResult;
use support::process::{Daemon, PATIENCE};
use support::tools::QEMU_IMG;

use crate::Test;
use crate::machine::{DIR, Machine};
use support::installation::{STORAGE_DOMAIN, VM};

pub(crate) const TESTS: &[Test] = &[
    ("a_signal_while_the_engine_is_asked_leaves_nothing", asking),
    ("a_signal_while_disks_are_copied_leaves_nothing", copying),
    ("a_signal_while_a_disk_is_restored_leaves_no_disk", restoring),
    ("what_a_killed_process_has_left_is_ended_by_the_next", killed),
    ("a_process_that_is_killed_while_it_begins_leaves_a_note", killed_early),
    ("two_backups_into_one_directory_are_refused", locked),
];

fn asking() -> TestResult {
    let machine = Machine::new(&["qcow2"])?;
    let good = machine.back_up_well(&[])?;
    for (method, path) in [
        ("POST", "api/vms/*/backups"),
        ("GET", "api/vms/*/backups/*/disks"),
        ("POST", "api/imagetransfers"),
        ("POST", "api/imagetransfers/*/finalize"),
        ("POST", "api/vms/*/backups/*/finalize"),
    ] {
        let gate = Gate::new();
        machine.site.engine.fault(Fault::on(method, path).then(What::HoldReply(gate.clone())));
        let before = machine.site.engine.journal().len();
        let mut process = Daemon::spawn(&mut machine.command(&[&BACK_UP[..], &["-v"]].concat()))?;
        let is_asked = |machine: &Machine| {
            let journal = machine.site.engine.journal();
            journal[before..].iter().any(|request| request.method == method && fits(path, &request.path))
        };
        assert!(machine.site.engine.wait_for(PATIENCE, |_| is_asked(&machine)), "{path}");
        process.signal(Signal::SIGTERM)?;
        // It has noticed, so that what is answered now comes too late.
        process.wait_for_line(|line| line.contains("signal 15").then_some(()))?;
        gate.open();
        assert_ended(&machine, process, &good, path)?;
    }
    machine.back_up_well(&["--incremental"])?;
    Ok(())
}

fn fits(pattern: &str, path: &str) -> bool {
    let parts = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let (pattern, path) = (parts(pattern), parts(path));
    pattern.len() == path.len() && pattern.iter().zip(&path).all(|(one, other)| one == "*" || one == other)
}

/// The process has ended with an error, nothing is left in the engine, and the directory is in its
/// last good state.
fn assert_ended(machine: &Machine, mut process: Daemon, good: &str, when: &str) -> TestResult {
    let status = process.wait()?;
    let said = process.said().join("\n");
    assert_eq!(status.code(), Some(1), "{when}: {said}");
    assert!(said.contains("signal 15 has ended this command"), "{when}: {said}");
    assert_eq!(machine.backups()?, [good], "{when}: {said}");
    assert_eq!(machine.leftovers()?, [""; 0], "{when}: {said}");
    machine.assert_engine_is_idle().map_err(|error| format!("{when}: {error}: {said}").into())
}

/// A `qemu-img` that begins to copy, and never ends by itself; and the file that tells that it has
/// begun.
fn hanging(machine: &Machine, arguments: &[&str]) -> TestResult<Command> {
    let script = format!(
        "[ \"$1\" = convert ] || exec {} \"$@\"\n: > \"$BEGUN\"\nexec tail --pid=$PPID -f /dev/null",
        QEMU_IMG.path().display()
    );
    let path = machine.site.stand_in("qemu-img", &script)?;
    let begun = machine.site.path("begun");
    let _ = fs::remove_file(&begun);
    let mut command = machine.command(arguments);
    command.env("PATH", path).env("BEGUN", begun);
    Ok(command)
}

fn start_hanging(machine: &Machine, arguments: &[&str]) -> TestResult<Daemon> {
    let mut process = Daemon::spawn(&mut hanging(machine, arguments)?)?;
    process.retry(|| fs::metadata(machine.site.path("begun")))?;
    Ok(process)
}

const BACK_UP: [&str; 5] = ["backup", VM, DIR, "-c", "lab"];

fn copying() -> TestResult {
    let machine = Machine::new(&["qcow2", "qcow2", "raw"])?;
    let good = machine.back_up_well(&[])?;
    for jobs in ["1", "3"] {
        let process = start_hanging(&machine, &[&BACK_UP[..], &["--jobs", jobs]].concat())?;
        process.signal(Signal::SIGTERM)?;
        assert_ended(&machine, process, &good, jobs)?;
    }
    machine.back_up_well(&[])?;
    Ok(())
}

fn restoring() -> TestResult {
    let machine = Machine::new(&["qcow2"])?;
    machine.back_up_well(&[])?;
    let before = machine.site.engine.disks();
    let mut process = start_hanging(&machine, &["restore", DIR, "-s", STORAGE_DOMAIN, "-c", "lab"])?;
    process.signal(Signal::SIGTERM)?;
    assert_eq!(process.wait()?.code(), Some(1), "{:?}", process.said());
    assert_eq!(machine.site.engine.disks(), before, "{:?}", process.said());
    Ok(())
}

fn killed() -> TestResult {
    let machine = Machine::new(&["qcow2", "raw"])?;
    let good = machine.back_up_well(&[])?;
    let mut process = start_hanging(&machine, &BACK_UP)?;
    process.signal(Signal::SIGKILL)?;
    assert_eq!(process.wait()?.code(), None);
    let phases = || machine.site.engine.backups().iter().map(|backup| backup.phase).collect::<Vec<_>>();
    assert_eq!(phases(), [BackupPhase::Succeeded, BackupPhase::Ready], "nobody was left to end it");
    assert_eq!(machine.backups()?, [&*good]);
    assert_eq!(machine.leftovers()?.len(), 1);

    let ended = machine.back_up(&[])?;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.err.contains("of an interrupted backup was removed"), "{ended:?}");
    assert!(ended.err.contains("which was interrupted, has ended in the engine"), "{ended:?}");
    assert_eq!(phases(), [BackupPhase::Succeeded; 3]);
    assert_eq!((machine.backups()?.len(), machine.leftovers()?.len()), (2, 0));
    Ok(())
}

fn killed_early() -> TestResult {
    let machine = Machine::new(&["qcow2"])?;
    let gate = Gate::new();
    let engine = &machine.site.engine;
    engine.fault(Fault::on("POST", "api/vms/*/backups").then(What::HoldReply(gate.clone())));
    let mut process = Daemon::spawn(&mut machine.command(&BACK_UP))?;
    assert!(engine.wait_for(PATIENCE, |engine| !engine.backups().is_empty()));
    process.signal(Signal::SIGKILL)?;
    assert_eq!(process.wait()?.code(), None);
    gate.open();

    // The engine can't be asked what has become of it, once: the note stays.
    let away = What::Status { status: 503, reason: String::new(), detail: String::new() };
    engine.fault(Fault::on("GET", "api/vms/*/backups/*").then(away));
    let ended = machine.back_up(&[])?;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("which was interrupted, may still be under way"), "{ended:?}");
    assert!(ended.err.contains("already during a backup"), "{ended:?}");
    assert_eq!(machine.leftovers()?.len(), 1);

    let ended = machine.back_up(&[])?;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.err.contains("which was interrupted, has ended in the engine"), "{ended:?}");
    assert_eq!(machine.leftovers()?, [""; 0]);
    // The killed process could not log out, so that the engine is not wholly idle.
    let is_over = engine.backups().iter().all(|backup| backup.phase == BackupPhase::Succeeded);
    assert!(is_over, "{:?}", engine.backups());
    Ok(())
}

fn locked() -> TestResult {
    let machine = Machine::new(&["qcow2"])?;
    let good = machine.back_up_well(&[])?;
    let process = start_hanging(&machine, &BACK_UP)?;
    let ended = machine.back_up(&[])?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    assert!(ended.err.contains(&format!("is in use by process {} on ", process.id())), "{ended:?}");
    // Reading goes on.
    assert_eq!(machine.run(&["backups", DIR])?.code, 0);
    process.signal(Signal::SIGTERM)?;
    assert_ended(&machine, process, &good, "afterwards")
}
