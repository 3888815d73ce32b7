// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages: to standard error, and to syslog once the process is a daemon, whose standard error
//! nobody sees; unless the user says otherwise (`--log`). They are text for people and journals, or
//! JSON for programs (`--log-format`).

use std::fmt;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

use env_logger::fmt::Formatter;
use env_logger::{Builder, Env, Target};
use log::{LevelFilter, Record};
use serde::Serialize;
use syslog::{Facility, Formatter3164, Logger, LoggerBackend};

use crate::cli::{LogFormat, LogTo};
use crate::progress::StandardError;
use crate::writing;

type Syslog = Logger<LoggerBackend, Formatter3164>;

static DESTINATION: Mutex<Destination> = Mutex::new(Destination::Stderr);

/// The destination of messages.
enum Destination {
    Stderr,
    Syslog(Syslog),
    Nowhere,
}

/// The target of messages that somebody has asked for, so that they are told whatever the level is.
pub(crate) const ASKED_FOR: &str = "imageio_nbd::asked_for";

/// Warnings and errors; with `verbose`, more.
pub(crate) fn init(verbose: u8, format: LogFormat) {
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    Builder::new()
        // Others' details hold no more than ours, and might hold a request's path, which is the
        // ticket.
        .filter_module("hyper", LevelFilter::Warn)
        .filter_module("rustls", LevelFilter::Warn)
        .filter_level(level)
        // The log always tells which program serves what virt-v2v wanted of nbdkit.
        .filter_module("imageio_nbd::virt_v2v", level.max(LevelFilter::Info))
        .filter_module(ASKED_FOR, level.max(LevelFilter::Info))
        .parse_env(Env::default())
        .target(Target::Pipe(Box::new(Sink)))
        .format(move |out, record| match format {
            _ if may_hold_secrets(record) => Ok(()),
            LogFormat::Text => text(out, record),
            LogFormat::Json => json(out, record),
        })
        .init();
    if format == LogFormat::Json {
        panic::set_hook(Box::new(|panic| tell_panic(panic, &mut io::stderr())));
    }
}

/// Returns true if a message isn't told, whatever `RUST_LOG` says: the engine's client dumps what
/// it sends and receives, with passwords and tokens.
fn may_hold_secrets(record: &Record<'_>) -> bool {
    record.level() > LevelFilter::Warn && record.target().starts_with("ureq")
}

/// A panic is a message, too. One in the middle of another is written past the locks that its
/// thread holds then.
fn tell_panic(panic: &dyn fmt::Display, stderr: &mut dyn Write) {
    if !writing::is_under_way() {
        return log::error!("bug: {panic}");
    }
    let message = Message {
        time: &format!("{:.6}", jiff::Timestamp::now()),
        level: "error",
        target: module_path!(),
        message: &format!("bug: {panic}"),
    };
    // There is nobody left to tell that this can't be told.
    let _ = message.write(stderr);
}

fn text(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    writeln!(out, "imageio-nbd: {}: {}", label(record.level()), readable(&record.args().to_string()))
}

/// A text in one line, without what a terminal would take for a command: the name of a file may
/// have both.
pub(crate) fn readable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// A message as programs read it. Its names stay.
#[derive(Serialize)]
struct Message<'a> {
    /// RFC 3339, in UTC.
    time: &'a str,
    level: &'a str,
    target: &'a str,
    message: &'a str,
}

/// One object a line, whatever is in the message.
fn json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let message = Message {
        time: &out.timestamp_micros().to_string(),
        level: &record.level().as_str().to_ascii_lowercase(),
        target: record.target(),
        message: &record.args().to_string(),
    };
    message.write(out)
}

impl Message<'_> {
    fn write(&self, mut out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut out, self)?;
        writeln!(out)
    }
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

impl Destination {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => StandardError.write_all(line),
            Self::Syslog(syslog) => {
                syslog.notice(String::from_utf8_lossy(line).trim_end()).map_err(io::Error::other)
            }
            Self::Nowhere => Ok(()),
        }
    }
}

/// The logger has a lock of its own around this, and could not take it again after a panic.
fn catch(write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let written = panic::catch_unwind(AssertUnwindSafe(write));
    written.unwrap_or_else(|_| Err(io::Error::other("writing a message panicked")))
}

struct Sink;

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        catch(|| writing::write(|| DESTINATION.lock().unwrap_or_else(PoisonError::into_inner).write(line)))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_text_is_one_line_for_a_terminal() {
        assert_eq!(readable("a\nb\x1b[31m 'é'"), "a\\nb\\u{1b}[31m 'é'");
    }

    #[test]
    fn a_panic_in_the_middle_of_a_message_is_a_message_and_waits_for_no_lock() {
        let mut out = Vec::new();
        let caught = catch(|| {
            writing::write(|| {
                let _held = DESTINATION.lock();
                tell_panic(&"of\nsomebody", &mut out);
                panic!("of this test");
            })
        });
        assert!(caught.is_err());
        let told: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&told["level"], &told["message"]), (&"error".into(), &"bug: of\nsomebody".into()));
        let time = told["time"].as_str().unwrap();
        assert!(time.len() == "2026-01-02T03:04:05.678901Z".len() && time.ends_with('Z'), "{time}");
        // Others go the way of all messages.
        out.clear();
        tell_panic(&"of somebody", &mut out);
        assert_eq!(out, b"");
    }
}
