// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device tells of its ranges, and what it doesn't read because of that.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

#[path = "../common/mod.rs"]
mod common;

mod asking;
mod changes;
mod clean_as_holes;
mod dirty;
mod failures;
mod queued;
mod reads;
mod setup;
