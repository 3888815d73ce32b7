// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every command that a document prints for users does what is said there, with the real daemon and
//! HTTPS.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

#[path = "support/recipes/documents.rs"]
mod documents;
#[path = "support/recipes/engine.rs"]
mod engine;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use fake_imageio::{Certificate, Pki};
use libtest_mimic::{Arguments, Trial};
use support::TestResult;
use support::daemon::{RealDaemon, Ticket};
use support::door::built;
use support::image::{SIZE, guest_disk, same};
use support::qemu::{QemuNbd, add_bitmap, create_image};
use support::tools::{IMAGEIO, NBDCOPY, NBDINFO, QEMU_IMG, QEMU_IO, QEMU_NBD, Tool, trial};
use tempfile::TempDir;

use documents::Block;

const RECIPES: &str = "docs/recipes.md";
const SERVING: &str = "docs/serving.md";
const BACKUP: &str = "docs/backup.md";

const TOOLS: &[Tool] = &[IMAGEIO, QEMU_NBD, QEMU_IMG, QEMU_IO, NBDCOPY, NBDINFO];

/// A recipe: what it finds, and what it has to leave.
struct Case {
    document: &'static str,
    heading: &'static str,
    server: Content,
    check: fn(&Kitchen) -> TestResult,
}

/// The content of the server's disk before the recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Nothing,
    Guest,
    /// The guest's disk, of which a part was changed since a bitmap was added.
    ChangedGuest,
    /// The guest's disk, and a second one in another transfer.
    TwoDisks,
}

/// Blocks of one heading run one after another in the same directory.
#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { document: RECIPES, heading: "Upload", server: Content::Nothing, check: is_on_the_server },
    Case { document: RECIPES, heading: "Verify", server: Content::Guest, check: |_| Ok(()) },
    Case { document: RECIPES, heading: "See what a transfer offers", server: Content::Guest, check: |_| Ok(()) },
    Case { document: RECIPES, heading: "Download", server: Content::Guest, check: is_downloaded },
    Case {
        document: RECIPES,
        heading: "Back up all disks of a virtual machine",
        server: Content::TwoDisks,
        check: both_are_backed_up,
    },
    Case { document: RECIPES, heading: "Back up what has changed", server: Content::Guest, check: is_backed_up },
    Case {
        document: RECIPES,
        heading: "Back up what has changed since",
        server: Content::ChangedGuest,
        check: is_increment,
    },
    Case { document: RECIPES, heading: "Restore a backup", server: Content::Nothing, check: is_on_the_server },
    Case { document: SERVING, heading: "For one command", server: Content::Nothing, check: is_on_the_server },
    Case {
        document: SERVING,
        heading: "Until it is told to stop",
        server: Content::Nothing,
        check: is_on_the_server,
    },
    Case { document: SERVING, heading: "Several disks", server: Content::TwoDisks, check: both_are_read },
    Case { document: BACKUP, heading: "See what is dirty", server: Content::ChangedGuest, check: |_| Ok(()) },
    Case { document: BACKUP, heading: "What a client does", server: Content::ChangedGuest, check: is_increment },
];

fn main() -> ExitCode {
    let name = |heading: &str| heading.to_lowercase().replace(' ', "_");
    let mut trials: Vec<Trial> = CASES
        .iter()
        .map(|case| trial(name(case.heading), TOOLS, || case.run().map_err(|error| error.to_string().into())))
        .collect();
    trials.extend(engine::CASES.iter().map(|case| {
        trial(name(case.heading), TOOLS, || case.run().map_err(|error| error.to_string().into()))
    }));
    trials.push(Trial::test("no_block_is_left_out", || {
        let of_transfers = CASES.iter().map(|case| (case.document, case.heading));
        let of_engine = engine::CASES.iter().map(|case| (case.document, case.heading));
        let run: Vec<_> = of_transfers.chain(of_engine).collect();
        let is_run =
            |block: &Block| block.language == "sh" && run.contains(&(&*block.document, &*block.heading));
        documents::check_all(is_run).map_err(|error| error.to_string().into())
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

impl Case {
    fn run(&self) -> TestResult {
        let kitchen = Kitchen::start(self.server)?;
        for block in documents::to_run(self.document, self.heading)? {
            cook(&block, kitchen.dir.path(), &[])?;
            (self.check)(&kitchen)?;
        }
        Ok(())
    }
}

/// A transfer, and the directory with the files that the recipes are about.
struct Kitchen {
    server: Content,
    qemu: QemuNbd,
    _second: Option<QemuNbd>,
    _daemon: RealDaemon,
    // Last: the others use it to their end.
    dir: TempDir,
}

impl Kitchen {
    fn start(server: Content) -> TestResult<Self> {
        let dir = tempfile::Builder::new().prefix("imageio-nbd-recipes-").tempdir()?;
        let path = |name: &str| dir.path().join(name);
        fs::write(path("disk.img"), guest_disk(7))?;
        let convert =
            |options: &[&str]| qemu_img(dir.path(), &[&["convert", "-O", "qcow2"], options].concat());
        convert(&["-f", "raw", "disk.img", "disk.qcow2"])?;
        convert(&["-f", "raw", "disk.img", "full.qcow2"])?;
        convert(&["-f", "qcow2", "-B", "full.qcow2", "-F", "qcow2", "disk.qcow2", "increment.qcow2"])?;
        fs::copy(path("full.qcow2"), path("last.qcow2"))?;
        let image = path("server.qcow2");
        match server {
            Content::Nothing => create_image(&image, "qcow2", SIZE)?,
            Content::Guest | Content::ChangedGuest | Content::TwoDisks => {
                fs::copy(path("disk.qcow2"), &image)?;
            }
        }
        let mut options = vec![];
        if server == Content::ChangedGuest {
            add_bitmap(&image, "since", "64K")?;
            let changes = ["-c", "write -P 7 3M 200K", "-c", "write -z 6M 1M"];
            run(dir.path(), QEMU_IO.path(), &[&["-f", "qcow2", "server.qcow2"], &changes[..]].concat())?;
            options.extend(["-B", "since"]);
        }
        let daemon = RealDaemon::start(Some(Pki::generate(&Certificate::default())?))?;
        let qemu = QemuNbd::start_with(&image, "qcow2", path("nbd.sock"), &options)?;
        let add_ticket = |qemu: &QemuNbd, last: char| {
            let uuid = format!("00000000-3333-4333-8444-00000000000{last}");
            daemon.add_ticket(&Ticket {
                uuid: uuid.clone(),
                size: SIZE,
                url: qemu.ticket_url(),
                writable: server == Content::Nothing,
                dirty: server == Content::ChangedGuest,
                inactivity_timeout: None,
            })?;
            TestResult::Ok(daemon.url(&uuid))
        };
        let url = add_ticket(&qemu, '1')?;
        fs::write(path("ticket"), &url)?;
        fs::write(path("transfer.url"), url)?;
        let mut second = None;
        if server == Content::TwoDisks {
            fs::write(path("second.img"), guest_disk(8))?;
            let qemu = second.insert(QemuNbd::start(&path("second.img"), "raw", path("second.sock"))?);
            fs::write(path("sdb.url"), add_ticket(qemu, '2')?)?;
            fs::rename(path("ticket"), path("sda.url"))?;
        }
        let pki = daemon.pki().ok_or("no certificates")?;
        fs::write(path("ca.pem"), &pki.ca_pem)?;
        Ok(Self { server, qemu, _second: second, _daemon: daemon, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the content of an image, read by qemu.
    fn content(&self, image: &str, format: &str) -> TestResult<Vec<u8>> {
        // The server's own is in use.
        qemu_img(self.dir.path(), &["convert", "-U", "-f", format, "-O", "raw", image, "content.img"])?;
        Ok(fs::read(self.path("content.img"))?)
    }

    /// Returns the content of the server's disk, read through the process that has it open.
    fn server_content(&self) -> TestResult<Vec<u8>> {
        let uri = format!("nbd+unix:///?socket={}", self.qemu.socket().display());
        self.content(&uri, "raw")
    }
}

/// Runs a block in a directory as a shell does whose user stops at the first error.
fn cook(block: &str, dir: &Path, variables: &[(&str, String)]) -> TestResult {
    let program = built("imageio-nbd");
    let directory = program.parent().ok_or("a program is in a directory")?;
    let mut bash = Command::new("timeout");
    bash.args(["60", "bash", "-euo", "pipefail", "-c", block]);
    bash.env("PATH", format!("{}:/usr/bin:/bin", directory.display()));
    bash.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = bash.current_dir(dir).output()?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{block}{}: {out}{err}", output.status).into())
}

fn is_on_the_server(kitchen: &Kitchen) -> TestResult {
    same("the server's disk", &kitchen.server_content()?, &guest_disk(7))?;
    // The next block begins anew.
    let uri = format!("nbd+unix:///?socket={}", kitchen.qemu.socket().display());
    run(kitchen.dir.path(), QEMU_IO.path(), &["-f", "raw", "-c", &format!("write -z 0 {SIZE}"), &uri])
}

fn is_downloaded(kitchen: &Kitchen) -> TestResult {
    let raw = kitchen.path("disk.img").metadata()?;
    assert!(raw.blocks() * 512 < SIZE, "the file is not sparse");
    same("disk.img", &fs::read(kitchen.path("disk.img"))?, &guest_disk(7))?;
    same("disk.qcow2", &kitchen.content("disk.qcow2", "qcow2")?, &guest_disk(7))
}

fn is_backed_up(kitchen: &Kitchen) -> TestResult {
    same("full.qcow2", &kitchen.content("full.qcow2", "qcow2")?, &guest_disk(7))
}

fn both_are_backed_up(kitchen: &Kitchen) -> TestResult {
    same("sda.qcow2", &kitchen.content("sda.qcow2", "qcow2")?, &guest_disk(7))?;
    same("sdb.qcow2", &kitchen.content("sdb.qcow2", "qcow2")?, &guest_disk(8))
}

fn both_are_read(kitchen: &Kitchen) -> TestResult {
    same("sda.img", &fs::read(kitchen.path("sda.img"))?, &guest_disk(7))?;
    same("sdb.img", &fs::read(kitchen.path("sdb.img"))?, &guest_disk(8))
}

fn is_increment(kitchen: &Kitchen) -> TestResult {
    assert_eq!(kitchen.server, Content::ChangedGuest);
    let now = kitchen.server_content()?;
    assert!(now != guest_disk(7), "nothing was changed");
    same("increment.qcow2", &kitchen.content("increment.qcow2", "qcow2")?, &now)?;
    // Only what is dirty is in it: 256 KiB, and zeroes.
    let increment = kitchen.path("increment.qcow2").metadata()?;
    assert!(increment.len() < 1 << 20, "{} bytes are in it", increment.len());
    Ok(())
}

fn qemu_img(dir: &Path, arguments: &[&str]) -> TestResult {
    run(dir, QEMU_IMG.path(), arguments)
}

fn run(dir: &Path, program: PathBuf, arguments: &[&str]) -> TestResult {
    let output = Command::new(program).args(arguments).current_dir(dir).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{arguments:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}
