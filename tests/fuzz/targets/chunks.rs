// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that has chosen one of two exports and its metadata contexts, with structured replies
//! or extended headers, and then asks for anything.
#![no_main]

use fuzz::{Chosen, check_chunks, serve_client};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&how, requests)) = input.split_first() else { return };
    let chosen = Chosen { extended: how & 1 != 0, other: how & 2 != 0 };
    let answers = serve_client(&[&chosen.said(), requests].concat());
    check_chunks(chosen, &answers);
});
