// SPDX-License-Identifier: MIT OR Apache-2.0
//! The debug flags, `-D imageio.NAME=1`. nbdkit looks for an `int` by name, and sets it before
//! `load`. What they show is shown with `-v` only, as all debugging in nbdkit.

#![allow(non_upper_case_globals, reason = "nbdkit makes the names from those on its command line")]

use std::sync::atomic::{AtomicI32, Ordering};

// An AtomicI32 has the size and alignment of an i32, which is C's int.

/// Shows each request with its duration.
#[unsafe(no_mangle)]
pub(crate) static imageio_debug_requests: AtomicI32 = AtomicI32::new(0);

/// Shows what the pool's keeper and the reopening of connections do.
#[unsafe(no_mangle)]
pub(crate) static imageio_debug_pool: AtomicI32 = AtomicI32::new(0);

/// Shows a table of all requests when the plugin is unloaded.
#[unsafe(no_mangle)]
pub(crate) static imageio_debug_stats: AtomicI32 = AtomicI32::new(0);

/// `-D imageio.requests=1`
pub(crate) fn requests() -> bool {
    imageio_debug_requests.load(Ordering::Relaxed) != 0
}

/// `-D imageio.pool=1`
pub(crate) fn pool() -> bool {
    imageio_debug_pool.load(Ordering::Relaxed) != 0
}

/// `-D imageio.stats=1`
pub(crate) fn stats() -> bool {
    imageio_debug_stats.load(Ordering::Relaxed) != 0
}
