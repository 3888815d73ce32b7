// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tickets, paths, and how long connections live.

use support::http::End;

use super::{assert_closed, assert_done, assert_open, assert_options, assert_refused, data};
use crate::setup::{CaseResult, SIZE, Setup};

pub(super) fn options_of_a_writable_ticket(setup: &mut Setup<'_>) -> CaseResult {
    assert_options(setup, "OPTIONS,GET,PUT,PATCH", &["checksum", "extents", "flush", "zero"])
}

pub(super) fn options_of_a_read_only_ticket(setup: &mut Setup<'_>) -> CaseResult {
    assert_options(setup, "OPTIONS,GET", &["checksum", "extents"])
}

pub(super) fn unknown_ticket(setup: &mut Setup<'_>) -> CaseResult {
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

pub(super) fn cancelled_ticket(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    assert_done(&connection.put("", 0, &data(4096))?);
    setup.cancel()?;
    let answer = connection.put("?flush=n", 0, &data(4096))?;
    assert_refused(&answer, 403, "");
    assert_closed(&mut connection, &answer);
    Ok(())
}

pub(super) fn other_paths_and_methods(setup: &mut Setup<'_>) -> CaseResult {
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

pub(super) fn close_on_request(setup: &mut Setup<'_>) -> CaseResult {
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

pub(super) fn keep_alive(setup: &mut Setup<'_>) -> CaseResult {
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

pub(super) fn connections_share_the_disk(setup: &mut Setup<'_>) -> CaseResult {
    let (mut one, mut two) = (setup.connect()?, setup.connect()?);
    assert_eq!(two.read(0, 8192)?.body, [0; 8192]);
    assert_done(&one.put("?flush=n", 0, &data(4096))?);
    assert_done(&two.put("?flush=n", 4096, &data(4096))?);
    let both = [data(4096), data(4096)].concat();
    assert_eq!(one.read(0, 8192)?.body, both);
    assert_eq!(two.read(0, 8192)?.body, both);
    Ok(())
}

pub(super) fn idle_connection_is_closed(setup: &mut Setup<'_>) -> CaseResult {
    let mut connection = setup.connect()?;
    assert_done(&connection.put("?flush=n", 0, &data(4096))?);
    assert_eq!(connection.client.read_end()?, End::Closed);
    Ok(())
}
