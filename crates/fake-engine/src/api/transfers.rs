// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/imagetransfers` (`BackendImageTransfersResource`, `ImageTransferMapper` of ovirt-engine).

use super::{Answer, Call, accepted, boolean, complete, href, ok, size};
use crate::document::Element;
use crate::engine::Inner;
use crate::state::{Action, Direction, DiskFormat, NewTransfer, Refusal, TimeoutPolicy, Transfer};

pub(super) fn answer(engine: &mut Inner, call: &Call, path: &[&str]) -> Option<Answer> {
    Some(match (call.method.as_str(), path) {
        ("GET", []) => ok(Element::list(
            "image_transfers",
            engine.state.transfers.iter().map(|transfer| show(engine, transfer)),
        )),
        ("POST", []) => add(engine, call),
        ("GET", [id]) => engine.state.transfer(id).and_then(|transfer| ok(show(engine, transfer))),
        ("POST", [id, action]) => {
            let action = Action::parse(action)?;
            engine.state.act(id, action, call.now).and_then(|()| complete())
        }
        _ => return None,
    })
}

fn add(engine: &mut Inner, call: &Call) -> Answer {
    let new = read(&call.body)?;
    let id = engine.state.add_transfer(new, call.now)?;
    accepted(show(engine, engine.state.transfer(&id)?))
}

fn read(body: &Element) -> Result<NewTransfer, Refusal> {
    let id = |name| body.find(&[name, "id"]).map(str::to_owned);
    Ok(NewTransfer {
        // Before there was `disk`, it was called `image`.
        disk: id("disk").or_else(|| id("image")),
        snapshot: id("snapshot"),
        backup: id("backup"),
        host: id("host"),
        direction: body.find(&["direction"]).map_or(Ok(Direction::Upload), Direction::parse)?,
        format: body.find(&["format"]).map(DiskFormat::parse).transpose()?,
        shallow: boolean(body, "shallow")?.unwrap_or_default(),
        inactivity_timeout: size(body, "inactivity_timeout")?,
        timeout_policy: body.find(&["timeout_policy"]).map(TimeoutPolicy::parse).transpose()?,
    })
}

fn show(engine: &Inner, transfer: &Transfer) -> Element {
    let place = href(&["imagetransfers", &transfer.id]);
    let urls = transfer.has_ticket.then(|| engine.host.urls(&transfer.ticket)).flatten();
    let (transfer_url, proxy_url) = urls.unzip();
    let mut shown = Element::resource("image_transfer", &place, &transfer.id)
        .with("active", transfer.is_active)
        .with("direction", transfer.direction.name())
        .with("format", transfer.format.name())
        .with("inactivity_timeout", transfer.inactivity_timeout)
        .with("phase", transfer.phase.name())
        .with("shallow", transfer.shallow)
        .with("timeout_policy", transfer.timeout_policy.name())
        .with("transferred", transfer.transferred)
        .with_some("transfer_url", transfer_url)
        .with_some("proxy_url", proxy_url)
        .and(Element::resource("host", &href(&["hosts", &transfer.host]), &transfer.host))
        .and(Element::object("image").with("id", &transfer.disk));
    if let Some(backup) = &transfer.backup {
        shown = shown.and(Element::object("backup").with("id", backup));
    }
    let actions = ["cancel", "extend", "finalize", "pause", "resume"];
    let actions =
        actions.map(|name| Element::object("link").with("href", format!("{place}/{name}")).with("rel", name));
    shown.and(Element::list("actions", actions))
}
