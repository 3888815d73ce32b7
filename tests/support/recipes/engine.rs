// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recipes that ask an engine for their transfers.

use std::fs;
use std::time::Duration;

use fake_engine::{Delays, Disk, Phase};
use support::TestResult;
use support::image::{SIZE, guest_disk};
use support::installation::{Installation, STORAGE_DOMAIN};

use crate::{RECIPES, cook, documents};

/// A recipe, which finds an image, the configuration file, and the disk `disk` if it needs one.
pub(crate) struct Case {
    pub(crate) document: &'static str,
    pub(crate) heading: &'static str,
    needs_disk: bool,
    check: fn(&Installation) -> TestResult,
}

pub(crate) const CASES: &[Case] = &[
    Case {
        document: RECIPES,
        heading: "Upload an image to an engine",
        needs_disk: false,
        check: |site| is_on(site, "disk"),
    },
    Case {
        document: RECIPES,
        heading: "Upload an image over an unsteady line",
        needs_disk: false,
        check: |site| {
            assert!(!site.path("disk.state").exists(), "nothing is left to be done");
            is_on(site, "disk")
        },
    },
    Case {
        document: RECIPES,
        heading: "Download a disk of an engine",
        needs_disk: true,
        check: |site| site.assert_same("copy.qcow2", "qcow2", &site.disk()?),
    },
    Case {
        document: RECIPES,
        heading: "Make a disk of an engine by any client",
        needs_disk: false,
        check: |site| is_on(site, "web"),
    },
    Case {
        document: RECIPES,
        heading: "Read a snapshot",
        needs_disk: true,
        check: |site| site.assert_same("snapshot.qcow2", "qcow2", &site.disk()?),
    },
    Case {
        document: RECIPES,
        heading: "Back up a virtual machine of an engine, and restore it",
        needs_disk: true,
        check: is_restored,
    },
    Case { document: "README.md", heading: "Three commands", needs_disk: true, check: web_is_copied },
];

impl Case {
    pub(crate) fn run(&self) -> TestResult {
        let site = site()?;
        let dir = site.path("");
        let mut variables = vec![("XDG_CONFIG_HOME", dir.display().to_string())];
        if self.needs_disk {
            let upload = format!("imageio-nbd upload disk.qcow2 --storage-domain {STORAGE_DOMAIN} -c lab");
            cook(&upload, &dir, &variables)?;
            let disk = site.disk()?;
            site.engine.attach_disk(&site.vm(), &disk.id)?;
            if self.heading == "Read a snapshot" {
                variables.push(("image_id", site.engine.snapshot_disk(&disk.id)?.image));
            }
        }
        for block in documents::to_run(self.document, self.heading)? {
            cook(&block, &dir, &variables)?;
        }
        (self.check)(&site)?;
        let transfers = site.engine.transfers();
        assert!(!transfers.is_empty(), "the engine was asked for no transfer");
        assert!(transfers.iter().all(|transfer| transfer.phase == Phase::FinishedSuccess), "{transfers:?}");
        Ok(())
    }
}

/// An engine that is quick.
fn site() -> TestResult<Installation> {
    let none = Duration::ZERO;
    let delays = Delays::all(none);
    let site = Installation::with(|builder| builder.delays(delays))?;
    fs::write(site.path("disk.img"), guest_disk(7))?;
    assert_eq!(fs::metadata(site.path("disk.img"))?.len(), SIZE);
    site.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "disk.img", "disk.qcow2"])?;
    fs::copy(site.path("disk.qcow2"), site.path("web.qcow2"))?;
    Ok(site)
}

/// The only disk has this name and the image's content.
fn is_on(site: &Installation, name: &str) -> TestResult {
    let disk = site.disk()?;
    assert_eq!(disk.name, name);
    site.assert_same("disk.img", "raw", &disk)
}

/// There are two disks with the image's content, and two backups.
fn is_restored(site: &Installation) -> TestResult {
    let disks: Vec<Disk> = site.engine.disks();
    assert_eq!(disks.len(), 2, "{disks:?}");
    for disk in &disks {
        site.assert_same("disk.img", "raw", disk)?;
    }
    assert_eq!(site.engine.backups().len(), 2);
    Ok(())
}

/// The disk `web` was uploaded and downloaded, and the disk of the virtual machine was backed up.
fn web_is_copied(site: &Installation) -> TestResult {
    let disks = site.engine.disks();
    let web = disks.iter().find(|disk| disk.name == "web").ok_or("there is no disk web")?;
    site.assert_same("disk.img", "raw", web)?;
    site.assert_same("copy.qcow2", "qcow2", web)?;
    assert!(site.path("guest-backups/manifest.json").exists(), "there is no backup");
    Ok(())
}
