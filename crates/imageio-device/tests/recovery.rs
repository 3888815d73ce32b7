// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lost connections that nobody notices: what is written again, what isn't, and what can't be.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod common;

use std::thread;
use std::time::Duration;

use block_device_traits::{BlockDevice, Errno};
use bytes::Bytes;
use common::{
    ALL, NO_FUA, PATIENCE, READ, Request, WRITE, ZERO, assert_fails_for_good, changes, close_after_loss,
    close_idle, device_with, error, settings, start, start_with, status, write,
};
use fake_imageio::{Certificate, FakeServer, Fault, Gate, Op, What};

/// The size of the blocks that storage writes, in bytes.
const BLOCK: u64 = 4096;

fn server() -> FakeServer {
    FakeServer::builder().start().unwrap()
}

/// Loses all connections, and all that was written: as a server that is started again may do.
fn forget_all(server: &FakeServer) {
    close_idle(server);
    server.write(0, &[0xee; 64]).unwrap();
}

#[test]
fn what_was_unflushed_on_a_lost_connection_is_written_again() {
    for request in ALL {
        let server = server();
        let device = device_with(&server, b"data");
        device.zero(8, 8, NO_FUA).unwrap();
        write(&device, 16, b"end").unwrap();
        forget_all(&server);
        request(&device).unwrap();
        device.flush().unwrap();
        let start = server.read(4, 16).unwrap();
        assert_eq!(start, *b"\xee\xee\xee\xee\0\0\0\0\0\0\0\0end\xee");
        close_after_loss(&server, &device);
    }
}

#[test]
fn closing_writes_it_again() {
    let server = server();
    let device = device_with(&server, b"data");
    forget_all(&server);
    device.close().unwrap();
    assert_eq!(server.read(0, 5).unwrap(), b"data\xee");
}

#[test]
fn what_was_flushed_is_not_written_again() {
    let server = server();
    let device = device_with(&server, b"data");
    device.flush().unwrap();
    write(&device, 8, b"more").unwrap();
    forget_all(&server);
    device.flush().unwrap();
    assert_eq!(changes(&server, 2), [(Op::Put, 8, 4)]);
}

#[test]
fn a_durable_write_leaves_nothing_to_be_written_again() {
    let server = server();
    let device = device_with(&server, b"data");
    device.write(8, Bytes::from_static(b"safe"), true).unwrap();
    close_idle(&server);
    READ(&device).unwrap();
    assert_eq!(changes(&server, 2), []);
}

#[test]
fn a_write_without_an_answer_is_sent_again() {
    for what in [What::LoseAnswer, What::Reset { after: 2 }, What::Close { after: 2 }, What::NoAnswer] {
        for op in [Op::Put, Op::Zero] {
            let server = server();
            // Only the last one waits so long.
            let short = Duration::from_millis(200);
            let timeouts = settings(&server).timeouts.with(|timeouts| {
                timeouts.data = short;
                timeouts.operation = short;
            });
            let device = start_with(settings(&server).with(|settings| settings.timeouts = timeouts), b"old");
            server.fault(Fault::on(op).then(what.clone()));
            match op {
                Op::Put => write(&device, BLOCK, b"data").unwrap(),
                _ => device.zero(BLOCK, 4, NO_FUA).unwrap(),
            }
            let expected = if op == Op::Put { *b"data" } else { [0; 4] };
            assert_eq!(server.read(0, 3).unwrap(), b"old");
            assert_eq!(server.read(BLOCK, 4).unwrap(), expected);
            let again = [(Op::Put, 0, 3), (op, BLOCK, 4)];
            assert_eq!(changes(&server, 2), again, "first what was there before");
            close_after_loss(&server, &device);
        }
    }
}

#[test]
fn a_newer_write_on_another_connection_is_not_overwritten() {
    let server = server();
    let device = start(settings(&server).with(|settings| settings.connections = Some(2)));
    write(&device, 0, b"older").unwrap();
    let first = server.log().of(Op::Put).next().unwrap().connection;
    // While the first connection is busy.
    let gate = Gate::new();
    server.fault(Fault::on(Op::Get).then(What::Block(gate.clone())));
    thread::scope(|scope| {
        scope.spawn(|| device.read(32, &mut [0]).unwrap());
        assert!(gate.wait_reached(1, PATIENCE));
        write(&device, 1, b"new").unwrap();
        gate.open();
    });
    assert_ne!(server.log().of(Op::Put).nth(1).unwrap().connection, first);
    server.close_connection(first);
    device.flush().unwrap();
    assert_eq!(server.read(0, 5).unwrap(), b"onewr");
    assert_eq!(changes(&server, 2), [(Op::Put, 0, 1), (Op::Put, 4, 1)]);
    close_after_loss(&server, &device);
}

#[test]
fn a_flush_makes_durable_what_replaced_lost_writes() {
    let server = FakeServer::builder().volatile(true).start().unwrap();
    let device = start(settings(&server).with(|settings| settings.connections = Some(2)));
    write(&device, 0, b"older").unwrap();
    // While the flush is under way on the only connection that has something to flush.
    let gate = Gate::new();
    server.fault(Fault::on(Op::Flush).then(What::Block(gate.clone())));
    server.fault(Fault::on(Op::Flush).then(What::Close { after: 0 }));
    thread::scope(|scope| {
        let flush = scope.spawn(|| device.flush().unwrap());
        assert!(gate.wait_reached(1, PATIENCE));
        write(&device, 1, b"new").unwrap();
        server.cut_power().unwrap();
        gate.open();
        flush.join().unwrap();
    });
    server.cut_power().unwrap();
    let durable = server.read(0, 5).unwrap();
    assert!(matches!(&durable[..], b"older" | b"onewr"), "{durable:?}");
}

#[test]
fn a_connection_lost_while_writing_again_is_no_end() {
    let server = server();
    let settings = settings(&server).with(|settings| settings.reconnect_timeout = PATIENCE);
    let device = start_with(settings, b"data");
    write(&device, BLOCK, b"more").unwrap();
    forget_all(&server);
    server.fault(Fault::on(Op::Put).nth(2).then(What::LoseAnswer));
    server.fault(Fault::on(Op::Flush).then(What::Reset { after: 0 }));
    device.flush().unwrap();
    assert_eq!(
        (server.read(0, 5).unwrap(), server.read(BLOCK, 4).unwrap()),
        (b"data\xee".into(), b"more".into())
    );
    close_after_loss(&server, &device);
}

#[test]
fn a_server_that_comes_back_is_waited_for() {
    let server = FakeServer::builder().tls(Certificate::default()).start().unwrap();
    let settings = settings(&server).with(|settings| settings.reconnect_timeout = PATIENCE);
    let device = start_with(settings, b"data");
    // Not where the write was, of which the device may not know whether it was carried out.
    let write: Request = |device| write(device, BLOCK, b"more");
    let zero: Request = |device| device.zero(2 * BLOCK, 4, NO_FUA);
    for request in [READ, write, zero] {
        close_idle_tls(&server);
        for _ in 0..3 {
            server.fault(Fault::on(Op::Accept).then(What::Close { after: 0 }));
        }
        // It was started again, and has its tickets a moment later.
        server.fault(Fault::any().then(status(403)));
        request(&device).unwrap();
    }
    close_after_loss(&server, &device);
}

/// Closes idle connections as `close_idle` does; the next connection meets faults.
fn close_idle_tls(server: &FakeServer) {
    server.close_idle();
    assert!(server.wait_for(PATIENCE, |log| log.open().count() == 0));
}

#[test]
fn a_ticket_that_comes_back_is_waited_for_on_connections_that_were_never_open_too() {
    let server = server();
    let device = start(settings(&server).with(|settings| {
        settings.connections = Some(2);
        settings.reconnect_timeout = PATIENCE;
    }));
    write(&device, 0, b"data").unwrap();
    close_idle(&server);
    server.fault(Fault::on(Op::Put).every().then(status(403)));
    let refused = |times| {
        let is_so = server
            .wait_for(PATIENCE, |log| log.requests.iter().filter(|r| r.status == Some(403)).count() >= times);
        assert!(is_so, "not refused {times} times");
    };
    thread::scope(|scope| {
        let lost = scope.spawn(|| write(&device, BLOCK, b"more"));
        refused(1);
        let first = server.log().connections.len();
        let other = scope.spawn(|| write(&device, 2 * BLOCK, b"else"));
        assert!(server.wait_for(PATIENCE, |log| log.connections.len() > first + 1));
        refused(3);
        server.clear_faults();
        assert_eq!((lost.join().unwrap(), other.join().unwrap()), (Ok(()), Ok(())));
    });
    close_after_loss(&server, &device);
}

#[test]
fn much_is_written_again_in_steps_none_of_which_is_lost_with_the_next() {
    const MIB: usize = 1 << 20;
    static DATA: [[u8; MIB]; 4] = [[1; MIB], [2; MIB], [3; MIB], [4; MIB]];
    for nth in 1..=8 {
        let server = FakeServer::builder().size(4 * MIB as u64).volatile(true).start().unwrap();
        let device = start(settings(&server).with(|settings| {
            settings.connections = Some(1);
            settings.reconnect_timeout = PATIENCE;
        }));
        DATA.iter().zip(0..).for_each(|(data, n)| write(&device, n * MIB as u64, data).unwrap());
        server.cut_power().unwrap();
        server.fault(Fault::on(Op::Put).nth(nth).then(What::LoseAnswer));
        device.flush().unwrap();
        server.cut_power().unwrap();
        assert!(server.contents().unwrap() == DATA.concat(), "lost at write {nth}");
        // Writes that were flushed before the loss are not sent once more.
        let again = changes(&server, 4).len();
        assert!(again <= 5, "{again} writes");
    }
}

#[test]
fn a_server_that_does_not_come_back_has_lost_what_was_unflushed() {
    for request in ALL {
        let mut server = server();
        let device = device_with(&server, b"data");
        server.shutdown();
        let error = error(request(&device));
        assert!(error.to_string().contains("data may be lost"), "{error}");
        assert_fails_for_good(&device, Errno::Io);
    }
}

#[test]
fn a_server_that_is_gone_with_nothing_unflushed_fails_single_requests() {
    let mut server = server();
    let device = device_with(&server, b"data");
    device.flush().unwrap();
    server.shutdown();
    for request in [READ, WRITE, ZERO] {
        assert_eq!(error(request(&device)).errno(), Errno::Io);
    }
    assert_eq!(device.failure(), None);
    // Whoever has not heeded the errors is told again.
    assert!(error(device.close()).to_string().contains(" bytes were not written, the first at "));
}

#[test]
fn a_cancelled_ticket_is_not_waited_for() {
    for request in ALL {
        let server = server();
        let settings = settings(&server).with(|settings| settings.reconnect_timeout = PATIENCE * 100);
        let device = start_with(settings, b"data");
        server.cancel_ticket();
        assert_eq!(error(request(&device)).errno(), Errno::Perm);
        assert_fails_for_good(&device, Errno::Perm);
    }
}

#[test]
fn what_the_server_can_not_do_is_not_tried_again() {
    for (code, errno) in [(400, Errno::Inval), (416, Errno::NoSpc)] {
        let server = server();
        let device = device_with(&server, b"data");
        server.fault(Fault::on(Op::Put).then(status(code)));
        assert_eq!(error(WRITE(&device)).errno(), errno);
        assert_eq!(changes(&server, 1).len(), 1);
        WRITE(&device).unwrap();
        close_after_loss(&server, &device);
    }
}

#[test]
fn after_a_failed_write_all_since_the_last_flush_is_sent_again_once() {
    let server = server();
    let device = device_with(&server, b"data");
    server.fault(Fault::on(Op::Put).then(status(500)));
    write(&device, BLOCK, b"more").unwrap();
    assert_eq!(changes(&server, 2), [(Op::Put, 0, 4), (Op::Put, BLOCK, 4)]);
    close_after_loss(&server, &device);
}

#[test]
fn a_write_that_fails_twice_with_nothing_unflushed_fails_alone() {
    let server = server();
    let device = device_with(&server, b"data");
    device.flush().unwrap();
    server.fault(Fault::on(Op::Put).every().then(status(500)));
    assert_eq!(error(WRITE(&device)).errno(), Errno::Io);
    assert_eq!(device.failure(), None);
    assert_eq!(changes(&server, 1).len(), 2);
    server.clear_faults();
    // A server behind a proxy may still carry it out. The same content is no harm, and then nothing
    // is missing.
    WRITE(&device).unwrap();
    close_after_loss(&server, &device);
}

#[test]
fn a_server_that_fails_again_has_lost_what_was_unflushed() {
    for op in [Op::Put, Op::Flush] {
        let server = server();
        let device = device_with(&server, b"data");
        server.fault(Fault::on(op).every().then(status(500)));
        let failed = if op == Op::Put { WRITE(&device) } else { device.flush() };
        assert!(error(failed).to_string().contains("data may be lost"));
        assert_fails_for_good(&device, Errno::Io);
    }
}

#[test]
fn a_failed_flush_is_repeated_with_all_that_it_was_for() {
    let server = server();
    let device = device_with(&server, b"data");
    server.fault(Fault::on(Op::Flush).then(status(500)));
    device.flush().unwrap();
    assert_eq!(changes(&server, 1), [(Op::Put, 0, 4)]);
    close_after_loss(&server, &device);
}

#[test]
fn a_read_finds_what_a_server_has_forgotten() {
    let server = server();
    let device = device_with(&server, b"data");
    device.zero(6, 4, NO_FUA).unwrap();
    server.write(0, &[0xee; 64]).unwrap();
    let mut back = [1; 10];
    device.read(2, &mut back).unwrap();
    assert_eq!(back, *b"ta\xee\xee\0\0\0\0\xee\xee");
    close_after_loss(&server, &device);
}

#[test]
fn lent_memory_is_not_kept() {
    struct Lent(&'static [u8], std::sync::mpsc::Sender<()>);
    impl AsRef<[u8]> for Lent {
        fn as_ref(&self) -> &[u8] {
            self.0
        }
    }
    impl Drop for Lent {
        fn drop(&mut self) {
            self.1.send(()).unwrap();
        }
    }
    let server = server();
    let device = device_with(&server, b"data");
    let (sender, dropped) = std::sync::mpsc::channel();
    device.write(8, Bytes::from_owner(Lent(b"lent", sender)), false).unwrap();
    dropped.try_recv().unwrap();
    forget_all(&server);
    device.flush().unwrap();
    assert_eq!(server.read(8, 4).unwrap(), b"lent");
    close_after_loss(&server, &device);
}

#[test]
fn writes_that_overlap_wait_for_each_other() {
    let server = server();
    let device = start(settings(&server).with(|settings| settings.connections = Some(3)));
    let gate = Gate::new();
    server.fault(Fault::on(Op::Put).then(What::Block(gate.clone())));
    thread::scope(|scope| {
        scope.spawn(|| write(&device, 0, b"first").unwrap());
        assert!(gate.wait_reached(1, PATIENCE));
        let second = scope.spawn(|| write(&device, 4, b"second").unwrap());
        // A request that doesn't overlap overtakes.
        device.read(64, &mut [0]).unwrap_or_default();
        assert!(!second.is_finished());
        gate.open();
    });
    assert_eq!(server.read(0, 10).unwrap(), b"firssecond");
    close_after_loss(&server, &device);
}
