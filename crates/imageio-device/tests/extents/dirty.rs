// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ranges that differ from the last backup.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use block_device_traits::{Batch, BlockDevice, Completion, Errno, Extent, QueuedDevice, Request, Result};
use fake_imageio::{Builder, Done, FakeServer, Fault, Gate, Op, OptionsMode, What};
use imageio_device::{Device, Queue};

use crate::common::{
    NO_FUA, PATIENCE, close_after_loss, close_well, device, line, settings, start, status, within_a_minute,
    write,
};
use crate::setup::{BLOCK, SIZE, SPARSE, map, pairs, read, reads, sparse};

/// Their indices among the contexts.
const DIRTY: [usize; 2] = [2, 3];

/// The second and third block, of which the latter has data, are dirty.
pub(crate) fn backup() -> Builder {
    sparse().read_only(true).dirty(vec![BLOCK..2 * BLOCK, 2 * BLOCK..3 * BLOCK])
}

const EXPECTED: [(u64, u64); 3] = [(BLOCK, 0), (2 * BLOCK, 1), (5 * BLOCK, 0)];

fn open(server: &FakeServer) -> Device {
    start(settings(server).with(|settings| settings.read_only = true))
}

fn asked(server: &FakeServer) -> usize {
    server.log().of(Op::DirtyExtents).count()
}

#[track_caller]
fn dirty(device: &Device) -> Vec<(u64, u64)> {
    pairs(device.extents(DIRTY[0], 0, SIZE, 100).unwrap())
}

/// There are none for clients, and the rest is as ever; the server was asked so many times.
#[track_caller]
fn assert_absent(server: &FakeServer, device: &Device, attempts: usize) {
    for context in DIRTY {
        assert!(!device.has_context(context));
        let error = device.extents(context, 0, SIZE, 9).unwrap_err();
        assert_eq!(
            (error.errno(), line(&error)),
            (Errno::Inval, "the transfer has no dirty extents".to_owned())
        );
    }
    assert_eq!(asked(server), attempts);
    assert_eq!(read(device, 2 * BLOCK, 4).unwrap(), [7; 4]);
    close_well(server, device);
}

#[test]
fn dirty_extents_are_offered_by_both_names_and_asked_for_once() {
    let server = backup().start().unwrap();
    let device = start(settings(&server).with(|settings| {
        settings.read_only = true;
        settings.dirty_bitmap = "sda".to_owned();
    }));
    assert_eq!(device.contexts()[2..], ["imageio:dirty", "qemu:dirty-bitmap:sda"]);
    assert_eq!([0, 1, 2, 3].map(|context| device.is_tentative(context)), [false, false, true, true]);
    assert_eq!(map(&device), SPARSE);
    assert_eq!(asked(&server), 0, "nobody wants to know");
    for context in DIRTY {
        assert!(device.has_context(context));
        assert_eq!(pairs(device.extents(context, 0, SIZE, 100).unwrap()), EXPECTED);
    }
    assert_eq!(pairs(device.extents(DIRTY[1], 2 * BLOCK + 5, 10, 100).unwrap()), [(10, 1)]);
    assert!(!device.has_context(4));
    close_well(&server, &device);
    let log = server.log();
    let asked: Vec<_> = log.of(Op::DirtyExtents).map(|request| request.connection).collect();
    assert_eq!((asked.len(), log.on(asked[0]).count()), (1, 1), "on a connection of its own");
    assert_eq!(log.of(Op::Extents).count(), 1);
}

#[test]
fn whoever_wants_to_know_what_is_dirty_does_not_ask_what_is_zero() {
    let server = backup().start().unwrap();
    let device = open(&server);
    assert_eq!(dirty(&device), EXPECTED);
    assert_eq!(read(&device, 0, 4).unwrap(), [0; 4]);
    close_well(&server, &device);
    assert_eq!(server.log().of(Op::Extents).count(), 0);
    assert_eq!(reads(&server), [(0, 4)]);
}

#[test]
fn a_ticket_without_dirty_extents_has_none() {
    let server = sparse().start().unwrap();
    let device = device(&server);
    assert_eq!(map(&device), SPARSE);
    assert_absent(&server, &device, 1);
}

#[test]
fn a_server_without_extents_is_not_asked_and_offers_no_such_context() {
    let old = backup().read_only(false).options(OptionsMode::MissingKeys).max_writers(Some(1));
    for builder in [backup().extents(false), old] {
        let server = builder.start().unwrap();
        let device = open(&server);
        assert_eq!(device.contexts(), ["base:allocation"]);
        assert!(!device.has_context(DIRTY[0]));
        close_well(&server, &device);
        assert_eq!(asked(&server), 0);
    }
}

#[test]
fn a_refusal_offers_none_and_is_no_fault_of_the_transfer() {
    for code in [400, 403, 404, 405, 416, 500, 503] {
        let server = backup().start().unwrap();
        server.fault(Fault::on(Op::DirtyExtents).then(status(code)));
        assert_absent(&server, &open(&server), 1);
    }
}

#[test]
fn nonsense_is_not_believed() {
    let extent =
        |start, length| format!(r#"{{"start":{start},"length":{length},"dirty":true,"zero":false}}"#);
    for text in [
        "<html>".to_owned(),
        "[]".to_owned(),
        format!("[{}]", extent(0, SIZE - 1)),
        format!("[{}]", extent(0, SIZE + 1)),
        format!("[{},{}]", extent(0, BLOCK), extent(BLOCK + 1, SIZE - BLOCK - 1)),
        format!("[{},{}]", extent(0, BLOCK), extent(BLOCK - 1, SIZE - BLOCK + 1)),
        format!("[{}", extent(0, SIZE)),
        format!(r#"[{{"start":0,"length":{SIZE},"dirty":"yes"}}]"#),
        // Of zeroes, and not of what is dirty: it would mean that nothing is.
        format!(r#"[{{"start":0,"length":{SIZE},"zero":false,"hole":false}}]"#),
    ] {
        let server = backup().start().unwrap();
        let answer = What::Answer { status: 200, text, done: Done::Not, close: false };
        server.fault(Fault::on(Op::DirtyExtents).then(answer));
        assert_absent(&server, &open(&server), 1);
    }
}

#[test]
fn a_connection_that_breaks_is_no_answer_and_a_silent_server_is_one() {
    for what in [What::LoseAnswer, What::Close { after: 10 }, What::Reset { after: 10 }] {
        let server = backup().start().unwrap();
        server.fault(Fault::on(Op::DirtyExtents).then(what.clone()));
        let device = open(&server);
        assert_eq!((dirty(&device), asked(&server)), (EXPECTED.to_vec(), 2));
        close_well(&server, &device);

        let server = backup().start().unwrap();
        server.fault(Fault::on(Op::DirtyExtents).every().then(what));
        assert_absent(&server, &open(&server), 3);
    }
    let server = backup().start().unwrap();
    server.fault(Fault::on(Op::DirtyExtents).then(What::NoAnswer));
    let timeouts =
        settings(&server).timeouts.with(|timeouts| timeouts.operation = Duration::from_millis(200));
    let device = start(settings(&server).with(|settings| {
        settings.read_only = true;
        settings.timeouts = timeouts;
    }));
    assert_absent(&server, &device, 1);
}

#[test]
fn requests_other_extents_and_keep_alives_go_on_meanwhile() {
    within_a_minute(|| {
        let server = backup().start().unwrap();
        let keep_alive = Some(Duration::from_millis(1));
        let device = start(settings(&server).with(|settings| {
            settings.read_only = true;
            settings.keep_alive = keep_alive;
        }));
        let gate = Gate::new();
        server.fault(Fault::on(Op::DirtyExtents).then(What::Block(gate.clone())));
        thread::scope(|scope| {
            let asking = DIRTY.map(|context| {
                scope.spawn({
                    let device = &device;
                    move || device.has_context(context)
                })
            });
            assert!(gate.wait_reached(1, PATIENCE));
            assert_eq!(map(&device), SPARSE);
            assert_eq!(read(&device, 2 * BLOCK, 4).unwrap(), [7; 4]);
            let before = server.log().of(Op::Get).count();
            assert!(server.wait_for(PATIENCE, |log| log.of(Op::Get).count() > before + 3));
            assert!(asking.iter().all(|asking| !asking.is_finished()));
            gate.open();
            asking.into_iter().for_each(|asking| assert!(asking.join().unwrap()));
        });
        assert_eq!(asked(&server), 1);
        close_well(&server, &device);
    });
}

#[test]
fn closing_waits_for_no_dirty_extents_and_ends_those_who_do() {
    within_a_minute(|| {
        let server = backup().start().unwrap();
        let device = open(&server);
        let gate = Gate::new();
        server.fault(Fault::on(Op::DirtyExtents).then(What::Block(gate.clone())));
        thread::scope(|scope| {
            let asking = scope.spawn(|| device.has_context(DIRTY[0]));
            let waiting = scope.spawn(|| device.extents(DIRTY[1], 0, SIZE, 9));
            assert!(gate.wait_reached(1, PATIENCE));
            close_well(&server, &device);
            assert!(!asking.join().unwrap());
            assert_eq!(waiting.join().unwrap().unwrap_err().errno(), Errno::Shutdown);
        });
        assert!(!device.has_context(DIRTY[0]));
    });
}

#[test]
fn what_the_client_changes_is_dirty_too() {
    const PIECE: u64 = 4096;
    let server = sparse().dirty(vec![BLOCK..BLOCK + 512, BLOCK + 512..2 * BLOCK]).start().unwrap();
    let device = device(&server);
    write(&device, 7 * BLOCK, b"before it is asked for, though the server doesn't say so").unwrap();
    device.flush().unwrap();
    let gate = Gate::new();
    server.fault(Fault::on(Op::DirtyExtents).then(What::Block(gate.clone())));
    thread::scope(|scope| {
        // Unflushed, meanwhile, and after.
        write(&device, 5 * BLOCK, b"unflushed").unwrap();
        let asking = scope.spawn(|| dirty(&device));
        assert!(gate.wait_reached(1, PATIENCE));
        write(&device, 6 * BLOCK + 5, b"meanwhile").unwrap();
        gate.open();
        let told = asking.join().unwrap();
        assert_eq!(told[..3], [(BLOCK, 0), (BLOCK, 1), (3 * BLOCK, 0)]);
        // Whole blocks of what storage writes.
        assert_eq!(told[3..], [[(PIECE, 1), (BLOCK - PIECE, 0)]; 3].concat());
    });
    device.zero(2 * BLOCK, PIECE, NO_FUA).unwrap();
    assert_eq!(dirty(&device)[..3], [(BLOCK, 0), (BLOCK + PIECE, 1), (3 * BLOCK - PIECE, 0)]);
    close_well(&server, &device);
}

#[test]
fn what_is_in_doubt_or_written_again_is_dirty() {
    let server = sparse().volatile(true).dirty(vec![]).start().unwrap();
    let device = device(&server);
    assert_eq!(dirty(&device), [(SIZE, 0)]);
    server.fault(Fault::on(Op::Put).every().then(What::CarryOutLate(Gate::new())));
    device.write(BLOCK, vec![7; 4096].into(), false).unwrap_err();
    server.clear_faults();
    assert_eq!(dirty(&device), [(BLOCK, 0), (4096, 1), (SIZE - BLOCK - 4096, 0)]);
    assert!(device.close().is_err(), "it is missing");

    let server = sparse().volatile(true).dirty(vec![]).start().unwrap();
    let device = crate::common::device(&server);
    write(&device, 3 * BLOCK, b"data").unwrap();
    server.cut_power().unwrap();
    assert_eq!(
        dirty(&device),
        [(3 * BLOCK, 0), (4096, 1), (SIZE - 3 * BLOCK - 4096, 0)],
        "the server has lost it"
    );
    device.flush().unwrap();
    assert_eq!(dirty(&device)[1].1, 1);
    close_after_loss(&server, &device);
}

pub(crate) struct Tell(pub(crate) std::sync::mpsc::Sender<Result<Vec<Extent>>>, pub(crate) Vec<Extent>);

impl Completion for Tell {
    fn extents(&mut self, extents: Vec<Extent>) {
        self.1 = extents;
    }

    fn complete(self: Box<Self>, result: Result<()>, _: &mut Batch) {
        let Self(tell, extents) = *self;
        tell.send(result.map(|()| extents)).unwrap();
    }
}

#[test]
fn the_queue_tells_them_too() {
    for (builder, expected) in [(backup(), Ok(EXPECTED.to_vec())), (sparse(), Err(Errno::Inval))] {
        let server = builder.start().unwrap();
        let device = Arc::new(open(&server));
        let queue = Queue::start(Arc::clone(&device)).unwrap();
        assert!(queue.is_tentative(DIRTY[1]) && !queue.is_tentative(0) && queue.has_context(0));
        assert_eq!(queue.has_context(DIRTY[1]), expected.is_ok());
        let (tell, told) = channel();
        let request = Request::Extents { context: DIRTY[1], offset: 0, len: SIZE, limit: 9 };
        queue.submit(request, Box::new(Tell(tell, Vec::new())));
        let told = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(told.map(pairs).map_err(|error| error.errno()), expected);
        drop(queue);
        close_well(&server, &device);
    }
}
