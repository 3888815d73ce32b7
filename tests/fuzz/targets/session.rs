// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that says anything to the server, from the first byte on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nbd_wire::Handshake;

fuzz_target!(|said: &[u8]| {
    let answers = fuzz::serve_client(said);
    assert!(answers.is_empty() || answers.starts_with(&Handshake::greeting()));
});
