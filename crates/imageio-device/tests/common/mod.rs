// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices on a fake server.
#![allow(dead_code, unreachable_pub, reason = "no test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot tell")]

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use block_device_traits::{BlockDevice, Errno, Error, ReadBuffer, Result, ZeroFlags};
use bytes::Bytes;
use error_reporter::Report;
use fake_imageio::{DEFAULT_TICKET, FakeServer, Fault, Gate, Log, Op, What};
use imageio_client::Timeouts;
use imageio_device::{Device, Settings, Transfer, UrlSource};

/// Longer than anything here takes; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const FUA: ZeroFlags = ZeroFlags { fua: true, no_hole: false, fast: false };
pub const NO_FUA: ZeroFlags = ZeroFlags { fua: false, no_hole: false, fast: false };

/// A request of a device, whatever it is.
pub type Request = fn(&Device) -> Result<()>;

pub const READ: Request = |device| device.read(0, &mut [0; 4]);
pub const WRITE: Request = |device| device.write(0, Bytes::from_static(b"more"), false);
pub const ZERO: Request = |device| device.zero(0, 4, NO_FUA);
pub const FLUSH: Request = |device| device.flush();
pub const ALL: [Request; 4] = [READ, WRITE, ZERO, FLUSH];

/// For this server, without a keeper, with one attempt to open a connection again, and with sizes
/// that don't follow what is measured.
pub fn settings(server: &FakeServer) -> Settings {
    Settings::new(UrlSource::Inline(server.url())).with(|settings| {
        settings.connections = Some(4);
        settings.max_request = Some(2 << 20);
        settings.replay_buffer = Some(32 << 20);
        settings.cafile = server.cafile().map(Path::to_owned);
        settings.keep_alive = None;
        settings.timeouts = Timeouts::new(PATIENCE, PATIENCE, PATIENCE);
        settings.reconnect_timeout = Duration::ZERO;
        settings.settle_time = Duration::from_millis(20);
    })
}

/// Settings by which nothing is kept to be written again.
pub fn fragile(server: &FakeServer) -> Settings {
    settings(server).with(|settings| settings.replay_buffer = Some(0))
}

pub fn start(settings: Settings) -> Device {
    Transfer::open(settings).unwrap().start().unwrap()
}

pub fn device(server: &FakeServer) -> Device {
    start(settings(server))
}

/// A device of one connection, which has written `unflushed` to the start of the disk.
pub fn device_with(server: &FakeServer, unflushed: &'static [u8]) -> Device {
    start_with(settings(server), unflushed)
}

/// Starts such a device with other settings.
pub fn start_with(settings: Settings, unflushed: &'static [u8]) -> Device {
    let device = start(settings.with(|settings| settings.connections = Some(1)));
    device.write(0, Bytes::from_static(unflushed), false).unwrap();
    device
}

/// Uses `n` connections at the same time, writing `byte` all over every other 4 KiB: neighbours
/// could be merged, should one of them have to wait because the keeper has its connection.
pub fn use_connections(server: &FakeServer, device: &Device, n: usize, byte: u8) {
    let gate = Gate::new();
    server.fault(Fault::on(Op::Put).every().then(What::Block(gate.clone())));
    thread::scope(|scope| {
        for i in 0..n as u64 {
            scope.spawn(move || device.write(i * 8192, vec![byte; 4096].into(), false).unwrap());
        }
        let reached = gate.wait_reached(n, PATIENCE);
        server.clear_faults();
        gate.open();
        assert!(reached, "not {n} connections at the same time");
    });
}

/// Memory that a read fills, which comes back when it is dropped.
struct Memory(Vec<u8>, mpsc::Sender<Vec<u8>>);

impl ReadBuffer for Memory {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.1.send(std::mem::take(&mut self.0)).unwrap();
    }
}

/// A read that may be merged with others.
pub fn read_into(device: &Device, offset: u64, len: usize) -> Result<Vec<u8>> {
    let (give_back, memory) = mpsc::channel();
    device.read_into(offset, Box::new(Memory(vec![0; len], give_back)))?;
    Ok(memory.try_recv().unwrap())
}

/// An answer with this status instead of what was asked for.
pub fn status(status: u16) -> What {
    What::Status { status, text: "for a reason".to_owned() }
}

/// Writes data that is never freed.
pub fn write(device: &Device, offset: u64, data: &'static [u8]) -> block_device_traits::Result<()> {
    device.write(offset, Bytes::from_static(data), false)
}

/// The writes and zeroes that came, from the n-th on.
pub fn changes(server: &FakeServer, from: usize) -> Vec<(Op, u64, u64)> {
    let log = server.log();
    let changes = log.requests.iter().filter(|request| matches!(request.op, Op::Put | Op::Zero));
    changes.skip(from).map(|request| (request.op, request.offset, request.size)).collect()
}

/// The text of an error and of its causes, none of which tells what the next one does: one line,
/// which keeps the ticket secret.
#[track_caller]
pub fn line(error: &impl std::error::Error) -> String {
    if let Some(cause) = error.source() {
        assert!(!error.to_string().contains(&cause.to_string()), "{error}");
    }
    let text = Report::new(error).to_string();
    assert_eq!(text.lines().count(), 1, "{text:?}");
    let all = format!("{text} {error:?}");
    assert!(!all.contains(DEFAULT_TICKET), "{all}");
    text
}

#[track_caller]
pub fn error<T: Debug>(result: Result<T>) -> Error {
    let error = result.unwrap_err();
    line(&error);
    error
}

/// Every request fails from now on, and so does `close`.
#[track_caller]
pub fn assert_fails_for_good(device: &Device, errno: Errno) {
    assert_eq!(device.failure().map(|error| error.errno()), Some(errno));
    for request in ALL {
        let error = error(request(device));
        assert_eq!(error.errno(), errno);
        assert!(error.to_string().contains("data may be lost"), "{error}");
    }
    assert_eq!(error(device.close()).errno(), errno);
}

/// Closes the device, and checks that nothing is left open, and that no connection was closed with
/// something unflushed.
#[track_caller]
pub fn close_well(server: &FakeServer, device: &Device) {
    close_after_loss(server, device);
    assert_eq!(server.log().lost_unflushed(), 0);
}

/// Closes the device, and checks that nothing is left open.
#[track_caller]
pub fn close_after_loss(server: &FakeServer, device: &Device) {
    device.close().unwrap();
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
}

/// Waits until so many requests wait for a connection.
#[track_caller]
pub fn await_waiting(device: &Device, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while device.waiting() < count {
        assert!(Instant::now() < deadline, "{} wait instead of {count}", device.waiting());
        thread::yield_now();
    }
}

/// Waits for a failure that comes without a request.
#[track_caller]
pub fn await_failure(device: &Device) -> Error {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(failure) = device.failure() {
            return failure;
        }
        assert!(Instant::now() < deadline, "no failure");
        thread::yield_now();
    }
}

/// Closes every idle connection, and comes back when that can be seen from outside. A device may
/// open a connection, or end a request, in the background meanwhile: that connection is closed,
/// too.
pub fn close_idle(server: &FakeServer) {
    let events = |log: &Log| (log.connections.len(), log.requests.iter().filter(|r| r.end.is_some()).count());
    for _ in 0..100 {
        let before = events(&server.log());
        server.close_idle();
        let is_deserted = |log: &Log| log.open().count() == 0;
        assert!(server.wait_for(PATIENCE, |log| is_deserted(log) || events(log) != before));
        if server.connections() == 0 {
            break;
        }
    }
    // The log has it before the socket is closed; the server's one thread does that before it
    // answers anyone.
    let mut other = TcpStream::connect(server.addr()).unwrap();
    other.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    other.read_exact(&mut [0]).unwrap();
}

/// Runs a test that may hang if it fails.
pub fn within_a_minute(test: impl FnOnce() + Send + 'static) {
    let (done, end) = mpsc::channel();
    let test = move || {
        test();
        done.send(()).unwrap();
    };
    let thread = thread::Builder::new().name("test".to_owned()).spawn(test).unwrap();
    match end.recv_timeout(Duration::from_secs(60)) {
        Ok(()) => thread.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a deadlock: not done within 60 s"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// An abstract socket that no other process uses.
pub fn abstract_socket(name: &str) -> String {
    format!("\0imageio-{name}-{}", std::process::id())
}
