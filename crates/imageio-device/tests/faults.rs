// SPDX-License-Identifier: MIT OR Apache-2.0
//! Refusals and lost connections, where nothing is kept to be written again: what is tried again,
//! what fails, and what fails for good.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::thread;
use std::time::Duration;

use block_device_traits::{BlockDevice, Errno};
use bytes::Bytes;
use common::{
    ALL, FLUSH, PATIENCE, READ, WRITE, ZERO, assert_fails_for_good, await_waiting, close_idle, close_well,
    error, fragile, settings, start, start_with,
};
use fake_imageio::{Certificate, FakeServer, Fault, Gate, Op, What};
use imageio_device::Device;

fn device(server: &FakeServer) -> Device {
    start(fragile(server))
}

fn device_with(server: &FakeServer, unflushed: &'static [u8]) -> Device {
    start_with(fragile(server), unflushed)
}

fn status(status: u16) -> What {
    What::Status { status, text: "for a reason".to_owned() }
}

#[test]
fn a_refusal_has_the_errno_that_fits() {
    let cases: [(u16, Errno, Errno); 7] = [
        // status, of a read, of a write
        (403, Errno::Perm, Errno::Perm),
        (416, Errno::Inval, Errno::NoSpc),
        (400, Errno::Inval, Errno::Inval),
        (404, Errno::Io, Errno::Io),
        (409, Errno::Io, Errno::Io),
        (500, Errno::Io, Errno::Io),
        (503, Errno::Io, Errno::Io),
    ];
    for (code, of_read, of_write) in cases {
        for (request, op, errno) in
            [(READ, Op::Get, of_read), (WRITE, Op::Put, of_write), (ZERO, Op::Zero, of_write)]
        {
            let server = FakeServer::builder().start().unwrap();
            let device = device(&server);
            // Some are tried again.
            server.fault(Fault::on(op).every().then(status(code)));
            let error = error(request(&device));
            server.clear_faults();
            assert_eq!(error.errno(), errno, "{error}");
            assert!(error.to_string().contains("for a reason"), "{error}");
            // Nothing was at stake.
            device.flush().unwrap();
            assert_eq!(device.failure(), None);
            request(&device).unwrap();
            close_well(&server, &device);
        }
    }
}

#[test]
fn a_refused_flush_ends_everything() {
    for (code, errno) in [(403, Errno::Perm), (400, Errno::Inval), (500, Errno::Io)] {
        let server = FakeServer::builder().fault(Fault::on(Op::Flush).then(status(code))).start().unwrap();
        let device = device_with(&server, b"data");
        assert_eq!(error(device.flush()).errno(), errno);
        assert_fails_for_good(&device, errno);
    }
}

#[test]
fn a_refused_last_flush_makes_closing_fail() {
    let server = FakeServer::builder().fault(Fault::on(Op::Flush).then(status(500))).start().unwrap();
    let device = device_with(&server, b"data");
    let error = error(device.close());
    assert!(error.to_string().contains("data may be lost") && error.to_string().contains("for a reason"));
}

#[test]
fn a_server_that_fails_a_write_may_have_lost_the_unflushed_ones() {
    for (request, op) in [(WRITE, Op::Put), (ZERO, Op::Zero)] {
        let server = FakeServer::builder().start().unwrap();
        let device = device_with(&server, b"data");
        server.fault(Fault::on(op).then(status(500)));
        assert_eq!(error(request(&device)).errno(), Errno::Io);
        assert_fails_for_good(&device, Errno::Io);
    }
}

#[test]
fn an_error_status_on_a_connection_with_unflushed_writes_ends_everything() {
    for code in [202, 302, 400, 401, 403, 404, 408, 413, 416, 429, 500, 502, 503] {
        for (request, op) in [(READ, Op::Get), (WRITE, Op::Put), (ZERO, Op::Zero), (FLUSH, Op::Flush)] {
            let server = FakeServer::builder().start().unwrap();
            let device = device_with(&server, b"data");
            server.fault(Fault::on(op).then(status(code)));
            let error = error(request(&device));
            assert!(error.to_string().contains("data may be lost"), "{op:?} {code}: {error}");
            assert_fails_for_good(&device, error.errno());
        }
    }
}

#[test]
fn a_read_that_the_server_fails_is_tried_again_if_nothing_is_unflushed() {
    for code in [500, 502, 503, 504] {
        let server = FakeServer::builder().start().unwrap();
        let device = device_with(&server, b"data");
        device.flush().unwrap();
        server.fault(Fault::on(Op::Get).then(status(code)));
        READ(&device).unwrap();
        close_well(&server, &device);
    }
}

#[test]
fn a_cancelled_ticket_loses_what_is_unflushed() {
    for request in ALL {
        let server = FakeServer::builder().start().unwrap();
        let device = device_with(&server, b"data");
        server.cancel_ticket();
        assert_eq!(error(request(&device)).errno(), Errno::Perm);
        assert_fails_for_good(&device, Errno::Perm);
    }
}

#[test]
fn a_connection_closed_while_idle_is_opened_again_if_nothing_is_unflushed() {
    for request in [READ, WRITE, ZERO] {
        let server = FakeServer::builder().start().unwrap();
        let device = device_with(&server, b"data");
        device.flush().unwrap();
        close_idle(&server);
        let accepted = server.accepted();
        request(&device).unwrap();
        assert_eq!(server.accepted(), accepted + 1);
        device.close().unwrap();
        assert_eq!(server.log().lost_unflushed(), 0);
    }
}

#[test]
fn a_read_that_breaks_off_is_done_again_if_nothing_is_unflushed() {
    for what in [What::Reset { after: 3 }, What::Close { after: 3 }, What::LoseAnswer] {
        let server = FakeServer::builder().start().unwrap();
        let device = device_with(&server, b"data");
        device.flush().unwrap();
        server.fault(Fault::on(Op::Get).then(what));
        let mut back = [0; 5];
        device.read(0, &mut back).unwrap();
        assert_eq!(&back, b"data\0");
        assert_eq!(server.accepted(), 3);
        close_well(&server, &device);
    }
}

#[test]
fn a_read_that_breaks_off_again_and_again_fails() {
    let server = FakeServer::builder().start().unwrap();
    let device = device_with(&server, b"data");
    device.flush().unwrap();
    server.fault(Fault::on(Op::Get).every().then(What::Close { after: 3 }));
    assert_eq!(error(READ(&device)).errno(), Errno::Io);
    assert_eq!(server.accepted(), 3);
    server.clear_faults();
    READ(&device).unwrap();
    close_well(&server, &device);
}

#[test]
fn a_connection_lost_with_unflushed_writes_ends_everything() {
    for request in ALL {
        let server = FakeServer::builder().start().unwrap();
        let device = device_with(&server, b"data");
        close_idle(&server);
        let accepted = server.accepted();
        let error = error(request(&device));
        assert!(error.to_string().contains("data may be lost"), "{error}");
        assert_fails_for_good(&device, Errno::Io);
        assert_eq!(server.accepted(), accepted);
    }
}

#[test]
fn a_read_that_breaks_off_with_unflushed_writes_ends_everything() {
    let server = FakeServer::builder().fault(Fault::on(Op::Get).nth(2).then(What::Reset { after: 2 }));
    let server = server.start().unwrap();
    let device = device_with(&server, b"data");
    assert_eq!(error(READ(&device)).errno(), Errno::Io);
    assert_fails_for_good(&device, Errno::Io);
}

#[test]
fn a_write_without_an_answer_ends_everything() {
    let reset = What::Reset { after: 2 };
    for what in [What::LoseAnswer, reset, What::Close { after: 2 }, What::NoAnswer] {
        let server = FakeServer::builder().fault(Fault::on(Op::Put).then(what)).start().unwrap();
        // Only the last one waits so long.
        let timeouts =
            fragile(&server).timeouts.with(|timeouts| timeouts.operation = Duration::from_millis(100));
        let device = start(fragile(&server).with(|settings| settings.timeouts = timeouts));
        // Even a durable one: it may still come true, after a later one.
        assert_eq!(error(device.write(0, Bytes::from_static(b"data"), true)).errno(), Errno::Io);
        assert_fails_for_good(&device, Errno::Io);
        assert_eq!(server.accepted(), 2);
    }
}

#[test]
fn a_server_that_closes_after_an_unflushed_write_ends_everything() {
    let server = FakeServer::builder().start().unwrap();
    let device = device_with(&server, b"data");
    device.flush().unwrap();
    // The server answers with a success that says `connection: close`.
    server.fault(Fault::on(Op::Put).then(What::AnswerEarly { status: 200, text: String::new() }));
    let error = error(WRITE(&device));
    assert!(error.to_string().contains("data may be lost: the server closed a connection"), "{error}");
    assert_fails_for_good(&device, Errno::Io);
}

#[test]
fn a_server_that_closes_after_a_read_ends_everything_if_writes_are_unflushed() {
    let server = FakeServer::builder().start().unwrap();
    let device = device_with(&server, b"data");
    // A good answer that says `connection: close`.
    server.fault(Fault::on(Op::Get).then(What::AnswerEarly { status: 206, text: "abc".to_owned() }));
    let error = error(READ(&device));
    assert!(error.to_string().contains("data may be lost: the server closed a connection"), "{error}");
    assert_fails_for_good(&device, Errno::Io);
}

#[test]
fn a_server_that_closes_after_a_durable_write_is_connected_again() {
    let server = FakeServer::builder().start().unwrap();
    let device = device_with(&server, b"data");
    server.fault(Fault::on(Op::Put).then(What::AnswerEarly { status: 200, text: String::new() }));
    device.write(0, Bytes::from_static(b"safe"), true).unwrap();
    WRITE(&device).unwrap();
    assert_eq!(server.accepted(), 3);
    device.close().unwrap();
}

#[test]
fn a_connection_that_can_not_be_opened_fails_one_request() {
    for request in [READ, WRITE, ZERO] {
        let server = FakeServer::builder().tls(Certificate::default()).start().unwrap();
        let device = device(&server);
        server.fault(Fault::on(Op::Accept).every().then(What::Close { after: 0 }));
        let error = error(request(&device));
        assert_eq!((error.errno(), device.failure()), (Errno::Io, None), "{error}");
        server.clear_faults();
        request(&device).unwrap();
        assert_eq!(server.accepted(), 4);
        close_well(&server, &device);
    }
}

#[test]
fn a_server_that_is_gone_fails_requests_but_not_for_good() {
    let mut server = FakeServer::builder().start().unwrap();
    let device = device_with(&server, b"data");
    device.flush().unwrap();
    server.shutdown();
    for request in [READ, WRITE, ZERO] {
        assert_eq!(error(request(&device)).errno(), Errno::Io);
    }
    assert_eq!(device.failure(), None);
    device.flush().unwrap();
    assert!(error(device.close()).to_string().contains("were not written"));
}

#[test]
fn a_flush_that_is_answered_is_one_also_where_the_server_closes_then() {
    for settings in [settings, fragile] {
        let server = FakeServer::builder().volatile(true).start().unwrap();
        let device = start(settings(&server).with(|settings| settings.connections = Some(1)));
        WRITE(&device).unwrap();
        server.fault(Fault::on(Op::Flush).then(What::CloseAfterAnswer));
        device.flush().unwrap();
        server.cut_power().unwrap();
        assert_eq!(server.read(0, 4).unwrap(), b"more");
        device.close().unwrap();
    }
}

#[test]
fn what_was_given_up_in_line_is_told_at_the_end() {
    for request in [WRITE, ZERO] {
        let server = FakeServer::builder().tls(Certificate::default()).start().unwrap();
        let device = start(settings(&server).with(|settings| settings.connections = Some(1)));
        READ(&device).unwrap();
        let gate = Gate::new();
        server.fault(Fault::on(Op::Get).then(What::Block(gate.clone())));
        thread::scope(|scope| {
            let first = scope.spawn(|| READ(&device));
            assert!(gate.wait_reached(1, PATIENCE));
            let waiting = scope.spawn(|| request(&device));
            await_waiting(&device, 1);
            server.fault(Fault::on(Op::Accept).every().then(What::Close { after: 0 }));
            server.fault(Fault::on(Op::Get).every().then(What::Close { after: 0 }));
            server.fault(Fault::on(Op::Put).every().then(What::Close { after: 0 }));
            server.fault(Fault::on(Op::Zero).every().then(What::Close { after: 0 }));
            gate.open();
            let _ = first.join().unwrap();
            error(waiting.join().unwrap());
        });
        server.clear_faults();
        device.flush().unwrap();
        assert!(error(device.close()).to_string().starts_with("4 bytes were not written, the first at 0: "));
    }
}

#[test]
fn where_the_server_is_gone_those_who_wait_in_line_do_not_wait_for_it_one_after_another() {
    const WAITING: u64 = 8;
    let server = FakeServer::builder().tls(Certificate::default()).start().unwrap();
    let device = start(settings(&server).with(|settings| settings.connections = Some(1)));
    READ(&device).unwrap();
    let gate = Gate::new();
    server.fault(Fault::on(Op::Get).then(What::Block(gate.clone())));
    let before = thread::scope(|scope| {
        let first = scope.spawn(|| READ(&device));
        assert!(gate.wait_reached(1, PATIENCE));
        for n in 1..=WAITING {
            let device = &device;
            // They have gaps between them, so none goes along with another.
            scope.spawn(move || device.read(n * 8192, &mut [0; 4]).unwrap_err());
            await_waiting(device, n as usize);
        }
        server.fault(Fault::on(Op::Accept).every().then(What::Close { after: 0 }));
        server.fault(Fault::on(Op::Get).every().then(What::Close { after: 0 }));
        let before = server.accepted();
        gate.open();
        let _ = first.join().unwrap();
        before
    });
    // Of the first that meets it, or of the second if that one was answered.
    assert!(server.accepted() - before <= 2, "{} connections", server.accepted() - before);
    server.clear_faults();
    READ(&device).unwrap();
    close_well(&server, &device);
}
