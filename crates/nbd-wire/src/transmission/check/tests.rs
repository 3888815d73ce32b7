// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests of the clients are written in numbers here, so that a slip in the constants shows.

use super::*;
use crate::{Export, SizeConstraints};

const SIZE: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// The fields of a compact header: the command, the flags, the offset, and the length.
type Request = (u16, u16, u64, u64);

fn export(offered: TransmissionFlags, blocks: SizeConstraints) -> Export {
    let export = Export::new("", SIZE, offered, blocks).unwrap();
    export.with_contexts(["base:allocation", "x:1", "x:2"]).unwrap()
}

/// Of the contexts, the first and the last.
fn negotiated(export: &Export, style: ReplyStyle) -> Negotiated<'_> {
    let is_selected = |name: &str| style != ReplyStyle::Simple && name != "x:1";
    Negotiated::new(export, true, style, Contexts::of(export.contexts(), is_selected))
}

fn request(is_extended: bool, (kind, flags, offset, length): Request) -> RequestHeader {
    let flags = CommandFlags::from_bits_retain(flags);
    RequestHeader { is_extended, flags, kind, cookie: 1, offset, length }
}

fn check_style(style: ReplyStyle, wanted: Request) -> Result<Command, ErrorValue> {
    let export = export(everything(), SizeConstraints::default());
    request(style == ReplyStyle::Extended, wanted).check(&negotiated(&export, style))
}

fn check(offered: TransmissionFlags, wanted: Request) -> Result<Command, ErrorValue> {
    check_blocks(offered, SizeConstraints::default(), wanted)
}

fn check_blocks(
    offered: TransmissionFlags,
    blocks: SizeConstraints,
    wanted: Request,
) -> Result<Command, ErrorValue> {
    request(false, wanted).check(&negotiated(&export(offered, blocks), ReplyStyle::Simple))
}

fn everything() -> TransmissionFlags {
    TransmissionFlags::all() - TransmissionFlags::READ_ONLY
}

#[test]
fn good_requests_become_commands() {
    let (fua, offset, length, df) = (false, 512, 512, false);
    for (request, command) in [
        ((0, 0, 512, 512), Command::Read { offset, length, df }),
        ((0, 1, 512, 512), Command::Read { offset, length, df }),
        ((0, 0, 0, 32 * MIB), Command::Read { offset: 0, length: 1 << 25, df }),
        ((0, 0, SIZE - 512, 512), Command::Read { offset: SIZE - 512, length, df }),
        ((1, 0, 512, 512), Command::Write { offset, length, fua }),
        ((1, 1, 512, 512), Command::Write { offset, length, fua: true }),
        ((1, 0, 0, 32 * MIB), Command::Write { offset: 0, length: 1 << 25, fua }),
        ((2, 0xffff, 7, 7), Command::Disconnect),
        ((3, 0, 0, 0), Command::Flush),
        ((3, 1, 0, 0), Command::Flush),
        ((6, 0, 0, SIZE), Command::Zero { offset: 0, length: SIZE, flags: CommandFlags::empty() }),
        ((6, 2, 512, 512), Command::Zero { offset, length: 512, flags: CommandFlags::NO_HOLE }),
        ((6, 19, 512, 512), Command::Zero { offset, length: 512, flags: CommandFlags::from_bits_retain(19) }),
        ((0, 0, 5, 0), Command::Nothing),
        ((1, 0, SIZE, 0), Command::Nothing),
        ((6, 0, 0, 0), Command::Nothing),
        ((4, 0, 512, 512), Command::Trim { offset, length: 512, fua }),
        ((4, 1, 0, SIZE), Command::Trim { offset: 0, length: SIZE, fua: true }),
        ((5, 0, 512, 512), Command::Cache { offset, length: 512 }),
        ((5, 1, 0, SIZE), Command::Cache { offset: 0, length: SIZE }),
        ((4, 0, SIZE, 0), Command::Nothing),
        ((5, 0, SIZE, 0), Command::Nothing),
    ] {
        assert_eq!(check(everything(), request), Ok(command), "{request:?}");
    }
}

#[test]
fn bad_requests_get_the_error_of_the_protocol() {
    for (request, value) in [
        // Out of range, also where offset + length overflows.
        ((0, 0, SIZE - 1, 2), ErrorValue::Inval),
        ((0, 0, u64::MAX, 2), ErrorValue::Inval),
        ((0, 0, SIZE + 1, 0), ErrorValue::Inval),
        ((1, 0, SIZE - 1, 2), ErrorValue::NoSpc),
        ((1, 0, u64::MAX, u32::MAX.into()), ErrorValue::NoSpc),
        ((6, 0, SIZE - 1, 2), ErrorValue::NoSpc),
        ((6, 0, u64::MAX, 2), ErrorValue::NoSpc),
        ((4, 0, SIZE - 1, 2), ErrorValue::Inval),
        ((5, 0, SIZE - 1, 2), ErrorValue::Inval),
        // Over the maximum payload.
        ((0, 0, 0, 32 * MIB + 1), ErrorValue::Inval),
        ((1, 0, 0, 32 * MIB + 1), ErrorValue::Inval),
        // Unknown or not offered commands: BLOCK_STATUS, RESIZE and no command at all.
        ((7, 0, 0, 512), ErrorValue::Inval),
        ((8, 0, 0, 512), ErrorValue::Inval),
        ((0xffff, 0, 0, 0), ErrorValue::Inval),
        // Flags that are unknown or belong to another command: NO_HOLE, DF, REQ_ONE, FAST_ZERO,
        // PAYLOAD_LEN.
        ((0, 2, 0, 512), ErrorValue::Inval),
        ((0, 4, 0, 512), ErrorValue::Inval),
        ((6, 8, 0, 512), ErrorValue::Inval),
        ((1, 16, 0, 512), ErrorValue::Inval),
        ((1, 32, 0, 512), ErrorValue::Inval),
        ((1, 0x8000, 0, 512), ErrorValue::Inval),
        ((3, 2, 0, 0), ErrorValue::Inval),
        ((4, 2, 0, 512), ErrorValue::Inval),
        ((5, 8, 0, 512), ErrorValue::Inval),
        // The fields of FLUSH are reserved.
        ((3, 0, 512, 0), ErrorValue::Inval),
        ((3, 0, 0, 512), ErrorValue::Inval),
    ] {
        assert_eq!(check(everything(), request), Err(value), "{request:?}");
    }
}

#[test]
fn what_was_not_offered_is_refused() {
    let none = TransmissionFlags::empty();
    let requests =
        [(0, 1, 0, 512), (1, 1, 0, 512), (3, 0, 0, 0), (6, 0, 0, 512), (4, 0, 0, 512), (5, 0, 0, 512)];
    for request in requests {
        assert_eq!(check(none, request), Err(ErrorValue::Inval), "{request:?}");
    }
    let slow = everything() - TransmissionFlags::SEND_FAST_ZERO;
    assert_eq!(check(slow, (6, 16, 0, 512)), Err(ErrorValue::Inval));
}

#[test]
fn a_read_only_export_is_not_written_to() {
    let read_only = TransmissionFlags::READ_ONLY | TransmissionFlags::SEND_FLUSH;
    for kind in [1, 4, 6] {
        assert_eq!(check(read_only, (kind, 0, 0, 512)), Err(ErrorValue::Perm), "{kind}");
    }
    assert_eq!(check(read_only, (3, 0, 0, 0)), Ok(Command::Flush));
    assert!(check(read_only, (0, 0, 0, 512)).is_ok());
}

#[test]
fn the_minimum_block_size_is_enforced_but_for_the_last_block() {
    let blocks = SizeConstraints { minimum: 4096, ..SizeConstraints::default() };
    let export = Export::new("", 10_000, everything(), blocks).unwrap();
    let check = |kind, offset, length| {
        request(false, (kind, 0, offset, length)).check(&negotiated(&export, ReplyStyle::Simple)).err()
    };
    for kind in [0, 1, 6] {
        assert_eq!(check(kind, 512, 4096), Some(ErrorValue::Inval));
        assert_eq!(check(kind, 4096, 512), Some(ErrorValue::Inval));
        assert_eq!(check(kind, 4096, 4096), None);
        assert_eq!(check(kind, 8192, 10_000 - 8192), None);
    }
}

/// The first selected context, and the other one, have these IDs.
const IDS: [u32; 2] = [1, 3];

fn ids(contexts: Contexts) -> Vec<u32> {
    contexts.iter().map(|context| context.id).collect()
}

#[test]
fn block_status_tells_of_the_selected_contexts() {
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        for (flags, one) in [(0, false), (1, false), (8, true), (9, true)] {
            let Ok(Command::BlockStatus { offset, length, req_one, contexts }) =
                check_style(style, (7, flags, 512, SIZE - 512))
            else {
                panic!("{style:?}, {flags}");
            };
            assert_eq!((offset, length, req_one), (512, SIZE - 512, one));
            assert_eq!(ids(contexts), IDS);
        }
        for bad in [(7, 0, SIZE - 1, 2), (7, 0, 0, 0), (7, 2, 0, 512), (7, 4, 0, 512), (7, 0, u64::MAX, 2)] {
            assert_eq!(check_style(style, bad), Err(ErrorValue::Inval), "{bad:?}");
        }
    }
}

#[test]
fn without_a_selected_context_there_is_no_block_status() {
    let export = export(everything(), SizeConstraints::default());
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        let negotiated = Negotiated::new(&export, true, style, Contexts::default());
        for flags in [0, 32] {
            let checked = request(style == ReplyStyle::Extended, (7, flags, 0, 512)).check(&negotiated);
            assert_eq!(checked, Err(ErrorValue::Inval));
        }
    }
}

#[test]
fn reads_need_not_be_fragmented_once_replies_are_made_of_chunks() {
    let read = |df| Ok(Command::Read { offset: 512, length: 512, df });
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        assert_eq!(check_style(style, (0, 0, 512, 512)), read(false));
        assert_eq!(check_style(style, (0, 4, 512, 512)), read(true));
        assert_eq!(check_style(style, (0, 5, 512, 512)), read(true));
        assert_eq!(check_style(style, (1, 4, 512, 512)), Err(ErrorValue::Inval));
    }
    assert_eq!(check_style(ReplyStyle::Simple, (0, 4, 512, 512)), Err(ErrorValue::Inval));
    let offered = everything() - TransmissionFlags::SEND_DF;
    let export = export(offered, SizeConstraints::default());
    let structured = negotiated(&export, ReplyStyle::Structured);
    assert_eq!(request(false, (0, 4, 512, 512)).check(&structured), Err(ErrorValue::Inval));
}

#[test]
fn a_read_that_is_too_long_overflows_once_replies_are_made_of_chunks() {
    for style in [ReplyStyle::Structured, ReplyStyle::Extended] {
        for flags in [0, 4] {
            assert!(check_style(style, (0, flags, 0, 32 * MIB)).is_ok());
            assert_eq!(check_style(style, (0, flags, 0, 32 * MIB + 1)), Err(ErrorValue::Overflow));
            assert_eq!(check_style(style, (0, flags, 1, SIZE)), Err(ErrorValue::Inval));
        }
    }
}

#[test]
fn a_read_has_room_in_its_chunk() {
    let blocks = SizeConstraints { maximum: u32::MAX, ..SizeConstraints::default() };
    let export = Export::new("", u64::MAX, everything(), blocks).unwrap();
    let structured = Negotiated::new(&export, true, ReplyStyle::Structured, Contexts::default());
    let longest = u64::from(u32::MAX) - 8;
    assert!(request(false, (0, 0, 0, longest)).check(&structured).is_ok());
    assert_eq!(request(false, (0, 0, 0, longest + 1)).check(&structured), Err(ErrorValue::Overflow));
    let extended = Negotiated::new(&export, true, ReplyStyle::Extended, Contexts::default());
    assert!(request(true, (0, 0, 0, longest + 8)).check(&extended).is_ok());
    assert_eq!(request(true, (0, 0, 0, longest + 9)).check(&extended), Err(ErrorValue::Overflow));
}

#[test]
fn extended_writes_may_have_the_flag_of_their_payload() {
    let extended = ReplyStyle::Extended;
    let write = |fua| Ok(Command::Write { offset: 512, length: 512, fua });
    assert_eq!(check_style(extended, (1, 32, 512, 512)), write(false));
    assert_eq!(check_style(extended, (1, 33, 512, 512)), write(true));
    assert_eq!(check_style(extended, (1, 32, 512, 0)), Ok(Command::Nothing));
    // qemu forgets it.
    assert_eq!(check_style(extended, (1, 0, 512, 512)), write(false));
    assert_eq!(check_style(extended, (1, 1, 512, 512)), write(true));
    for compact in [ReplyStyle::Simple, ReplyStyle::Structured] {
        assert_eq!(check_style(compact, (1, 32, 512, 512)), Err(ErrorValue::Inval));
    }
    assert_eq!(check_style(extended, (1, 32, 0, 32 * MIB + 1)), Err(ErrorValue::Inval));
    assert_eq!(check_style(extended, (1, 32, SIZE, 512)), Err(ErrorValue::NoSpc));
}

#[test]
fn no_other_command_takes_a_payload() {
    for kind in [0, 3, 4, 5, 6, 8, 0xffff] {
        for flags in [32, 33] {
            assert_eq!(check_style(ReplyStyle::Extended, (kind, flags, 0, 0)), Err(ErrorValue::Inval));
            assert_eq!(check_style(ReplyStyle::Extended, (kind, flags, 0, 512)), Err(ErrorValue::Inval));
        }
    }
    assert_eq!(check_style(ReplyStyle::Extended, (2, 32, 0, 512)), Ok(Command::Disconnect));
}

#[test]
fn with_extended_headers_what_has_no_payload_may_be_as_long_as_the_export() {
    let (offset, length) = (0, 1 << 50);
    let export = Export::new("", length, everything(), SizeConstraints::default()).unwrap();
    let extended = Negotiated::new(&export, true, ReplyStyle::Extended, Contexts::default());
    let check = |kind, length| request(true, (kind, 0, offset, length)).check(&extended);
    let flags = CommandFlags::empty();
    assert_eq!(check(6, length), Ok(Command::Zero { offset, length, flags }));
    assert_eq!(check(4, length), Ok(Command::Trim { offset, length, fua: false }));
    assert_eq!(check(5, length), Ok(Command::Cache { offset, length }));
    assert_eq!(check(6, length + 1), Err(ErrorValue::NoSpc));
    assert_eq!(check(4, length + 1), Err(ErrorValue::Inval));
}

/// A BLOCK_STATUS with this payload, as the announced length tells and as it is then.
fn status_with(
    offered: TransmissionFlags,
    flags: u16,
    length: u64,
    named: &[u32],
) -> Result<Command, ErrorValue> {
    let export = export(offered, SizeConstraints::default());
    let negotiated = negotiated(&export, ReplyStyle::Extended);
    let mut payload = length.to_be_bytes().to_vec();
    payload.extend(named.iter().flat_map(|id| id.to_be_bytes()));
    let request = request(true, (7, flags, 512, payload.len() as u64));
    match request.check(&negotiated)? {
        Command::BlockStatusPayload { payload_len } => {
            assert_eq!(payload_len, payload.len());
            assert_eq!(request.payload_len(), payload.len() as u64);
            assert_eq!(request.check_status_payload(&negotiated, &payload[1..]), Err(ErrorValue::Inval));
            request.check_status_payload(&negotiated, &payload)
        }
        other => Ok(other),
    }
}

#[test]
fn the_payload_of_block_status_tells_the_length_and_the_contexts() {
    for (flags, one) in [(32, false), (40, true), (33, false)] {
        for named in [&[1][..], &[3], &[1, 3], &[3, 1]] {
            let checked = status_with(everything(), flags, SIZE - 512, named);
            let Ok(Command::BlockStatus { offset, length, req_one, contexts }) = checked else {
                panic!("{checked:?}")
            };
            assert_eq!((offset, length, req_one), (512, SIZE - 512, one));
            let mut named = named.to_vec();
            named.sort_unstable();
            assert_eq!(ids(contexts), named);
        }
    }
}

#[test]
fn a_bad_payload_of_block_status_is_refused() {
    // No ID, one that was not selected, one that is none, one twice, more than were selected.
    for named in [&[][..], &[2], &[0], &[u32::MAX], &[1, 1], &[1, 2], &[1, 3, 3], &[7; 10_000]] {
        assert_eq!(status_with(everything(), 32, 512, named), Err(ErrorValue::Inval), "{named:?}");
    }
    for length in [0, SIZE - 511, u64::MAX] {
        assert_eq!(status_with(everything(), 32, length, &[1]), Err(ErrorValue::Inval), "{length}");
    }
    let offered = everything() - TransmissionFlags::BLOCK_STATUS_PAYLOAD;
    assert_eq!(status_with(offered, 32, 512, &[1]), Err(ErrorValue::Inval));
    // The lengths between those that hold whole IDs.
    for length in [0, 7, 8, 9, 11, 13, 15, 17, 20, u64::MAX] {
        assert_eq!(check_style(ReplyStyle::Extended, (7, 32, 0, length)), Err(ErrorValue::Inval), "{length}");
    }
}

proptest::proptest! {
    #[test]
    fn any_header_gets_an_answer_and_no_command_leaves_the_export(
        header: [u8; 28],
        blocks in 0..=16u32,
        payload: [u8; 16],
    ) {
        let blocks = SizeConstraints { minimum: 1 << blocks, preferred: 1 << 16, maximum: 1 << 25 };
        let export = export(everything(), blocks);
        for style in [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended] {
            let negotiated = negotiated(&export, style);
            for request in requests(style, &header) {
                let checked = match request.check(&negotiated) {
                    Ok(Command::BlockStatusPayload { payload_len }) => {
                        proptest::prop_assert!(payload_len <= 16);
                        request.check_status_payload(&negotiated, &payload[..payload_len])
                    }
                    checked => checked,
                };
                proptest::prop_assert!(is_inside(checked), "{:?} becomes {:?}", request, checked);
            }
        }
    }
}

/// The header as it is, and with numbers that are likelier to be good.
fn requests(style: ReplyStyle, header: &[u8; 28]) -> [RequestHeader; 2] {
    let mut bytes = *b"\x25\x60\x95\x13****************************";
    bytes[4..].copy_from_slice(header);
    let request = if style == ReplyStyle::Extended {
        bytes[..4].copy_from_slice(b"\x21\xe4\x1c\x71");
        RequestHeader::decode_extended(&bytes).unwrap()
    } else {
        RequestHeader::decode(bytes.first_chunk().unwrap()).unwrap()
    };
    let flags = CommandFlags::from_bits_retain(request.flags.bits() & 0x3f);
    let (kind, offset, length) = (request.kind % 9, request.offset % (2 * SIZE), request.length % SIZE);
    [request, RequestHeader { kind, flags, offset, length, ..request }]
}

fn is_inside(checked: Result<Command, ErrorValue>) -> bool {
    let (offset, length) = match checked {
        Ok(Command::Read { offset, length, .. } | Command::Write { offset, length, .. }) => {
            if length > 1 << 25 {
                return false;
            }
            (offset, length.into())
        }
        Ok(
            Command::Zero { offset, length, .. }
            | Command::Trim { offset, length, .. }
            | Command::Cache { offset, length },
        ) => (offset, length),
        Ok(Command::BlockStatus { offset, length, contexts, .. }) if !contexts.is_empty() => (offset, length),
        Ok(Command::BlockStatus { .. } | Command::BlockStatusPayload { .. }) => return false,
        Ok(Command::Flush | Command::Nothing | Command::Disconnect) | Err(_) => return true,
    };
    length > 0 && offset.checked_add(length).is_some_and(|end| end <= SIZE)
}
