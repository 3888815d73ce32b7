// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk's life in an engine: uploaded, backed up, changed, backed up incrementally, restored,
//! downloaded, and compared.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use indicatif::HumanBytes;
use xshell::{Shell, cmd};

use crate::tools::{NBDCOPY, QEMU_IMG, QEMU_IO, QEMU_NBD};

/// The size of the image that the demo makes, in bytes.
const SIZE: u64 = 64 << 20;
/// The virtual machine's change: so many bytes of this value.
const CHANGE: (u64, u8) = (1 << 20, 0xA5);
const VM: &str = "demo-vm";
const DISK: &str = "demo-disk";
const STORAGE_DOMAIN: &str = "data";
/// The section of the configuration file.
const SECTION: &str = "demo";

/// Starts the fake engine, and does with `imageio-nbd` what its users do.
pub(super) fn run(sh: &Shell, image: Option<&Path>) -> Result<()> {
    for tool in [QEMU_IMG, QEMU_IO, QEMU_NBD, NBDCOPY] {
        ensure!(tool.find().is_some(), "{} is missing: {}", tool.name, tool.install);
    }
    cmd!(sh, "cargo build --package imageio-nbd --package fake-engine").quiet().run()?;
    let bin = crate::target_dir(sh)?.join("debug");
    let dir = tempfile::Builder::new().prefix("imageio-nbd-demo-").tempdir()?;
    let image = match image {
        Some(image) => std::path::absolute(image)?,
        None => super::make_image(dir.path(), SIZE)?,
    };
    let mut engine = FakeEngine::start(&bin, dir.path())?;
    eprintln!("fake engine: {}", engine.url);
    Site { program: bin.join("imageio-nbd"), dir: dir.path() }.show(&mut engine, &image)
}

/// The program, and the directory in which it is run.
struct Site<'a> {
    program: PathBuf,
    dir: &'a Path,
}

impl Site<'_> {
    fn show(&self, engine: &mut FakeEngine, image: &Path) -> Result<()> {
        self.write_config(engine)?;
        let (before, after) = self.expected(image)?;
        let disk = self.upload(image)?;
        engine.attach(&disk)?;
        let full = self.back_up("--full")?;
        self.change(before.metadata()?.len())?;
        let increment = self.back_up("--incremental")?;
        self.run("every backup is verified", &["verify", "backups"])?;
        self.download_and_compare(&disk, &after, "the changed disk")?;
        self.restore_and_compare(&full, &before, "the restored full backup")?;
        self.restore_and_compare(&increment, &after, "the restored incremental backup")?;
        let (all, changed) = (self.size_of(&full)?, self.size_of(&increment)?);
        ensure!(changed < all, "the incremental backup takes {changed} bytes, and the full one {all}");
        eprintln!(
            "uploaded {}, backed up {}, then {} that had changed, restored both and downloaded: identical",
            HumanBytes(before.metadata()?.len()),
            HumanBytes(all),
            HumanBytes(changed)
        );
        Ok(())
    }

    /// Writes the configuration file that users of `ovirt-img` have.
    fn write_config(&self, engine: &FakeEngine) -> Result<()> {
        let FakeEngine { base, .. } = engine;
        let cafile = self.dir.join("ca.pem");
        let (user, password) = ("admin@internal", "fake-password");
        let text = format!(
            "[{SECTION}]\nengine_url = {base}\nusername = {user}\npassword = {password}\ncafile = {}\n",
            cafile.display()
        );
        Ok(fs::write(self.dir.join("ovirt-img.conf"), text)?)
    }

    /// Makes raw images of what the disk has to hold before and after the change.
    fn expected(&self, image: &Path) -> Result<(PathBuf, PathBuf)> {
        let (before, after) = (self.dir.join("before.img"), self.dir.join("after.img"));
        let sh = Shell::new()?;
        cmd!(sh, "qemu-img convert -O raw {image} {before}").quiet().run()?;
        fs::copy(&before, &after)?;
        let (offset, len) = place_of_change(before.metadata()?.len());
        let mut file = File::options().write(true).open(&after)?;
        file.seek(SeekFrom::Start(offset))?;
        // At most a megabyte.
        file.write_all(&vec![CHANGE.1; len as usize])?;
        Ok((before, after))
    }

    /// The new disk's id.
    fn upload(&self, image: &Path) -> Result<String> {
        let image = image.to_str().context("the file name is not UTF-8")?;
        let arguments =
            ["upload", image, "--storage-domain", STORAGE_DOMAIN, "--disk-name", DISK, "-c", SECTION];
        let id = self.run("the image is uploaded", &arguments)?;
        Ok(id.trim().to_owned())
    }

    /// The backup's id.
    fn back_up(&self, how: &str) -> Result<String> {
        let told = self.run(
            &format!("the virtual machine is backed up ({how})"),
            &["backup", VM, "backups", how, "-c", SECTION],
        )?;
        let id = told.lines().next().context("imageio-nbd backup has told no id")?;
        Ok(id.to_owned())
    }

    /// A part of the disk is written, as an NBD device.
    fn change(&self, size: u64) -> Result<()> {
        let (offset, len) = place_of_change(size);
        let write = format!(r#"qemu-io -f raw -c "write -q -P {} {offset} {len}" "$uri""#, CHANGE.1);
        let (disk, config) = (format!("disk={DISK}"), format!("config={SECTION}"));
        self.run("a part of the disk is changed", &[&disk, &config, "--run", &write])?;
        Ok(())
    }

    fn restore_and_compare(&self, backup: &str, expected: &Path, what: &str) -> Result<()> {
        let arguments =
            ["restore", "backups", "--backup", backup, "--storage-domain", STORAGE_DOMAIN, "-c", SECTION];
        let told = self.run("a backup is restored to a new disk", &arguments)?;
        let id = told.split_whitespace().next().context("imageio-nbd restore has told no id")?;
        self.download_and_compare(id, expected, what)
    }

    fn download_and_compare(&self, disk: &str, expected: &Path, what: &str) -> Result<()> {
        let arguments = ["download", disk, "downloaded.img", "--format", "raw", "-c", SECTION];
        self.run("the disk is downloaded", &arguments)?;
        compare(&self.dir.join("downloaded.img"), expected, what)
    }

    /// Returns the number of bytes that the files of a backup take.
    fn size_of(&self, backup: &str) -> Result<u64> {
        let files = fs::read_dir(self.dir.join("backups").join(backup))?;
        files.map(|file| Ok(file?.metadata()?.len())).sum()
    }

    /// Says what is done, does it, and returns what is printed. Progress is drawn on the terminal.
    fn run(&self, what: &str, arguments: &[&str]) -> Result<String> {
        eprintln!("{what}: imageio-nbd {}", arguments[0]);
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.dir).env("XDG_CONFIG_HOME", self.dir);
        let output = command.stderr(Stdio::inherit()).output().context("cannot start imageio-nbd")?;
        ensure!(output.status.success(), "imageio-nbd {} failed: {}", arguments[0], output.status);
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Offset and length of the change, in bytes: in the middle, as far as the disk reaches.
fn place_of_change(size: u64) -> (u64, u64) {
    let offset = size / 2 / 512 * 512;
    (offset, CHANGE.0.min(size - offset))
}

fn compare(found: &Path, expected: &Path, what: &str) -> Result<()> {
    let (mut found, mut expected) = (File::open(found)?, File::open(expected)?);
    let (len, right) = (found.metadata()?.len(), expected.metadata()?.len());
    ensure!(len == right, "{what} has {len} bytes instead of {right}");
    let (mut a, mut b) = (vec![0; super::CHUNK], vec![0; super::CHUNK]);
    for offset in (0..len).step_by(super::CHUNK) {
        let piece = (len - offset).min(super::CHUNK as u64) as usize;
        found.read_exact(&mut a[..piece])?;
        expected.read_exact(&mut b[..piece])?;
        if let Some(at) = (0..piece).find(|&at| a[at] != b[at]) {
            bail!("{what} differs at byte {}", offset + at as u64);
        }
    }
    Ok(())
}

struct FakeEngine {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// The URL of the engine's API.
    url: String,
    /// Scheme, address and port.
    base: String,
    vm: String,
}

impl FakeEngine {
    fn start(bin: &Path, dir: &Path) -> Result<Self> {
        let mut command = Command::new(bin.join("fake-engine"));
        command.args(["--vm", VM, "--storage-domain", STORAGE_DOMAIN, "--delay", "0", "--exit-with-parent"]);
        command.arg("--pki").arg(dir);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        let mut engine =
            Self { child, stdin, stdout, url: String::new(), base: String::new(), vm: String::new() };
        engine.url = engine.line()?;
        engine.base = engine.url.split("/ovirt-engine").next().unwrap_or_default().to_owned();
        let vm = engine.line()?;
        engine.vm = vm.rsplit(' ').next().unwrap_or_default().to_owned();
        Ok(engine)
    }

    /// Attaches a disk to the virtual machine.
    fn attach(&mut self, disk: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its input is a pipe")?;
        writeln!(stdin, "attach {} {disk}", self.vm)?;
        let answer = self.line()?;
        ensure!(answer == format!("attached {disk}"), "the fake engine can't attach the disk: {answer}");
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the fake engine has ended");
        Ok(line.trim().to_owned())
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        // The end of its standard input tells it to go.
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let mut data = vec![1; super::super::CHUNK + 10];
        fs::write(&a, &data).unwrap();
        fs::write(&b, &data).unwrap();
        compare(&a, &b, "the disk").unwrap();
        data[super::super::CHUNK + 3] = 2;
        fs::write(&b, &data).unwrap();
        let error = compare(&a, &b, "the disk").unwrap_err().to_string();
        assert_eq!(error, "the disk differs at byte 1048579");
        fs::write(&b, &data[1..]).unwrap();
        let error = compare(&a, &b, "the disk").unwrap_err().to_string();
        assert_eq!(error, "the disk has 1048586 bytes instead of 1048585");
    }

    #[test]
    fn the_change_is_on_the_disk() {
        for size in [512, 4096, SIZE] {
            let (offset, len) = place_of_change(size);
            assert!(len > 0 && offset + len <= size && offset % 512 == 0, "{size}: {offset} {len}");
        }
    }
}
