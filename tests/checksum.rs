// SPDX-License-Identifier: MIT OR Apache-2.0
//! `imageio-nbd checksum`: the server's checksum is that of the image that was uploaded, and of no
//! other.

#![allow(clippy::unwrap_used)]

#[path = "support/checksum/disks.rs"]
mod disks;
#[path = "support/checksum/failures.rs"]
mod failures;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use support::TestResult;
use support::daemon::Daemons;
use support::run::{Ended, imageio_nbd};
use support::tools::trial;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // The daemons end when this is dropped, after the last trial.
    let daemons = Arc::new(Daemons::default());
    let mut trials: Vec<Trial> = Vec::new();
    for (name, tools, run) in disks::tests() {
        let daemons = Arc::clone(&daemons);
        trials.push(trial(name, &tools, move || run(&daemons).map_err(|error| error.to_string().into())));
    }
    for (name, tools, run) in failures::TESTS {
        trials.push(trial(*name, tools, || {
            run();
            Ok(())
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test with a real daemon.
type Run = Box<dyn FnOnce(&Daemons) -> TestResult + Send>;

fn checksum(dir: &Path, parameters: &[String], options: &[&str]) -> Ended {
    let words = [&["checksum".to_owned()], parameters].concat();
    let words: Vec<_> = words.iter().map(String::as_str).chain(options.iter().copied()).collect();
    imageio_nbd(dir, &words).unwrap()
}

/// The first words of the lines.
fn sums(ended: &Ended) -> Vec<&str> {
    ended.out.lines().filter_map(|line| line.split_once("  ").map(|(sum, _)| sum)).collect()
}
