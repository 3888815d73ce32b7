// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stands in for an NBD server of another project's tests: it takes the server's command line,
//! starts the real server, a real imageio daemon for what that serves, and `imageio-nbd` where the
//! real server was to listen.
//!
//! `shim qemu-nbd ARGUMENTS…` and `shim nbdkit ARGUMENTS…`.

mod asked;
mod background;
mod door;
mod nbdkit;
mod qemu_nbd;
mod stack;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use support::TestResult;
use support::tools::{NBDKIT, QEMU_NBD, Tool};

use asked::Asked;
use stack::Stack;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            background::say(&format!("{}: {error}", arguments.first().map_or("shim", String::as_str)));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> TestResult<ExitCode> {
    let (program, rest) = arguments.split_first().ok_or("which server? qemu-nbd or nbdkit is expected")?;
    let (tool, asked) = match program.as_str() {
        "qemu-nbd" => (QEMU_NBD, qemu_nbd::read(rest)?),
        "nbdkit" => (NBDKIT, nbdkit::read(rest)?),
        _ => return Err("unknown server: qemu-nbd or nbdkit is expected".into()),
    };
    let Some(asked) = asked else { return Err(become_the_real_one(tool, rest).into()) };
    if asked.background && !background::is_there() {
        return background::start(arguments);
    }
    serve(tool, &asked)
}

/// It is not asked to serve: what it says of itself is its own.
fn become_the_real_one(tool: Tool, arguments: &[String]) -> std::io::Error {
    Command::new(tool.path()).args(arguments).exec()
}

fn serve(tool: Tool, asked: &Asked) -> TestResult<ExitCode> {
    // From the beginning: a signal that comes early would leave the others behind.
    let signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    if asked.ends_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    }
    let stack = Stack::start(tool, asked)?;
    let code = door::serve(&stack, asked, signals)?;
    stack.stop()?;
    Ok(ExitCode::from(code))
}
