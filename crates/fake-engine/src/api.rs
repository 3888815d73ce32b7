// SPDX-License-Identifier: MIT OR Apache-2.0
//! The REST API: which request does what, and what it is answered.

mod backups;
mod disks;
mod inventory;
mod transfers;
mod vms;

use std::time::Instant;

use crate::document::Element;
use crate::engine::Inner;
use crate::search::Search;
use crate::state::Refusal;

/// The path of the API's root.
pub(crate) const ROOT: &str = "/ovirt-engine/api";

/// A request to the API.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// The segments of the path behind [`ROOT`].
    pub(crate) path: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    /// Also what is left out otherwise is asked for.
    pub(crate) all_content: bool,
    pub(crate) body: Element,
    pub(crate) now: Instant,
}

/// The answer to a request that isn't refused.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Element,
}

pub(crate) type Answer = Result<Reply, Refusal>;

impl Call {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn search(&self) -> Search {
        Search::parse(self.parameter("search").unwrap_or_default())
    }
}

/// The status 200 with this.
fn ok(body: Element) -> Answer {
    Ok(Reply { status: 200, body })
}

/// Answers that the request was accepted, and is being carried out.
fn accepted(body: Element) -> Answer {
    Ok(Reply { status: 202, body })
}

/// The action was carried out, or is being.
fn complete() -> Answer {
    ok(Element::object("action").with("status", "complete"))
}

fn href(path: &[&str]) -> String {
    [&[ROOT], path].concat().join("/")
}

/// The items that a search finds.
fn found<'a, T: 'a>(
    items: impl IntoIterator<Item = &'a T>,
    call: &Call,
    properties: impl for<'t> Fn(&'t T) -> Vec<(&'static str, &'t str)>,
) -> Result<Vec<&'a T>, Refusal> {
    let search = call.search();
    let mut all = Vec::new();
    for item in items {
        if search.matches(&properties(item))? {
            all.push(item);
        }
    }
    Ok(all)
}

/// A size in bytes.
fn size(body: &Element, name: &str) -> Result<Option<u64>, Refusal> {
    let parse =
        |text: &str| text.parse().map_err(|_| Refusal::bad_request(format!("{name} {text}: not a number")));
    body.find(&[name]).map(parse).transpose()
}

fn boolean(body: &Element, name: &str) -> Result<Option<bool>, Refusal> {
    let parse = |text: &str| match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Refusal::bad_request(format!("{name} {text}: true or false is expected"))),
    };
    body.find(&[name]).map(parse).transpose()
}

/// Checks that a text is an identifier as clients may choose them.
fn check_id(id: &str) -> Result<String, Refusal> {
    let is_uuid = id.len() == 36 && id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    match is_uuid {
        true => Ok(id.to_owned()),
        false => Err(Refusal::bad_request("An identifier isn't a UUID")),
    }
}

/// Carries out a request.
pub(crate) fn answer(engine: &mut Inner, call: &Call) -> Answer {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    let answered = match *path.as_slice() {
        ["disks", ref rest @ ..] => disks::answer(engine, call, rest),
        ["imagetransfers", ref rest @ ..] => transfers::answer(engine, call, rest),
        ["vms", vm, "backups", ref rest @ ..] => backups::answer(engine, call, vm, rest),
        ["vms", vm, "checkpoints", ref rest @ ..] => backups::answer_checkpoints(engine, call, vm, rest),
        ["vms", ref rest @ ..] => vms::answer(engine, call, rest),
        _ => inventory::answer(engine, call, &path),
    };
    answered.unwrap_or_else(|| Err(Refusal::not_found("resource", &path.join("/"))))
}
