// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that says anything through TLS, and one that says anything in place of TLS.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// The beginning of replies to options.
const REPLY: &[u8] = &[0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9];

/// Records of TLS: of changing ciphers, alerts, the handshake, and data.
const RECORDS: std::ops::RangeInclusive<u8> = 20..=23;

fuzz_target!(|input: &[u8]| {
    let Some((&how, said)) = input.split_first() else { return };
    if how == 0 {
        let answers = fuzz::serve_garbage_for_tls(said);
        assert!(answers.first().is_none_or(|first| RECORDS.contains(first)), "{answers:x?}");
        return;
    }
    // The size of records, and the version.
    let answers = fuzz::serve_tls_client(how % 2 == 1, usize::from(how), said);
    // EXPORT_NAME is answered by the size.
    let is_size = |size: usize| answers.starts_with(&(size as u64).to_be_bytes());
    let is_cut = answers.len() < 8;
    assert!(is_cut || answers.starts_with(REPLY) || fuzz::SIZES.into_iter().any(is_size), "{answers:x?}");
});
