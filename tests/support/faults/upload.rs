// SPDX-License-Identifier: MIT OR Apache-2.0
//! An upload to the real daemon through a proxy that can make its network fail.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use fault_proxy::Proxy;
use serde_json::json;
use support::daemon::{RealDaemon, Ticket};
use support::door::{Door, Served};
use support::image::{noise, same};
use support::process::PATIENCE;
use support::qemu::{QemuNbd, create_image};
use support::tools::{NBDCOPY, QEMU_IMG};
use tempfile::TempDir;

pub(crate) const SIZE: usize = 48 << 20;
pub(crate) const HALF: usize = SIZE / 2;
pub(crate) const UUID: &str = "00000000-1111-4222-8333-444444444444";

/// An upload through the proxy.
pub(crate) struct Upload {
    pub(crate) proxy: Proxy,
    pub(crate) daemon: RealDaemon,
    pub(crate) qemu_nbd: QemuNbd,
    pub(crate) served: Served,
    pub(crate) client: Option<Child>,
    pub(crate) disk: Vec<u8>,
    pub(crate) parameters: Vec<String>,
    pub(crate) image: PathBuf,
    pub(crate) dir: TempDir,
}

/// The end of an upload.
pub(crate) struct End {
    pub(crate) copied: bool,
    pub(crate) served: bool,
    pub(crate) said: String,
    pub(crate) faults: u64,
    pub(crate) image: Vec<u8>,
    pub(crate) disk: Vec<u8>,
}

impl Upload {
    pub(crate) fn start(door: Door, seed: u64, parameters: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        Self::start_in(dir, image, door, seed, parameters, &[])
    }

    pub(crate) fn start_in(
        dir: TempDir,
        image: PathBuf,
        door: Door,
        seed: u64,
        parameters: &[&str],
        environment: &[(&str, &OsStr)],
    ) -> Self {
        create_image(&image, "raw", SIZE as u64).unwrap();
        let qemu_nbd = QemuNbd::start(&image, "raw", dir.path().join("qemu.sock")).unwrap();
        let daemon = RealDaemon::start(None).unwrap();
        add_ticket(&daemon, &qemu_nbd);
        let proxy = Proxy::start(daemon.addr()).unwrap();
        let url = format!("url=http://{}/images/{UUID}", proxy.addr());
        // The daemon's unix socket would lead around the proxy.
        let mut all = vec![url, "unix-socket=false".into()];
        all.extend(parameters.iter().map(|parameter| (*parameter).to_owned()));
        let served = door.serve_with(dir.path(), &all, environment).unwrap();
        let disk = noise(SIZE, seed);
        Self { proxy, daemon, qemu_nbd, served, client: None, disk, parameters: all, image, dir }
    }

    pub(crate) fn nbdcopy(&mut self, source: &OsStr) -> &mut Child {
        let nbdcopy = Command::new(NBDCOPY.path())
            .args(["--request-size=262144", "--flush"])
            .arg(source)
            .arg(self.served.uri())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        self.client.insert(nbdcopy.unwrap())
    }

    /// Copies all of it, with as much at a time as nbdcopy likes.
    pub(crate) fn copy(mut self) -> End {
        let source = self.dir.path().join("source");
        fs::write(&source, &self.disk).unwrap();
        self.nbdcopy(source.as_os_str());
        self.end()
    }

    /// Has a part of the disk copied by qemu-img, in as many requests as it may have under way.
    pub(crate) fn convert(mut self, part: std::ops::Range<usize>) -> End {
        let source = self.dir.path().join("source");
        fs::write(&source, &self.disk[part.clone()]).unwrap();
        let target = json!({
            "driver": "raw",
            "offset": part.start,
            "size": part.len(),
            "file": { "driver": "nbd", "server": { "type": "unix", "path": self.served.socket() } },
        });
        let qemu_img = Command::new(QEMU_IMG.path())
            .args(["convert", "-n", "-W", "-m", "16", "-f", "raw"])
            .arg(source)
            .arg(format!("json:{target}"))
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        self.client = Some(qemu_img.unwrap());
        self.end()
    }

    /// Gives a part of the source, of which nbdcopy writes 64 KiB at a time. nbdcopy may have given
    /// up: its exit status tells.
    pub(crate) fn give(&mut self, part: std::ops::Range<usize>) {
        let mut nbdcopy = self.client.take().unwrap();
        let _ = nbdcopy.stdin.as_mut().unwrap().write_all(&self.disk[part]);
        self.client = Some(nbdcopy);
    }

    /// Gives the first half, and waits until nearly all of it is on its way.
    pub(crate) fn give_half(&mut self) {
        self.nbdcopy("-".as_ref());
        self.give(0..HALF);
        assert!(self.proxy.has_carried(HALF as u64 - (4 << 20), PATIENCE));
    }

    /// Gives the second half while something is done that has to be done before all of it is taken.
    pub(crate) fn give_rest(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        let mut stdin = self.client.as_mut().and_then(|nbdcopy| nbdcopy.stdin.take()).unwrap();
        let rest = self.disk[HALF..].to_vec();
        thread::scope(|scope| {
            let giving = thread::Builder::new().spawn_scoped(scope, move || stdin.write_all(&rest)).unwrap();
            meanwhile(self);
            giving.join().unwrap().unwrap();
        });
    }

    pub(crate) fn end(mut self) -> End {
        let mut client = self.client.take().unwrap();
        drop(client.stdin.take());
        let copied = client.wait().unwrap().success();
        let (status, said) = self.served.finish().unwrap();
        drop(self.daemon);
        self.qemu_nbd.stop().unwrap();
        let image = fs::read(&self.image).unwrap();
        let faults = self.proxy.faults();
        End { copied, served: status.success(), said, faults, image, disk: self.disk }
    }

    /// The daemon ends, as when it is killed, and another one takes its place; without the ticket.
    pub(crate) fn start_daemon_again(&mut self) {
        let daemon = RealDaemon::start(None).unwrap();
        drop(std::mem::replace(&mut self.daemon, daemon));
        self.proxy.lead_to(self.daemon.addr());
    }
}

pub(crate) fn add_ticket(daemon: &RealDaemon, qemu_nbd: &QemuNbd) {
    let ticket = Ticket {
        uuid: UUID.to_owned(),
        size: SIZE as u64,
        url: qemu_nbd.ticket_url(),
        writable: true,
        dirty: false,
        inactivity_timeout: None,
    };
    daemon.add_ticket(&ticket).unwrap();
}

impl End {
    #[track_caller]
    pub(crate) fn assert_well(self) {
        assert!(self.copied && self.served, "{}", self.said);
        same("the image", &self.image, &self.disk).unwrap();
    }

    /// After so many faults at least.
    #[track_caller]
    pub(crate) fn assert_well_after(self, faults: u64) {
        assert!(self.faults >= faults, "{} faults: {}", self.faults, self.said);
        self.assert_well();
    }

    /// The client was told, and nothing that it was told before is lost.
    #[track_caller]
    pub(crate) fn assert_refused(self, what: &str) {
        assert!(!self.copied && self.said.contains(what), "{}", self.said);
    }

    #[track_caller]
    pub(crate) fn assert_told(self, what: &str) {
        assert!(!self.copied && !self.served, "{}", self.said);
        assert!(self.said.contains(what), "{}", self.said);
    }
}
