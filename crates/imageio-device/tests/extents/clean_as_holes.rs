// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ranges that do not differ from the last backup are told as holes, if that is asked for.

use std::sync::Arc;
use std::sync::mpsc::channel;

use block_device_traits::{BlockDevice, HOLE, QueuedDevice, Request, ZERO, ZeroFlags};
use fake_imageio::{FakeServer, Fault, Op};
use imageio_device::{Device, Queue};

use crate::common::{PATIENCE, close_well, settings, start, status, write};
use crate::dirty::{Tell, backup};
use crate::setup::{BLOCK, SIZE, SPARSE, map, pairs, read, sparse};

/// All that is clean is a hole, whatever it holds: the third block is dirty data, and the second
/// dirty and zero.
const CLEAN_AS_HOLES: [(u64, u64); 4] = [(BLOCK, HOLE), (BLOCK, ZERO), (BLOCK, 0), (5 * BLOCK, HOLE)];

fn open(server: &FakeServer, read_only: bool) -> Device {
    start(settings(server).with(|settings| {
        settings.read_only = read_only;
        settings.clean_as_holes = true;
    }))
}

#[test]
fn clean_ranges_are_told_as_holes_that_may_hold_anything() {
    let server = backup().start().unwrap();
    let device = open(&server, true);
    assert!(!device.is_tentative(0) && device.has_context(0));
    let asked = || [Op::DirtyExtents, Op::Extents].map(|op| server.log().of(op).count());
    assert_eq!(asked(), [0, 0], "nobody has wanted to know yet");
    assert_eq!(map(&device), CLEAN_AS_HOLES);
    assert_eq!(pairs(device.extents(0, 0, SIZE, 2).unwrap()), CLEAN_AS_HOLES[..2]);
    assert_eq!(asked(), [1, 1], "each question is asked once");
    assert_eq!(read(&device, 3 * BLOCK, 4).unwrap(), [7; 4], "a hole is still read");
    close_well(&server, &device);
}

#[test]
fn clean_ranges_are_told_as_holes_to_those_who_queue() {
    let server = backup().start().unwrap();
    let device = Arc::new(open(&server, true));
    let queue = Queue::start(Arc::clone(&device)).unwrap();
    let (told, answers) = channel();
    for _ in 0..3 {
        let request = Request::Extents { context: 0, offset: 0, len: SIZE, limit: 9 };
        queue.submit(request, Box::new(Tell(told.clone(), Vec::new())));
    }
    for _ in 0..3 {
        assert_eq!(pairs(answers.recv_timeout(PATIENCE).unwrap().unwrap()), CLEAN_AS_HOLES);
    }
    drop(queue);
    close_well(&server, &device);
}

#[test]
fn what_is_changed_is_no_hole_any_more() {
    let server = backup().read_only(false).start().unwrap();
    let device = open(&server, false);
    assert_eq!(map(&device), CLEAN_AS_HOLES);
    write(&device, 6 * BLOCK, &[1]).unwrap();
    device.zero(0, BLOCK, ZeroFlags::default()).unwrap();
    let map = map(&device);
    assert_eq!(map[0].1, ZERO, "what is zeroed is dirty, too: {map:?}");
    assert!(map.contains(&(4096, 0)), "one block of what is written: {map:?}");
    close_well(&server, &device);
}

#[test]
fn nothing_is_a_hole_where_the_server_does_not_tell_what_is_dirty() {
    let server = sparse().read_only(true).start().unwrap();
    let device = open(&server, true);
    assert_eq!(map(&device), SPARSE);
    close_well(&server, &device);
}

#[test]
fn what_is_dirty_is_data_where_the_server_does_not_tell_what_is_zero() {
    let server = backup().start().unwrap();
    server.fault(Fault::on(Op::Extents).every().then(status(403)));
    let device = open(&server, true);
    assert_eq!(map(&device), [(BLOCK, HOLE), (2 * BLOCK, 0), (5 * BLOCK, HOLE)]);
    close_well(&server, &device);
}
