// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that speaks HTTP well, with a document that is anything.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// `OPTIONS`, the extents, and what is dirty.
const ASKED: [u8; 3] = [0x00, 0x08, 0x09];

fuzz_target!(|document: &[u8]| {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", document.len());
    for which in ASKED {
        fuzz::ask_server(which, &[head.as_bytes(), document].concat());
    }
});
