// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that has chosen its export, and then asks for anything.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// The client's flags, no zeroes wanted, and EXPORT_NAME with the empty name.
const CHOICE: &[u8] = b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0";

fuzz_target!(|requests: &[u8]| {
    let answers = fuzz::serve_client(&[CHOICE, requests].concat());
    // A reset may take the start along.
    assert!(answers.is_empty() || answers.starts_with(b"NBDMAGIC"));
});
