// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parameters and URLs, one in each line.
#![no_main]

use imageio_client::TransferUrl;
use imageio_config::{Exports, Parser};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (mut parser, mut exports) = (Parser::new(), Exports::new());
    for line in text.lines() {
        for error in
            [parser.set_argument(line), exports.set_argument(line)].into_iter().filter_map(Result::err)
        {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains(|c: char| c.is_control()), "{text:?}");
        }
        if let Ok(url) = TransferUrl::parse(line) {
            // The text that is shown has no ticket, and still tells where.
            let shown = url.to_string();
            assert!(
                shown.starts_with(if shown.starts_with("https") { "https://" } else { "http://" }),
                "{shown:?}"
            );
            assert!(!url.authority().is_empty());
        }
    }
    let _ = (parser.finish(), exports.finish());
});
