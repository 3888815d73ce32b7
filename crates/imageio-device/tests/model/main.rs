// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random clients, servers, faults and losses, against a model of what a disk may hold then.
//!
//! `SEEDS=10000 cargo test -p imageio-device --test model` tries more of them; `SEED=123` only that
//! one. With `-- --nocapture`, it shows how often each kind of server and fault was met.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "the outcome of a test")]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod history;
mod misfortune;
mod run;
mod scenario;
mod tally;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use common::within_a_minute;
use run::{Outcome, run};
use scenario::Scenario;
use tally::Tally;

/// Runs that failed once.
const REGRESSIONS: &[u64] = &[216, 2711, 2896, 3420, 3688, 3869];

/// This number of seeds is enough to meet everything.
const ENOUGH: usize = 1000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

#[test]
fn nothing_is_lost_unsaid() {
    let seeds: Vec<_> = match number("SEED") {
        Some(seed) => vec![seed],
        None => REGRESSIONS.iter().copied().chain(1..=number("SEEDS").unwrap_or(2000)).collect(),
    };
    let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    // Most of the time they wait.
    let threads = 16 * thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = outcome(seed);
                    tally.lock().unwrap().add(seed, outcome);
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    // Cargo shows it where a test fails, or with --nocapture.
    println!("{tally}");
    if let Some((seed, _)) = tally.wrong.first_key_value() {
        println!("SEED={seed} is {:#?}", Scenario::new(*seed));
    }
    assert!(tally.wrong.is_empty(), "{} of {} seeds failed", tally.wrong.len(), seeds.len());
    let never = tally.never_met();
    assert!(seeds.len() < ENOUGH || never.is_empty(), "never met: {never:?}");
}

/// A panic, also one by taking too long, is as wrong as a loss.
fn outcome(seed: u64) -> Outcome {
    let (tell, told) = mpsc::channel();
    let within = catch_unwind(AssertUnwindSafe(|| {
        within_a_minute(move || tell.send(run(&Scenario::new(seed))).unwrap());
    }));
    within.map(|()| told.recv().unwrap()).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
        let wrong = Some(format!("panic: {text}"));
        Outcome { wrong, is_closed: false, is_answered: false, labels: [].into() }
    })
}
