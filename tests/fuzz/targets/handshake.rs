// SPDX-License-Identifier: MIT OR Apache-2.0
//! A negotiation fed with anything, at once and byte by byte: it takes the same bytes, and ends in
//! the same way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nbd_wire::{Export, Features, Handshake, MAX_DISCARD, Progress, SizeConstraints, Tls, TransmissionFlags};

fuzz_target!(|input: &[u8]| {
    let flags = TransmissionFlags::SEND_FLUSH | TransmissionFlags::SEND_FUA;
    let export = |name| Export::new(name, 1 << 20, flags, SizeConstraints::default()).expect("it is one");
    let export = |name, contexts: [&str; 3]| export(name).with_contexts(contexts).expect("they are some");
    let export = |name, contexts| export(name, contexts).with_tentative(|context| context > 0);
    let exports = [
        export("disk", ["base:allocation", "x:y", "x:z"]),
        export("other", ["x:z", "base:allocation", "a:b"]),
    ];
    let whole = feed(&exports, input, input.len().max(1));
    assert_eq!(whole, feed(&exports, input, 1));
});

/// Returns how it ended, what was answered, and how many bytes are left.
fn feed(exports: &[Export], mut input: &[u8], step: usize) -> (String, Vec<u8>, usize) {
    let mut handshake = Handshake::new(exports).with_features(Features::all()).with_tls(Tls::Offered);
    let mut output = Vec::new();
    while !input.is_empty() {
        assert!(handshake.wanted() <= MAX_DISCARD);
        let (mut now, later) = input.split_at(step.min(input.len()));
        let before = now.len();
        let mut progress = handshake.feed(&mut now, &mut output);
        assert!(now.len() < before, "it takes nothing, and wants {}", handshake.wanted());
        let left = now.len() + later.len();
        input = &input[input.len() - left..];
        if let Progress::LookUp { contexts, .. } = progress {
            progress = handshake.looked_up(contexts.filter(|context| context.index == 1), &mut output);
        }
        if progress == Progress::StartTls {
            // It goes on as if the rest had been encrypted.
            handshake.tls_started();
        } else if progress != Progress::Continue {
            return (format!("{progress:?}"), output, left);
        }
    }
    (String::new(), output, 0)
}
