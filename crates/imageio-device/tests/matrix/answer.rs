// SPDX-License-Identifier: MIT OR Apache-2.0
//! One answer that is no success, to one operation: the disk is the same in the end, also after a
//! power cut, or somebody is told, by an error of the request or of closing the device.

use std::fmt;

use block_device_traits::{BlockDevice, Result};
use bytes::Bytes;
use fake_imageio::{Done, FakeServer, Fault, Gate, Op, What};
use imageio_device::{Device, Transfer};
use libtest_mimic::Trial;

use crate::common::{NO_FUA, PATIENCE, close_idle, line, settings};

const STATUSES: &[u16] =
    &[202, 204, 302, 400, 401, 403, 404, 405, 408, 411, 413, 416, 429, 500, 502, 503, 504];

/// By these, the server says nothing about whether it will carry a change out.
const IN_DOUBT: &[u16] = &[202, 204, 302, 408, 413, 429, 500, 502, 503, 504];

const OPERATIONS: &[Op] = &[Op::Options, Op::Get, Op::Put, Op::Zero, Op::Flush];

const SIZE: usize = 64 << 10;
const LEN: usize = 4096;
/// The place where something is written before, and not flushed.
const DIRTY_AT: usize = 0;
/// The place of the operation.
const AT: usize = 16 << 10;

/// The server's deed besides answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Nothing,
    All,
    Part,
    /// All, after something else was written there.
    Late,
    /// It has lost the way to the disk, and what was unflushed there.
    Loss,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    op: Op,
    status: u16,
    deed: Deed,
    is_dirty: bool,
    closes: bool,
}

pub(crate) fn trials() -> Vec<Trial> {
    let trial = |cell: Cell| {
        Trial::test(cell.to_string(), move || {
            cell.run();
            Ok(())
        })
    };
    let mut trials = Vec::new();
    for &op in OPERATIONS {
        for &status in STATUSES {
            for deed in [Deed::Nothing, Deed::All, Deed::Part, Deed::Late, Deed::Loss] {
                for (is_dirty, closes) in [(false, false), (false, true), (true, false), (true, true)] {
                    let cell = Cell { op, status, deed, is_dirty, closes };
                    trials.extend(cell.is_possible().then(|| trial(cell)));
                }
            }
        }
    }
    trials
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, status, deed, .. } = self;
        let connection = if self.is_dirty { "dirty" } else { "clean" };
        let end = if self.closes { "closed" } else { "open" };
        write!(f, "answer/{op:?}/{status}/{deed:?}/{connection}/{end}")
    }
}

impl Cell {
    fn is_possible(&self) -> bool {
        let is_change = matches!(self.op, Op::Put | Op::Zero);
        let is_there = match self.deed {
            Deed::Nothing => true,
            Deed::All => is_change || self.op == Op::Flush,
            Deed::Part => is_change,
            Deed::Late => is_change && IN_DOUBT.contains(&self.status),
            // The connection to the client stays open.
            Deed::Loss => self.status >= 500 && self.is_dirty && !self.closes,
        };
        // A clean connection has nothing to flush, and a transfer that is yet to be opened is
        // clean.
        is_there && (self.op != Op::Flush || self.is_dirty) && (self.op != Op::Options || !self.is_dirty)
    }

    fn run(self) {
        let server = FakeServer::builder().contents(vec![0xee; SIZE]).volatile(true).start().unwrap();
        let settings = settings(&server).with(|settings| {
            settings.connections = Some(1);
            settings.reconnect_timeout = PATIENCE;
        });
        let gate = Gate::new();
        if self.op == Op::Options {
            server.fault(self.fault(&gate));
            return match Transfer::open(settings) {
                Ok(transfer) => assert_eq!(transfer.size(), SIZE as u64),
                Err(error) => drop(line(&error)),
            };
        }
        let device = Transfer::open(settings).unwrap().start().unwrap();
        let mut disk = Expected(vec![Some(0xee); SIZE]);
        if self.is_dirty {
            disk.write(&device, DIRTY_AT, 0xd1).unwrap();
        }
        server.fault(self.fault(&gate));
        self.operate(&device, &mut disk);
        assert!(server.log().requests.iter().any(|request| request.fault.is_some()), "no fault");
        if self.deed == Deed::Late {
            // The other content may be refused, but not be replaced by the first.
            let _ = disk.write(&device, AT, 0xcc);
            // If it is durable, it isn't written again. If it isn't, the next flush tells.
            let _ = device.flush();
            gate.open();
            close_idle(&server);
        }
        if device.flush().is_ok() {
            let close = device.close();
            disk.assert_there(&server);
            let is_told = close.map_err(|error| line(&error)).is_err();
            assert!(is_told || disk.is_known(), "nobody is told at the end");
        } else {
            device.close().unwrap_err();
        }
    }

    fn fault(&self, gate: &Gate) -> Fault {
        let (status, text, close) = (self.status, "for a reason".to_owned(), self.closes);
        let answer = |done| What::Answer { status, text, done, close };
        Fault::on(self.op).then(match self.deed {
            Deed::Nothing => answer(Done::Not),
            Deed::All => answer(Done::Yes),
            Deed::Part => answer(Done::Part(LEN as u64 / 2)),
            Deed::Late => answer(Done::Late(gate.clone())),
            Deed::Loss => What::LoseWay { status, all: true, done: Done::Not },
        })
    }

    fn operate(&self, device: &Device, disk: &mut Expected) {
        let told = match self.op {
            Op::Get => {
                let mut found = vec![0; LEN];
                let read = device.read(AT as u64, &mut found);
                assert!(read.is_err() || found == [0xee; LEN], "the read differs");
                read
            }
            Op::Put => disk.write(device, AT, 0xaa),
            Op::Zero => disk.zero(device, AT),
            _ => device.flush(),
        };
        told.unwrap_or_else(|error| drop(line(&error)));
    }
}

/// The content that the disk has to hold, where that is known: not where a change failed.
struct Expected(Vec<Option<u8>>);

impl Expected {
    fn write(&mut self, device: &Device, at: usize, byte: u8) -> Result<()> {
        let result = device.write(at as u64, Bytes::from(vec![byte; LEN]), false);
        self.0[at..at + LEN].fill(result.is_ok().then_some(byte));
        result
    }

    fn zero(&mut self, device: &Device, at: usize) -> Result<()> {
        let result = device.zero(at as u64, LEN as u64, NO_FUA);
        self.0[at..at + LEN].fill(result.is_ok().then_some(0));
        result
    }

    fn is_known(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }

    /// A flush has succeeded, so it is there after a power cut, too.
    #[track_caller]
    fn assert_there(&self, server: &FakeServer) {
        let differs = |(expected, found): (&Option<u8>, &u8)| expected.is_some_and(|byte| byte != *found);
        let first_difference = || self.0.iter().zip(&server.contents().unwrap()).position(differs);
        assert_eq!(first_difference(), None, "the disk differs from there on");
        server.cut_power().unwrap();
        assert_eq!(first_difference(), None, "after a power cut, the disk differs from there on");
    }
}
