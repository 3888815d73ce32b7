// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several exports on one server: each client gets the one that it names, and no other.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use block_device_traits::{
    Batch, BlockDevice, Capabilities, Completion, Errno, Error, Extent, MemoryDevice, QueuedDevice, Request,
};
use common::*;
use nbd_frontend::{Config, ExportInfo, Server};

const ACK: u32 = 1;
const UNKNOWN: u32 = 0x8000_0006;

fn info(name: &str, description: &str) -> ExportInfo {
    ExportInfo::new(name).with_description(description)
}

/// Exports `a`, `b` …, with these disks.
fn serve<D: BlockDevice + 'static>(disks: &[Arc<D>], config: Config) -> Running {
    let mut exports = disks.iter().map(threaded).zip(["a", "b", "c"]);
    let (disk, name) = exports.next().unwrap();
    let mut server = Server::new(disk, &info(name, ""), config).unwrap();
    exports.for_each(|(disk, name)| server.add_export(disk, &info(name, "")).unwrap());
    Running::serving(server)
}

fn memory(bytes: &[u8]) -> Arc<MemoryDevice> {
    Arc::new(MemoryDevice::from_bytes(bytes.to_vec()))
}

fn client(server: &Running, name: &str) -> Client {
    let mut client = server.connect();
    client.greet(3);
    assert_eq!(client.choose(name.as_bytes()), ACK);
    client
}

#[test]
fn all_are_listed_and_each_is_told_of_by_its_name() {
    let mut server =
        Server::new(threaded(&memory(&[1; 512])), &info("one", "the first"), Config::default()).unwrap();
    server.add_export(threaded(&memory(&[2; 1024])), &info("zwei", "")).unwrap();
    server.add_export(threaded(&memory(&[3; 1536])), &info("três", "o terceiro")).unwrap();
    let server = Running::serving(server);
    let mut client = server.connect();
    client.greet(3);
    client.option(3, b"");
    let listed: Vec<_> = (0..4).map(|_| client.option_reply(3)).collect();
    let entry = |name: &str, description: &str| {
        let length = (name.len() as u32).to_be_bytes();
        (2, [&length, name.as_bytes(), description.as_bytes()].concat())
    };
    assert_eq!(
        listed,
        [entry("one", "the first"), entry("zwei", ""), entry("três", "o terceiro"), (ACK, vec![])]
    );
    for (name, canonical, size, description) in [
        ("", "one", 512u64, Some("the first")),
        ("one", "one", 512, Some("the first")),
        ("zwei", "zwei", 1024, None),
        ("três", "três", 1536, Some("o terceiro")),
    ] {
        // NAME and DESCRIPTION are asked for.
        let length = (name.len() as u32).to_be_bytes();
        client.option(6, &[&length, name.as_bytes(), &[0, 2, 0, 1, 0, 2]].concat());
        assert_eq!(client.option_reply(6).1[2..10], size.to_be_bytes());
        assert_eq!(client.option_reply(6).1, [b"\0\x01", canonical.as_bytes()].concat());
        if let Some(description) = description {
            assert_eq!(client.option_reply(6).1, [b"\0\x02", description.as_bytes()].concat());
        }
        assert_eq!(client.option_reply(6), (ACK, vec![]));
    }
    assert_eq!(client.choose("drei".as_bytes()), UNKNOWN);
    assert_eq!(client.choose("três".as_bytes()), ACK);
    assert_eq!(client.read(1024, 512), [3; 512]);
}

#[test]
fn each_client_reads_and_writes_the_disk_that_it_has_chosen() {
    let disks = [memory(&[1; 4096]), memory(&[2; 4096]), memory(&[3; 8192])];
    let server = serve(&disks, Config::default());
    let mut clients: Vec<_> = ["a", "b", "c"].map(|name| client(&server, name)).into();
    // Over four connections at a time, as nbdcopy does.
    clients.push(client(&server, "c"));
    for (client, byte) in clients.iter_mut().zip([1, 2, 3, 3]) {
        assert_eq!(client.read(0, 512), [byte; 512]);
        client.write(7, 1024, &[0x10 + byte; 512]);
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.reply(), (0, 7)));
    // The end of one is not that of another.
    assert_eq!(clients[0].ask(READ, 0, 4096, 512), EINVAL);
    assert_eq!(clients[2].read(4096, 512), [3; 512]);
    // EXPORT_NAME chooses, too.
    let mut old = server.connect();
    old.greet(2);
    old.option(1, b"b");
    assert_eq!(old.receive(10)[..8], 4096u64.to_be_bytes());
    assert_eq!(old.read(1024, 512), [0x12; 512]);
    for (disk, byte) in disks.iter().zip([1, 2, 3]) {
        let mut expected = vec![byte; disk.size() as usize];
        expected[1024..1536].fill(0x10 + byte);
        assert!(disk.contents() == expected, "disk {byte}");
    }
}

#[test]
fn a_disk_that_fails_or_hangs_harms_no_other() {
    let gate = Gate::new();
    let fails = |_: Call| Err(Error::new(Errno::Io, "this is a test"));
    let hangs = {
        let gate = Arc::clone(&gate);
        move |call: Call| {
            if call.0 == FLUSH {
                gate.pass();
            }
            Ok(())
        }
    };
    let disks = [Hooked::new(4096, fails), Hooked::new(4096, hangs), Hooked::new(4096, |_| Ok(()))];
    let server = serve(&disks, Config::default());
    let mut hanging = client(&server, "b");
    hanging.request(FLUSH, 0, 5, 0, 0);
    gate.wait_entered(1);
    assert_eq!(client(&server, "a").ask(FLUSH, 0, 0, 0), EIO);
    let mut good = client(&server, "c");
    good.write(1, 0, &[9; 512]);
    assert_eq!(good.reply(), (0, 1));
    assert_eq!(good.ask(FLUSH, 0, 0, 0), 0);
    gate.open();
    assert_eq!(hanging.reply(), (0, 5));
}

#[test]
fn the_clients_of_all_share_the_places() {
    let disks = [memory(&[1; 512]), memory(&[2; 512])];
    let server = serve(&disks, Config::default().with(|config| config.sessions = 2));
    let (first, _second) = (client(&server, "a"), client(&server, "b"));
    assert_eq!(server.handle.sessions(), 2);
    let mut third = server.connect();
    first.disconnect();
    third.greet(3);
    assert_eq!(third.choose(b"b"), ACK);
    assert_eq!(third.read(0, 512), [2; 512]);
    assert_eq!(server.stop().sessions, 3);
}

#[test]
fn a_name_may_have_4096_bytes() {
    let long = "x".repeat(4096);
    let mut server =
        Server::new(threaded(&memory(&[1; 512])), &ExportInfo::default(), Config::default()).unwrap();
    server.add_export(threaded(&memory(&[2; 512])), &info(&long, &long)).unwrap();
    assert!(server.add_export(threaded(&memory(&[3; 512])), &info(&format!("{long}x"), "")).is_err());
    let server = Running::serving(server);
    assert_eq!(client(&server, &long).read(0, 512), [2; 512]);
    assert_eq!(client(&server, "").read(0, 512), [1; 512]);
}

#[test]
fn the_empty_name_is_that_of_who_has_it() {
    let mut server = Server::new(threaded(&memory(&[1; 512])), &info("a", ""), Config::default()).unwrap();
    server.add_export(threaded(&memory(&[2; 512])), &info("", "")).unwrap();
    let server = Running::serving(server);
    assert_eq!(client(&server, "").read(0, 512), [2; 512]);
    assert_eq!(client(&server, "a").read(0, 512), [1; 512]);
}

/// It finds out whether it has its context when the gate is open, or when the server stops.
struct Tentative {
    contexts: [String; 1],
    is_there: bool,
    gate: Arc<Gate>,
    asked: AtomicUsize,
}

impl QueuedDevice for Tentative {
    fn size(&self) -> u64 {
        4096
    }

    fn capabilities(&self) -> Capabilities {
        MemoryDevice::new(0).capabilities()
    }

    fn contexts(&self) -> &[String] {
        &self.contexts
    }

    fn is_tentative(&self, _: usize) -> bool {
        true
    }

    fn has_context(&self, _: usize) -> bool {
        self.asked.fetch_add(1, SeqCst);
        self.gate.pass();
        self.is_there
    }

    fn submit(&self, request: Request, mut completion: Box<dyn Completion>) {
        if let Request::Extents { .. } = request {
            completion.extents(vec![Extent { length: 4096, status: u64::from(self.is_there) }]);
        }
        completion.complete(Ok(()), &mut Batch::default());
    }

    fn stopping(&self) {
        self.gate.open();
    }
}

fn tentative() -> ([Arc<Tentative>; 2], Running) {
    let device = |is_there| {
        Arc::new(Tentative {
            contexts: ["x:y".to_owned()],
            is_there,
            gate: Gate::new(),
            asked: AtomicUsize::new(0),
        })
    };
    let devices = [device(false), device(true)];
    let mut server = Server::new(Arc::clone(&devices[0]), &info("a", ""), Config::default()).unwrap();
    server.add_export(Arc::clone(&devices[1]), &info("b", "")).unwrap();
    (devices, Running::serving(server))
}

/// A client that has asked for the context of an export.
fn asking(server: &Running, export: &[u8]) -> Client {
    let mut client = server.connect();
    client.greet(3);
    client.option(8, b"");
    assert_eq!(client.option_reply(8), (ACK, vec![]));
    let length = (export.len() as u32).to_be_bytes();
    client.option(10, &[&length, export, &[0, 0, 0, 1, 0, 0, 0, 3], b"x:y"].concat());
    client
}

#[test]
fn contexts_are_looked_up_at_the_device_of_the_export() {
    let (devices, server) = tentative();
    devices[1].gate.open();
    let mut client = asking(&server, b"b");
    assert_eq!(client.option_reply(10), (4, b"\0\0\0\x01x:y".to_vec()));
    assert_eq!(client.option_reply(10), (ACK, vec![]));
    assert_eq!(client.choose(b"b"), ACK);
    client.request(7, 0, 3, 0, 4096);
    assert_eq!(client.receive(20 + 12)[20..], [0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 1]);
    // The contexts that were looked up for one export say nothing about the other.
    devices[0].gate.open();
    let mut client = asking(&server, b"a");
    assert_eq!(client.option_reply(10), (ACK, vec![]));
    let asked = devices.each_ref().map(|device| device.asked.load(SeqCst));
    assert_eq!(asked, [1, 1]);
}

#[test]
fn all_devices_are_told_that_the_server_stops() {
    let (devices, server) = tentative();
    let _clients = [asking(&server, b"a"), asking(&server, b"b")];
    devices.iter().for_each(|device| device.gate.wait_entered(1));
    assert_eq!(server.stop().cut_off, 0);
}
