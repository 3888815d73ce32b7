// SPDX-License-Identifier: MIT OR Apache-2.0
//! The choice of metadata contexts.

use super::*;

const META: u32 = 4;

/// LIST_META_CONTEXT or SET_META_CONTEXT.
pub(super) fn query(number: u32, name: &str, queries: &[impl AsRef<str>]) -> Vec<u8> {
    let string = |text: &str| [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
    let mut data = string(name);
    data.extend_from_slice(&(queries.len() as u32).to_be_bytes());
    queries.iter().for_each(|query| data.extend(string(query.as_ref())));
    option(number, &data)
}

/// A client that has sent its flags, and STRUCTURED_REPLY if wanted.
fn client(exports: &[Export], is_structured: bool) -> Handshake<'_> {
    let mut handshake = generous(exports);
    let start = if is_structured { option(8, b"") } else { vec![] };
    feed_all(&mut handshake, &[&3u32.to_be_bytes()[..], &start].concat());
    handshake
}

/// Sends an option, and returns the contexts of the reply, each as its ID and its name, and the
/// type of the reply that ends the list.
fn ask(handshake: &mut Handshake<'_>, input: &[u8]) -> (Vec<(u32, String)>, u32) {
    let (output, progress) = feed_all(handshake, input);
    assert_eq!(progress, Progress::Continue);
    let mut replies = parse(&output);
    let (number, end, _) = replies.pop().unwrap();
    let read = |(of, kind, data): Reply| {
        assert_eq!((of, kind), (number, META));
        (u32_at(&data, 0), String::from_utf8(data[4..].to_vec()).unwrap())
    };
    (replies.into_iter().map(read).collect(), end)
}

fn names(listed: Vec<(u32, String)>) -> Vec<String> {
    listed.into_iter().map(|(_, name)| name).collect()
}

/// The IDs and indices that are selected for what GO chooses.
fn selected(handshake: &mut Handshake<'_>, choice: &[u8]) -> Vec<(u32, usize)> {
    let (_, progress) = feed_all(handshake, choice);
    let Progress::Transmission(negotiated) = progress else { panic!("{progress:?}") };
    negotiated.contexts.iter().map(|context| (context.id, context.index)).collect()
}

#[test]
fn a_list_without_queries_has_all_contexts_and_no_ids() {
    let exports = with_contexts();
    for is_structured in [true, false] {
        let (listed, end) = ask(&mut client(&exports, is_structured), &query(9, "", &[""; 0]));
        assert_eq!(end, ACK);
        assert!(listed.iter().all(|(id, _)| *id == 0));
        assert_eq!(names(listed), exports[0].contexts());
    }
    let (listed, end) = ask(&mut client(&exports, true), &query(9, "zwei", &[""; 0]));
    assert_eq!((names(listed), end), (vec!["base:allocation".to_owned()], ACK));
}

#[test]
fn a_query_that_ends_in_a_colon_lists_what_begins_with_it() {
    let exports = with_contexts();
    let [base, a, b, depth] =
        ["base:allocation", "qemu:dirty-bitmap:a", "qemu:dirty-bitmap:b", "qemu:allocation-depth"];
    for (queries, expected) in [
        (&["base:"][..], &[base][..]),
        (&["qemu:"], &[a, b, depth]),
        (&["qemu:dirty-bitmap:"], &[a, b]),
        (&["qemu:dirty-bitmap:b"], &[b]),
        (&["qemu:dirty-bitmap"], &[]),
        (&["qemu:dirty"], &[]),
        (&["x-other:", "y:z"], &[]),
        (&["base:other"], &[]),
        (&["base:allocation", "base:", "base:allocation"], &[base]),
        (&["qemu:allocation-depth", "x:", "base:"], &[base, depth]),
    ] {
        let (listed, end) = ask(&mut client(&exports, true), &query(9, "one", queries));
        assert_eq!(
            (&names(listed)[..], end),
            (&expected.iter().map(|n| n.to_string()).collect::<Vec<_>>()[..], ACK)
        );
    }
}

#[test]
fn what_is_selected_has_the_id_of_its_index() {
    let exports = with_contexts();
    let mut handshake = client(&exports, true);
    let wanted = ["qemu:allocation-depth", "base:allocation", "x:unknown", "base:unknown", "base:allocation"];
    let (told, end) = ask(&mut handshake, &query(10, "one", &wanted));
    let expected = [(1, "base:allocation".to_owned()), (4, "qemu:allocation-depth".to_owned())];
    assert_eq!((&told[..], end), (&expected[..], ACK));
    assert_eq!(selected(&mut handshake, &info(7, "one", &[])), [(1, 0), (4, 3)]);
}

#[test]
fn wildcards_and_no_queries_select_nothing() {
    let exports = with_contexts();
    for queries in [&["base:"][..], &["qemu:", "qemu:dirty-bitmap:"], &[]] {
        let mut handshake = client(&exports, true);
        assert_eq!(ask(&mut handshake, &query(10, "one", queries)), (vec![], ACK));
        assert_eq!(selected(&mut handshake, &info(7, "one", &[])), []);
    }
}

#[test]
fn what_was_selected_counts_for_the_same_export_however_it_is_named() {
    let exports = with_contexts();
    for (set, chosen, expected) in [
        ("one", "one", &[(1, 0)][..]),
        ("", "one", &[(1, 0)]),
        ("one", "", &[(1, 0)]),
        ("zwei", "zwei", &[(1, 0)]),
        ("zwei", "one", &[]),
        ("zwei", "", &[]),
        ("one", "zwei", &[]),
    ] {
        for choice in [info(7, chosen, &[]), option(1, chosen.as_bytes())] {
            let mut handshake = client(&exports, true);
            assert_eq!(ask(&mut handshake, &query(10, set, &["base:allocation"])).0.len(), 1);
            assert_eq!(selected(&mut handshake, &choice), expected, "{set:?}, {chosen:?}");
        }
    }
}

#[test]
fn a_selection_replaces_the_former_one_even_if_it_fails() {
    let exports = with_contexts();
    let too_many = vec!["base:allocation"; MAX_QUERIES + 1];
    for (second, end) in [
        (query(10, "one", &["x:y"]), ACK),
        (query(10, "zwei", &["base:allocation"]), ACK),
        (query(10, "two", &["base:allocation"]), UNKNOWN),
        (query(10, "one", &["base"]), INVALID),
        (query(10, "one", &too_many), TOO_BIG),
        (option(10, b""), INVALID),
        (option(10, &[0; MAX_OPTION_DATA + 1]), TOO_BIG),
    ] {
        let mut handshake = client(&exports, true);
        ask(&mut handshake, &query(10, "one", &["base:allocation"]));
        assert_eq!(ask(&mut handshake, &second).1, end);
        assert_eq!(selected(&mut handshake, &info(7, "one", &[])), []);
    }
    // Other options leave it alone.
    let mut handshake = client(&exports, true);
    ask(&mut handshake, &query(10, "one", &["base:allocation"]));
    for (other, end) in [(query(9, "zwei", &["x:y"]), ACK), (option(8, b""), ACK), (option(11, b""), ACK)] {
        assert_eq!(ask(&mut handshake, &other).1, end);
    }
    assert_eq!(selected(&mut handshake, &info(7, "one", &[])), [(1, 0)]);
}

#[test]
fn nothing_is_selected_before_replies_are_made_of_chunks() {
    let exports = with_contexts();
    let mut handshake = client(&exports, false);
    for name in ["one", "two"] {
        assert_eq!(ask(&mut handshake, &query(10, name, &["base:allocation"])), (vec![], INVALID));
    }
    assert_eq!(ask(&mut handshake, &option(11, b"")), (vec![], ACK));
    assert_eq!(ask(&mut handshake, &query(10, "one", &["base:allocation"])).1, ACK);
    assert_eq!(selected(&mut handshake, &info(7, "one", &[])), [(1, 0)]);
}

#[test]
fn bad_queries_are_refused() {
    let exports = with_contexts();
    let long = format!("x:{}", "y".repeat(4095));
    for number in [9, 10] {
        for (input, end) in [
            (option(number, b""), INVALID),
            (option(number, b"\0\0\0\x03one"), INVALID),
            (option(number, b"\0\0\0\x04one\0\0\0\0"), INVALID),
            (option(number, b"\xff\xff\xff\xffone\0\0\0\0"), INVALID),
            // More queries, or longer ones, than there is data.
            (option(number, b"\0\0\0\x03one\0\0\0\x01"), INVALID),
            (option(number, b"\0\0\0\x03one\xff\xff\xff\xff\0\0\0\x03x:y"), INVALID),
            (option(number, b"\0\0\0\x03one\0\0\0\x01\0\0\0\x04x:y"), INVALID),
            // Less than there is.
            (option(number, b"\0\0\0\x03one\0\0\0\0\0"), INVALID),
            (option(number, b"\0\0\0\x03one\0\0\0\x01\0\0\0\x03x:y\0"), INVALID),
            // No strings of the protocol.
            (option(number, b"\0\0\0\x01\xff\0\0\0\0"), INVALID),
            (option(number, b"\0\0\0\x03one\0\0\0\x01\0\0\0\x03x:\xff"), INVALID),
            (query(number, "one", &["x:\0"]), INVALID),
            (query(number, "one", &[&long]), INVALID),
            // No namespace.
            (query(number, "one", &["base:allocation", ""]), INVALID),
            (query(number, "one", &["base"]), INVALID),
            (query(number, "one", &[":allocation"]), INVALID),
            // Malformed queries are refused before their number and their export are checked.
            (query(number, "two", &vec!["x"; MAX_QUERIES + 1]), INVALID),
            (query(number, "two", &["x:y"]), UNKNOWN),
            (query(number, "one", &vec!["x:y"; MAX_QUERIES]), ACK),
            (query(number, "one", &vec!["x:y"; MAX_QUERIES + 1]), TOO_BIG),
        ] {
            let answer = ask(&mut client(&exports, true), &input);
            assert_eq!(answer, (vec![], end), "{:x?}", &input[..input.len().min(60)]);
        }
    }
}

#[test]
fn without_features_there_are_no_contexts() {
    let exports = with_contexts();
    for number in [9, 10] {
        let (output, _) = negotiate(&exports, 3, &query(number, "one", &["base:allocation"]));
        assert_eq!(parse(&output)[0].1, UNSUP);
    }
}

#[test]
fn the_most_contexts_fit() {
    let names: Vec<_> = (0..64).map(|n| format!("x:{n}")).collect();
    let exports = [exports().remove(0).with_contexts(&names).unwrap()];
    let mut handshake = client(&exports, true);
    let (told, end) = ask(&mut handshake, &query(10, "", &names));
    assert_eq!((told.len(), told[63].clone(), end), (64, (64, "x:63".to_owned()), ACK));
    assert_eq!(selected(&mut handshake, &info(7, "", &[])).len(), 64);
}
