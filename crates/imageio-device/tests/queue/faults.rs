// SPDX-License-Identifier: MIT OR Apache-2.0
//! The outcome that is told where something goes wrong.

use std::sync::mpsc::{Sender, channel};

use block_device_traits::{Batch, Completion, Errno, QueuedDevice, Request, Result};
use fake_imageio::{Fault, Gate, Op, What};

use crate::common::{PATIENCE, assert_fails_for_good, within_a_minute};
use crate::setup::{BLOCK, Setup, Told, write};

#[test]
fn a_refusal_is_told_to_nobody_else_though_they_were_merged() {
    for (op, errno) in [(Op::Put, Errno::NoSpc), (Op::Get, Errno::Inval)] {
        let setup = Setup::with_connections(1);
        let request =
            |block| if op == Op::Put { write(block) } else { Request::Read { offset: block * BLOCK } };
        let room = if op == Op::Put { 0 } else { BLOCK as usize };
        let gate = setup.hold_up();
        let refused = || What::Status { status: 416, text: "past the end".into() };
        setup.server.fault(Fault::on(op).offset(4 * BLOCK).then(refused()));
        setup.server.fault(Fault::on(op).offset(5 * BLOCK).every().then(refused()));
        for block in [5, 6, 4, 9] {
            setup.submit(block, request(block), room);
        }
        setup.let_go(&gate);
        for Told { name, result, .. } in setup.all([4, 5, 6, 9]) {
            let expected = if name == 5 { Err(errno) } else { Ok(()) };
            assert_eq!(result.map_err(|error| error.errno()), expected, "block {name}");
        }
        let together = (4 * BLOCK, 3 * BLOCK);
        let alone = [4, 5, 6, 9].map(|block| (block * BLOCK, BLOCK));
        let sent = setup.log(op);
        assert_eq!(sent.iter().filter(|sent| **sent == together).count(), 1, "{sent:?}");
        assert!(alone.iter().all(|alone| sent.contains(alone)), "{sent:?}");
        drop(setup.queue);
        assert_eq!(setup.device.close().is_err(), op == Op::Put, "what was not written is told");
    }
}

#[test]
fn a_connection_lost_with_a_write_on_its_way_fails_all_for_good() {
    within_a_minute(|| {
        let setup = Setup::fragile();
        let gate = setup.hold_up();
        setup.server.fault(Fault::on(Op::Put).then(What::LoseAnswer));
        // Three go together, the others wait.
        for block in [1, 2, 3, 10, 20] {
            setup.submit(block, write(block), 0);
        }
        setup.submit(30, Request::Read { offset: 30 * BLOCK }, BLOCK as usize);
        setup.let_go(&gate);
        for told in setup.all([1, 2, 3, 10, 20, 30]) {
            let error = told.result.unwrap_err();
            assert_eq!(error.errno(), Errno::Io);
            assert!(error.to_string().contains("data may be lost"), "{error}");
        }
        assert_eq!(setup.log(Op::Put).len(), 1, "nothing is sent after it");
        for request in [write(1), Request::Read { offset: 0 }, Request::Flush] {
            assert_eq!(setup.ask(request, 0).unwrap_err().errno(), Errno::Io);
        }
        assert_fails_for_good(&setup.device, Errno::Io);
    });
}

#[test]
fn a_failed_flush_is_told_to_all_that_waited() {
    let setup = Setup::fragile();
    setup.ask(write(1), 0).unwrap();
    let gate = Gate::new();
    setup.server.fault(Fault::on(Op::Flush).then(What::Block(gate.clone())));
    setup.server.fault(Fault::on(Op::Flush).then(What::Status { status: 500, text: "broken".into() }));
    (0..10).for_each(|name| setup.submit(name, Request::Flush, 0));
    assert!(gate.wait_reached(1, PATIENCE));
    gate.open();
    for told in setup.all(0..10) {
        assert_eq!(told.result.unwrap_err().errno(), Errno::Io);
    }
    assert_eq!(setup.server.log().of(Op::Flush).count(), 1);
    assert_fails_for_good(&setup.device, Errno::Io);
}

/// Memory that is lent once, when the request is submitted.
struct LendOnce(Vec<u8>, bool, Sender<Result<()>>);

impl Completion for LendOnce {
    fn buffer(&mut self) -> &mut [u8] {
        assert!(!std::mem::replace(&mut self.1, true), "this panic is part of the test");
        &mut self.0
    }

    fn complete(self: Box<Self>, result: Result<()>, _batch: &mut Batch) {
        self.2.send(result).unwrap();
    }
}

#[test]
fn a_panic_while_a_request_is_carried_out_fails_the_transfer_and_says_so() {
    let setup = Setup::with_connections(2);
    setup.ask(write(1), 0).unwrap();
    let (tell, told) = channel();
    setup.queue.submit(Request::Read { offset: 0 }, Box::new(LendOnce(vec![0; 4], false, tell)));
    let error = told.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(error.to_string().contains("data may be lost: bug: "), "{error}");
    assert_fails_for_good(&setup.device, Errno::Io);
}
