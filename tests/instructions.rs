// SPDX-License-Identifier: MIT OR Apache-2.0
//! The innermost loops take no more instructions than they did.

use std::io::{self, Write};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use support::instructions::{COUNTED, Counted};
use support::tools::{VALGRIND, trial};

/// Another compiler or libc makes some difference.
const TOLERANCE_PERCENT: u64 = 15;

fn main() -> ExitCode {
    let test = |counted: Counted| {
        let name = format!("{}_takes_no_more_instructions_than_it_did", counted.bench);
        let trial = trial(name, &[VALGRIND], move || check(&counted));
        // The recorded figures are of this one.
        let is_recorded = cfg!(target_arch = "x86_64");
        if is_recorded { trial } else { trial.with_ignored_flag(true) }
    };
    let trials: Vec<Trial> = COUNTED.into_iter().map(test).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn check(counted: &Counted) -> Result<(), Failed> {
    let Counted { bench, work, recorded, .. } = *counted;
    let count = counted.count().map_err(|error| error.to_string())?;
    let said = format!("{bench}: {work}: {count} instructions, {recorded} recorded");
    writeln!(io::stderr(), "{said}")?;
    if count > recorded + recorded * TOLERANCE_PERCENT / 100 {
        return Err(format!("{said}: see tests/support/instructions.rs").into());
    }
    Ok(())
}
