// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ranges that are written, may be written or are in doubt are data.

use std::thread;

use block_device_traits::{BlockDevice, Errno, ZERO};
use fake_imageio::{Done, FakeServer, Fault, Gate, Op, What};
use imageio_device::Device;

use crate::common::{
    NO_FUA, PATIENCE, close_after_loss, close_well, device, fragile, start, within_a_minute, write,
};
use crate::setup::{BLOCK, SIZE, hold_extents, map, read};

const PIECE: u64 = 4096;

fn empty() -> FakeServer {
    FakeServer::builder().size(SIZE).volatile(true).start().unwrap()
}

/// The disk is zero but for so many bytes at one place.
fn but(start: u64, len: u64) -> Vec<(u64, u64)> {
    [(start, ZERO), (len, 0), (SIZE - start - len, ZERO)].to_vec()
}

/// A write that the server carries out when the gate is opened, and of which the device knows
/// nothing.
fn write_late(server: &FakeServer, device: &Device, offset: u64) -> Gate {
    let gate = Gate::new();
    server.fault(Fault::on(Op::Put).every().then(What::CarryOutLate(gate.clone())));
    assert_eq!(device.write(offset, vec![7; PIECE as usize].into(), false).unwrap_err().errno(), Errno::Io);
    server.clear_faults();
    gate
}

#[test]
fn what_is_written_is_data_and_what_is_zeroed_is_zero() {
    let server = empty();
    let device = device(&server);
    assert_eq!(map(&device), [(SIZE, ZERO)]);
    write(&device, 3 * PIECE + 10, b"data").unwrap();
    assert_eq!(map(&device), but(3 * PIECE, PIECE), "blocks are written whole");
    device.zero(3 * PIECE, PIECE, NO_FUA).unwrap();
    assert_eq!(map(&device), [(SIZE, ZERO)]);
    close_well(&server, &device);
}

#[test]
fn what_is_under_way_is_data() {
    let server = empty();
    let device = device(&server);
    assert_eq!(map(&device), [(SIZE, ZERO)]);
    let gate = Gate::new();
    for op in [Op::Put, Op::Zero] {
        server.fault(Fault::on(op).then(What::Block(gate.clone())));
    }
    thread::scope(|scope| {
        scope.spawn(|| write(&device, PIECE, b"data").unwrap());
        scope.spawn(|| device.zero(2 * PIECE, PIECE, NO_FUA).unwrap());
        assert!(gate.wait_reached(2, PATIENCE));
        assert_eq!(map(&device), but(PIECE, 2 * PIECE));
        gate.open();
    });
    assert_eq!(map(&device), but(PIECE, PIECE));
    close_well(&server, &device);
}

#[test]
fn what_changes_while_the_server_is_asked_is_data() {
    within_a_minute(|| {
        let server = empty();
        let device = device(&server);
        let (extents, writes) = (hold_extents(&server), Gate::new());
        server.fault(Fault::on(Op::Put).offset(0).then(What::Block(writes.clone())));
        thread::scope(|scope| {
            // Under way before the server is asked, and after it was.
            let early = scope.spawn(|| write(&device, 0, b"early").unwrap());
            assert!(writes.wait_reached(1, PATIENCE));
            // The server has found out before any of them.
            let text = format!(r#"[{{"start":0,"length":{SIZE},"zero":true}}]"#);
            server.fault(Fault::on(Op::Extents).then(What::Answer {
                status: 200,
                text,
                done: Done::Not,
                close: false,
            }));
            let asking = scope.spawn(|| map(&device));
            assert!(extents.wait_reached(1, PATIENCE));
            write(&device, PIECE, b"data").unwrap();
            write(&device, 2 * PIECE, b"data").unwrap();
            device.zero(2 * PIECE, PIECE, NO_FUA).unwrap();
            extents.open();
            assert_eq!(asking.join().unwrap(), but(0, 3 * PIECE)[1..]);
            writes.open();
            early.join().unwrap();
        });
        assert_eq!(read(&device, PIECE, 4).unwrap(), b"data");
        device.zero(2 * PIECE, PIECE, NO_FUA).unwrap();
        assert_eq!(map(&device), but(0, 2 * PIECE)[1..], "now it is known");
        close_well(&server, &device);
    });
}

#[test]
fn what_is_unflushed_when_the_server_is_asked_is_data() {
    for settings in [crate::common::settings, fragile] {
        let server = empty();
        let device = start(settings(&server));
        write(&device, PIECE, b"data").unwrap();
        // The server has forgotten it, and tells that all is zero.
        server.cut_power().unwrap();
        assert_eq!(map(&device)[..2], [(PIECE, ZERO), (4, 0)]);
        if device.flush().is_ok() {
            assert_eq!(read(&device, PIECE, 4).unwrap(), b"data");
            close_after_loss(&server, &device);
        }
    }
}

#[test]
fn what_was_in_doubt_when_the_server_is_asked_is_data() {
    let server = empty();
    let device = device(&server);
    let gate = write_late(&server, &device, PIECE);
    assert_eq!(map(&device), but(PIECE, PIECE));
    gate.open();
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
    assert_eq!(map(&device), but(PIECE, PIECE));
    assert!(device.close().is_err(), "it is missing");
}

#[test]
fn what_comes_to_be_in_doubt_is_data_for_ever() {
    let server = empty();
    let device = device(&server);
    assert_eq!(map(&device), [(SIZE, ZERO)]);
    let _gate = write_late(&server, &device, PIECE);
    assert_eq!(map(&device), but(PIECE, PIECE));
    assert!(device.zero(PIECE, PIECE, NO_FUA).is_err());
    assert!(device.zero(0, BLOCK, NO_FUA).is_err());
    assert_eq!(map(&device), but(PIECE, PIECE));
    assert!(device.close().is_err(), "it is missing");
}

#[test]
fn zeroes_in_doubt_are_data_also_when_they_are_zeroed_again() {
    let server = empty();
    let device = device(&server);
    assert_eq!(map(&device), [(SIZE, ZERO)]);
    let gate = Gate::new();
    server.fault(Fault::on(Op::Zero).every().then(What::CarryOutLate(gate)));
    device.zero(PIECE, PIECE, NO_FUA).unwrap_err();
    server.clear_faults();
    assert_eq!(map(&device), but(PIECE, PIECE));
    device.zero(PIECE, PIECE, NO_FUA).unwrap();
    assert_eq!(map(&device), but(PIECE, PIECE));
    close_well(&server, &device);
}

#[test]
fn what_is_written_again_after_a_loss_is_data() {
    let server = empty();
    let device = device(&server);
    assert_eq!(map(&device), [(SIZE, ZERO)]);
    device.zero(PIECE, PIECE, NO_FUA).unwrap();
    write(&device, 5 * PIECE, b"data").unwrap();
    server.cut_power().unwrap();
    assert_eq!(read(&device, PIECE, 4).unwrap(), [0; 4]);
    device.flush().unwrap();
    let told = map(&device);
    assert_eq!(told.last(), Some(&(SIZE - 6 * PIECE, ZERO)));
    assert_eq!(read(&device, 5 * PIECE, 4).unwrap(), b"data");
    close_after_loss(&server, &device);
}
