// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that says anything.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The first byte chooses the request, and the others are the answer.
    if let Some((&which, answer)) = input.split_first() {
        fuzz::ask_server(which, answer);
    }
});
