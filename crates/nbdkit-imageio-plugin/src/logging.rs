// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log, by nbdkit's channel.

use std::panic;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::ffi::{channel, flags};

/// Passes the log on.
struct ToNbdkit;

static LOGGER: ToNbdkit = ToNbdkit;

/// From now on messages go to nbdkit, also those of panics.
pub(crate) fn start() {
    // It may be there from an earlier load.
    let first = log::set_logger(&LOGGER).is_ok();
    // Tests have a hook of their own.
    if first && cfg!(not(test)) {
        panic::set_hook(Box::new(|panic| {
            channel::error(&format!("bug: {panic}"));
        }));
    }
    log::set_max_level(LevelFilter::Debug);
}

/// From now on there are none: nbdkit is about to end.
pub(crate) fn stop() {
    log::set_max_level(LevelFilter::Off);
}

/// Returns true if a message is of interest: of our own crates all but the details, which have a
/// debug flag; of others only trouble.
fn is_shown(level: Level, target: &str, details: bool) -> bool {
    let ours = ["imageio_", "conn_pool", "engine_transfer", "ovirt_engine_client", "nbdkit_imageio_plugin"]
        .iter()
        .any(|name| target.starts_with(name));
    match level {
        Level::Error | Level::Warn => true,
        Level::Info => ours,
        Level::Debug => ours && details,
        Level::Trace => false,
    }
}

impl Log for ToNbdkit {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_shown(metadata.level(), metadata.target(), flags::pool())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match record.level() {
            Level::Error => channel::error(&record.args().to_string()),
            // nbdkit has no warnings.
            Level::Warn => channel::error(&format!("warning: {}", record.args())),
            _ => channel::debug(&format!("imageio: {}", record.args())),
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::channel::server::said;

    #[test]
    fn details_are_shown_if_asked_for() {
        assert!(is_shown(Level::Info, "imageio_device::link", false));
        assert!(!is_shown(Level::Debug, "conn_pool::keeper", false));
        assert!(is_shown(Level::Debug, "conn_pool::keeper", true));
        assert!(!is_shown(Level::Info, "hyper", true));
    }

    #[test]
    fn a_warning_is_told_as_one() {
        LOGGER.log(&Record::builder().level(Level::Warn).args(format_args!("mind this")).build());
        assert_eq!(said(), ["error: warning: mind this"]);
    }
}
