// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directories of backups with real images: qemu-img reads them wherever they are, and what
//! docs/backup-directory.md says of them is true.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

#[path = "support/backup_directory/generations.rs"]
mod generations;

use std::fs;
use std::process::ExitCode;

use backup_directory::{BackupDirectory, LONGEST_CHAIN};
use libtest_mimic::Arguments;
use support::TestResult;
use support::qemu::create_image;
use support::tools::{JQ, QEMU_IMG, QEMU_IO, Tool, trial};

use generations::{DISK, Generations, IDS};

const DOCUMENT: &str = include_str!("../docs/backup-directory.md");

type Test = (&'static str, &'static [Tool], fn() -> TestResult);

const TESTS: &[Test] = &[
    ("a_chain_is_readable_after_the_directory_was_moved", &[QEMU_IMG, QEMU_IO], moved),
    ("the_longest_chain_is_readable", &[QEMU_IMG, QEMU_IO], longest_chain),
    ("the_manifest_of_the_document_is_one", &[QEMU_IMG], documented_manifest),
    ("the_commands_of_the_document_do_what_is_said", &[QEMU_IMG, QEMU_IO, JQ], documented_commands),
];

fn main() -> ExitCode {
    let test = |(name, tools, run): &Test| {
        let run = *run;
        trial(*name, tools, move || run().map_err(|error| error.to_string().into()))
    };
    libtest_mimic::run(&Arguments::from_args(), TESTS.iter().map(test).collect()).exit_code()
}

fn moved() -> TestResult {
    let mut generations = Generations::make()?;
    generations.check(&IDS)?;
    generations.move_away()?;
    generations.check(&IDS)
}

/// Data in the first image is found through all others.
fn longest_chain() -> TestResult {
    let dir = tempfile::tempdir()?;
    let qemu_img = |arguments: &[&str]| generations::qemu_img(dir.path(), arguments);
    create_image(&dir.path().join("0"), "qcow2", 1 << 20)?;
    generations::qemu_io(&dir.path().join("0"), &["write -P 7 4K 512".to_owned()])?;
    for number in 1..LONGEST_CHAIN {
        let (this, below) = (number.to_string(), (number - 1).to_string());
        // Without looking at the backing file, which would be followed to the first each time.
        qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", &below, &this, "1M"])?;
    }
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw", &(LONGEST_CHAIN - 1).to_string(), "raw"])?;
    let mut expected = vec![0; 1 << 20];
    expected[4096..4608].fill(7);
    assert!(fs::read(dir.path().join("raw"))? == expected, "the chain holds something else");
    Ok(())
}

/// The text of each block of this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let start = format!("```{language}\n");
    DOCUMENT.split(&start).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

fn documented_manifest() -> TestResult {
    let dir = tempfile::tempdir()?;
    let [manifest] = blocks("json")[..] else { return Err("one block of JSON is expected".into()) };
    fs::write(dir.path().join("manifest.json"), manifest)?;
    // Its images: an empty one, and another that has the first as its backing file.
    for (id, backing) in [(IDS[0], None), (IDS[1], Some(IDS[0]))] {
        fs::create_dir(dir.path().join(id))?;
        fs::write(dir.path().join(id).join("vm.json"), "<vm/>")?;
        let image = dir.path().join(id).join(format!("{DISK}.qcow2"));
        create_image(&image, "qcow2", 10 << 30)?;
        if let Some(backing) = backing {
            let name = format!("../{backing}/{DISK}.qcow2");
            generations::qemu_img(
                dir.path(),
                &["rebase", "-u", "-F", "qcow2", "-b", &name, image.to_str().unwrap()],
            )?;
        }
    }
    let directory = BackupDirectory::open(dir.path())?;
    let ids: Vec<_> = directory.manifest().backups.iter().map(|backup| &*backup.id).collect();
    assert_eq!(ids, IDS[..2]);
    for backup in &directory.manifest().backups {
        backup.disks.iter().try_for_each(|disk| directory.image(disk).map(drop))?;
    }
    Ok(())
}

fn documented_commands() -> TestResult {
    let generations = Generations::make()?;
    let [read, remove_oldest, remove_middle, remove_newest] = blocks("sh")[..] else {
        return Err("another number of blocks is in the document".into());
    };
    generations.bash(read)?;
    let read = fs::read(generations.path("disk.img"))?;
    assert!(read == generations.content(IDS[1]), "the image that was read is another");
    for (commands, left) in
        [(remove_oldest, &IDS[1..]), (remove_middle, &[IDS[1], IDS[3]][..]), (remove_newest, &IDS[1..2])]
    {
        generations.bash(commands)?;
        generations.check(left)?;
        assert_eq!(generations.directories()?, left, "what is there after {commands}");
    }
    Ok(())
}
