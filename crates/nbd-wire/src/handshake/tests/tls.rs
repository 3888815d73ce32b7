// SPDX-License-Identifier: MIT OR Apache-2.0
//! When TLS starts, and what is refused before and after.

use super::meta_context::query;
use super::*;

fn client(exports: &[Export], tls: Tls, flags: u32) -> Handshake<'_> {
    let mut handshake = Handshake::new(exports).with_features(Features::all()).with_tls(tls);
    assert_eq!(feed_all(&mut handshake, &flags.to_be_bytes()), (vec![], Progress::Continue));
    handshake
}

/// The type of the last reply.
fn end(handshake: &mut Handshake<'_>, input: &[u8]) -> u32 {
    let (output, progress) = feed_all(handshake, input);
    assert_eq!(progress, Progress::Continue);
    parse(&output).last().unwrap().1
}

fn start_tls(handshake: &mut Handshake<'_>) {
    let (output, progress) = feed_all(handshake, &option(5, b""));
    assert_eq!((parse(&output), progress), (vec![(5, ACK, vec![])], Progress::StartTls));
    handshake.tls_started();
}

#[test]
fn a_server_without_tls_tells_whether_it_could() {
    let exports = exports();
    for (tls, expected) in [(Tls::Unsupported, UNSUP), (Tls::Off, POLICY)] {
        let mut handshake = client(&exports, tls, 3);
        assert_eq!(end(&mut handshake, &option(5, b"")), expected);
        assert_eq!(end(&mut handshake, &option(5, b"x")), INVALID);
        assert_eq!(end(&mut handshake, &option(3, b"")), ACK);
    }
}

#[test]
fn tls_starts_once_and_without_data() {
    let exports = exports();
    for tls in [Tls::Offered, Tls::Required] {
        let mut handshake = client(&exports, tls, 3);
        assert_eq!(end(&mut handshake, &option(5, b"x")), INVALID);
        start_tls(&mut handshake);
        assert_eq!(end(&mut handshake, &option(5, b"")), INVALID);
        assert_eq!(end(&mut handshake, &option(5, b"x")), INVALID);
        assert_eq!(end(&mut handshake, &option(3, b"")), ACK);
    }
}

#[test]
fn no_byte_behind_starttls_is_taken_before_tls_has_started() {
    let exports = exports();
    let mut handshake = client(&exports, Tls::Offered, 3);
    let bytes = [option(5, b""), option(3, b"")].concat();
    let (mut input, mut output) = (&bytes[..], Vec::new());
    while handshake.feed(&mut input, &mut output) == Progress::Continue {}
    assert_eq!(input, option(3, b""));
    for _ in 0..3 {
        assert_eq!(handshake.wanted(), 0);
        assert_eq!(handshake.feed(&mut input, &mut output), Progress::StartTls);
    }
    assert_eq!((input, parse(&output)), (&option(3, b"")[..], vec![(5, ACK, vec![])]));
    handshake.tls_started();
    assert_eq!(handshake.wanted(), 16);
}

#[test]
fn tls_that_was_not_asked_for_has_not_started() {
    let exports = exports();
    let mut handshake = client(&exports, Tls::Required, 3);
    handshake.tls_started();
    assert_eq!(end(&mut handshake, &option(3, b"")), TLS_REQD);
    let go = option(7, b"\0\0\0\0\0\0");
    let (header, name) = go.split_at(20);
    let mut handshake = client(&exports, Tls::Offered, 3);
    feed_all(&mut handshake, header);
    handshake.tls_started();
    assert!(matches!(feed_all(&mut handshake, name).1, Progress::Transmission(_)));
}

#[test]
fn nothing_that_was_negotiated_before_tls_is_kept() {
    let exports = with_contexts();
    let set = query(10, "one", &["base:allocation"]);
    for style in [8, 11] {
        let mut handshake = client(&exports, Tls::Offered, 3);
        assert_eq!(end(&mut handshake, &option(style, b"")), ACK);
        assert_eq!(end(&mut handshake, &set), ACK);
        start_tls(&mut handshake);
        assert_eq!(end(&mut handshake, &set), INVALID);
        let (_, progress) = feed_all(&mut handshake, &info(7, "one", &[]));
        assert_eq!(progress, Progress::Transmission(simple(&exports[0], true)));
    }
}

#[test]
fn what_is_negotiated_after_tls_has_started_counts() {
    let exports = with_contexts();
    let mut handshake = client(&exports, Tls::Required, 3);
    start_tls(&mut handshake);
    assert_eq!(end(&mut handshake, &option(11, b"")), ACK);
    assert_eq!(end(&mut handshake, &query(10, "one", &["base:allocation"])), ACK);
    let (_, progress) = feed_all(&mut handshake, &info(7, "one", &[]));
    let Progress::Transmission(negotiated) = progress else { panic!("{progress:?}") };
    assert_eq!((negotiated.style, negotiated.contexts.len()), (ReplyStyle::Extended, 1));
}

#[test]
fn where_tls_is_required_nothing_else_is_answered_before() {
    let exports = with_contexts();
    let mut handshake = client(&exports, Tls::Required, 3);
    for input in [
        option(3, b""),
        option(3, b"x"),
        info(6, "one", &[]),
        info(7, "one", &[]),
        info(7, "two", &[]),
        option(7, b""),
        option(8, b""),
        query(9, "one", &["base:"]),
        query(10, "one", &["base:allocation"]),
        option(11, b""),
        option(0x0765_4321, b"1234"),
        option(7, &[0; MAX_OPTION_DATA + 1]),
        option(u32::MAX, &[0; MAX_OPTION_DATA + 1]),
    ] {
        let (output, progress) = feed_all(&mut handshake, &input);
        let replies = parse(&output);
        assert_eq!((replies.len(), replies[0].1, progress), (1, TLS_REQD, Progress::Continue));
    }
    start_tls(&mut handshake);
    assert_eq!(end(&mut handshake, &option(0x0765_4321, b"")), UNSUP);
    assert!(matches!(feed_all(&mut handshake, &option(1, b"one")).1, Progress::Transmission(_)));
}

#[test]
fn an_export_is_not_chosen_without_tls_where_that_is_required() {
    let exports = exports();
    for name in ["one", "two", ""] {
        let mut handshake = client(&exports, Tls::Required, 3);
        let ended = feed_all(&mut handshake, &option(1, name.as_bytes()));
        assert_eq!(ended, (vec![], Progress::Close(Close::TlsRequired)));
    }
}

#[test]
fn abort_needs_no_tls() {
    let exports = exports();
    let mut handshake = client(&exports, Tls::Required, 3);
    let (output, progress) = feed_all(&mut handshake, &option(2, b"bye"));
    assert_eq!((parse(&output), progress), (vec![(2, ACK, vec![])], Progress::Close(Close::Aborted)));
}

#[test]
fn there_is_no_tls_without_fixed_newstyle() {
    let exports = exports();
    for flags in [0, 2] {
        let mut handshake = client(&exports, Tls::Offered, flags);
        assert_eq!(end(&mut handshake, &option(5, b"")), POLICY);
        let mut handshake = Handshake::new(&exports).with_tls(Tls::Required);
        let ended = feed_all(&mut handshake, &flags.to_be_bytes());
        assert_eq!(ended, (vec![], Progress::Close(Close::TlsRequired)));
    }
}
