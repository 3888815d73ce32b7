// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes whose outcome is not known, and changes that failed: what may be written there later,
//! and what is told at the end.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use block_device_traits::{BlockDevice, Errno};
use common::{
    NO_FUA, PATIENCE, Request, WRITE, ZERO, await_waiting, close_after_loss, device, device_with, error,
    settings, start, status, write,
};
use fake_imageio::{FakeServer, Fault, Gate, Op, What};

/// The size of the blocks that storage writes, in bytes.
const BLOCK: u64 = 4096;

fn server() -> FakeServer {
    FakeServer::builder().start().unwrap()
}

#[test]
fn what_may_still_come_true_is_not_changed_any_more() {
    let statuses = [202, 204, 302, 400, 408, 413, 429, 500, 502, 503, 504].map(status);
    for what in [What::LoseAnswer].into_iter().chain(statuses) {
        let server = server();
        let device = device_with(&server, b"old");
        server.fault(Fault::on(Op::Put).then(what));
        // It is sent again where that may help.
        let _ = write(&device, BLOCK, b"data");
        let refused: [(u64, Request); 4] = [
            (BLOCK + 3, |device| write(device, BLOCK + 3, b"x")),
            (0, |device| device.zero(0, 2 * BLOCK, NO_FUA)),
            // The server may have read the block before this, and may write it afterwards.
            (BLOCK + 4, |device| write(device, BLOCK + 4, b"beside")),
            (2 * BLOCK - 1, |device| write(device, 2 * BLOCK - 1, b"across")),
        ];
        for (_, refused) in refused {
            let error = error(refused(&device));
            assert_eq!(error.errno(), Errno::Io);
            assert!(error.to_string().contains("can't be changed"), "{error}");
        }
        write(&device, 2 * BLOCK, b"another block").unwrap();
        write(&device, 0, b"another").unwrap();
        // To write equal content again does no harm.
        write(&device, BLOCK, b"data").unwrap();
        device.flush().unwrap();
        assert_eq!(server.read(BLOCK - 1, 5).unwrap(), b"\0data");
        let told = error(device.close()).to_string();
        assert!(told.contains(" bytes were not written, the first at 7: "), "{told}");
    }
}

/// The server may still be busy with the block in which a change was cut off.
#[test]
fn a_place_in_doubt_is_left_alone_by_whichever_request_writes_there_again() {
    const SETTLE_TIME: Duration = Duration::from_millis(50);
    // The first is sent again by itself, the second by the client.
    for what in [What::LoseAnswer, status(400)] {
        let server = server();
        let settings = settings(&server);
        let device = start(settings.with(|settings| {
            settings.settle_time = SETTLE_TIME;
            settings.reconnect_timeout = PATIENCE;
        }));
        server.fault(Fault::on(Op::Put).then(what));
        let begin = Instant::now();
        let _ = write(&device, BLOCK, b"data");
        write(&device, BLOCK, b"data").unwrap();
        assert!(begin.elapsed() >= SETTLE_TIME, "{:?}", begin.elapsed());
        assert_eq!(server.read(BLOCK, 4).unwrap(), b"data");
        device.close().unwrap();
    }
}

#[test]
fn what_was_not_written_is_told_at_the_end_unless_it_was_written_later() {
    for code in [400, 401, 403, 404, 405, 408, 411, 413, 416, 429, 202, 204, 302] {
        for (op, request) in [(Op::Put, WRITE), (Op::Zero, ZERO)] {
            let server = server();
            let first = device(&server);
            server.fault(Fault::on(op).every().then(status(code)));
            error(request(&first));
            assert_eq!(first.failure(), None);
            let told = error(first.close()).to_string();
            assert!(told.starts_with("4 bytes were not written, the first at 0: "), "{told}");

            let second = device(&server);
            error(request(&second));
            server.clear_faults();
            request(&second).unwrap();
            close_after_loss(&server, &second);
        }
    }
}

#[test]
fn what_was_to_be_written_behind_a_step_that_failed_is_missing_too() {
    let server = server();
    let device = start(settings(&server).with(|settings| settings.max_request = Some(64 << 10)));
    server.fault(Fault::on(Op::Put).nth(2).then(status(416)));
    assert_eq!(error(device.write(0, vec![1; 256 << 10].into(), false)).errno(), Errno::NoSpc);
    let told = error(device.close()).to_string();
    assert!(told.starts_with("196608 bytes were not written, the first at 65536: "), "{told}");
}

#[test]
fn the_same_content_may_be_asked_for_again_and_other_content_not() {
    static DATA: [u8; BLOCK as usize] = [7; BLOCK as usize];
    static OTHER: [u8; BLOCK as usize] = [8; BLOCK as usize];
    let server = server();
    let device = device_with(&server, b"old");
    device.flush().unwrap();
    server.fault(Fault::on(Op::Put).every().then(status(500)));
    for block in [5, 6] {
        assert!(write(&device, block * BLOCK, &DATA).is_err());
    }
    server.clear_faults();
    let refused = |offset, data| {
        assert!(error(write(&device, offset, data)).to_string().contains("can't be changed"));
    };
    refused(5 * BLOCK, &OTHER);
    refused(5 * BLOCK, &DATA[1..]);
    refused(5 * BLOCK - 1, b"x7");
    assert!(device.zero(5 * BLOCK, 4, NO_FUA).is_err());
    // Changes that were asked for before are not refused; merged with others, too.
    write(&device, 6 * BLOCK, &DATA).unwrap();
    let gate = Gate::new();
    server.fault(Fault::on(Op::Get).then(What::Block(gate.clone())));
    thread::scope(|scope| {
        scope.spawn(|| device.read(32, &mut [0]).unwrap());
        assert!(gate.wait_reached(1, PATIENCE));
        for (place, (block, data)) in [(5, &DATA), (4, &OTHER)].into_iter().enumerate() {
            let device = &device;
            scope.spawn(move || write(device, block * BLOCK, data).unwrap());
            await_waiting(device, place + 1);
        }
        gate.open();
    });
    assert!(server.read(4 * BLOCK, 3 * BLOCK as usize).unwrap() == [OTHER, DATA, DATA].concat());
    // All places were written since, so nothing is missing.
    close_after_loss(&server, &device);
}

#[test]
fn a_zero_without_an_answer_leaves_little_that_can_not_be_written_once_a_connection_was_lost() {
    const MIB: u64 = 1 << 20;
    let server = FakeServer::builder().size(256 * MIB).start().unwrap();
    let device = start(settings(&server).with(|settings| settings.reconnect_timeout = PATIENCE));
    close_after_first_use(&server, &device);
    server.fault(Fault::on(Op::Zero).nth(2).then(What::LoseAnswer));
    device.zero(0, 128 * MIB, NO_FUA).unwrap();
    let refused = |mib: &u64| write(&device, mib * MIB, b"data").is_err();
    assert_eq!((0..128).filter(refused).collect::<Vec<_>>(), [4, 5, 6, 7]);
    assert!(error(device.close()).to_string().starts_with("16 bytes were not written"));
}

/// Loses a connection with nothing at stake.
fn close_after_first_use(server: &FakeServer, device: &imageio_device::Device) {
    device.read(0, &mut [0]).unwrap();
    common::close_idle(server);
    device.read(0, &mut [0]).unwrap();
}

#[test]
fn zeroes_that_are_written_again_after_a_loss_go_in_short_steps_too() {
    const MIB: u64 = 1 << 20;
    let server = FakeServer::builder().size(256 * MIB).start().unwrap();
    let device = start(settings(&server).with(|settings| {
        settings.connections = Some(1);
        settings.reconnect_timeout = PATIENCE;
    }));
    device.zero(0, 128 * MIB, NO_FUA).unwrap();
    common::close_idle(&server);
    server.fault(Fault::on(Op::Zero).nth(2).then(What::LoseAnswer));
    device.flush().unwrap();
    let refused = |mib: &u64| write(&device, mib * MIB, b"data").is_err();
    assert_eq!((0..128).filter(refused).collect::<Vec<_>>(), [4, 5, 6, 7]);
    assert!(error(device.close()).to_string().starts_with("16 bytes were not written"));
}

#[test]
fn a_zero_that_failed_may_be_asked_for_again_in_whatever_steps() {
    const MIB: u64 = 1 << 20;
    let server = FakeServer::builder().size(256 * MIB).start().unwrap();
    let device = start(settings(&server));
    server.fault(Fault::on(Op::Zero).every().then(What::LoseAnswer));
    assert!(device.zero(0, 128 * MIB, NO_FUA).is_err());
    server.clear_faults();
    // Steps are shorter by now.
    device.zero(0, 128 * MIB, NO_FUA).unwrap();
    device.zero(3 * MIB, 5, NO_FUA).unwrap();
    assert!(write(&device, 3 * MIB, b"data").is_err());
    device.zero(0, 128 * MIB, NO_FUA).unwrap();
    close_after_loss(&server, &device);
}
