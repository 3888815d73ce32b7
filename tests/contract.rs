// SPDX-License-Identifier: MIT OR Apache-2.0
//! The promises on which clients may rely: the same cases against the fake server and against the
//! real daemon, so that what the other tests learn from the fake is true of the real one.

#[path = "support/contract/cases.rs"]
mod cases;
#[path = "support/contract/setup.rs"]
mod setup;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use cases::CASES;
use setup::{Server, Setup, Via};
use support::daemon::Daemons;
use support::tools::{IMAGEIO, QEMU_IMG, QEMU_NBD, Tool, trial};

/// Servers, ways to reach them, and what that takes.
const TARGETS: &[(&str, Server, Via, &[Tool])] = &[
    ("fake-memory/http", Server::FakeMemory, Via::Http, &[]),
    ("fake-memory/https", Server::FakeMemory, Via::Https, &[]),
    ("fake-memory/unix", Server::FakeMemory, Via::Unix, &[]),
    ("fake-file/http", Server::FakeFile, Via::Http, &[]),
    ("fake-file/abstract", Server::FakeFile, Via::AbstractUnix, &[]),
    ("real-file/http", Server::RealFile, Via::Http, &[IMAGEIO]),
    ("real-file/unix", Server::RealFile, Via::Unix, &[IMAGEIO]),
    ("real-nbd-raw/https", Server::RealNbd("raw"), Via::Https, &[IMAGEIO, QEMU_NBD, QEMU_IMG]),
    ("real-nbd-qcow2/http", Server::RealNbd("qcow2"), Via::Http, &[IMAGEIO, QEMU_NBD, QEMU_IMG]),
    ("real-nbd-qcow2/unix", Server::RealNbd("qcow2"), Via::Unix, &[IMAGEIO, QEMU_NBD, QEMU_IMG]),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // The daemons end when this is dropped, after the last trial.
    let world = Arc::new(Daemons::default());
    let mut trials: Vec<Trial> = Vec::new();
    for (target, server, via, tools) in TARGETS {
        for case in CASES {
            let world = Arc::clone(&world);
            trials.push(trial(format!("{target}/{}", case.name), tools, move || {
                let mut setup = Setup::new(&world, *server, *via, case.needs)?;
                (case.run)(&mut setup).map_err(|error| error.to_string().into())
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
