// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plugin in real nbdkit, with real clients, against a fake server.
//!
//! A test whose tools are missing says 'not tested', and passes unless `CI` is set.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

mod copying;
mod debugging;
mod errors;
mod extents;
mod filters;
mod leaks;
mod lifecycle;
mod options;
mod refusals;
mod support;
