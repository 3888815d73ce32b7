// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cases.

use fake_imageio::Op;
use serde_json::Value;
use support::http::{Answer, End};

use crate::setup::{CaseResult, Connection, Needs, SIZE, Setup};

/// One thing that clients may rely on.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) run: fn(&mut Setup<'_>) -> CaseResult,
}

const WRITABLE: Needs = Needs { read_only: false, short_timeout: false };
const READ_ONLY: Needs = Needs { read_only: true, ..WRITABLE };
const SHORT_TIMEOUT: Needs = Needs { short_timeout: true, ..WRITABLE };

macro_rules! cases {
    ($($needs:ident $name:ident,)*) => {
        pub(crate) const CASES: &[Case] =
            &[$(Case { name: stringify!($name), needs: $needs, run: $name }),*];
    };
}

cases! {
    WRITABLE options_of_a_writable_ticket,
    READ_ONLY options_of_a_read_only_ticket,
    WRITABLE get_a_range,
    WRITABLE get_an_open_range,
    WRITABLE get_the_whole,
    WRITABLE get_past_the_end,
    WRITABLE get_odd_ranges,
    WRITABLE put_flushes_unless_told_not_to,
    WRITABLE put_chunked,
    WRITABLE put_past_the_end,
    WRITABLE put_nothing,
    WRITABLE put_more_than_the_servers_buffer,
    WRITABLE put_uses_only_the_first_number,
    WRITABLE put_bad_parameters,
    WRITABLE put_answered_early,
    WRITABLE patch_zero,
    WRITABLE patch_zero_past_the_end,
    WRITABLE patch_flush,
    WRITABLE patch_nonsense,
    READ_ONLY writes_to_a_read_only_ticket,
    WRITABLE unknown_ticket,
    WRITABLE cancelled_ticket,
    WRITABLE other_paths_and_methods,
    WRITABLE close_on_request,
    WRITABLE keep_alive,
    WRITABLE connections_share_the_disk,
    WRITABLE extents_cover_the_disk,
    WRITABLE dirty_extents_are_not_there,
    SHORT_TIMEOUT idle_connection_is_closed,
}

/// Data without zeroes that tells where it belongs.
fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 + (i / 251 % 4) as u8 + 1).collect()
}

/// An error: its status, and one line of text.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, says: &str) {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, status, "{text}");
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{answer:?}");
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert!(text.ends_with('\n') && text.lines().count() == 1, "not one line: {text:?}");
    assert!(text.contains(says), "{text:?} does not say {says:?}");
}

/// Success with nothing to say.
#[track_caller]
fn assert_done(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.says_close()),
        (200, false),
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    assert_eq!((answer.header("content-length"), answer.body.len()), (Some("0"), 0));
}

/// The connection can be used for another request.
#[track_caller]
fn assert_open(connection: &mut Connection, answer: &Answer) {
    assert!(!answer.says_close());
    assert_eq!(connection.options().expect("the connection should be open").status, 200);
}

/// The server said that it closes the connection, and did.
#[track_caller]
fn assert_closed(connection: &mut Connection, answer: &Answer) {
    assert!(answer.says_close(), "{answer:?}");
    connection.client.read_end().expect("the connection should be closed");
}

fn json(answer: &Answer) -> Value {
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn assert_options(setup: &Setup<'_>, allow: &str, features: &[&str]) -> CaseResult {
    let mut connection = setup.connect()?;
    let answer = connection.options()?;
    assert_eq!(answer.header("allow"), Some(allow));
    let mut options = json(&answer);
    let offered = options["features"].as_array_mut().expect("an array");
    // The fake does not compute checksums.
    offered.retain(|feature| feature != "checksum");
    assert_eq!(options["features"], serde_json::to_value(features)?);
    assert_eq!(options["max_readers"], 8);
    assert_eq!(options["max_writers"], setup.server.max_writers());
    assert_eq!(options["unix_socket"], setup.unix_socket.as_str());
    assert_open(&mut connection, &answer);
    Ok(())
}

fn options_of_a_writable_ticket(setup: &mut Setup<'_>) -> CaseResult {
    assert_options(setup, "OPTIONS,GET,PUT,PATCH", &["extents", "flush", "zero"])
}

fn options_of_a_read_only_ticket(setup: &mut Setup<'_>) -> CaseResult {
    assert_options(setup, "OPTIONS,GET", &["extents"])
}

fn get_a_range(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    assert_done(&connection.put("", 4096, &data(10_000))?);
    for (offset, len) in [(4096, 10_000), (4097, 1), (5000, 5000), (SIZE - 1, 1)] {
        let answer = connection.read(offset, len)?;
        assert_eq!(answer.status, 206);
        let range = format!("bytes {offset}-{}/{SIZE}", offset + len - 1);
        assert_eq!(answer.header("content-range"), Some(range.as_str()));
        assert_eq!(answer.header("content-length"), Some(len.to_string().as_str()));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        let expected = if offset < SIZE - 1 {
            data(10_000)[offset as usize - 4096..][..len as usize].to_vec()
        } else {
            vec![0]
        };
        assert_eq!(answer.body, expected);
        assert_open(&mut connection, &answer);
    }
    Ok(())
}

fn get_an_open_range(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let answer = connection.get("", Some(&format!("bytes={}-", SIZE - 100)))?;
    assert_eq!((answer.status, answer.body.len()), (206, 100));
    // Nothing is left at the very end; further on it is an error of another kind than a closed range's.
    let at_end = connection.get("", Some(&format!("bytes={SIZE}-")))?;
    assert_eq!((at_end.status, at_end.body.len()), (206, 0));
    let past_end = connection.get("", Some(&format!("bytes={}-", SIZE + 5)))?;
    assert_refused(&past_end, 400, "Requested -5 bytes, available 0 bytes");
    assert_open(&mut connection, &past_end);
    Ok(())
}

fn get_the_whole(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    assert_done(&connection.put("", SIZE - 100, &data(100))?);
    let answer = connection.get("", None)?;
    assert_eq!((answer.status, answer.header("content-range")), (200, None));
    let (zeroes, written) = answer.body.split_at(SIZE as usize - 100);
    assert!(zeroes.iter().all(|byte| *byte == 0));
    assert_eq!(written, data(100));
    Ok(())
}

fn get_past_the_end(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    for (offset, len) in [(0, SIZE + 1), (SIZE - 1, 2), (SIZE, 1), (SIZE + 4096, 512)] {
        let answer = connection.read(offset, len)?;
        assert_refused(&answer, 416, "out of allowed range");
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{SIZE}").as_str()));
        assert_open(&mut connection, &answer);
    }
    Ok(())
}

fn get_odd_ranges(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let odd = [
        ("bytes=-100", "not supported"),
        ("bytes=0-9,20-29", "multiple ranges"),
        ("bytes=9-0", "first > last"),
        ("bytes=-", "no first or last"),
        ("blocks=0-1", "invalid range"),
    ];
    for (range, says) in odd {
        let answer = connection.get("", Some(range))?;
        assert_refused(&answer, 416, says);
        // No size here: it is refused before the ticket is looked at.
        assert_eq!(answer.header("content-range"), None);
        assert_open(&mut connection, &answer);
    }
    Ok(())
}

fn put_flushes_unless_told_not_to(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    for (i, (query, flushes)) in [("", true), ("?flush=y", true), ("?flush=n", false)].into_iter().enumerate()
    {
        let offset = i as u64 * 65536;
        assert_done(&connection.put(query, offset, &data(65536))?);
        assert_eq!(connection.read(offset, 65536)?.body, data(65536));
        if let Some(fake) = &setup.fake {
            let log = fake.log();
            assert_eq!(log.of(Op::Put).last().map(|put| put.flush), Some(flushes));
            assert_eq!(log.connections[0].unflushed, if flushes { 0 } else { 65536 });
        }
    }
    Ok(())
}

fn put_chunked(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let headers = [("transfer-encoding", "chunked"), ("content-range", "bytes 0-3/*")];
    let answer = connection.client.request("PUT", &setup.path, &headers, b"4\r\ndata\r\n0\r\n\r\n")?;
    assert_refused(&answer, 400, "Content-Length header is required");
    Ok(())
}

fn put_past_the_end(setup: &mut Setup<'_>) -> CaseResult {
    for offset in [SIZE - 4095, SIZE, SIZE + 4096] {
        let mut connection = setup.connect()?;
        let answer = connection.put("?flush=n", offset, &data(4096))?;
        assert_refused(&answer, 416, "out of allowed range");
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{SIZE}").as_str()));
        assert_closed(&mut connection, &answer);
    }
    let mut connection = setup.connect()?;
    assert_eq!(connection.read(SIZE - 4096, 4096)?.body, [0; 4096]);
    Ok(())
}

fn put_nothing(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    for offset in [0, 512, SIZE] {
        assert_done(&connection.put("?flush=n", offset, b"")?);
    }
    // There is no body that was not read, so the connection survives.
    let answer = connection.put("?flush=n", SIZE + 1, b"")?;
    assert_refused(&answer, 416, "out of allowed range");
    assert_open(&mut connection, &answer);
    Ok(())
}

fn put_more_than_the_servers_buffer(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let written = data(10 << 20);
    assert_done(&connection.put("?flush=n", 4096, &written)?);
    assert!(connection.read(4096, 10 << 20)?.body == written, "what was read is not what was written");
    Ok(())
}

fn put_uses_only_the_first_number(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    for range in ["bytes 4096-4096/*", "bytes 4096-*/*", "bytes 4096-9999/10000"] {
        let answer =
            connection.client.request("PUT", &setup.path, &[("content-range", range)], &data(512))?;
        assert_done(&answer);
        assert_eq!(connection.read(4096, 512)?.body, data(512));
        assert_done(&connection.patch(r#"{"op":"zero","offset":4096,"size":512}"#)?);
    }
    // Without, it is the start of the disk.
    assert_done(&connection.client.request("PUT", &setup.path, &[], &data(512))?);
    assert_eq!(connection.read(0, 512)?.body, data(512));
    Ok(())
}

fn put_bad_parameters(setup: &mut Setup<'_>) -> CaseResult {
    let bad_flush = format!("{}?flush=maybe", setup.path);
    let bad = [
        (setup.path.as_str(), "bytes 9-0/*", "Content-Range"),
        (setup.path.as_str(), "bytes */100", "Content-Range"),
        (setup.path.as_str(), "0-511", "Content-Range"),
        (bad_flush.as_str(), "bytes 0-511/*", "flush"),
    ];
    for (path, range, says) in bad {
        let mut connection = setup.connect()?;
        let answer = connection.client.request("PUT", path, &[("content-range", range)], &data(512))?;
        assert_refused(&answer, 400, says);
        assert_closed(&mut connection, &answer);
    }
    Ok(())
}

/// The answer can be read although the request could not be sent to its end.
fn put_answered_early(setup: &mut Setup<'_>) -> CaseResult {
    const LENGTH: usize = 1 << 30;
    let mut connection = setup.connect()?;
    let (range, length) = (format!("bytes {SIZE}-{}/*", SIZE + 1), LENGTH.to_string());
    let headers = [("content-range", range.as_str()), ("content-length", length.as_str())];
    connection.client.send_head("PUT", &format!("{}?flush=n", setup.path), &headers)?;
    let piece = vec![1; 256 << 10];
    let failed = (0..LENGTH / piece.len()).any(|_| connection.client.send(&piece).is_err());
    assert!(failed, "the server should not have read it all");
    let answer = connection.client.read_answer()?;
    assert_refused(&answer, 416, "out of allowed range");
    assert_closed(&mut connection, &answer);
    Ok(())
}

fn patch_zero(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    for flush in ["", r#","flush":true"#, r#","flush":false"#] {
        assert_done(&connection.put("?flush=n", 0, &data(1 << 20))?);
        let (from, len) = (100_000, 500_000);
        assert_done(&connection.patch(&format!(r#"{{"op":"zero","offset":{from},"size":{len}{flush}}}"#))?);
        let mut expected = data(1 << 20);
        expected[from..from + len].fill(0);
        assert!(connection.read(0, 1 << 20)?.body == expected, "the range is not zero, or more than it is");
    }
    // The default offset is 0; no bytes at all are fine.
    assert_done(&connection.patch(r#"{"op":"zero","size":1}"#)?);
    assert_done(&connection.patch(r#"{"op":"zero","size":0}"#)?);
    assert_eq!(connection.read(0, 2)?.body, [0, data(2)[1]]);
    Ok(())
}

fn patch_zero_past_the_end(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    for (offset, size) in [(0, SIZE + 1), (SIZE - 1, 2), (SIZE + 1, 0)] {
        let answer = connection.patch(&format!(r#"{{"op":"zero","offset":{offset},"size":{size}}}"#))?;
        assert_refused(&answer, 416, "out of allowed range");
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{SIZE}").as_str()));
        assert_open(&mut connection, &answer);
    }
    Ok(())
}

fn patch_flush(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    assert_done(&connection.patch(r#"{"op":"flush"}"#)?);
    assert_done(&connection.put("?flush=n", 0, &data(4096))?);
    assert_done(&connection.patch(r#"{"op":"flush"}"#)?);
    if let Some(fake) = &setup.fake {
        let log = fake.log();
        assert_eq!((log.of(Op::Flush).count(), log.connections[0].unflushed), (2, 0));
    }
    Ok(())
}

fn patch_nonsense(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let nonsense = [
        ("{", "Invalid JSON"),
        ("{}", "op"),
        (r#"{"op":"trim","offset":0,"size":1}"#, "Unsupported value"),
        (r#"{"op":"zero"}"#, "size"),
        (r#"{"op":"zero","size":-1}"#, "< 0"),
        (r#"{"op":"zero","size":"1"}"#, "Integer required"),
        (r#"{"op":"zero","size":1.5}"#, "Integer required"),
        (r#"{"op":"zero","size":1,"flush":1}"#, "Boolean required"),
    ];
    for (body, says) in nonsense {
        let answer = connection.patch(body)?;
        assert_refused(&answer, 400, says);
        assert_open(&mut connection, &answer);
    }
    let answer = connection.patch("[]")?;
    assert_refused(&answer, 500, "check logs");
    assert_open(&mut connection, &answer);
    Ok(())
}

fn writes_to_a_read_only_ticket(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let answer = connection.put("?flush=n", 0, &data(4096))?;
    assert_refused(&answer, 403, "forbids write");
    assert_closed(&mut connection, &answer);
    for body in [r#"{"op":"zero","size":1}"#, r#"{"op":"flush"}"#] {
        let mut connection = setup.connect()?;
        let answer = connection.patch(body)?;
        assert_refused(&answer, 403, "forbids write");
        assert_closed(&mut connection, &answer);
    }
    let mut connection = setup.connect()?;
    let answer = connection.read(0, 4096)?;
    assert_eq!((answer.status, answer.body), (206, vec![0; 4096]));
    Ok(())
}

fn unknown_ticket(setup: &mut Setup<'_>) -> CaseResult {
    let path = "/images/99999999-0000-4000-8000-000000000000";
    let zero = r#"{"op":"zero","size":1}"#;
    let requests = [
        ("OPTIONS", path.to_owned(), ""),
        ("GET", path.to_owned(), ""),
        ("GET", format!("{path}/extents"), ""),
        ("PUT", path.to_owned(), "data"),
        ("PATCH", path.to_owned(), zero),
    ];
    for (method, path, body) in requests {
        let mut connection = setup.connect()?;
        let answer = connection.client.request(method, &path, &[], body.as_bytes())?;
        assert_refused(&answer, 403, "No such ticket");
        assert_closed(&mut connection, &answer);
    }
    let answer = setup.connect()?.client.request("OPTIONS", "/images/", &[], b"")?;
    assert_refused(&answer, 400, "Ticket id is required");
    Ok(())
}

fn cancelled_ticket(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    assert_done(&connection.put("", 0, &data(4096))?);
    setup.cancel()?;
    let answer = connection.put("?flush=n", 0, &data(4096))?;
    assert_refused(&answer, 403, "");
    assert_closed(&mut connection, &answer);
    Ok(())
}

fn other_paths_and_methods(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let answer = connection.client.request("GET", "/nothing/here", &[], b"")?;
    assert_refused(&answer, 404, "No handler for '/nothing/here'");
    assert_open(&mut connection, &answer);
    for (method, says) in [("DELETE", "not defined"), ("POST", "not defined"), ("BREW", "BREW")] {
        let answer = connection.client.request(method, &setup.path, &[], b"")?;
        assert_refused(&answer, 405, says);
        assert_open(&mut connection, &answer);
    }
    Ok(())
}

fn close_on_request(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let answer = connection.put("?close=y", 0, &data(4096))?;
    assert_eq!(answer.status, 200);
    assert_closed(&mut connection, &answer);
    let mut connection = setup.connect()?;
    let answer = connection.get("?close=y", None)?;
    assert_eq!((answer.status, answer.body.len() as u64), (200, SIZE));
    assert_closed(&mut connection, &answer);
    Ok(())
}

fn keep_alive(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    for i in 0..50 {
        let (offset, written) = (i * 4096, vec![i as u8 + 1; 4096]);
        assert_done(&connection.put("?flush=n", offset, &written)?);
        assert_eq!(connection.read(offset, 4096)?.body, written);
    }
    assert_done(&connection.patch(r#"{"op":"flush"}"#)?);
    if let Some(fake) = &setup.fake {
        assert_eq!((fake.accepted(), fake.connections(), fake.log().requests.len()), (1, 1, 101));
    }
    Ok(())
}

fn connections_share_the_disk(setup: &mut Setup<'_>) -> CaseResult {
    let (mut one, mut two) = (setup.connect()?, setup.connect()?);
    assert_eq!(two.read(0, 8192)?.body, [0; 8192]);
    assert_done(&one.put("?flush=n", 0, &data(4096))?);
    assert_done(&two.put("?flush=n", 4096, &data(4096))?);
    let both = [data(4096), data(4096)].concat();
    assert_eq!(one.read(0, 8192)?.body, both);
    assert_eq!(two.read(0, 8192)?.body, both);
    Ok(())
}

fn extents_cover_the_disk(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    assert_done(&connection.put("", 1 << 20, &data(1 << 20))?);
    for query in ["/extents", "/extents?context=zero"] {
        let answer = connection.get(query, None)?;
        let mut end = 0;
        for extent in json(&answer).as_array().expect("an array") {
            let (start, length) = (extent["start"].as_u64(), extent["length"].as_u64().expect("a number"));
            assert_eq!(start, Some(end), "a gap or an overlap");
            assert!(length > 0 && extent["hole"].is_boolean());
            let has_data = end < 2 << 20 && end + length > 1 << 20;
            assert!(
                !(has_data && extent["zero"].as_bool().expect("a boolean")),
                "data called zero: {extent}"
            );
            end += length;
        }
        assert_eq!(end, SIZE);
        assert_open(&mut connection, &answer);
    }
    Ok(())
}

fn dirty_extents_are_not_there(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let answer = connection.get("/extents?context=dirty", None)?;
    assert_refused(&answer, 404, "does not support dirty extents");
    assert_open(&mut connection, &answer);
    let answer = connection.get("/extents?context=hole", None)?;
    assert_refused(&answer, 400, "context");
    assert_open(&mut connection, &answer);
    Ok(())
}

fn idle_connection_is_closed(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    assert_done(&connection.put("?flush=n", 0, &data(4096))?);
    assert_eq!(connection.client.read_end()?, End::Closed);
    Ok(())
}
