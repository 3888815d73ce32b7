// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random clients, faults and power cuts, against a model of what a disk may hold then.
//!
//! `SEEDS=10000 cargo test -p imageio-device --test model` tries more of them; `SEED=123` only that one.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "the outcome of a test")]

#[path = "../common/mod.rs"]
mod common;
mod history;
mod scenario;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use block_device::{Batch, BlockDevice, Completion, QueuedDevice, Request, Result, ZeroFlags};
use bytes::Bytes;
use common::{PATIENCE, settings, within_a_minute};
use fake_imageio::FakeServer;
use history::{Change, History, Read};
use imageio_client::Timeouts;
use imageio_device::{Device, Queue, Settings, Transfer};
use scenario::{Door, End, Event, SIZE, Scenario, Setup, Step};

/// Runs that failed once.
const REGRESSIONS: &[u64] = &[1315];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

#[test]
fn nothing_is_lost_unsaid() {
    let seeds: Vec<_> = match number("SEED") {
        Some(seed) => vec![seed],
        None => REGRESSIONS.iter().copied().chain(1..=number("SEEDS").unwrap_or(2000)).collect(),
    };
    let (next, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Most of the time they wait.
    let threads = 16 * thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    told.fetch_add(usize::from(!ended_well(seed)), Ordering::Relaxed);
                }
            });
        }
    });
    // Cargo shows it where a test fails, or with --nocapture.
    println!("{} runs, {} of them ended with an error that was told", seeds.len(), told.into_inner());
}

/// Whether the device was closed without an error.
fn ended_well(seed: u64) -> bool {
    let (tell, told) = mpsc::channel();
    let run = catch_unwind(AssertUnwindSafe(|| {
        within_a_minute(move || {
            let scenario = Scenario::new(seed);
            tell.send(run(&scenario)).unwrap();
        });
    }));
    run.unwrap_or_else(|panic| {
        eprintln!("SEED={seed}: {:#?}", Scenario::new(seed));
        resume_unwind(panic)
    });
    told.recv().unwrap()
}

fn run(scenario: &Scenario) -> bool {
    let Setup { zero, flush, .. } = scenario.setup;
    let server =
        FakeServer::builder().size(SIZE as u64).volatile(true).zero(zero).flush(flush).start().unwrap();
    let disk = Disk::open(&server, &scenario.setup);
    scenario.faults.iter().for_each(|fault| server.fault(fault.clone()));
    let run = Run {
        scenario,
        server: &server,
        disk: &disk,
        history: History::default(),
        steps: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        for client in &scenario.clients {
            scope.spawn(|| client.iter().for_each(|step| run.step(*step)));
        }
    });
    let history = run.history;
    // What isn't kept is not known either: a read may find the disk as it was before the power cut.
    if scenario.setup.replay_buffer > 0 || !scenario.has_power_cut() {
        history.check_reads().unwrap();
    }
    // What was told to be missing doesn't excuse what was answered.
    let closed = scenario.end == End::Close && (disk.close().is_ok() || disk.device.failure().is_none());
    drop(disk);
    scenario.gate.open();
    common::close_idle(&server);
    if closed {
        history.check_answered(&server.contents().unwrap()).unwrap();
    }
    server.cut_power().unwrap();
    let durable = server.contents().unwrap();
    if closed {
        history.check_answered(&durable).unwrap();
    }
    history.check_flushed(&durable).unwrap();
    closed
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
            Step::Write { offset, len, value, fua } => {
                let ok = self.disk.write(offset, vec![value; len], fua).is_ok();
                let (range, end) = (offset..offset + len, self.history.tick());
                self.history.changed(Change { range, value, start, end, ok, fua });
            }
            Step::Zero { offset, len, fua } => {
                let ok = self.disk.zero(offset, len, fua).is_ok();
                let (range, end) = (offset..offset + len, self.history.tick());
                self.history.changed(Change { range, value: 0, start, end, ok, fua });
            }
            Step::Flush => {
                if self.disk.flush().is_ok() {
                    self.history.flushed(start, self.history.tick());
                }
            }
        }
    }

    fn happen(&self, event: Event) {
        match event {
            Event::PowerCut => self.server.cut_power().unwrap(),
            Event::ConnectionsClosed => self.server.close_idle(),
            Event::ConnectionReset(connection) => self.server.reset_connection(connection),
            Event::LateRequestsAreCarriedOut => self.scenario.gate.open(),
        }
    }
}

/// The device, by one of its doors.
struct Disk {
    // Before the device, which it uses.
    queue: Option<Queue>,
    device: Arc<Device>,
}

impl Disk {
    fn open(server: &FakeServer, setup: &Setup) -> Self {
        let settings = Settings {
            connections: setup.connections,
            replay_buffer: setup.replay_buffer,
            max_request: setup.max_request,
            keep_alive: setup.keep_alive,
            reconnect_timeout: PATIENCE,
            // So long only a server takes that doesn't answer.
            timeouts: Timeouts { data: Duration::from_millis(250), ..settings(server).timeouts },
            ..settings(server)
        };
        let device = Arc::new(Transfer::open(settings).unwrap().start().unwrap());
        let queue = (setup.door == Door::Queued).then(|| Queue::start(Arc::clone(&device)).unwrap());
        Self { queue, device }
    }

    fn read(&self, offset: usize, len: usize) -> Result<Vec<u8>> {
        match &self.queue {
            Some(queue) => submit(queue, Request::Read { offset: offset as u64 }, len),
            None => common::read_into(&self.device, offset as u64, len),
        }
    }

    fn write(&self, offset: usize, data: Vec<u8>, fua: bool) -> Result<()> {
        let (offset, data) = (offset as u64, Bytes::from(data));
        match &self.queue {
            Some(queue) => submit(queue, Request::Write { offset, data, fua }, 0).map(drop),
            None => self.device.write(offset, data, fua),
        }
    }

    fn zero(&self, offset: usize, len: usize, fua: bool) -> Result<()> {
        let (offset, len, flags) = (offset as u64, len as u64, ZeroFlags { fua, ..ZeroFlags::default() });
        match &self.queue {
            Some(queue) => submit(queue, Request::Zero { offset, len, flags }, 0).map(drop),
            None => self.device.zero(offset, len, flags),
        }
    }

    fn flush(&self) -> Result<()> {
        match &self.queue {
            Some(queue) => submit(queue, Request::Flush, 0).map(drop),
            None => self.device.flush(),
        }
    }

    fn close(&self) -> Result<()> {
        self.device.close()
    }
}

/// Tells a thread that waits.
struct Waiting {
    buffer: Vec<u8>,
    tell: mpsc::Sender<Result<Vec<u8>>>,
}

impl Completion for Waiting {
    fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    fn complete(self: Box<Self>, result: Result<()>, _batch: &mut Batch) {
        let Self { buffer, tell } = *self;
        tell.send(result.map(|()| buffer)).unwrap();
    }
}

fn submit(queue: &Queue, request: Request, len: usize) -> Result<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    let waiting = Box::new(Waiting { buffer: vec![0; len], tell });
    match &request {
        // This thread waits anyway, so it may do the work.
        Request::Read { offset } | Request::Write { offset, .. } | Request::Zero { offset, .. }
            if offset % 2 == 1 =>
        {
            queue.carry_out(request, waiting);
        }
        _ => queue.submit(request, waiting),
    }
    told.recv().unwrap()
}
