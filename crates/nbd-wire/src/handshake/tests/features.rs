// SPDX-License-Identifier: MIT OR Apache-2.0
//! Structured replies and extended headers, and what else depends on them.

use super::meta_context::query;
use super::*;

/// The first is all that an export can do; the second has no contexts.
fn capable() -> Vec<Export> {
    let flags = TransmissionFlags::SEND_DF | TransmissionFlags::BLOCK_STATUS_PAYLOAD;
    let flags = flags | TransmissionFlags::SEND_TRIM | TransmissionFlags::SEND_CACHE;
    let export = |name| Export::new(name, 7, flags, SizeConstraints::default()).unwrap();
    vec![export("one").with_contexts(["base:allocation"]).unwrap(), export("zwei")]
}

/// The types of the last replies to `options`, and how it ended.
fn ends<'e>(features: Features, exports: &'e [Export], options: &[Vec<u8>]) -> (Vec<u32>, Progress<'e>) {
    let mut handshake = Handshake::new(exports).with_features(features);
    feed_all(&mut handshake, &3u32.to_be_bytes());
    let mut ends = Vec::new();
    for option in options {
        match feed_all(&mut handshake, option) {
            (output, Progress::Continue) => ends.push(parse(&output).last().unwrap().1),
            (_, end) => return (ends, end),
        }
    }
    (ends, Progress::Continue)
}

#[test]
fn each_feature_is_offered_for_itself() {
    let exports = exports();
    let both = [option(8, b""), option(11, b"")];
    for (features, expected) in [
        (Features::empty(), [UNSUP, UNSUP]),
        (Features::STRUCTURED_REPLY, [ACK, UNSUP]),
        (Features::EXTENDED_HEADERS, [UNSUP, ACK]),
        (Features::all(), [ACK, ACK]),
    ] {
        assert_eq!(ends(features, &exports, &both).0, expected);
    }
}

#[test]
fn metadata_contexts_are_offered_for_themselves() {
    let exports = capable();
    let options = [option(8, b""), query(9, "one", &[""; 0]), query(10, "one", &["base:allocation"])];
    for (features, expected) in [
        (Features::all(), [ACK, ACK, ACK]),
        (Features::all() - Features::META_CONTEXT, [ACK, UNSUP, UNSUP]),
        (Features::META_CONTEXT, [UNSUP, ACK, INVALID]),
    ] {
        assert_eq!(ends(features, &exports, &options).0, expected, "{features:?}");
    }
}

#[test]
fn they_take_no_data_and_may_be_repeated() {
    let exports = exports();
    for number in [8, 11] {
        let options = [option(number, b"x"), option(number, b""), option(number, b""), option(number, b"x")];
        assert_eq!(ends(Features::all(), &exports, &options).0, [INVALID, ACK, ACK, INVALID]);
        let long = [option(number, &[0; MAX_OPTION_DATA + 1])];
        assert_eq!(ends(Features::all(), &exports, &long).0, [TOO_BIG]);
    }
}

#[test]
fn nobody_goes_back_from_extended_headers_to_structured_replies() {
    let exports = exports();
    let options = [option(11, b""), option(8, b""), option(8, b"x"), info(7, "one", &[])];
    let (ends, progress) = ends(Features::all(), &exports, &options);
    assert_eq!(ends, [ACK, EXT_HEADER_REQD, INVALID]);
    let expected = Negotiated::new(&exports[0], true, ReplyStyle::Extended, Contexts::default());
    assert_eq!(progress, Progress::Transmission(expected));
}

#[test]
fn what_was_refused_changes_nothing() {
    let exports = exports();
    let options = [option(8, b"x"), option(11, b"x"), info(7, "one", &[])];
    let (_, progress) = ends(Features::all(), &exports, &options);
    assert_eq!(progress, Progress::Transmission(simple(&exports[0], true)));
}

#[test]
fn after_extended_headers_the_export_must_be_chosen_by_go() {
    let exports = exports();
    let (_, progress) = ends(Features::all(), &exports, &[option(11, b""), option(1, b"one")]);
    assert_eq!(progress, Progress::Close(Close::ExportNameForbidden));
    let (_, progress) = ends(Features::all(), &exports, &[option(8, b""), option(1, b"one")]);
    let structured = Negotiated::new(&exports[0], true, ReplyStyle::Structured, Contexts::default());
    assert_eq!(progress, Progress::Transmission(structured));
}

#[test]
fn the_style_tells_the_length_of_request_headers() {
    assert_eq!(ReplyStyle::Simple.request_header_len(), 28);
    assert_eq!(ReplyStyle::Structured.request_header_len(), 28);
    assert_eq!(ReplyStyle::Extended.request_header_len(), 32);
}

/// The flags that every client is told: HAS_FLAGS, TRIM, and CACHE.
const ALWAYS: u16 = 0x0421;
const DF: u16 = 0x80;
const PAYLOAD: u16 = 0x1000;

#[test]
fn flags_that_need_a_feature_are_told_once_it_is_negotiated() {
    let exports = capable();
    let set = query(10, "one", &["base:allocation"]);
    for (before, name, expected) in [
        (vec![], "one", ALWAYS),
        (vec![option(8, b"")], "one", ALWAYS | DF),
        (vec![option(8, b""), set.clone()], "one", ALWAYS | DF),
        (vec![option(11, b"")], "one", ALWAYS | DF),
        (vec![option(11, b""), set.clone()], "one", ALWAYS | DF | PAYLOAD),
        (vec![option(11, b""), set], "zwei", ALWAYS | DF),
    ] {
        let mut handshake = generous(&exports);
        feed_all(&mut handshake, &[&3u32.to_be_bytes()[..], &before.concat()].concat());
        for number in [6, 7] {
            let (output, progress) = feed_all(&mut handshake, &info(number, name, &[]));
            let told = [&[0, 0], &7u64.to_be_bytes()[..], &expected.to_be_bytes()].concat();
            assert_eq!(parse(&output)[0].2, told, "{before:x?}");
            if let Progress::Transmission(negotiated) = progress {
                assert_eq!(negotiated.flags.bits(), expected);
            }
        }
    }
}

#[test]
fn export_name_tells_the_same_flags() {
    let exports = capable();
    for (start, expected) in [(vec![], ALWAYS), (option(8, b""), ALWAYS | DF)] {
        let mut handshake = generous(&exports);
        feed_all(&mut handshake, &[&3u32.to_be_bytes()[..], &start].concat());
        let (output, _) = feed_all(&mut handshake, &option(1, b"one"));
        assert_eq!(output, [&7u64.to_be_bytes()[..], &expected.to_be_bytes()].concat());
    }
}
