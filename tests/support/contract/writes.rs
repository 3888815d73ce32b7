// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changing content: PUT and PATCH.

use fake_imageio::Op;

use super::{assert_closed, assert_done, assert_open, assert_refused, data};
use crate::setup::{CaseResult, SIZE, Setup};

pub(super) fn put_flushes_unless_told_not_to(setup: &mut Setup<'_>) -> CaseResult {
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

pub(super) fn put_chunked(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let headers = [("transfer-encoding", "chunked"), ("content-range", "bytes 0-3/*")];
    let answer = connection.client.request("PUT", &setup.path, &headers, b"4\r\ndata\r\n0\r\n\r\n")?;
    assert_refused(&answer, 400, "Content-Length header is required");
    Ok(())
}

pub(super) fn put_past_the_end(setup: &mut Setup<'_>) -> CaseResult {
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

pub(super) fn put_nothing(setup: &mut Setup<'_>) -> CaseResult {
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

pub(super) fn put_more_than_the_servers_buffer(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    let written = data(10 << 20);
    assert_done(&connection.put("?flush=n", 4096, &written)?);
    assert!(connection.read(4096, 10 << 20)?.body == written, "what was read is not what was written");
    Ok(())
}

pub(super) fn put_uses_only_the_first_number(setup: &mut Setup<'_>) -> CaseResult {
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

pub(super) fn put_bad_parameters(setup: &mut Setup<'_>) -> CaseResult {
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
pub(super) fn put_answered_early(setup: &mut Setup<'_>) -> CaseResult {
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

pub(super) fn patch_zero(setup: &mut Setup<'_>) -> CaseResult {
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

pub(super) fn patch_zero_past_the_end(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    for (offset, size) in [(0, SIZE + 1), (SIZE - 1, 2), (SIZE + 1, 0)] {
        let answer = connection.patch(&format!(r#"{{"op":"zero","offset":{offset},"size":{size}}}"#))?;
        assert_refused(&answer, 416, "out of allowed range");
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{SIZE}").as_str()));
        assert_open(&mut connection, &answer);
    }
    Ok(())
}

pub(super) fn patch_flush(setup: &mut Setup<'_>) -> CaseResult {
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

pub(super) fn patch_nonsense(setup: &mut Setup<'_>) -> CaseResult {
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

pub(super) fn writes_to_a_read_only_ticket(setup: &mut Setup<'_>) -> CaseResult {
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
