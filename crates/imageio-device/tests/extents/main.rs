// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device tells the extents of its ranges, and reads less because of them.
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
