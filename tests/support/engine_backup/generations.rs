// SPDX-License-Identifier: MIT OR Apache-2.0
//! Backups one after the other, and what is restored of them.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use serde_json::Value;
use support::TestResult;
use support::run::Ended;

use crate::Test;
use crate::machine::{DIR, Machine};
use support::installation::{STORAGE_DOMAIN, VM, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("nothing_is_added_to_an_image_that_is_damaged", damaged_base),
    ("each_backup_restores_what_the_disks_held", generations),
    ("what_cannot_be_incremental_is_full_and_told", full_for_a_reason),
    ("incremental_fails_rather_than_be_full", incremental_or_nothing),
    ("a_disk_is_extended_between_backups", extended),
    ("directories_are_listed", listed),
    ("a_damaged_image_is_found_and_not_restored", damaged),
    ("a_missing_file_harms_no_other_backup", missing),
    ("a_directory_without_backups_is_told_as_such", empty),
    ("some_disks_alone_are_restored", some_disks),
    ("nothing_secret_is_in_the_directory_or_the_log", secrets),
    ("progress_is_told_as_json", json),
];

/// Data, data that becomes zero, and parts of clusters.
const CHANGES: [&[&str]; 2] = [
    &["write -P 0xaa 1M 64k", "write -z 2M 1M", "write -P 0xbb 5000001 3"],
    &["write -P 0xcc 1M 4k", "write -z 1064k 8k", "write -P 0xdd 2500k 4k"],
];

fn generations() -> TestResult {
    let machine = Machine::new(&["qcow2", "qcow2", "raw"])?;
    let mut ids = Vec::new();
    machine.keep("content-0")?;
    ids.push(machine.back_up_well(&[])?);
    for (number, changes) in CHANGES.iter().enumerate() {
        for disk in &machine.disks {
            machine.site.guest_does(disk, changes)?;
        }
        machine.keep(&format!("content-{}", number + 1))?;
        ids.push(machine.back_up_well(&["--jobs", "2"])?);
    }
    assert_eq!(machine.backups()?, ids);
    assert_eq!(machine.leftovers()?, [""; 0]);
    check_manifest(&machine)?;
    assert_eq!(machine.good_transfers(), 3 + 3 * 3);

    succeed(machine.run(&["verify", DIR])?)?;
    // Wherever the directory is.
    fs::rename(machine.path(""), machine.site.path("moved"))?;
    fs::rename(machine.site.path("moved"), machine.path(""))?;
    for (number, id) in ids.iter().enumerate() {
        for (disk, restored) in machine.restore(id)?.iter().enumerate() {
            machine.site.assert_same(&format!("content-{number}-{disk}"), "raw", restored)?;
            let original = &machine.disks[disk];
            assert_eq!(
                (&restored.name, restored.format, restored.incremental_backup),
                (&original.name, original.format, original.incremental_backup)
            );
        }
    }
    Ok(())
}

/// qcow2 disks are increments of what has changed; the raw one is full each time.
fn check_manifest(machine: &Machine) -> TestResult {
    let manifest = machine.manifest()?;
    for (number, backup) in manifest["backups"].as_array().ok_or("no backups")?.iter().enumerate() {
        for disk in backup["disks"].as_array().ok_or("no disks")? {
            let is_increment = number > 0 && disk["disk"]["format"] == "cow";
            assert_eq!(disk["backup_mode"], if is_increment { "incremental" } else { "full" });
            let file = machine.path(disk["file"].as_str().ok_or("no file")?);
            let size = fs::metadata(&file)?.len();
            // 1 MiB of zeroes takes nothing, and each other change a cluster or two.
            assert!(!is_increment || size < 1 << 20, "{} has {size} bytes", file.display());
        }
        let configuration =
            fs::read(machine.path(backup["vm_configuration"].as_str().ok_or("no configuration")?))?;
        let configuration: Value = serde_json::from_slice(&configuration)?;
        assert_eq!(configuration["id"], machine.site.vm());
        let ovf = &configuration["initialization"]["configuration"]["data"];
        assert!(ovf.as_str().is_some_and(|ovf| ovf.contains("Envelope")), "{configuration}");
    }
    let checkpoints: Vec<_> =
        machine.site.engine.checkpoints().into_iter().map(|checkpoint| checkpoint.id).collect();
    let from = |number: usize| manifest["backups"][number]["from_checkpoint_id"].clone();
    assert_eq!(
        (from(0), from(1), from(2)),
        (Value::Null, checkpoints[0].clone().into(), checkpoints[1].clone().into())
    );
    Ok(())
}

fn full_for_a_reason() -> TestResult {
    let mut machine = Machine::new(&["qcow2", "raw"])?;
    machine.back_up_well(&[])?;
    machine.attach("qcow2")?;
    let ended = machine.back_up(&[])?;
    let err = ended.err.clone();
    succeed(ended)?;
    assert!(
        err.contains("\"disk1\" is backed up as a whole: incremental backup is not enabled for it"),
        "{err}"
    );
    assert!(err.contains("\"disk2\" is backed up as a whole: it is not in the backup"), "{err}");
    assert!(!err.contains("disk0"), "{err}");

    // The manifest is as if somebody had removed them in the engine.
    let mut manifest = fs::read_to_string(machine.path("manifest.json"))?;
    for checkpoint in machine.site.engine.checkpoints() {
        manifest = manifest.replace(&checkpoint.id, &format!("removed-{}", checkpoint.id));
    }
    fs::write(machine.path("manifest.json"), manifest)?;
    let ended = machine.back_up(&[])?;
    let err = ended.err.clone();
    succeed(ended)?;
    assert!(err.contains("\"disk0\" is backed up as a whole: the engine has no checkpoint"), "{err}");
    assert_eq!(machine.manifest()?["backups"][2]["from_checkpoint_id"], Value::Null);
    let id = machine.back_up_well(&["--full"])?;
    assert_eq!(machine.manifest()?["backups"][3]["disks"][0]["backup_mode"], "full");
    assert_eq!(machine.restore(&id)?.len(), 3);
    Ok(())
}

fn incremental_or_nothing() -> TestResult {
    let mut machine = Machine::new(&["qcow2"])?;
    let ended = machine.back_up(&["--incremental"])?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    assert!(ended.err.contains("\"disk0\": the directory has no backup yet"), "{ended:?}");
    assert!(machine.site.engine.backups().is_empty());
    machine.back_up_well(&[])?;
    machine.back_up_well(&["--incremental"])?;
    machine.attach("raw")?;
    let ended = machine.back_up(&["--incremental"])?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    assert_eq!(machine.backups()?.len(), 2);
    machine.assert_engine_is_idle()
}

fn extended() -> TestResult {
    let machine = Machine::new(&["qcow2"])?;
    machine.back_up_well(&[])?;
    // The manifest is as if the engine had told a smaller size then.
    let smaller = fs::read_to_string(machine.path("manifest.json"))?;
    let id = machine.backups()?[0].clone();
    let image = machine.path(&format!("{id}/{}.qcow2", machine.disks[0].id)).display().to_string();
    machine.site.qemu_img(&["resize", "--shrink", "-f", "qcow2", &image, "16M"])?;
    let size = machine.disks[0].provisioned_size;
    fs::write(machine.path("manifest.json"), smaller.replace(&size.to_string(), &(16 << 20).to_string()))?;
    let ended = machine.back_up(&[])?;
    assert!(
        ended.err.contains(&format!("its size was {} bytes and is {size} bytes now", 16 << 20)),
        "{ended:?}"
    );
    succeed(ended)?;
    assert_eq!(machine.manifest()?["backups"][1]["disks"][0]["backup_mode"], "full");
    Ok(())
}

fn listed() -> TestResult {
    let machine = Machine::new(&["qcow2"])?;
    let ids = [machine.back_up_well(&[])?, machine.back_up_well(&[])?];
    let text = succeed(machine.run(&["backups", DIR])?)?;
    assert!(
        text.contains(&format!("{}  full", ids[0])) && text.contains(&format!("{}  incremental", ids[1])),
        "{text}"
    );
    let json: Value = serde_json::from_str(&succeed(machine.run(&["backups", DIR, "--json"])?)?)?;
    assert_eq!(json["vm"]["name"], "guest");
    assert_eq!(
        (&json["backups"][1]["id"], &json["backups"][1]["backup_mode"]),
        (&ids[1].clone().into(), &"incremental".into())
    );
    assert_eq!(json["backups"][0]["disks"][0]["provisioned_size"], machine.disks[0].provisioned_size);
    let ended = machine.run(&["backups", "."])?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    Ok(())
}

fn damaged() -> TestResult {
    let machine = Machine::new(&["qcow2"])?;
    let (one, two) = (machine.back_up_well(&[])?, machine.back_up_well(&[])?);
    let before = machine.site.engine.disks();
    let image = machine.path(&format!("{one}/{}.qcow2", machine.disks[0].id));
    let file = OpenOptions::new().read(true).write(true).open(image)?;
    // Behind the metadata of so small an image, there is data only.
    let (at, mut byte) = (file.metadata()?.len() - 100_000, [0]);
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[!byte[0]], at)?;
    let ended = machine.run(&["verify", DIR])?;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(ended.out.matches("WRONG").count(), 2, "the increment has the byte from below: {ended:?}");
    assert!(ended.err.contains("2 disks are not what was backed up"), "{ended:?}");
    let ended = machine.run(&["verify", DIR, "--backup", &two])?;
    assert!(ended.code == 1 && ended.err.contains("1 disk is not what was backed up"), "{ended:?}");
    let ended = machine.run(&["restore", DIR, "--backup", &two, "-s", STORAGE_DOMAIN, "-c", "lab"])?;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("differs from the backup"), "{ended:?}");
    assert_eq!(machine.site.engine.disks(), before, "what was made is removed");
    // Neither the server nor we can tell whether this one is sound.
    let manifest = fs::read_to_string(machine.path("manifest.json"))?;
    let algorithm = machine.manifest()?["backups"][0]["disks"][0]["checksum"]["algorithm"].to_string();
    assert!(manifest.contains(&algorithm), "{manifest}");
    fs::write(machine.path("manifest.json"), manifest.replace(&algorithm, "\"sha0\""))?;
    let ended = machine.run(&["restore", DIR, "--backup", &two, "-s", STORAGE_DOMAIN, "-c", "lab"])?;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("a checksum by sha0") && ended.err.contains("isn't known"), "{ended:?}");
    assert_eq!(machine.site.engine.disks(), before, "what was made is removed");
    Ok(())
}

/// Only what needs the file can't be used any more.
fn missing() -> TestResult {
    let machine = Machine::new(&["qcow2", "qcow2"])?;
    machine.keep("content")?;
    let ids = [machine.back_up_well(&[])?, machine.back_up_well(&["--full"])?, machine.back_up_well(&[])?];
    let disks = &machine.disks;
    let file = |backup: usize| format!("{DIR}/{}/{}.qcow2", ids[backup], disks[0].id);
    fs::remove_file(machine.site.path(&file(0)))?;
    let ended = machine.run(&["verify", DIR])?;
    let words = |ended: &Ended| -> Vec<String> {
        ended.out.lines().filter_map(|line| line.rsplit("  ").next().map(str::to_owned)).collect()
    };
    assert_eq!(words(&ended), ["MISSING", "ok", "ok", "ok", "ok", "ok"], "{ended:?}");
    assert!(ended.code == 1 && ended.err.contains("1 disk is not what was backed up"), "{ended:?}");
    assert!(ended.err.contains(&format!("cannot open {}", file(0))), "{ended:?}");
    let listed = succeed(machine.run(&["backups", DIR])?)?;
    assert_eq!(listed.matches("MISSING").count(), 1, "{listed}");

    let known = machine.site.engine.disks().len();
    let restore = ["restore", DIR, "-s", STORAGE_DOMAIN, "-c", "lab", "--backup"];
    let ended = machine.run(&[&restore[..], &[&ids[0]]].concat())?;
    assert!(ended.code == 1 && ended.err.contains("disk \"disk0\": cannot open"), "{ended:?}");
    assert_eq!(machine.site.engine.disks().len(), known, "nothing is made if a part of it can't be");
    succeed(machine.run(&[&restore[..], &[&ids[0], "--disk", "disk1"]].concat())?)?;
    machine.site.assert_same("content-0", "raw", &machine.restore(&ids[2])?[0])?;

    // The increment goes on; without its own base there is none.
    machine.back_up_well(&[])?;
    fs::remove_file(machine.site.path(&file(1)))?;
    for more in [&[][..], &["--incremental"]] {
        let ended = machine.back_up(more)?;
        assert!(ended.code == 1 && ended.err.contains("make a full backup (--full)"), "{ended:?}");
        assert!(ended.err.contains(&format!("cannot open {}", file(1))), "{ended:?}");
    }
    machine.assert_engine_is_idle()?;
    let id = machine.back_up_well(&["--full"])?;
    assert_eq!(machine.run(&["verify", DIR, "--backup", &id])?.code, 0);
    fs::remove_file(machine.path(&format!("{id}/vm.json")))?;
    let ended = machine.run(&["verify", DIR, "--backup", &id])?;
    assert!(ended.code == 1 && ended.err.contains("configuration of the VM is missing"), "{ended:?}");
    assert_eq!(machine.restore(&id)?.len(), 2);
    Ok(())
}

fn empty() -> TestResult {
    let machine = Machine::new(&["qcow2"])?;
    machine.back_up_well(&[])?;
    let mut manifest = machine.manifest()?;
    manifest["backups"] = Value::Array(Vec::new());
    fs::write(machine.path("manifest.json"), manifest.to_string())?;
    let ended = machine.run(&["verify", DIR])?;
    assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
    assert!(ended.err.contains("there is nothing to verify: the directory has no backup"), "{ended:?}");
    Ok(())
}

fn some_disks() -> TestResult {
    let machine = Machine::new(&["qcow2", "raw"])?;
    machine.keep("content")?;
    machine.back_up_well(&[])?;
    let what = ["restore", DIR, "--disk", "disk1", "-s", STORAGE_DOMAIN, "-c", "lab"];
    let out = succeed(machine.run(&what)?)?;
    assert_eq!(out.lines().count(), 1, "{out}");
    let restored = machine.site.engine.disks().pop().ok_or("no disk")?;
    assert!(out.starts_with(&restored.id), "{out}");
    machine.site.assert_same("content-1", "raw", &restored)?;
    for (more, expected) in
        [(["--disk", "none"], "no disk \"none\""), (["--backup", "none"], "no backup \"none\"")]
    {
        let ended =
            machine.run(&[&["restore", DIR, "-s", STORAGE_DOMAIN, "-c", "lab"], &more[..]].concat())?;
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        assert!(ended.err.contains(expected), "{ended:?}");
    }
    Ok(())
}

fn secrets() -> TestResult {
    let machine = Machine::new(&["qcow2"])?;
    // The log is checked by the method that runs the program.
    let id = machine.back_up_well(&["-v", "-v"])?;
    succeed(machine.run(&["restore", DIR, "-s", STORAGE_DOMAIN, "-c", "lab", "-v", "-v"])?)?;
    for file in ["manifest.json".to_owned(), ".lock".to_owned(), format!("{id}/vm.json")] {
        machine.site.assert_no_secret(&fs::read_to_string(machine.path(&file))?)?;
    }
    Ok(())
}

/// The lines that programs get: how far it is, and what was made.
fn json() -> TestResult {
    let machine = Machine::new(&["qcow2"])?;
    let told = |arguments: &[&str]| -> TestResult<Vec<Value>> {
        let out = succeed(machine.run(&[arguments, &["--output", "json", "-c", "lab"]].concat())?)?;
        Ok(out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let lines = told(&["backup", VM, DIR])?;
    assert!(lines.iter().any(|line| line["description"] == "backing up"), "{lines:?}");
    let last = lines.last().ok_or("nothing is told")?;
    assert_eq!(
        (&last["description"], &last["backup"]),
        (&"backup completed".into(), &machine.backups()?[0].clone().into())
    );
    assert!(last["transferred"].as_u64() > Some(0) && last["elapsed"].as_f64() > Some(0.0), "{last}");
    assert_tells_size(&lines, &machine);

    let lines = told(&["restore", DIR, "-s", STORAGE_DOMAIN])?;
    let made: Vec<_> = lines.iter().filter(|line| line["description"] == "disk restored").collect();
    let [made] = made[..] else { return Err(format!("{lines:?}").into()) };
    assert_tells_size(&lines, &machine);
    let disks = machine.site.engine.disks();
    let restored = disks.iter().find(|disk| made["disk"] == disk.id).ok_or("another disk is told")?;
    // The initial size is that of its content, and not of all that a guest could write.
    let initial = restored.initial_size.ok_or("block storage would allocate all of it")?;
    assert!(initial > 0 && initial < restored.provisioned_size, "{initial}");
    Ok(())
}

/// Each line says how large the disks are, and nothing is copied more than once.
fn assert_tells_size(lines: &[Value], machine: &Machine) {
    let size: u64 = machine.disks.iter().map(|disk| disk.provisioned_size).sum();
    for line in lines {
        assert_eq!(line["size"], size, "{line}");
        assert!(line["transferred"].as_u64() <= Some(size), "{line}");
    }
}

/// Damage in the last backup would be a part of the new one, whose checksum would be that of the
/// damage.
fn damaged_base() -> TestResult {
    let machine = Machine::new(&["qcow2"])?;
    let good = machine.back_up_well(&[])?;
    let manifest = machine.manifest()?;
    let file = manifest["backups"][0]["disks"][0]["file"].as_str().ok_or("no file")?;
    let image = machine.path(file);
    let before = fs::read(&image)?;
    let offset =
        before.windows(64).rposition(|bytes| bytes.iter().all(|byte| *byte != 0)).ok_or("no data")?;
    let mut damaged = before.clone();
    damaged[offset] ^= 1;
    fs::write(&image, damaged)?;
    for more in [&[][..], &["--incremental"]] {
        let ended = machine.back_up(more)?;
        assert!(ended.code == 1 && ended.err.contains("isn't what was backed up"), "{ended:?}");
        assert!(ended.err.contains("make a full backup (--full)"), "{ended:?}");
        assert_eq!(machine.backups()?, std::slice::from_ref(&good));
    }
    machine.assert_engine_is_idle()?;
    machine.back_up_well(&["--full"])?;
    fs::write(&image, before)?;
    assert_eq!(machine.run(&["verify", DIR])?.code, 0);
    Ok(())
}
