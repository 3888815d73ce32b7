// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time and the way in which the server is asked.

use std::thread;
use std::time::{Duration, Instant};

use block_device_traits::{BlockDevice, Errno, ZERO};
use fake_imageio::{Certificate, FakeServer, Fault, Gate, Op, What};

use crate::common::{PATIENCE, close_well, device, settings, start, within_a_minute, write};
use crate::setup::{BLOCK, SIZE, SPARSE, hold_extents, map, pairs, sparse};

#[test]
fn the_server_is_asked_once_and_not_before_someone_wants_to_know() {
    let server = sparse().start().unwrap();
    let device = device(&server);
    device.read(0, &mut [0; 10]).unwrap();
    assert_eq!(server.log().of(Op::Extents).count(), 0);
    for _ in 0..3 {
        assert_eq!(map(&device), SPARSE);
    }
    let log = server.log();
    let asked: Vec<_> = log.of(Op::Extents).map(|request| request.connection).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(log.on(asked[0]).count(), 1, "on a connection of its own");
    close_well(&server, &device);
}

#[test]
fn extents_of_a_part_begin_where_they_are_asked_for() {
    let server = sparse().start().unwrap();
    let device = device(&server);
    let extents = |offset, len, limit| pairs(device.extents(0, offset, len, limit).unwrap());
    assert_eq!(extents(BLOCK + 1, BLOCK, 9), [(BLOCK - 1, ZERO), (1, 0)]);
    assert_eq!(extents(0, SIZE, 1), [(2 * BLOCK, ZERO)]);
    for (context, offset, len, limit) in
        [(4, 0, 1, 1), (0, SIZE, 1, 1), (0, 1, SIZE, 1), (0, u64::MAX, 2, 1), (0, 0, 0, 1), (0, 0, 1, 0)]
    {
        let error = device.extents(context, offset, len, limit).unwrap_err();
        assert_eq!(error.errno(), Errno::Inval, "{context} {offset} {len} {limit}");
    }
    close_well(&server, &device);
}

#[test]
fn holes_are_told_by_the_depth_of_allocation() {
    let server = FakeServer::builder().size(SIZE).start().unwrap();
    server.write(0, &vec![0; BLOCK as usize]).unwrap();
    let device = device(&server);
    assert_eq!(device.contexts()[..2], ["base:allocation", "qemu:allocation-depth"]);
    assert_eq!(map(&device), [(SIZE, ZERO)], "zeroes are allocated, or not: imageio doesn't tell");
    let depth = || pairs(device.extents(1, 0, SIZE, 100).unwrap());
    assert_eq!(depth(), [(BLOCK, 1), (SIZE - BLOCK, 0)]);
    write(&device, SIZE - 1, b"x").unwrap();
    assert_eq!(depth(), [(BLOCK, 1), (SIZE - BLOCK - 4096, 0), (4096, 1)]);
    close_well(&server, &device);
}

#[test]
fn requests_and_keep_alives_go_on_meanwhile() {
    within_a_minute(|| {
        let server = sparse().start().unwrap();
        let device =
            start(settings(&server).with(|settings| settings.keep_alive = Some(Duration::from_millis(1))));
        let gate = hold_extents(&server);
        thread::scope(|scope| {
            let asking: Vec<_> = (0..3).map(|_| scope.spawn(|| map(&device))).collect();
            assert!(gate.wait_reached(1, PATIENCE));
            let mut buffer = [0; 4];
            device.read(2 * BLOCK, &mut buffer).unwrap();
            assert_eq!(buffer, [7; 4]);
            device.flush().unwrap();
            let before = server.log().of(Op::Flush).count();
            assert!(server.wait_for(PATIENCE, |log| log.of(Op::Flush).count() > before + 3));
            assert!(asking.iter().all(|asking| !asking.is_finished()));
            gate.open();
            asking.into_iter().for_each(|asking| assert_eq!(asking.join().unwrap(), SPARSE));
        });
        assert_eq!(server.log().of(Op::Extents).count(), 1);
        close_well(&server, &device);
    });
}

#[test]
fn closing_waits_for_no_extents_and_ends_those_who_do() {
    within_a_minute(|| {
        let server = sparse().start().unwrap();
        let device = device(&server);
        let gate = hold_extents(&server);
        thread::scope(|scope| {
            let asking: Vec<_> = (0..3).map(|_| scope.spawn(|| device.extents(0, 0, SIZE, 9))).collect();
            assert!(gate.wait_reached(1, PATIENCE));
            close_well(&server, &device);
            for asking in asking {
                assert_eq!(asking.join().unwrap().unwrap_err().errno(), Errno::Shutdown);
            }
        });
        assert_eq!(device.extents(0, 0, SIZE, 9).unwrap_err().errno(), Errno::Shutdown);
        device.close().unwrap();
    });
}

#[test]
fn who_does_not_wait_any_more_keeps_the_answer_from_no_other() {
    within_a_minute(|| {
        let server = sparse().start().unwrap();
        let device = device(&server);
        let gate = hold_extents(&server);
        let asked = std::sync::atomic::AtomicU32::new(0);
        let goes_on = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2;
        let error = device.extents_while(0, 0, SIZE, 9, &goes_on).unwrap_err();
        assert_eq!(error.errno(), Errno::Shutdown);
        assert!(gate.wait_reached(1, PATIENCE), "the server is asked");
        gate.open();
        assert_eq!(map(&device), SPARSE);
        let known = device.extents_while(0, 0, SIZE, 9, &|| panic!("nobody is waited for"));
        assert_eq!(pairs(known.unwrap()), SPARSE);
        assert_eq!(server.log().of(Op::Extents).count(), 1);
        close_well(&server, &device);
    });
}

#[test]
fn closing_does_not_wait_for_a_connection_to_be_opened() {
    within_a_minute(|| {
        let server = sparse().tls(Certificate::default()).start().unwrap();
        let device = device(&server);
        let gate = Gate::new();
        server.fault(Fault::on(Op::Accept).then(What::Block(gate.clone())));
        thread::scope(|scope| {
            let asking = scope.spawn(|| device.extents(0, 0, SIZE, 9));
            assert!(gate.wait_reached(1, PATIENCE));
            let start = Instant::now();
            device.close().unwrap();
            assert_eq!(asking.join().unwrap().unwrap_err().errno(), Errno::Shutdown);
            assert!(start.elapsed() < PATIENCE / 2, "it has waited for the handshake");
            gate.open();
        });
        assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
        assert_eq!(server.log().of(Op::Extents).count(), 0);
    });
}

#[test]
fn closing_does_not_wait_for_the_next_attempt() {
    within_a_minute(|| {
        let server = sparse().start().unwrap();
        let device = device(&server);
        server.fault(Fault::on(Op::Extents).every().then(What::LoseAnswer));
        thread::scope(|scope| {
            let asking = scope.spawn(|| device.extents(0, 0, SIZE, 9));
            assert!(server.wait_for(PATIENCE, |log| log.of(Op::Extents).count() == 2));
            close_well(&server, &device);
            assert_eq!(asking.join().unwrap().unwrap_err().errno(), Errno::Shutdown);
        });
    });
}

#[test]
fn a_device_that_is_dropped_while_the_server_is_asked_harms_nobody() {
    within_a_minute(|| {
        let server = sparse().start().unwrap();
        let gate = hold_extents(&server);
        let device = std::sync::Arc::new(device(&server));
        let asking = thread::Builder::new().name("asking".to_owned()).spawn({
            let device = std::sync::Arc::clone(&device);
            move || map(&device)
        });
        assert!(gate.wait_reached(1, PATIENCE));
        drop(device);
        gate.open();
        assert_eq!(asking.unwrap().join().unwrap(), SPARSE);
        assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    });
}

#[test]
fn the_size_that_a_user_gives_must_be_the_disk_s_for_extents() {
    let server = sparse().start().unwrap();
    let device = start(settings(&server).with(|settings| settings.size = Some(SIZE - 4096)));
    assert_eq!(pairs(device.extents(0, 0, SIZE - 4096, 9).unwrap()), [(SIZE - 4096, 0)]);
    close_well(&server, &device);
}
