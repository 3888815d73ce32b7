// SPDX-License-Identifier: MIT OR Apache-2.0
//! These tests decode chunks by the document's layout, in numbers.

use proptest::prelude::*;

use super::*;
use crate::contexts::Contexts;
use crate::{CommandFlags, Export, SizeConstraints, TransmissionFlags};

const COOKIE: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const OFFSET: [u8; 8] = [0, 0, 0, 9, 0, 0, 2, 0];

fn export() -> Export {
    Export::new("", 1 << 40, TransmissionFlags::empty(), SizeConstraints::default()).unwrap()
}

fn chunk_of(export: &Export, style: ReplyStyle) -> Option<Chunk> {
    let (cookie, offset) = (u64::from_be_bytes(COOKIE), u64::from_be_bytes(OFFSET));
    let is_extended = style == ReplyStyle::Extended;
    let flags = CommandFlags::empty();
    let request = RequestHeader { is_extended, flags, kind: 0, cookie, offset, length: 512 };
    Negotiated::new(export, true, style, Contexts::default()).chunk(&request)
}

fn structured() -> Chunk {
    chunk_of(&export(), ReplyStyle::Structured).unwrap()
}

fn extended() -> Chunk {
    chunk_of(&export(), ReplyStyle::Extended).unwrap()
}

/// A structured head by the document.
fn structured_head(flags: u8, kind: [u8; 2], length: u32) -> Vec<u8> {
    let magic = [0x66, 0x8e, 0x33, 0xef, 0, flags];
    [&magic[..], &kind, &COOKIE, &length.to_be_bytes()].concat()
}

/// An extended head by the document.
fn extended_head(flags: u8, kind: [u8; 2], length: u64) -> Vec<u8> {
    let magic = [0x6e, 0x8a, 0x27, 0x8c, 0, flags];
    [&magic[..], &kind, &COOKIE, &OFFSET, &length.to_be_bytes()].concat()
}

#[test]
fn there_are_no_chunks_with_simple_replies() {
    assert_eq!(chunk_of(&export(), ReplyStyle::Simple), None);
}

#[test]
fn a_head_has_the_length_that_the_protocol_gives_it() {
    assert_eq!(structured().none().len(), STRUCTURED_REPLY_LEN);
    assert_eq!(extended().none().len(), EXTENDED_REPLY_LEN);
    assert_eq!(extended().offset_hole(0, 1).len(), MAX_CHUNK_HEAD);
}

#[test]
fn none_is_always_the_last_chunk() {
    for chunk in [structured(), structured().done()] {
        assert_eq!(*chunk.none(), structured_head(1, [0, 0], 0));
    }
    for chunk in [extended(), extended().done()] {
        assert_eq!(*chunk.none(), extended_head(1, [0, 0], 0));
    }
}

#[test]
fn data_has_its_own_offset_in_front() {
    let at = [0, 0, 0, 9, 0, 0, 3, 0];
    let offset = u64::from_be_bytes(at);
    let expected = [structured_head(0, [0, 1], 8 + 256), at.to_vec()].concat();
    assert_eq!(*structured().offset_data(offset, 256), expected);
    let expected = [structured_head(1, [0, 1], 8 + 256), at.to_vec()].concat();
    assert_eq!(*structured().done().offset_data(offset, 256), expected);
    let expected = [extended_head(0, [0, 1], 8 + 256), at.to_vec()].concat();
    assert_eq!(*extended().offset_data(offset, 256), expected);
    let expected = [extended_head(1, [0, 1], (1 << 32) + 7), at.to_vec()].concat();
    assert_eq!(*extended().done().offset_data(offset, u32::MAX), expected);
    let expected = [structured_head(0, [0, 1], u32::MAX), at.to_vec()].concat();
    assert_eq!(*structured().offset_data(offset, u32::MAX - 8), expected);
}

#[test]
fn a_hole_is_told_without_content() {
    let expected = [&structured_head(0, [0, 2], 12)[..], &OFFSET, &[0, 1, 0, 0]].concat();
    assert_eq!(*structured().offset_hole(u64::from_be_bytes(OFFSET), 65536), expected);
    let expected = [&extended_head(1, [0, 2], 12)[..], &OFFSET, &[0, 1, 0, 0]].concat();
    assert_eq!(*extended().done().offset_hole(u64::from_be_bytes(OFFSET), 65536), expected);
}

#[test]
fn errors_have_a_message() {
    let (head, message) = structured().done().error(ErrorValue::NoSpc, "full");
    assert_eq!(*head, [&structured_head(1, [0x80, 1], 10)[..], &[0, 0, 0, 28, 0, 4]].concat());
    assert_eq!(message, "full");
    let (head, message) = extended().error(ErrorValue::Io, "");
    assert_eq!(*head, [&extended_head(0, [0x80, 1], 6)[..], &[0, 0, 0, 5, 0, 0]].concat());
    assert_eq!(message, "");
}

#[test]
fn errors_tell_where() {
    let at = [0, 0, 0, 9, 0, 0, 3, 0];
    let (head, message, end) = structured().error_offset(ErrorValue::Io, "torn", u64::from_be_bytes(at));
    assert_eq!(*head, [&structured_head(0, [0x80, 2], 18)[..], &[0, 0, 0, 5, 0, 4]].concat());
    assert_eq!((message, end), ("torn", at));
    let (head, ..) = extended().done().error_offset(ErrorValue::Io, "torn", 0);
    assert_eq!(*head, [&extended_head(1, [0x80, 2], 18)[..], &[0, 0, 0, 5, 0, 4]].concat());
}

#[test]
fn messages_are_cut_to_what_the_protocol_allows() {
    let message = |text: &str| structured().error(ErrorValue::Io, text).1.to_owned();
    assert_eq!(message(&"x".repeat(5000)), "x".repeat(4096));
    // The 2 bytes of the last character would not fit as a whole.
    assert_eq!(message(&format!("x{}", "é".repeat(3000))), format!("x{}", "é".repeat(2047)));
    assert_eq!(message("one\0two"), "one");
    let (head, _) = structured().error(ErrorValue::Io, &"x".repeat(100_000));
    assert_eq!(head[16..], [0, 0, 0x10, 6, 0, 0, 0, 5, 0x10, 0]);
}

#[test]
fn no_part_of_a_chunk_is_longer_than_the_maximum_payload() {
    let blocks = SizeConstraints { minimum: 1, preferred: 512, maximum: 600 };
    let export = Export::new("", 1, TransmissionFlags::empty(), blocks).unwrap();
    let chunk = chunk_of(&export, ReplyStyle::Structured).unwrap();
    assert_eq!(chunk.error(ErrorValue::Io, &"x".repeat(5000)).1.len(), 600);
    let most = |style| Negotiated::new(&export, true, style, Contexts::default()).max_descriptors();
    assert_eq!((most(ReplyStyle::Structured), most(ReplyStyle::Extended)), (75, 37));
}

#[test]
fn a_chunk_has_2_to_the_20th_descriptors_at_most() {
    let blocks = SizeConstraints { maximum: u32::MAX, ..SizeConstraints::default() };
    let export = Export::new("", 1, TransmissionFlags::empty(), blocks).unwrap();
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        let most = Negotiated::new(&export, true, style, Contexts::default()).max_descriptors();
        assert_eq!(most, 1_048_576);
    }
}

#[test]
fn a_status_chunk_names_its_context() {
    let context = Context { id: 7, index: 6 };
    let expected = [&structured_head(1, [0, 5], 4 + 3 * 8)[..], &[0, 0, 0, 7]].concat();
    assert_eq!(*structured().done().block_status(context, 3), expected);
    let expected = [&extended_head(0, [0, 6], 8 + 3 * 16)[..], &[0, 0, 0, 7, 0, 0, 0, 3]].concat();
    assert_eq!(*extended().block_status(context, 3), expected);
    let most = [&structured_head(0, [0, 5], 8_388_612)[..], &[0, 0, 0, 7]].concat();
    assert_eq!(*structured().block_status(context, MAX_DESCRIPTORS), most);
}

#[test]
fn descriptors_are_as_long_as_the_headers_want() {
    let descriptor = Descriptor { length: 65536, status: NBD_STATE_HOLE | NBD_STATE_ZERO };
    assert_eq!(*structured().descriptor(descriptor), [0, 1, 0, 0, 0, 0, 0, 3]);
    assert_eq!(*extended().descriptor(descriptor), [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
}

#[test]
fn an_extent_that_is_too_long_for_32_bits_is_cut_at_a_block() {
    let cut = |length| structured().descriptor(Descriptor { length, status: 0 })[..4].to_vec();
    assert_eq!(cut(0xffff_ffff), [0xff; 4]);
    for length in [1 << 32, u64::MAX] {
        assert_eq!(cut(length), [0xff, 0xff, 0, 0]);
    }
    let whole = extended().descriptor(Descriptor { length: u64::MAX, status: u32::MAX });
    assert_eq!(*whole, [[255; 8], [0, 0, 0, 0, 255, 255, 255, 255]].concat());
}

/// A chunk as a client reads it: its flags, its type, and its payload.
type Read = (u16, u16, Vec<u8>);

/// Splits a reply into its chunks as a client does: by the lengths alone.
fn read_chunks(is_extended: bool, mut bytes: &[u8]) -> Vec<Read> {
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        let head = if is_extended { 32 } else { 20 };
        let number = |at: std::ops::Range<usize>| bytes[at].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        assert_eq!(number(0..4), if is_extended { 0x6e8a_278c } else { 0x668e_33ef });
        assert_eq!(bytes[8..16], COOKIE);
        let length = if is_extended { number(24..32) } else { number(16..20) } as usize;
        if is_extended {
            assert_eq!(bytes[16..24], OFFSET);
        }
        chunks.push((number(4..6) as u16, number(6..8) as u16, bytes[head..head + length].to_vec()));
        bytes = &bytes[head + length..];
    }
    chunks
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

proptest! {
    #[test]
    fn a_reply_is_read_as_it_was_written(
        is_extended: bool,
        data in prop::collection::vec(any::<u8>(), 1..100),
        at: u64,
        hole: u32,
        message in "[a-zé]{0,5000}",
        extents in prop::collection::vec((1..=u32::MAX, any::<u32>()), 1..50),
        id in 1..=64u32,
    ) {
        let chunk = if is_extended { extended() } else { structured() };
        let context = Context { id, index: id as usize - 1 };
        let (error, told) = chunk.error(ErrorValue::Io, &message);
        let (error_at, told_at, end) = chunk.error_offset(ErrorValue::NoSpc, &message, at);
        let mut bytes = [&*chunk.offset_data(at, data.len() as u32), &data].concat();
        bytes.extend_from_slice(&chunk.offset_hole(at, hole));
        bytes.extend_from_slice(&[&*error, told.as_bytes()].concat());
        bytes.extend_from_slice(&[&*error_at, told_at.as_bytes(), &end].concat());
        bytes.extend_from_slice(&chunk.block_status(context, extents.len()));
        for (length, status) in &extents {
            let descriptor = Descriptor { length: (*length).into(), status: *status };
            bytes.extend_from_slice(&chunk.descriptor(descriptor));
        }
        bytes.extend_from_slice(&chunk.none());

        let chunks = read_chunks(is_extended, &bytes);
        let [content, zeroes, error, error_at, status, end] = &chunks[..] else { panic!("{chunks:?}") };
        prop_assert!(chunks[..5].iter().all(|(flags, ..)| *flags == 0));
        prop_assert_eq!((content.1, be(&content.2[..8]), &content.2[8..]), (1, at, &data[..]));
        prop_assert_eq!((zeroes.1, be(&zeroes.2[..8]), be(&zeroes.2[8..])), (2, at, hole.into()));

        prop_assert!(told.len() <= 4096 && told == told_at && message.starts_with(told));
        let text = [&(told.len() as u16).to_be_bytes(), told.as_bytes()].concat();
        prop_assert_eq!((error.1, be(&error.2[..4]), &error.2[4..]), (0x8001, 5, &text[..]));
        let text = [&text[..], &at.to_be_bytes()].concat();
        prop_assert_eq!((error_at.1, be(&error_at.2[..4]), &error_at.2[4..]), (0x8002, 28, &text[..]));

        prop_assert_eq!(be(&status.2[..4]), u64::from(id));
        let (kind, fixed, field) = if is_extended { (6, 8, 8) } else { (5, 4, 4) };
        prop_assert_eq!(status.1, kind);
        if is_extended {
            prop_assert_eq!(be(&status.2[4..8]), extents.len() as u64);
        }
        let numbers: Vec<_> = status.2[fixed..].chunks(field).map(be).collect();
        let expected: Vec<_> = extents.iter().flat_map(|(length, status)| [*length, *status]).collect();
        prop_assert_eq!(numbers, expected.into_iter().map(u64::from).collect::<Vec<_>>());
        prop_assert_eq!(end, &(1, 0, vec![]));
    }
}
