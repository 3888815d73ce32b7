// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory with some backups of a disk, of which each is an increment to the one before.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backup_directory::{
    Backup, BackupDirectory, BackupMode, BackupRecord, BackupSupport, Checksum, Disk, DiskBackup, DiskFormat,
    Vm, Writer,
};
use jiff::{Timestamp, ToSpan};
use support::TestResult;
use support::tools::{QEMU_IMG, QEMU_IO};
use tempfile::TempDir;

/// Of the backups; the document has them as well.
pub(crate) const IDS: [&str; 4] =
    ["20261127T020000Z", "20261204T020000Z", "20261211T020000Z", "20261218T020000Z"];

/// The disk's id in the document.
pub(crate) const DISK: &str = "6f1c8ab2-41d5-4f0e-9a37-d0c1f3b5a6e2";

/// Of the disk, in bytes.
const SIZE: usize = 1 << 20;
const BLOCK: usize = 64 << 10;

pub(crate) struct Generations {
    /// The path of the directory now.
    place: PathBuf,
    /// The contents of the disk, by the backup's id.
    contents: HashMap<String, Vec<u8>>,
    dir: TempDir,
}

impl Generations {
    /// Makes as many backups as there are [`IDS`].
    pub(crate) fn make() -> TestResult<Self> {
        let dir = tempfile::tempdir()?;
        let mut generations = Self { place: dir.path().join("backups"), contents: HashMap::new(), dir };
        let vm = Vm { id: "0b5c2e1a".to_owned(), name: "web".to_owned() };
        let mut writer = Writer::open(&generations.place, vm)?;
        let mut content = vec![0; SIZE];
        for number in 0..IDS.len() {
            generations.back_up(&mut writer, number, &mut content)?;
        }
        Ok(generations)
    }

    /// The guest changes two blocks, one of which may become zero, and a backup of that is made.
    fn back_up(&mut self, writer: &mut Writer, number: usize, content: &mut [u8]) -> TestResult {
        let start: Timestamp = "2026-11-27T02:00:00Z".parse()?;
        let weeks = i64::try_from(number)?;
        let backing = writer.manifest().backups.last().map(|backup| backup.disks[0].file.clone());
        let backup = writer.begin(start + (weeks * 168).hours())?;
        let image = backup.image(DISK, backing.as_deref())?;
        let path = image.path.to_str().ok_or("a plain path is expected")?;
        let mut create = vec!["create", "-q", "-f", "qcow2"];
        create.extend(image.backing_name.iter().flat_map(|name| ["-F", "qcow2", "-b", name]));
        qemu_img(Path::new("/"), &[&create[..], &[path, &SIZE.to_string()]].concat())?;
        let blocks = SIZE / BLOCK;
        let writes = [(number % blocks, number % 200 + 1), ((number + 1) % blocks, number % 2 * 7)];
        let mut commands = Vec::new();
        for (block, byte) in writes {
            let at = block * BLOCK;
            content[at..at + BLOCK].fill(u8::try_from(byte)?);
            let zero = if byte == 0 { "-z".to_owned() } else { format!("-P {byte}") };
            commands.push(format!("write {zero} {at} {BLOCK}"));
        }
        qemu_io(&image.path, &commands)?;
        let vm_configuration = Some(backup.write_configuration("vm.json", b"<vm/>")?);
        let id = backup.id().to_owned();
        backup.commit(BackupRecord {
            engine_backup_id: format!("e-{id}"),
            from_checkpoint_id: None,
            to_checkpoint_id: None,
            vm_configuration,
            disks: vec![entry(image.file, backing)],
        })?;
        self.contents.insert(id, content.to_vec());
        Ok(())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    pub(crate) fn move_away(&mut self) -> TestResult {
        let other = self.dir.path().join("another place").join("deeper");
        fs::create_dir_all(&other)?;
        fs::rename(&self.place, other.join("moved"))?;
        self.place = other.join("moved");
        Ok(())
    }

    /// Returns the content that the disk had in this backup.
    pub(crate) fn content(&self, id: &str) -> &[u8] {
        &self.contents[id]
    }

    /// The directories of backups that are there.
    pub(crate) fn directories(&self) -> TestResult<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.place)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.push(entry.file_name().into_string().map_err(|name| format!("{name:?}"))?);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The directory has these backups, and each of them what the disk held.
    pub(crate) fn check(&self, ids: &[&str]) -> TestResult {
        let directory = BackupDirectory::open(&self.place)?;
        let backups = &directory.manifest().backups;
        assert_eq!(backups.iter().map(|backup| &*backup.id).collect::<Vec<_>>(), ids);
        backups.iter().try_for_each(|backup| self.check_one(&directory, backup))
    }

    fn check_one(&self, directory: &BackupDirectory, backup: &Backup) -> TestResult {
        let (image, raw) = (directory.image(&backup.disks[0])?, self.dir.path().join("raw"));
        run(Command::new(QEMU_IMG.path())
            .args(["convert", "-f", "qcow2", "-O", "raw"])
            .arg(image)
            .arg(&raw))?;
        assert!(fs::read(raw)? == self.content(&backup.id), "{} holds something else", backup.id);
        Ok(())
    }

    /// Runs commands in the directory, as a shell does whose user stops at the first error.
    pub(crate) fn bash(&self, commands: &str) -> TestResult {
        run(Command::new("bash").args(["-euo", "pipefail", "-c", commands]).current_dir(&self.place))
    }
}

fn entry(file: String, backing_file: Option<String>) -> DiskBackup {
    let disk = Disk {
        id: DISK.to_owned(),
        name: "web_Disk1".to_owned(),
        provisioned_size: SIZE as u64,
        format: DiskFormat::Cow,
        sparse: true,
        backup: BackupSupport::Incremental,
        storage_domain: None,
    };
    let backup_mode = if backing_file.is_some() { BackupMode::Incremental } else { BackupMode::Full };
    let checksum = Checksum { algorithm: "sha1".to_owned(), block_size: 4096, value: "0".to_owned() };
    DiskBackup { disk, backup_mode, file, backing_file, checksum }
}

pub(crate) fn qemu_img(dir: &Path, arguments: &[&str]) -> TestResult {
    run(Command::new(QEMU_IMG.path()).args(arguments).current_dir(dir))
}

/// Reads and writes an image.
pub(crate) fn qemu_io(image: &Path, commands: &[String]) -> TestResult {
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    run(Command::new(QEMU_IO.path()).args(["-f", "qcow2"]).args(commands).arg(image))
}

fn run(command: &mut Command) -> TestResult {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}
