// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cases.

mod connections;
mod reads;
mod writes;

use serde_json::Value;
use support::http::Answer;

use crate::setup::{CaseResult, Connection, Needs, Setup};

/// One thing that clients may rely on.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) run: fn(&mut Setup<'_>) -> CaseResult,
}

const WRITABLE: Needs = Needs { read_only: false, short_timeout: false, dirty: false };
const READ_ONLY: Needs = Needs { read_only: true, ..WRITABLE };
const BACKUP: Needs = Needs { dirty: true, ..WRITABLE };
const SHORT_TIMEOUT: Needs = Needs { short_timeout: true, ..WRITABLE };

macro_rules! cases {
    ($($needs:ident $file:ident::$name:ident,)*) => {
        pub(crate) const CASES: &[Case] =
            &[$(Case { name: stringify!($name), needs: $needs, run: $file::$name }),*];
    };
}

cases! {
    WRITABLE connections::options_of_a_writable_ticket,
    READ_ONLY connections::options_of_a_read_only_ticket,
    WRITABLE reads::get_a_range,
    WRITABLE reads::get_an_open_range,
    WRITABLE reads::get_the_whole,
    WRITABLE reads::get_past_the_end,
    WRITABLE reads::get_odd_ranges,
    WRITABLE writes::put_flushes_unless_told_not_to,
    WRITABLE writes::put_chunked,
    WRITABLE writes::put_past_the_end,
    WRITABLE writes::put_nothing,
    WRITABLE writes::put_more_than_the_servers_buffer,
    WRITABLE writes::put_uses_only_the_first_number,
    WRITABLE writes::put_bad_parameters,
    WRITABLE writes::put_answered_early,
    WRITABLE writes::patch_zero,
    WRITABLE writes::patch_zero_past_the_end,
    WRITABLE writes::patch_flush,
    WRITABLE writes::patch_nonsense,
    READ_ONLY writes::writes_to_a_read_only_ticket,
    WRITABLE connections::unknown_ticket,
    WRITABLE connections::cancelled_ticket,
    WRITABLE connections::other_paths_and_methods,
    WRITABLE connections::close_on_request,
    WRITABLE connections::keep_alive,
    WRITABLE connections::connections_share_the_disk,
    WRITABLE reads::extents_cover_the_disk,
    WRITABLE reads::dirty_extents_are_not_there,
    BACKUP reads::dirty_extents_are_those_of_the_bitmap,
    WRITABLE reads::checksum_of_each_algorithm,
    WRITABLE reads::checksums_that_cannot_be,
    SHORT_TIMEOUT connections::idle_connection_is_closed,
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
    let options = json(&answer);
    assert_eq!(options["features"], serde_json::to_value(features)?);
    assert_eq!(options["max_readers"], 8);
    assert_eq!(options["max_writers"], setup.server.max_writers());
    assert_eq!(options["unix_socket"], setup.unix_socket.as_str());
    assert_open(&mut connection, &answer);
    Ok(())
}
