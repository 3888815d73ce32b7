// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contexts of which the device has to find out whether it has them.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use block_device_traits::{
    Batch, BlockDevice, Capabilities, Completion, Extent, MemoryDevice, QueuedDevice, Request, Result,
};
use common::*;
use nbd_frontend::{Config, ExportInfo};

const LIST_META_CONTEXT: u32 = 9;
const SET_META_CONTEXT: u32 = 10;
const META_CONTEXT: u32 = 4;
const ACK: u32 = 1;

/// It has `x:there`, and not `x:absent`, as it finds out when the gate is open, or when the server
/// stops.
struct Tentative {
    contexts: Vec<String>,
    gate: Arc<Gate>,
    takes: Duration,
}

impl Tentative {
    fn new() -> Arc<Self> {
        Arc::new(Self::slow(Duration::ZERO))
    }

    fn slow(takes: Duration) -> Self {
        let contexts = ["base:allocation", "x:there", "x:absent"].map(str::to_owned).to_vec();
        Self { contexts, gate: Gate::new(), takes }
    }
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

    fn is_tentative(&self, context: usize) -> bool {
        context > 0
    }

    fn has_context(&self, context: usize) -> bool {
        assert!(context > 0, "nobody has to find out");
        self.gate.pass();
        let (_never, told) = channel::<()>();
        // The wait takes as long as a server that answers.
        let _ = told.recv_timeout(self.takes);
        context == 1
    }

    fn submit(&self, request: Request, mut completion: Box<dyn Completion>) {
        if let Request::Extents { context, .. } = request {
            completion.extents(vec![Extent { length: 4096, status: context as u64 }]);
        }
        let result: Result<()> = Ok(());
        completion.complete(result, &mut Batch::default());
    }

    fn stopping(&self) {
        self.gate.open();
    }
}

fn start(device: &Arc<Tentative>, config: Config) -> Running {
    Running::queued(Arc::clone(device), &ExportInfo::default(), config)
}

/// A client that has asked for contexts of the default export, and not read the answer.
fn asking(server: &Running, option: u32, contexts: &[&str]) -> Client {
    let mut client = server.connect();
    client.greet(3);
    client.option(8, b"");
    assert_eq!(client.option_reply(8), (ACK, vec![]));
    let mut data = [vec![0; 4], (contexts.len() as u32).to_be_bytes().to_vec()].concat();
    for context in contexts {
        data.extend((context.len() as u32).to_be_bytes());
        data.extend(context.as_bytes());
    }
    client.option(option, &data);
    client
}

/// The names that the client is told.
fn answer(client: &mut Client, option: u32) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        match client.option_reply(option) {
            (ACK, _) => return names,
            (META_CONTEXT, data) => names.push(String::from_utf8(data[4..].to_vec()).unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

fn go(client: &mut Client) {
    assert_eq!(client.choose(b""), ACK);
}

#[test]
fn what_the_device_turns_out_not_to_have_is_not_offered() {
    let device = Tentative::new();
    let server = start(&device, Config::default());
    let mut client = asking(&server, SET_META_CONTEXT, &["base:allocation"]);
    assert_eq!(answer(&mut client, SET_META_CONTEXT), ["base:allocation"], "nothing has to be found out");
    device.gate.open();
    let mut client = asking(&server, LIST_META_CONTEXT, &[]);
    assert_eq!(answer(&mut client, LIST_META_CONTEXT), ["base:allocation", "x:there"]);
    let mut client = asking(&server, SET_META_CONTEXT, &["x:absent", "x:there"]);
    assert_eq!(answer(&mut client, SET_META_CONTEXT), ["x:there"]);
    go(&mut client);
    client.request(7, 0, 3, 0, 4096);
    let chunk = client.receive(20 + 12);
    assert_eq!(chunk[20..], [0, 0, 0, 2, 0, 0, 0x10, 0, 0, 0, 0, 1]);
    client.disconnect();
}

#[test]
fn who_waits_for_the_device_keeps_its_place_and_no_other_waits() {
    let device = Tentative::new();
    let server = start(&device, Config::default().with(|config| config.sessions = 2));
    let mut client = asking(&server, SET_META_CONTEXT, &["x:there"]);
    device.gate.wait_entered(1);
    // Newcomers take the other place, one after the other.
    for _ in 0..3 {
        let mut other = server.client();
        assert_eq!(other.ask(FLUSH, 0, 0, 0), 0);
        other.disconnect();
    }
    let mut silent = server.connect();
    silent.receive(18);
    let other = server.client();
    silent.assert_closed();
    device.gate.open();
    assert_eq!(answer(&mut client, SET_META_CONTEXT), ["x:there"]);
    go(&mut client);
    client.disconnect();
    other.disconnect();
}

#[test]
fn the_time_that_the_device_takes_is_not_the_client_s() {
    let limit = Duration::from_secs(2);
    let device = Arc::new(Tentative::slow(limit + limit / 10));
    device.gate.open();
    let server = start(&device, Config::default().with(|config| config.negotiation_timeout = limit));
    let mut client = asking(&server, SET_META_CONTEXT, &["x:there"]);
    assert_eq!(answer(&mut client, SET_META_CONTEXT), ["x:there"]);
    go(&mut client);
    client.disconnect();
}

#[test]
fn a_server_that_stops_waits_for_nobody_who_waits_for_the_device() {
    let device = Tentative::new();
    let server = start(&device, Config::default().with(|config| config.grace = PATIENCE));
    let mut client = asking(&server, SET_META_CONTEXT, &["x:there"]);
    device.gate.wait_entered(1);
    assert_eq!(server.stop().cut_off, 0);
    // The connection ends, whether or not the request was answered before.
    client.0.read_to_end(&mut Vec::new()).unwrap();
}
