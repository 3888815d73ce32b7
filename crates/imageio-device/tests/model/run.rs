// SPDX-License-Identifier: MIT OR Apache-2.0
//! One scenario, from the start of its server to what its disk holds in the end.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use fake_imageio::FakeServer;

use crate::common;
use crate::disk::Disk;
use crate::history::{Change, History, Read, Told};
use crate::misfortune::Event;
use crate::scenario::{End, SIZE, Scenario, Server, Step};

/// The outcome of a run.
pub(crate) struct Outcome {
    /// The error of which nobody was told.
    pub(crate) wrong: Option<String>,
    /// The device was closed without an error.
    pub(crate) is_closed: bool,
    /// It was closed, and had not failed for good.
    pub(crate) is_answered: bool,
    /// The kind of server that it was, and the events that happened.
    pub(crate) labels: BTreeSet<String>,
}

pub(crate) fn run(scenario: &Scenario) -> Outcome {
    let server = start(&scenario.server);
    let disk = Disk::open(&server, scenario);
    scenario.faults.iter().for_each(|fault| server.fault(fault.clone()));
    let (history, steps) = (History::default(), AtomicUsize::new(0));
    let run = Run { scenario, server: &server, disk: &disk, history, steps };
    thread::scope(|scope| {
        for client in &scenario.clients {
            scope.spawn(|| client.iter().for_each(|step| run.step(*step)));
        }
    });
    let history = run.history;
    if scenario.has_extents {
        ask_for_zeroes(&disk, &history, 0, SIZE);
    }
    if scenario.has_dirty {
        ask_what_is_dirty(&disk, &history, 0, SIZE);
    }
    let (mut is_closed, mut is_answered) = (false, false);
    if scenario.end == End::Close {
        is_closed = disk.device.close().is_ok();
        // Changes that are told to be missing don't excuse the loss of others that were answered.
        is_answered = is_closed || disk.device.failure().is_none();
    }
    drop(disk);
    let wrong = check(scenario, &server, &history, is_closed, is_answered);
    let wrong = wrong.map_err(|wrong| format!("{wrong}\nthe server saw {:#?}", requests(&server))).err();
    Outcome { wrong, is_closed, is_answered, labels: labels(scenario, &server) }
}

/// Returns the requests that the server saw, a line for each.
fn requests(server: &FakeServer) -> Vec<String> {
    let line = |r: fake_imageio::RequestRecord| {
        let fault = r.fault.unwrap_or_default();
        let flush = if r.flush { " flush" } else { "" };
        let (start, end) = (r.start, r.end.unwrap_or_default());
        format!(
            "{start}-{end} on {}: {:?} {}+{}{flush}: {:?} {fault}",
            r.connection, r.op, r.offset, r.size, r.status
        )
    };
    server.log().requests.into_iter().map(line).collect()
}

fn start(server: &Server) -> FakeServer {
    let mut builder =
        FakeServer::builder().size(SIZE as u64).volatile(true).zero(server.zero).flush(server.flush);
    if let Some(block_size) = server.block_size {
        builder = builder.block_device(block_size);
    }
    if server.records_dirty || !server.dirty.is_empty() {
        let dirty = server.dirty.iter().map(|range| range.start as u64..range.end as u64).collect();
        builder = builder.dirty(dirty).record_dirty(server.records_dirty);
    }
    if let Some((answers, announced)) = server.close_after {
        builder = builder.close_after(answers, announced);
    }
    builder.start().unwrap()
}

fn check(
    scenario: &Scenario,
    server: &FakeServer,
    history: &History,
    is_closed: bool,
    is_answered: bool,
) -> Result<(), String> {
    let about = |what: &'static str| move |wrong: String| format!("{what}: {wrong}");
    // Content that isn't kept is not known either: a read may find the disk as it was before.
    if scenario.setup.replay_buffer > 0 || !scenario.has_losses() {
        history.check_reads().map_err(about("read"))?;
    }
    history.check_told_zero().map_err(about("extents"))?;
    let Server { dirty, records_dirty, .. } = &scenario.server;
    history.check_told_dirty(dirty, !records_dirty).map_err(about("dirty extents"))?;
    scenario.gate.open();
    common::close_idle(server);
    if is_answered {
        let contents = server.contents().unwrap();
        history.check_answered(&contents).map_err(about("answered"))?;
        history.check_stays_zero(&contents).map_err(about("extents, in the end"))?;
        history.check_stays_clean(&contents).map_err(about("dirty extents, in the end"))?;
    }
    server.cut_power().unwrap();
    let durable = server.contents().unwrap();
    history.check_stays_clean(&durable).map_err(about("dirty extents, after a power cut"))?;
    if is_answered {
        history.check_answered(&durable).map_err(about("answered, after a power cut"))?;
    }
    if is_closed {
        // No setting is larger than memory.
        let step = scenario.setup.max_request as usize;
        history.check_made_good(&durable, step).map_err(about("not told at the end"))?;
    }
    history.check_flushed(&durable).map_err(about("flushed"))
}

fn labels(scenario: &Scenario, server: &FakeServer) -> BTreeSet<String> {
    let kind = &scenario.server;
    let mut labels = BTreeSet::new();
    labels.insert(match kind.block_size {
        Some(block_size) => format!("server: blocks of {block_size}"),
        None => "server: bytes".to_owned(),
    });
    labels.extend(kind.close_after.map(|(answers, _)| format!("server: closes after {answers}")));
    labels.extend((!kind.flush).then(|| "server: no flush".to_owned()));
    labels.extend((!kind.zero).then(|| "server: no zero".to_owned()));
    labels.extend(scenario.has_extents.then(|| "extents".to_owned()));
    labels.extend(scenario.has_dirty.then(|| "dirty extents".to_owned()));
    labels.extend(scenario.events.iter().map(|(_, event)| format!("event: {}", event.name())));
    for request in server.log().requests {
        if let Some(fault) = request.fault {
            labels.insert(format!("fault: {fault}"));
            labels.extend(request.status.map(|status| format!("status: {status}")));
        }
    }
    labels
}

fn ask_for_zeroes(disk: &Disk, history: &History, offset: usize, len: usize) {
    let start = history.tick();
    let zeroes = disk.zeroes(offset, len);
    let end = history.tick();
    // None are told where the transfer has failed.
    zeroes.into_iter().flatten().for_each(|range| history.told_zero(&range, start, end));
}

fn ask_what_is_dirty(disk: &Disk, history: &History, offset: usize, len: usize) {
    let start = history.tick();
    let dirty = disk.dirty(offset, len);
    let end = history.tick();
    // None are told where the server has told none, or the transfer has failed.
    dirty.into_iter().for_each(|dirty| {
        history.told_dirty(Told { range: offset..offset + len, dirty, start, end });
    });
}

struct Run<'a> {
    scenario: &'a Scenario,
    server: &'a FakeServer,
    disk: &'a Disk,
    history: History,
    steps: AtomicUsize,
}

impl Run<'_> {
    fn step(&self, step: Step) {
        let number = self.steps.fetch_add(1, Ordering::SeqCst);
        let events = self.scenario.events.iter().filter(|(at, _)| *at == number);
        events.for_each(|(_, event)| self.happen(*event));
        let start = self.history.tick();
        match step {
            Step::Read { offset, len } => {
                let data = self.disk.read(offset, len);
                let end = self.history.tick();
                // The content is unspecified after an error.
                data.into_iter().for_each(|data| self.history.read(Read { offset, data, start, end }));
            }
            Step::Extents { offset, len } => ask_for_zeroes(self.disk, &self.history, offset, len),
            Step::Dirty { offset, len } => ask_what_is_dirty(self.disk, &self.history, offset, len),
            Step::Write { offset, len, value, fua } => {
                let write = || self.disk.write(offset, vec![value; len], fua).is_ok();
                self.change(offset..offset + len, value, fua, write);
            }
            Step::Zero { offset, len, fua } => {
                self.change(offset..offset + len, 0, fua, || self.disk.zero(offset, len, fua).is_ok());
            }
            Step::Flush => {
                if self.disk.flush().is_ok() {
                    self.history.flushed(start, self.history.tick());
                }
            }
        }
    }

    /// Changes a range, again and again if need be.
    fn change(&self, range: Range<usize>, value: u8, fua: bool, change: impl Fn() -> bool) {
        for _ in 0..=self.scenario.setup.repetitions {
            let start = self.history.tick();
            let ok = change();
            let (range, end) = (range.clone(), self.history.tick());
            self.history.changed(Change { range, value, start, end, ok, fua });
            if ok {
                return;
            }
        }
    }

    fn happen(&self, event: Event) {
        match event {
            Event::PowerCut => self.server.cut_power().unwrap(),
            Event::ConnectionsClosed => self.server.close_idle(),
            Event::ConnectionReset(connection) => self.server.reset_connection(connection),
            Event::LateRequestsAreCarriedOut => self.scenario.gate.open(),
            Event::WayLost(None, status) => self.server.lose_way(status).unwrap(),
            Event::WayLost(Some(connection), status) => {
                self.server.lose_way_of(connection, status).unwrap();
            }
        }
    }
}
