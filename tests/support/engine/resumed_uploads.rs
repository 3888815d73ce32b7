// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads that were interrupted, and go on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use fake_engine::{DiskFormat, Fault, Gate, Phase, Transfer, What};
use nix::sys::signal::Signal;
use support::TestResult;
use support::process::{Daemon, PATIENCE};
use support::run::Ended;
use support::tools::QEMU_IMG;

use crate::Test;
use crate::commands::run_with;
use crate::serving::{assert_all_ended_well, site};
use support::installation::{Installation, STORAGE_DOMAIN, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("a_large_image_is_copied_in_parts_of_whole_blocks", in_parts),
    ("a_killed_upload_goes_on", a_killed_upload_goes_on),
    ("an_upload_that_fails_waits_to_be_resumed", an_upload_that_fails_waits_to_be_resumed),
    ("a_disk_that_exists_is_written_in_two_goes", a_disk_that_exists_is_written_in_two_goes),
    ("what_is_copied_is_only_finalized", what_is_copied_is_only_finalized),
    ("a_process_that_is_killed_while_it_begins_leaves_no_second_disk", killed_while_it_begins),
    ("a_disk_that_was_made_for_something_else_is_not_used", made_for_something_else),
    ("a_disk_that_somebody_else_uses_is_left_alone", used_by_somebody_else),
    ("a_new_image_of_the_old_name_is_not_taken_for_the_old_one", a_new_image_of_the_old_name),
    ("an_upload_whose_ticket_is_lost_is_told_to_begin_anew", without_ticket),
    ("an_image_that_has_changed_is_not_uploaded_further", an_image_that_has_changed_is_not_uploaded_further),
    ("an_image_that_changes_meanwhile_is_given_up", an_image_that_changes_meanwhile_is_given_up),
];

const GIB: u64 = 1 << 30;

/// Of the image: two parts, and less than a third.
const SIZE: u64 = 2 * GIB + (5 << 20);

/// The image, with data in each part.
pub(crate) fn image(site: &Installation) -> TestResult {
    let file = File::create(site.path("big.img"))?;
    file.set_len(SIZE)?;
    for (number, offset) in
        [0, GIB - 4096, GIB, GIB + (7 << 20), 2 * GIB - 512, SIZE - 65536].iter().enumerate()
    {
        file.write_all_at(&vec![u8::try_from(number)? + 1; 70_000], *offset)?;
    }
    file.set_len(SIZE)?;
    Ok(())
}

/// Puts a stand-in for `qemu-img` at the place of the real one, which is `$real` there, and of
/// which `$parts` is the number of parts that it has been asked for, with this one.
fn stand_in(site: &Installation, instead: &str) -> TestResult<String> {
    let script = format!(
        "real={}\ncase \"$*\" in *offset*) ;; *) exec $real \"$@\" ;; esac\n\
         echo \"$*\" >>parts; parts=$(wc -l <parts)\n{instead}\nexec $real \"$@\"",
        QEMU_IMG.path().display()
    );
    site.stand_in("qemu-img", &script)
}

/// Uploads with the stand-in.
pub(crate) fn upload(site: &Installation, what: &[&str], instead: &str) -> TestResult<Ended> {
    let path = stand_in(site, instead)?;
    run_with(site, &[&["upload", "--resume", "state"], what].concat(), &[("PATH", &path)])
}

/// The number of parts that were begun.
fn parts(site: &Installation) -> TestResult<usize> {
    Ok(fs::read_to_string(site.path("parts"))?.lines().count())
}

pub(crate) fn only_transfer(site: &Installation) -> TestResult<Transfer> {
    let transfers = site.engine.transfers();
    let [transfer] = transfers.as_slice() else {
        return Err(format!("one is expected: {transfers:?}").into());
    };
    Ok(transfer.clone())
}

/// The upload of this image was done by one transfer.
fn assert_done(site: &Installation, image: &str, format: &str, ended: Ended) -> TestResult {
    let id = succeed(ended)?;
    let disk = site.disk()?;
    assert_eq!(id.trim(), disk.id);
    let stored = site.engine.image_file(&disk).display().to_string();
    let stored_format = if disk.format == DiskFormat::Raw { "raw" } else { "qcow2" };
    site.qemu_img(&["compare", "-f", format, "-F", stored_format, image, &stored])?;
    assert!(!site.path("state").exists(), "nothing is left to be done");
    only_transfer(site)?;
    // A process that was killed stays logged in.
    assert_all_ended_well(site);
    Ok(())
}

/// Of a process that SIGKILL has ended.
pub(crate) const KILLED: i32 = 128 + 9;

pub(crate) const NEW: [&str; 3] = ["big.img", "--storage-domain", STORAGE_DOMAIN];

/// SIGKILL in the second part, when a piece of it is written.
pub(crate) const KILL_IN_THE_SECOND: &str = "[ $parts = 2 ] && $real \"$@\" && kill -9 $PPID && exit";

/// Of more than 2 GiB in one piece, `qemu-img` would write in the middle of blocks.
fn in_parts() -> TestResult {
    let site = site()?;
    image(&site)?;
    let path = stand_in(&site, "")?;
    let ended = run_with(&site, &[&["upload"], &NEW[..]].concat(), &[("PATH", &path)])?;
    assert_done(&site, "big.img", "raw", ended)?;
    assert_eq!(parts(&site)?, 3);
    let backing = ["-b", "big.img", "-F", "raw", "top.qcow2"];
    site.qemu_img(&[&["create", "-q", "-f", "qcow2"], &backing[..]].concat())?;
    let upload = ["upload", "top.qcow2", "-s", STORAGE_DOMAIN];
    succeed(run_with(&site, &upload, &[("PATH", &path)])?)?;
    assert_eq!(parts(&site)?, 3, "of its parts, nobody sees what is zero");
    Ok(())
}

fn a_killed_upload_goes_on() -> TestResult {
    for is_paused in [false, true] {
        let site = site()?;
        image(&site)?;
        let killed = upload(&site, &NEW, KILL_IN_THE_SECOND)?;
        assert_eq!(killed.code, KILLED, "{killed:?}");
        let state = fs::read_to_string(site.path("state"))?;
        let transfer = only_transfer(&site)?;
        assert!(state.contains(&transfer.id) && state.contains(&transfer.disk), "{state}");
        assert!(state.ends_with(&format!("{{\"flushed\":{GIB}}}\n")), "{state}");
        assert!(!state.contains(transfer.ticket.secret()), "the ticket is a secret");
        if is_paused {
            site.engine.pause_transfer(&transfer.id);
            site.daemon.expire_ticket(transfer.ticket.secret())?;
        }
        // The user's options alone will do.
        let ended = upload(&site, if is_paused { &[] } else { &NEW }, "")?;
        assert_done(&site, "big.img", "raw", ended)?;
        assert_eq!(parts(&site)?, 2 + 2, "the first part isn't copied again");
    }
    Ok(())
}

fn an_upload_that_fails_waits_to_be_resumed() -> TestResult {
    let site = site()?;
    image(&site)?;
    site.qemu_img(&["convert", "-O", "qcow2", "big.img", "base.qcow2"])?;
    site.qemu_img(&["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"])?;
    let new = ["top.qcow2", "--storage-domain", STORAGE_DOMAIN, "--format", "raw"];
    for (instead, expected) in [
        ("[ $parts = 2 ] && exit 3", "qemu-img failed (exit status: 3)"),
        (
            "[ $parts = 3 ] && kill -TERM $PPID && exec sleep 60",
            "signal 15 has ended this command: --resume=",
        ),
    ] {
        let ended = upload(&site, &new, instead)?;
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.err.contains(expected), "{ended:?}");
        assert!(ended.err.contains("(paused_user) waits to be resumed"), "{ended:?}");
        assert_eq!(only_transfer(&site)?.phase, Phase::PausedUser);
        assert_eq!(site.engine.sessions(), 0);
    }
    let ended = upload(&site, &new, "")?;
    assert_done(&site, "top.qcow2", "qcow2", ended)
}

fn a_disk_that_exists_is_written_in_two_goes() -> TestResult {
    let site = site()?;
    image(&site)?;
    succeed(run_with(&site, &["upload", "big.img", "--storage-domain", STORAGE_DOMAIN], &[])?)?;
    let other = File::create(site.path("other.img"))?;
    other.set_len(SIZE)?;
    other.write_all_at(&[9; 5000], GIB + 5000)?;
    let what = ["other.img", "--disk", "big"];
    let killed = upload(&site, &what, KILL_IN_THE_SECOND)?;
    assert_eq!(killed.code, KILLED, "{killed:?}");
    let refused = run_with(&site, &["upload", "other.img", "--disk", "big"], &[])?;
    let transfers = site.engine.transfers();
    let transfer = transfers.iter().find(|transfer| !transfer.phase.is_finished()).ok_or("it is lost")?;
    let holder = format!("transfer {} ({}) has the disk: ", transfer.id, "transferring");
    assert!(refused.code == 1 && refused.err.contains(&holder), "{refused:?}");
    succeed(upload(&site, &what, "")?)?;
    let stored = site.engine.image_file(&site.disk()?).display().to_string();
    site.qemu_img(&["compare", "-f", "raw", "-F", "qcow2", "other.img", &stored])?;
    assert_all_ended_well(&site);
    Ok(())
}

/// Kills the upload of the image into a new disk at the n-th request of this method and path, which
/// is carried out or not.
fn kill_at(site: &Installation, (method, path, nth): (&str, &str, u64), done: bool) -> TestResult {
    let gate = Gate::new();
    let what = if done { What::HoldReply(gate.clone()) } else { What::Hold(gate.clone()) };
    site.engine.fault(Fault::on(method, path).nth(nth).then(what));
    let mut command = site.imageio_nbd(&[&["upload", "--resume", "state", "-c", "lab"], &NEW[..]].concat());
    let mut process = Daemon::spawn(&mut command)?;
    assert!(gate.wait_reached(1, PATIENCE), "it isn't asked: {path}");
    process.signal(Signal::SIGKILL)?;
    let status = process.wait()?;
    gate.open();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{:?}", process.said());
    Ok(())
}

const FINALIZE: (&str, &str, u64) = ("POST", "api/imagetransfers/*/finalize", 1);

/// No ticket is needed for that.
fn what_is_copied_is_only_finalized() -> TestResult {
    for (done, has_ticket) in [(false, true), (true, true), (false, false)] {
        let site = site()?;
        image(&site)?;
        kill_at(&site, FINALIZE, done)?;
        if !has_ticket {
            let transfer = only_transfer(&site)?;
            site.daemon.remove_ticket(transfer.ticket.secret())?;
            site.engine.pause_transfer(&transfer.id);
        }
        // Nothing more is read of it.
        fs::rename(site.path("big.img"), site.path("kept.img"))?;
        let ended = upload(&site, &NEW, "exit 9")?;
        assert_done(&site, "kept.img", "raw", ended)?;
    }
    Ok(())
}

fn killed_while_it_begins() -> TestResult {
    for at in [
        ("POST", "api/disks", 1),
        // A 404 is asked for twice before it is believed that there is no such disk.
        ("GET", "api/disks/*", 3),
        ("POST", "api/imagetransfers", 1),
        ("GET", "api/imagetransfers/*", 1),
    ] {
        let site = site()?;
        image(&site)?;
        kill_at(&site, at, true)?;
        assert!(site.engine.wait_for(PATIENCE, |engine| engine.disks().len() == 1), "{at:?}");
        let ended = upload(&site, &NEW, "")?;
        assert!(ended.err.contains("before, and "), "{at:?}: {ended:?}");
        assert_done(&site, "big.img", "raw", ended)?;
        assert_eq!(site.engine.disks().len(), 1, "{at:?}");
    }
    Ok(())
}

/// Somebody else has written to the disk, or reads it: it is left as it is.
fn used_by_somebody_else() -> TestResult {
    let site = site()?;
    image(&site)?;
    kill_at(&site, ("POST", "api/imagetransfers", 1), false)?;
    let disk = site.disk()?;
    let write = "qemu-io -f raw -c 'write -P 7 1G 1M' \"$uri\"";
    let into = ["disk=big", "direction=upload", "config=lab", "--run", write];
    succeed(site.imageio_nbd(&into).output()?.into())?;
    let written = fs::read(site.engine.image_file(&disk))?;
    for reading in [false, true] {
        let mut gate = None;
        if reading {
            let wait = "touch reading; while [ -e reading ]; do read -r line <go || :; done";
            succeed(Command::new("mkfifo").arg(site.path("go")).output()?.into())?;
            let mut reader = site.imageio_nbd(&["-r", "disk=big", "config=lab", "--run", wait]);
            let mut reader = Daemon::spawn(&mut reader)?;
            reader.retry(|| fs::metadata(site.path("reading")))?;
            gate = Some(reader);
        }
        let refused = upload(&site, &NEW, "exit 9")?;
        let told = format!("disk {}, which an interrupted upload has made, can't be used: ", disk.id);
        assert!(refused.code == 1 && refused.err.contains(&told), "{refused:?}");
        let why = if reading { "has it" } else { "there may be data on it" };
        assert!(refused.err.contains(why) && refused.err.contains("if nobody needs it"), "{refused:?}");
        assert_eq!(site.engine.disks().len(), 1, "{refused:?}");
        if let Some(mut reader) = gate {
            fs::remove_file(site.path("reading"))?;
            fs::write(site.path("go"), "go\n")?;
            let status = reader.wait()?;
            assert!(status.success(), "{status} {:?}", reader.said());
        }
    }
    assert!(fs::read(site.engine.image_file(&disk))? == written, "the disk has changed");
    Ok(())
}

/// The image that is there now isn't the one that was copied.
fn a_new_image_of_the_old_name() -> TestResult {
    let site = site()?;
    image(&site)?;
    kill_at(&site, FINALIZE, true)?;
    fs::rename(site.path("big.img"), site.path("kept.img"))?;
    fs::copy(site.path("disk.img"), site.path("big.img"))?;
    let ended = upload(&site, &NEW, "exit 9")?;
    let disk = site.disk()?;
    let told = format!("disk {} is complete, with the image as it was before", disk.id);
    assert!(ended.code == 1 && ended.out.is_empty() && ended.err.contains(&told), "{ended:?}");
    assert!(!site.path("state").exists());
    let stored = site.engine.image_file(&disk).display().to_string();
    site.qemu_img(&["compare", "-f", "raw", "-F", "qcow2", "kept.img", &stored])?;
    Ok(())
}

fn made_for_something_else() -> TestResult {
    let site = site()?;
    image(&site)?;
    kill_at(&site, ("POST", "api/imagetransfers", 1), false)?;
    let disk = site.disk()?;
    let ended = upload(&site, &[&NEW[..], &["--format", "raw"]].concat(), "")?;
    let advice = format!("may have made disk {}: remove it in the engine", disk.id);
    assert!(ended.code == 0 && ended.err.contains(&advice), "{ended:?}");
    assert_ne!(ended.out.trim(), disk.id);
    Ok(())
}

/// As after a restart of the imageio server.
fn without_ticket() -> TestResult {
    let site = site()?;
    image(&site)?;
    assert_eq!(upload(&site, &NEW, KILL_IN_THE_SECOND)?.code, KILLED);
    let transfer = only_transfer(&site)?;
    site.daemon.remove_ticket(transfer.ticket.secret())?;
    site.engine.pause_transfer(&transfer.id);
    let ended = upload(&site, &[&NEW[..], &["engine-timeout=3"]].concat(), "")?;
    let told = format!("transfer {} doesn't go on: try again when its host can be reached", transfer.id);
    assert!(ended.code == 1 && ended.err.contains(&told), "{ended:?}");
    assert!(ended.err.contains("state to begin anew"), "{ended:?}");
    site.assert_no_secret(&ended.err)?;
    let phase = only_transfer(&site)?.phase;
    assert!(matches!(phase, Phase::PausedSystem | Phase::PausedUser), "{phase:?} {ended:?}");
    assert!(site.path("state").exists());
    Ok(())
}

fn an_image_that_has_changed_is_not_uploaded_further() -> TestResult {
    let site = site()?;
    image(&site)?;
    assert_eq!(upload(&site, &NEW, KILL_IN_THE_SECOND)?.code, KILLED);
    File::options().write(true).open(site.path("big.img"))?.write_all_at(b"changed", 0)?;
    let refused = upload(&site, &NEW, "")?;
    assert_eq!((refused.code, refused.err.lines().count()), (1, 1), "{refused:?}");
    let transfer = only_transfer(&site)?;
    let advice = format!(
        "the upload can't go on: if the transfer is still there, cancel transfer {} in the engine",
        transfer.id
    );
    assert!(refused.err.contains(&advice) && refused.err.contains("big.img has changed"), "{refused:?}");
    assert_eq!((parts(&site)?, transfer.phase), (2, Phase::Transferring));
    assert!(site.path("state").exists());
    Ok(())
}

fn an_image_that_changes_meanwhile_is_given_up() -> TestResult {
    let site = site()?;
    image(&site)?;
    let ended = upload(&site, &NEW, "exit 3")?;
    assert!(ended.code == 1 && ended.err.contains("qemu-img failed (exit status: 3)"), "{ended:?}");
    assert!(site.engine.disks().is_empty() && !site.path("state").exists(), "nothing was written");
    fs::remove_file(site.path("parts"))?;
    let ended = upload(&site, &NEW, "[ $parts = 2 ] && touch big.img")?;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("big.img has changed since its upload was begun"), "{ended:?}");
    assert!(ended.err.contains("which was made for this, has been removed"), "{ended:?}");
    assert!(site.engine.disks().is_empty() && !site.path("state").exists(), "{ended:?}");
    Ok(())
}
