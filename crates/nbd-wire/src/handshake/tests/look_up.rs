// SPDX-License-Identifier: MIT OR Apache-2.0
//! Contexts that the export may turn out not to have.

use super::meta_context::query;
use super::*;

/// The first has two tentative contexts, the second one.
fn tentative() -> Vec<Export> {
    let is_bitmap =
        |export: &Export, index: usize| export.contexts()[index].starts_with("qemu:dirty-bitmap:");
    let mut exports = with_contexts();
    let zwei = exports.pop().unwrap().with_contexts(["qemu:dirty-bitmap:a"]).unwrap();
    exports.push(zwei);
    exports
        .into_iter()
        .map(|export| export.clone().with_tentative(|index| is_bitmap(&export, index)))
        .collect()
}

fn client(exports: &[Export]) -> Handshake<'_> {
    let mut handshake = generous(exports);
    feed_all(&mut handshake, &[&3u32.to_be_bytes()[..], &option(8, b"")].concat());
    handshake
}

/// The IDs of what is to be looked up, and what the client is told where it turns out that the
/// export has `present`.
fn ask(handshake: &mut Handshake<'_>, input: &[u8], present: &[u32]) -> (Vec<u32>, Vec<String>) {
    let (mut output, mut progress) = feed_all(handshake, input);
    let mut asked = Vec::new();
    if let Progress::LookUp { contexts, .. } = progress {
        assert_eq!((output.len(), handshake.wanted()), (0, 0), "nothing is said or taken before it is known");
        assert_eq!(handshake.feed(&mut &b"x"[..], &mut output), progress);
        asked = contexts.iter().map(|context| context.id).collect();
        progress = handshake.looked_up(contexts.filter(|context| present.contains(&context.id)), &mut output);
    }
    assert_eq!(progress, Progress::Continue);
    let mut replies = parse(&output);
    assert_eq!(replies.pop().unwrap().1, ACK);
    (asked, replies.into_iter().map(|(_, _, data)| String::from_utf8(data[4..].to_vec()).unwrap()).collect())
}

const BASE: &str = "base:allocation";
const A: &str = "qemu:dirty-bitmap:a";
const B: &str = "qemu:dirty-bitmap:b";
const DEPTH: &str = "qemu:allocation-depth";

#[test]
fn those_that_are_asked_for_are_looked_up_once() {
    let exports = tentative();
    let mut handshake = client(&exports);
    let mut next = |number, queries: &[&str]| ask(&mut handshake, &query(number, "one", queries), &[2]);
    let told = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(
        next(9, &[BASE, "qemu:allocation-depth"]),
        (vec![], told(&[BASE, DEPTH])),
        "none is asked for"
    );
    assert_eq!(next(10, &[BASE, A]), (vec![2], told(&[BASE, A])));
    assert_eq!(next(9, &[A]), (vec![], told(&[A])));
    assert_eq!(next(9, &[]), (vec![3], told(&[BASE, A, DEPTH])), "the other one is not there");
    assert_eq!(next(10, &[B, A]), (vec![], told(&[A])));
    let (_, end) = feed_all(&mut handshake, &info(7, "one", &[]));
    let Progress::Transmission(negotiated) = end else { panic!("{end:?}") };
    assert_eq!(negotiated.contexts.iter().map(|context| context.id).collect::<Vec<_>>(), [2]);
}

#[test]
fn what_is_found_out_of_one_export_says_nothing_of_another() {
    let exports = tentative();
    let mut handshake = client(&exports);
    assert_eq!(ask(&mut handshake, &query(9, "one", &[A]), &[]), (vec![2], vec![]));
    assert_eq!(ask(&mut handshake, &query(9, "zwei", &[A]), &[1]), (vec![1], vec![A.to_owned()]));
    assert_eq!(ask(&mut handshake, &query(9, "one", &[A]), &[2]), (vec![2], vec![A.to_owned()]));
}

#[test]
fn nobody_is_told_of_more_than_was_asked_for() {
    let exports = tentative();
    let mut handshake = client(&exports);
    let (mut output, progress) = feed_all(&mut handshake, &query(9, "one", &[B]));
    let Progress::LookUp { export, contexts } = progress else { panic!("{progress:?}") };
    assert_eq!((export.name(), contexts.len()), ("one", 1));
    let all = Contexts::of(export.contexts(), |_| true);
    assert_eq!(handshake.looked_up(all, &mut output), Progress::Continue);
    assert_eq!(parse(&output).len(), 2);
    assert_eq!(handshake.looked_up(all, &mut output), Progress::Continue, "nothing waits for it any more");
    assert_eq!(parse(&output).len(), 2);
    assert_eq!(ask(&mut handshake, &query(9, "one", &[A]), &[]).0, [2], "it was not asked for before");
}
