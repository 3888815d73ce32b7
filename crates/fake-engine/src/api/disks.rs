// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/disks`, and the disk snapshots of storage domains.

use super::{Answer, Call, accepted, boolean, check_id, complete, found, href, ok, size};
use crate::document::Element;
use crate::engine::Inner;
use crate::state::{ContentType, Disk, DiskFormat, Layer, NewDisk, Refusal};

pub(super) fn answer(engine: &mut Inner, call: &Call, path: &[&str]) -> Option<Answer> {
    Some(match (call.method.as_str(), path) {
        ("GET", []) => list(engine, call),
        ("POST", []) => add(engine, call),
        ("GET", [id]) => engine.state.disk(id).and_then(|disk| ok(show(engine, disk))),
        ("DELETE", [id]) => engine.state.remove_disk(id, call.now).and_then(|()| complete()),
        _ => return None,
    })
}

fn list(engine: &Inner, call: &Call) -> Answer {
    let disks = found(&engine.state.disks, call, |disk| {
        vec![
            ("name", disk.name.as_str()),
            ("alias", &disk.name),
            ("id", &disk.id),
            ("status", disk.status.name()),
        ]
    })?;
    ok(Element::list("disks", disks.into_iter().map(|disk| show(engine, disk))))
}

fn add(engine: &mut Inner, call: &Call) -> Answer {
    let new = read(&call.body)?;
    let id = engine.state.add_disk(new, call.now)?;
    let disk = show(engine, engine.state.disk(&id)?);
    accepted(disk.link("creation_status", &href(&["disks", &id, "creation_status", "1"])))
}

fn read(body: &Element) -> Result<NewDisk, Refusal> {
    let required = |what: &str| Refusal::bad_request(format!("Disk [{what}] required for add"));
    let domain = body.items("storage_domains", "storage_domain").next();
    let domain = domain.and_then(|domain| domain.find(&["id"]).or_else(|| domain.find(&["name"])));
    let content_type = match body.find(&["content_type"]) {
        None | Some("data") => ContentType::Data,
        Some("iso") => ContentType::Iso,
        Some(other) => {
            return Err(Refusal::bad_request(format!("content_type {other}: data or iso is expected")));
        }
    };
    let text = |name| body.find(&[name]).map(str::to_owned);
    Ok(NewDisk {
        id: body.find(&["id"]).map(check_id).transpose()?,
        name: text("name").or_else(|| text("alias")).unwrap_or_default(),
        description: text("description"),
        format: DiskFormat::parse(body.find(&["format"]).ok_or_else(|| required("format"))?)?,
        content_type,
        provisioned_size: size(body, "provisioned_size")?.ok_or_else(|| required("provisionedSize"))?,
        initial_size: size(body, "initial_size")?,
        sparse: boolean(body, "sparse")?.unwrap_or(true),
        incremental_backup: body.find(&["backup"]) == Some("incremental"),
        shareable: boolean(body, "shareable")?.unwrap_or(false),
        storage_domain: domain.ok_or_else(|| required("storageDomains.storageDomain[0].id|name"))?.to_owned(),
    })
}

/// A disk as it is told of.
pub(super) fn show(engine: &Inner, disk: &Disk) -> Element {
    let allocated = engine.storage.allocated(disk);
    let domain = Element::resource(
        "storage_domain",
        &href(&["storagedomains", &disk.storage_domain]),
        &disk.storage_domain,
    );
    let backup = if disk.incremental_backup { "incremental" } else { "none" };
    let place = href(&["disks", &disk.id]);
    Element::resource("disk", &place, &disk.id)
        .with("name", &disk.name)
        .with("alias", &disk.name)
        .with_some("description", disk.description.as_ref())
        .with("actual_size", allocated)
        .with("backup", backup)
        .with("content_type", disk.content_type.name())
        .with("format", disk.format.name())
        .with("image_id", &disk.top().image)
        .with_some("initial_size", disk.initial_size)
        .with("propagate_errors", false)
        .with("provisioned_size", disk.provisioned_size)
        .with("shareable", disk.shareable)
        .with("sparse", disk.sparse)
        .with("status", disk.status.name())
        .with("storage_type", "image")
        .with("total_size", allocated)
        .with("wipe_after_delete", false)
        .and(Element::list("storage_domains", [domain]))
        .link("statistics", &format!("{place}/statistics"))
}

/// The images of a storage domain's disks, but for those that are written.
pub(super) fn answer_snapshots(engine: &Inner, call: &Call, domain: &str, path: &[&str]) -> Option<Answer> {
    let mut all = engine.state.disks.iter().filter(|disk| disk.storage_domain == domain);
    Some(match (call.method.as_str(), path) {
        ("GET", []) => engine.state.storage_domain(domain).and_then(|_| {
            let snapshots = all.flat_map(|disk| layers(disk).map(move |layer| show_snapshot(disk, layer)));
            ok(Element::list("disk_snapshots", snapshots))
        }),
        ("GET", [id]) => {
            let found = all.find_map(|disk| Some((disk, layers(disk).find(|layer| layer.image == *id)?)));
            let found = found.ok_or_else(|| Refusal::not_found("disk snapshot", id));
            found.and_then(|(disk, layer)| ok(show_snapshot(disk, layer)))
        }
        _ => return None,
    })
}

fn layers(disk: &Disk) -> impl Iterator<Item = &Layer> {
    disk.layers[..disk.layers.len() - 1].iter()
}

fn show_snapshot(disk: &Disk, layer: &Layer) -> Element {
    let place = href(&["storagedomains", &disk.storage_domain, "disksnapshots", &layer.image]);
    let at = disk.layers.iter().position(|other| other == layer);
    let parent = at.and_then(|at| disk.layers.get(at.checked_sub(1)?));
    let mut shown = Element::resource("disk_snapshot", &place, &layer.image)
        .with("name", &disk.name)
        .with("alias", &disk.name)
        .with("content_type", disk.content_type.name())
        .with("format", layer.format.name())
        .with("image_id", &layer.image)
        .with("provisioned_size", disk.provisioned_size)
        .with("sparse", disk.sparse)
        .with("status", disk.status.name())
        .and(Element::resource("disk", &href(&["disks", &disk.id]), &disk.id))
        .and(Element::object("snapshot").with("id", &layer.snapshot));
    if let Some(parent) = parent {
        shown = shown.and(Element::object("parent").with("id", &parent.image));
    }
    shown
}
