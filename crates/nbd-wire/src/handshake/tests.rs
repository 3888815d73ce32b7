// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of the clients are written in numbers here, so that a slip in the constants shows.

mod features;
mod look_up;
mod meta_context;
mod tls;

use proptest::prelude::*;

use super::*;
use crate::{SizeConstraints, TransmissionFlags};

const ACK: u32 = 1;
const UNSUP: u32 = 0x8000_0001;
const INVALID: u32 = 0x8000_0003;
const POLICY: u32 = 0x8000_0002;
const TLS_REQD: u32 = 0x8000_0005;
const UNKNOWN: u32 = 0x8000_0006;
const TOO_BIG: u32 = 0x8000_0009;
const EXT_HEADER_REQD: u32 = 0x8000_000a;

fn exports() -> Vec<Export> {
    let flags = TransmissionFlags::SEND_FLUSH;
    let blocks = SizeConstraints { minimum: 512, preferred: 4096, maximum: 1 << 25 };
    let first = Export::new("one", 0x1234, flags, blocks).unwrap().with_description("first").unwrap();
    vec![first, Export::new("zwei", 1, flags, SizeConstraints::default()).unwrap()]
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let len = data.len() as u32;
    [b"IHAVEOPT".as_slice(), &number.to_be_bytes(), &len.to_be_bytes(), data].concat()
}

fn info(number: u32, name: &str, infos: &[u16]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&(infos.len() as u16).to_be_bytes());
    data.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
    option(number, &data)
}

/// Exports of which the first has contexts, and the second has one of them.
fn with_contexts() -> Vec<Export> {
    let names = ["base:allocation", "qemu:dirty-bitmap:a", "qemu:dirty-bitmap:b", "qemu:allocation-depth"];
    let mut exports = exports();
    let zwei = exports.pop().unwrap().with_contexts([names[0]]).unwrap();
    let one = exports.pop().unwrap().with_contexts(names).unwrap();
    vec![one, zwei]
}

fn simple(export: &Export, no_zeroes: bool) -> Negotiated<'_> {
    Negotiated::new(export, no_zeroes, ReplyStyle::Simple, Contexts::default())
}

/// A reply as the client reads it: the option, the type, the data.
type Reply = (u32, u32, Vec<u8>);

fn parse(mut output: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while !output.is_empty() {
        assert_eq!(output[..8], [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9]);
        let len = u32_at(output, 16) as usize;
        replies.push((u32_at(output, 8), u32_at(output, 12), output[20..20 + len].to_vec()));
        output = &output[20 + len..];
    }
    replies
}

/// Feeds all of `input`; the output, and how it ended.
fn feed_all<'e>(handshake: &mut Handshake<'e>, mut input: &[u8]) -> (Vec<u8>, Progress<'e>) {
    let mut output = Vec::new();
    loop {
        match handshake.feed(&mut input, &mut output) {
            Progress::Continue if input.is_empty() => return (output, Progress::Continue),
            Progress::Continue => {}
            end => return (output, end),
        }
    }
}

/// One option on a fresh connection with client flags `flags`.
fn negotiate<'e>(exports: &'e [Export], flags: u32, input: &[u8]) -> (Vec<u8>, Progress<'e>) {
    let mut handshake = Handshake::new(exports);
    assert_eq!(feed_all(&mut handshake, &flags.to_be_bytes()), (vec![], Progress::Continue));
    feed_all(&mut handshake, input)
}

/// The types of the replies to `input`, after which the negotiation must go on and still be in
/// step.
fn kinds(input: &[u8]) -> Vec<u32> {
    let exports = exports();
    let mut handshake = Handshake::new(&exports);
    feed_all(&mut handshake, &3u32.to_be_bytes());
    let (output, progress) = feed_all(&mut handshake, input);
    assert_eq!(progress, Progress::Continue);
    let (end, progress) = feed_all(&mut handshake, &option(2, b""));
    assert_eq!((parse(&end), progress), (vec![(2, ACK, vec![])], Progress::Close(Close::Aborted)));
    parse(&output).into_iter().map(|(_, kind, _)| kind).collect()
}

#[test]
fn the_greeting_offers_fixed_newstyle_and_no_zeroes() {
    assert_eq!(Handshake::greeting(), *b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn client_flags_that_were_not_offered_end_it() {
    let exports = exports();
    for flags in 0..=3u32 {
        let (_, progress) = feed_all(&mut Handshake::new(&exports), &flags.to_be_bytes());
        assert_eq!(progress, Progress::Continue);
    }
    for flags in [4u32, 7, 1 << 31] {
        let (output, progress) = feed_all(&mut Handshake::new(&exports), &flags.to_be_bytes());
        assert_eq!((output, progress), (vec![], Progress::Close(Close::ClientFlags(flags))));
    }
}

#[test]
fn options_that_are_not_supported_get_an_error_and_stay_in_step() {
    for (input, expected) in [
        (option(0x0765_4321, b"1234"), UNSUP),
        (option(0, b""), UNSUP),
        (option(4, b"peek"), UNSUP),
        (option(5, b""), UNSUP),
        (option(8, b""), UNSUP),
        (option(9, b"\0\0\0\0\0\0\0\0"), UNSUP),
        (option(10, b"\0\0\0\0\0\0\0\0"), UNSUP),
        (option(11, b""), UNSUP),
        (option(u32::MAX, &[7; MAX_OPTION_DATA + 1]), UNSUP),
        // Known, but with data that they don't take.
        (option(3, b"x"), INVALID),
        (option(5, b"x"), INVALID),
        (option(8, b"x"), INVALID),
        (option(11, b"x"), INVALID),
        // INFO: no data, name longer than the option, no count, count too high, too low, bad
        // strings.
        (option(6, b""), INVALID),
        (option(6, b"\0\0\0"), INVALID),
        (option(6, b"\0\0\0\x03one"), INVALID),
        (option(6, b"\0\0\0\x06one\0\0"), INVALID),
        (option(6, b"\xff\xff\xff\xffone\0\0"), INVALID),
        (option(7, b"\0\0\0\x03one\0\x01"), INVALID),
        (option(7, b"\0\0\0\x03one\0\x01\0"), INVALID),
        (option(7, b"\0\0\0\x03one\0\0\0\0"), INVALID),
        (option(7, b"\0\0\0\x01\xff\0\0"), INVALID),
        (info(7, "on\0e", &[]), INVALID),
        (info(7, &"x".repeat(4097), &[]), INVALID),
        // Well formed, but no such export.
        (info(6, "two", &[]), UNKNOWN),
        (info(7, "two", &[0, 3]), UNKNOWN),
        (info(7, &"x".repeat(4096), &[]), UNKNOWN),
        // Too long to hold.
        (option(7, &[0; MAX_OPTION_DATA + 1]), TOO_BIG),
        (option(3, &[0; MAX_OPTION_DATA + 1]), TOO_BIG),
    ] {
        assert_eq!(kinds(&input), [expected], "{:x?}", &input[..input.len().min(40)]);
    }
}

#[test]
fn errors_carry_a_message_and_name_their_option() {
    let exports = exports();
    let (output, _) = negotiate(&exports, 3, &option(0x0765_4321, b"1234"));
    let [(number, UNSUP, message)] = &parse(&output)[..] else { panic!("{output:x?}") };
    assert_eq!(*number, 0x0765_4321);
    assert!(!message.is_empty() && message.is_ascii());
}

#[test]
fn list_names_every_export() {
    let exports = exports();
    let (output, progress) = negotiate(&exports, 1, &option(3, b""));
    assert_eq!(progress, Progress::Continue);
    let one = b"\0\0\0\x03onefirst".to_vec();
    assert_eq!(parse(&output), [(3, 2, one), (3, 2, b"\0\0\0\x04zwei".to_vec()), (3, 1, vec![])]);
}

#[test]
fn an_export_without_a_name_is_listed_too() {
    let exports = [Export::new("", 5, TransmissionFlags::empty(), SizeConstraints::default()).unwrap()];
    let (output, _) = negotiate(&exports, 1, &option(3, b""));
    assert_eq!(parse(&output), [(3, 2, vec![0; 4]), (3, 1, vec![])]);
}

#[test]
fn info_and_go_tell_the_same() {
    let exports = exports();
    let mut handshake = Handshake::new(&exports);
    feed_all(&mut handshake, &1u32.to_be_bytes());
    let infos = [3, 1, 2, 3, 0xeeee];
    let (told, progress) = feed_all(&mut handshake, &info(6, "", &infos));
    assert_eq!(progress, Progress::Continue);
    let expected = [
        [0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 5].to_vec(),
        b"\0\x01one".to_vec(),
        b"\0\x02first".to_vec(),
        b"\0\x03\0\0\x02\0\0\0\x10\0\x02\0\0\0".to_vec(),
    ];
    let data: Vec<_> = parse(&told).into_iter().map(|(_, _, data)| data).collect();
    assert_eq!(data[..4], expected);
    let (go, progress) = feed_all(&mut handshake, &info(7, "", &infos));
    let go: Vec<_> = parse(&go).into_iter().map(|(_, kind, data)| (6, kind, data)).collect();
    assert_eq!(go, parse(&told));
    assert_eq!(progress, Progress::Transmission(simple(&exports[0], false)));
}

#[test]
fn go_needs_no_information_requests() {
    let exports = exports();
    let (output, progress) = negotiate(&exports, 3, &info(7, "zwei", &[]));
    let kinds: Vec<_> = parse(&output).into_iter().map(|(_, kind, data)| (kind, data.len())).collect();
    assert_eq!(kinds, [(3, 12), (1, 0)]);
    assert_eq!(progress, Progress::Transmission(simple(&exports[1], true)));
}

#[test]
fn export_name_is_followed_by_zeroes_unless_they_were_declined() {
    let exports = exports();
    let answer = b"\0\0\0\0\0\0\x12\x34\0\x05";
    for (flags, zeroes) in [(0, 124), (1, 124), (2, 0), (3, 0)] {
        for name in ["", "one"] {
            let (output, progress) = negotiate(&exports, flags, &option(1, name.as_bytes()));
            assert_eq!(output, [&answer[..], &vec![0; zeroes]].concat());
            let no_zeroes = zeroes == 0;
            assert_eq!(progress, Progress::Transmission(simple(&exports[0], no_zeroes)));
        }
    }
}

#[test]
fn what_cannot_be_answered_ends_it_in_silence() {
    let exports = exports();
    let mut long = option(1, b"");
    long[12..].copy_from_slice(&(MAX_OPTION_DATA as u32 + 1).to_be_bytes());
    let mut huge = option(0x99, b"");
    huge[12..].copy_from_slice(&(MAX_DISCARD as u32 + 1).to_be_bytes());
    for (input, reason) in [
        (option(1, b"two"), Close::UnknownExport),
        (option(1, b"\xff"), Close::UnknownExport),
        (long, Close::OptionTooLong(MAX_OPTION_DATA as u32 + 1)),
        (huge, Close::OptionTooLong(MAX_DISCARD as u32 + 1)),
        (b"GET / HTTP/1.1\r\n".to_vec(), Close::OptionMagic(u64::from_be_bytes(*b"GET / HT"))),
    ] {
        assert_eq!(negotiate(&exports, 3, &input), (vec![], Progress::Close(reason)));
    }
}

#[test]
fn the_number_of_options_is_bounded() {
    let exports = exports();
    let (output, progress) = negotiate(&exports, 3, &option(3, b"").repeat(MAX_OPTIONS + 1));
    assert_eq!(progress, Progress::Close(Close::TooManyOptions));
    assert_eq!(parse(&output).len(), 3 * MAX_OPTIONS);
}

#[test]
fn abort_is_acknowledged_whatever_its_data_and_nothing_follows() {
    let exports = exports();
    for data in [&b""[..], b"bye", &[0; MAX_OPTION_DATA + 1]] {
        let mut handshake = Handshake::new(&exports);
        feed_all(&mut handshake, &3u32.to_be_bytes());
        let (output, progress) = feed_all(&mut handshake, &option(2, data));
        assert_eq!((parse(&output), progress), (vec![(2, ACK, vec![])], Progress::Close(Close::Aborted)));
        assert_eq!(handshake.wanted(), 0);
        assert_eq!(feed_all(&mut handshake, b"more"), (vec![], Progress::Close(Close::Aborted)));
    }
}

#[test]
fn the_first_request_is_left_in_the_input() {
    let exports = exports();
    let mut handshake = Handshake::new(&exports);
    let bytes = [&3u32.to_be_bytes()[..], &option(1, b"one"), b"request"].concat();
    let mut input = &bytes[..];
    let mut output = Vec::new();
    while handshake.feed(&mut input, &mut output) == Progress::Continue {}
    assert_eq!(input, b"request");
}

fn any_option() -> impl Strategy<Value = Vec<u8>> {
    let data = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        (0..13u32, data).prop_map(|(number, data)| option(number, &data)),
        (6..8u32, "(one|zwei|x)?", prop::collection::vec(0..5u16, 0..5))
            .prop_map(|(number, name, infos)| info(number, &name, &infos)),
        prop_oneof![Just(5u32), Just(8), Just(11)].prop_map(|number| option(number, b"")),
        (9..11u32, "(one|zwei|x)?", prop::collection::vec("(base:|qemu:|x)(allocation|dirty)?:?", 0..5))
            .prop_map(|(number, name, queries)| meta_context::query(number, &name, &queries)),
        prop::collection::vec(any::<u8>(), 0..20),
    ]
}

/// Offers all that there is.
fn generous(exports: &[Export]) -> Handshake<'_> {
    Handshake::new(exports).with_features(Features::all()).with_tls(Tls::Offered)
}

/// Like [`feed_all`], but for TLS, whose bytes are taken to be the same.
fn feed_through<'e>(handshake: &mut Handshake<'e>, input: &mut &[u8], output: &mut Vec<u8>) -> Progress<'e> {
    loop {
        match handshake.feed(input, output) {
            Progress::StartTls => handshake.tls_started(),
            Progress::Continue if input.is_empty() => return Progress::Continue,
            Progress::Continue => {}
            end => return end,
        }
    }
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        flags in 0..5u32,
        options in prop::collection::vec(any_option(), 0..8),
        pieces in prop::collection::vec(1..50usize, 1..10),
    ) {
        let exports = with_contexts();
        let bytes = [&flags.to_be_bytes()[..], &options.concat()].concat();
        let (mut input, mut whole) = (&bytes[..], Vec::new());
        let ended = feed_through(&mut generous(&exports), &mut input, &mut whole);
        let (mut handshake, mut output, mut rest) = (generous(&exports), Vec::new(), &bytes[..]);
        let mut progress = Progress::Continue;
        for piece in pieces.iter().cycle() {
            if progress != Progress::Continue || rest.is_empty() {
                break;
            }
            let (mut piece, tail) = rest.split_at(rest.len().min(*piece));
            rest = tail;
            progress = feed_through(&mut handshake, &mut piece, &mut output);
            rest = &bytes[bytes.len() - rest.len() - piece.len()..];
        }
        // The bytes behind the negotiation are left in any case.
        prop_assert_eq!((whole, ended, input.len()), (output, progress, rest.len()));
    }

    #[test]
    fn no_byte_of_the_transmission_phase_is_taken(
        options in prop::collection::vec(any_option(), 0..8),
        is_go: bool,
        requests in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let exports = with_contexts();
        let choice = if is_go { info(7, "zwei", &[3]) } else { option(1, b"zwei") };
        let mut handshake = generous(&exports);
        let start = [&3u32.to_be_bytes()[..], &options.concat()].concat();
        let mut input = &start[..];
        let progress = feed_through(&mut handshake, &mut input, &mut Vec::new());
        // The random options may have ended the negotiation, or left it within an option.
        prop_assume!(progress == Progress::Continue && handshake.wanted() == OPTION_HEADER);
        let bytes = [choice, requests.clone()].concat();
        let mut input = &bytes[..];
        match feed_through(&mut handshake, &mut input, &mut Vec::new()) {
            Progress::Transmission(negotiated) => {
                prop_assert_eq!(negotiated.export, &exports[1]);
                prop_assert!(is_go || negotiated.style != ReplyStyle::Extended);
            }
            end => prop_assert_eq!(end, Progress::Close(Close::ExportNameForbidden)),
        }
        prop_assert_eq!(input, &requests[..]);
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_fill_memory(
        number in any::<u32>(),
        len in any::<u32>(),
        data in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let exports = with_contexts();
        let mut handshake = generous(&exports);
        let header = [&3u32.to_be_bytes()[..], b"IHAVEOPT", &number.to_be_bytes(), &len.to_be_bytes()].concat();
        let mut input = &[header, data].concat()[..];
        let mut output = Vec::new();
        while handshake.feed(&mut input, &mut output) == Progress::Continue && !input.is_empty() {
            prop_assert!(handshake.item.capacity() <= 2 * (300 + OPTION_HEADER));
            prop_assert!(output.len() < 10_000);
        }
    }
}
