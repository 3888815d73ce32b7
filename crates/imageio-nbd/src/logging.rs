// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages: to standard error, and to syslog once the process is a daemon, whose standard error nobody sees; unless the
//! user says otherwise (`--log`).

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use env_logger::{Builder, Env, Target};
use log::LevelFilter;
use syslog::{Facility, Formatter3164, Logger, LoggerBackend};

use crate::cli::LogTo;

type Syslog = Logger<LoggerBackend, Formatter3164>;

static DESTINATION: Mutex<Destination> = Mutex::new(Destination::Stderr);

/// Where messages go.
enum Destination {
    Stderr,
    Syslog(Syslog),
    Nowhere,
}

/// Warnings and errors; with `verbose`, more.
pub(crate) fn init(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    Builder::new()
        // Others' details hold no more than ours, and might hold a request's path, which is the ticket.
        .filter_module("hyper", LevelFilter::Warn)
        .filter_module("rustls", LevelFilter::Warn)
        .filter_level(level)
        // Who serves what virt-v2v wanted of nbdkit is always told.
        .filter_module("imageio_nbd::virt_v2v", level.max(LevelFilter::Info))
        .parse_env(Env::default())
        .target(Target::Pipe(Box::new(Sink)))
        .format(|out, record| writeln!(out, "imageio-nbd: {}: {}", label(record.level()), record.args()))
        .init();
}

fn label(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "error",
        log::Level::Warn => "warning",
        log::Level::Info => "info",
        log::Level::Debug | log::Level::Trace => "debug",
    }
}

/// From now on, messages go where the user wants them.
pub(crate) fn to(place: LogTo) {
    match place {
        LogTo::Stderr => set(Destination::Stderr),
        LogTo::Syslog => to_syslog(),
        LogTo::Null => set(Destination::Nowhere),
    }
}

/// From now on, messages go to syslog, if there is one.
pub(crate) fn to_syslog() {
    let formatter = Formatter3164 {
        facility: Facility::LOG_DAEMON,
        hostname: None,
        process: "imageio-nbd".into(),
        pid: std::process::id(),
    };
    set(syslog::unix(formatter).map_or(Destination::Stderr, Destination::Syslog));
}

fn set(destination: Destination) {
    *DESTINATION.lock().unwrap_or_else(PoisonError::into_inner) = destination;
}

struct Sink;

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *DESTINATION.lock().unwrap_or_else(PoisonError::into_inner) {
            Destination::Stderr => io::stderr().write_all(line)?,
            Destination::Syslog(syslog) => {
                syslog.notice(String::from_utf8_lossy(line).trim_end()).map_err(io::Error::other)?;
            }
            Destination::Nowhere => {}
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
