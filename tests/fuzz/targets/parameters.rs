// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parameters and URLs, one in each line.
#![no_main]

use imageio_client::TransferUrl;
use imageio_config::Parser;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut parser = Parser::new();
    for line in text.lines() {
        if let Err(error) = parser.set_argument(line) {
            assert!(!error.to_string().is_empty());
        }
        if let Ok(url) = TransferUrl::parse(line) {
            // What is shown has no ticket, and still tells where.
            let shown = url.to_string();
            assert!(
                shown.starts_with(if shown.starts_with("https") { "https://" } else { "http://" }),
                "{shown:?}"
            );
            assert!(!url.authority().is_empty());
        }
    }
    let _ = parser.finish();
});
