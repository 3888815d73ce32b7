// SPDX-License-Identifier: MIT OR Apache-2.0
//! Zeroes that are longer than one request of the pool.

use block_device_traits::{Batch, Completion, Errno, QueuedDevice, Request, Result, ZeroFlags};
use fake_imageio::{Fault, Gate, Op, What};
use imageio_device::NoHole;

use crate::common::{FUA, NO_FUA, PATIENCE, close_well, error, status};
use crate::setup::{BLOCK, Setup, write};

const GIB: u64 = 1 << 30;
/// The server zeroes so much at a time.
const STEP: u64 = 128 << 20;
const TIB: u64 = 1 << 40;
/// Of so many pieces that a thread which is started meanwhile comes before the last one.
const LONG: u64 = 128 * GIB;

fn setup() -> Setup {
    Setup::of_size(TIB, |settings| settings.with(|settings| settings.connections = Some(1)))
}

fn zero(len: u64, flags: ZeroFlags) -> Request {
    Request::Zero { offset: 0, len, flags }
}

/// Submits a zero, and waits until its first piece is at the server.
fn zero_until_the_first_piece(setup: &Setup, len: u64) -> Gate {
    let gate = Gate::new();
    setup.server.fault(Fault::on(Op::Zero).then(What::Block(gate.clone())));
    setup.submit(1, zero(len, NO_FUA), 0);
    assert!(gate.wait_reached(1, PATIENCE));
    gate
}

fn close(setup: &Setup) -> Result<()> {
    setup.device.close()
}

#[test]
fn what_waits_comes_between_the_pieces() {
    let setup = setup();
    setup.ask(write(0), 0).unwrap();
    let gate = zero_until_the_first_piece(&setup, LONG);
    setup.submit(2, Request::Flush, 0);
    setup.submit(3, Request::Read { offset: 10 * GIB }, 1);
    gate.open();
    assert!(setup.all([1, 2, 3]).iter().all(|told| told.result.is_ok()));
    let log = setup.server.log();
    let at = |op| log.requests.iter().position(|request| request.op == op && request.connection > 1).unwrap();
    let last_zero = log.requests.iter().rposition(|request| request.op == Op::Zero).unwrap();
    assert!(at(Op::Flush) < last_zero && at(Op::Get) < last_zero, "{} {last_zero}", at(Op::Flush));
    assert!(log.of(Op::Zero).map(|zero| zero.size).eq(std::iter::repeat_n(STEP, (LONG / STEP) as usize)));
    close_well(&setup.server, &setup.device);
}

#[test]
fn every_piece_is_durable_where_the_zero_has_to_be() {
    let setup = setup();
    setup.ask(zero(2 * GIB, FUA), 0).unwrap();
    let flushed: Vec<_> =
        setup.server.log().of(Op::Zero).filter(|zero| zero.flush).map(|zero| zero.offset).collect();
    assert_eq!(flushed, [GIB - STEP, 2 * GIB - STEP]);
    close_well(&setup.server, &setup.device);
}

#[test]
fn a_server_that_stops_does_not_wait_for_the_pieces_that_are_left() {
    let setup = setup();
    let gate = zero_until_the_first_piece(&setup, 3 * GIB);
    setup.queue.stopping();
    gate.open();
    assert_eq!(error(setup.next().result).errno(), Errno::Shutdown);
    assert_eq!(setup.server.log().of(Op::Zero).count() as u64, GIB / STEP);
    let missing = error(close(&setup)).to_string();
    assert!(missing.contains(&(2 * GIB).to_string()) && missing.contains("did not come so far"), "{missing}");
}

/// A completion whose client is gone.
struct Unwanted(Box<dyn Completion>);

impl Completion for Unwanted {
    fn is_wanted(&self) -> bool {
        false
    }

    fn complete(self: Box<Self>, result: Result<()>, batch: &mut Batch) {
        self.0.complete(result, batch);
    }
}

#[test]
fn a_zero_of_a_client_that_is_gone_does_not_come_over_what_others_write() {
    let setup = setup();
    let gate = Gate::new();
    setup.server.fault(Fault::on(Op::Zero).then(What::Block(gate.clone())));
    setup.queue.submit(zero(3 * GIB, NO_FUA), Box::new(Unwanted(setup.completion(1, 0))));
    assert!(gate.wait_reached(1, PATIENCE));
    let later = Request::Write { offset: 2 * GIB, data: vec![7; BLOCK as usize].into(), fua: false };
    setup.submit(2, later, 0);
    gate.open();
    let told = setup.all([1, 2]);
    assert_eq!(told[0].result.as_ref().unwrap_err().errno(), Errno::Io);
    assert_eq!(told[1].result, Ok(()));
    assert_eq!(setup.server.log().of(Op::Zero).count() as u64, GIB / STEP);
    assert_eq!(setup.ask(Request::Read { offset: 2 * GIB }, 2), Ok(vec![7, 7]));
    let missing = error(close(&setup)).to_string();
    assert!(missing.contains("did not come so far"), "{missing}");
}

#[test]
fn pieces_that_are_not_tried_after_a_failure_are_missing_too() {
    let setup = setup();
    setup.server.fault(Fault::on(Op::Zero).offset(GIB).then(status(400)));
    assert!(setup.ask(zero(3 * GIB, NO_FUA), 0).is_err());
    // The piece that failed is written later.
    setup.ask(Request::Zero { offset: GIB, len: GIB, flags: NO_FUA }, 0).unwrap();
    let missing = error(close(&setup)).to_string();
    assert!(missing.contains(&(2 * GIB).to_string()), "{missing}");
}

#[test]
fn zeroes_that_are_written_leave_room_for_others_as_well() {
    let setup = Setup::of_size(TIB, |settings| {
        settings.with(|settings| {
            settings.no_hole = NoHole::Write;
            settings.connections = Some(1);
        })
    });
    setup.ask(zero(9 * BLOCK + (4 << 20), ZeroFlags { no_hole: true, ..NO_FUA }), 0).unwrap();
    let sent: Vec<_> = setup.server.log().of(Op::Put).map(|put| (put.offset, put.size)).collect();
    assert_eq!(sent, [(0, 2 << 20), (2 << 20, 2 << 20), (4 << 20, 9 * BLOCK)]);
    close_well(&setup.server, &setup.device);
}
