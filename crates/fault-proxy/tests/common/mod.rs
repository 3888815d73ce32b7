// SPDX-License-Identifier: MIT OR Apache-2.0
//! Helpers for the two ends of a connection.
#![allow(unreachable_pub, reason = "each test file has a copy of it")]
#![allow(clippy::unwrap_used, reason = "these are tests, though clippy cannot tell")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than anything here takes; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Sends it, and returns when it has arrived.
#[track_caller]
pub fn assert_passes(mut from: &TcpStream, mut to: &TcpStream, data: &[u8]) {
    from.write_all(data).unwrap();
    let mut found = vec![0; data.len()];
    to.read_exact(&mut found).unwrap();
    assert_eq!(found, data);
}
