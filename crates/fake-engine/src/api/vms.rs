// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/vms`: virtual machines, the disks that are attached to them, and their snapshots.

use super::{Answer, Call, accepted, boolean, check_id, disks, found, href, ok};
use crate::document::Element;
use crate::engine::Inner;
use crate::state::{Refusal, Vm, new_id};

pub(super) fn answer(engine: &mut Inner, call: &Call, path: &[&str]) -> Option<Answer> {
    Some(match (call.method.as_str(), path) {
        ("GET", []) => list(engine, call),
        ("POST", []) => add(engine, call),
        ("GET", [vm]) => engine.state.vm(vm).and_then(|vm| ok(show(engine, vm, call))),
        ("GET", [vm, "diskattachments"]) => engine.state.vm(vm).and_then(|vm| {
            let attached = vm.disks.iter().map(|disk| show_attachment(vm, disk));
            ok(Element::list("disk_attachments", attached))
        }),
        ("POST", [vm, "diskattachments"]) => attach(engine, call, vm),
        ("GET", [vm, "diskattachments", disk]) => engine.state.vm(vm).and_then(|vm| {
            let is_attached = vm.disks.iter().any(|attached| attached == disk);
            let missing = || Refusal::not_found("disk attachment", disk);
            is_attached.then(|| show_attachment(vm, disk)).ok_or_else(missing).and_then(ok)
        }),
        ("GET", [vm, "snapshots"]) => engine.state.vm(vm).and_then(|vm| {
            let snapshots = snapshots(engine, vm).into_iter();
            ok(Element::list("snapshots", snapshots.map(|snapshot| show_snapshot(vm, &snapshot))))
        }),
        ("GET", [vm, "snapshots", snapshot, "disks"]) => list_snapshot_disks(engine, vm, snapshot),
        _ => return None,
    })
}

fn list(engine: &Inner, call: &Call) -> Answer {
    let vms = found(&engine.state.vms, call, |vm| vec![("name", vm.name.as_str()), ("id", &vm.id)])?;
    ok(Element::list("vms", vms.into_iter().map(|vm| show(engine, vm, call))))
}

fn add(engine: &mut Inner, call: &Call) -> Answer {
    let configuration = call.body.find(&["initialization", "configuration", "data"]);
    let Some(configuration) = configuration else {
        return Err(Refusal::bad_request("Only VMs with a configuration can be added here"));
    };
    let clusters = &engine.state.clusters;
    let named = |name: &str| clusters.iter().find(|cluster| cluster.name == name).map(|cluster| &cluster.id);
    let cluster = call.body.find(&["cluster", "id"]).map(str::to_owned);
    let cluster = cluster.or_else(|| call.body.find(&["cluster", "name"]).and_then(named).cloned());
    let vm = Vm {
        id: new_id(),
        name: call.body.find(&["name"]).or_else(|| name_in(configuration)).unwrap_or("imported").to_owned(),
        cluster: cluster.ok_or_else(|| Refusal::bad_request("Vm [cluster.id|name] required for add"))?,
        disks: Vec::new(),
        inactive_disks: Vec::new(),
        configuration: configuration.to_owned(),
    };
    let correlation_id = call.parameter("correlation_id").unwrap_or_default();
    engine.state.import_vm(vm.clone(), correlation_id, call.now)?;
    accepted(show(engine, &vm, call))
}

/// The name of the virtual machine in an OVF document.
fn name_in(configuration: &str) -> Option<&str> {
    let (_, rest) = configuration.split_once("<Name>")?;
    rest.split_once("</Name>").map(|(name, _)| name.trim())
}

fn show(engine: &Inner, vm: &Vm, call: &Call) -> Element {
    let place = href(&["vms", &vm.id]);
    let cluster = Element::resource("cluster", &href(&["clusters", &vm.cluster]), &vm.cluster);
    let mut shown = Element::resource("vm", &place, &vm.id)
        .with("name", &vm.name)
        .with("status", "down")
        .and(cluster)
        .link("diskattachments", &format!("{place}/diskattachments"))
        .link("snapshots", &format!("{place}/snapshots"))
        .link("backups", &format!("{place}/backups"))
        .link("checkpoints", &format!("{place}/checkpoints"));
    if call.all_content {
        let configuration =
            Element::object("configuration").with("data", &vm.configuration).with("type", "ovf");
        shown = shown.and(Element::object("initialization").and(configuration));
    }
    if call.parameter("follow").is_some_and(|follow| follow.contains("disk_attachments")) {
        let known = vm.disks.iter().filter_map(|disk| engine.state.disk(disk).ok());
        let attachments = known.map(|disk| attachment(vm, &disk.id).and(disks::show(engine, disk)));
        shown = shown.and(Element::list("disk_attachments", attachments));
    }
    shown
}

fn attach(engine: &mut Inner, call: &Call, vm: &str) -> Answer {
    let disk = call.body.find(&["disk", "id"]).map(check_id);
    let disk =
        disk.unwrap_or_else(|| Err(Refusal::bad_request("DiskAttachment [disk.id] required for add")))?;
    let is_active = boolean(&call.body, "active")?.unwrap_or(true);
    engine.state.attach_disk(vm, &disk)?;
    engine.state.set_disk_active(vm, &disk, is_active)?;
    Ok(super::Reply { status: 201, body: show_attachment(engine.state.vm(vm)?, &disk) })
}

fn attachment(vm: &Vm, disk: &str) -> Element {
    let is_active = vm.inactive_disks.iter().all(|inactive| inactive != disk);
    let place = href(&["vms", &vm.id]);
    Element::resource("disk_attachment", &format!("{place}/diskattachments/{disk}"), disk)
        .with("active", is_active)
        .with("bootable", false)
        .with("interface", "virtio_scsi")
        .and(Element::resource("vm", &place, &vm.id))
}

fn show_attachment(vm: &Vm, disk: &str) -> Element {
    attachment(vm, disk).and(Element::resource("disk", &href(&["disks", disk]), disk))
}

/// The snapshots that a VM's disks belong to, in the order in which they were made.
fn snapshots(engine: &Inner, vm: &Vm) -> Vec<String> {
    let known = vm.disks.iter().filter_map(|disk| engine.state.disk(disk).ok());
    let mut all = Vec::new();
    for layer in known.flat_map(|disk| &disk.layers[..disk.layers.len() - 1]) {
        if !all.contains(&layer.snapshot) {
            all.push(layer.snapshot.clone());
        }
    }
    all
}

fn show_snapshot(vm: &Vm, snapshot: &str) -> Element {
    let place = href(&["vms", &vm.id, "snapshots", snapshot]);
    Element::resource("snapshot", &place, snapshot)
        .with("description", "a snapshot")
        .with("snapshot_status", "ok")
        .with("snapshot_type", "regular")
        .and(Element::resource("vm", &href(&["vms", &vm.id]), &vm.id))
        .link("disks", &format!("{place}/disks"))
}

fn list_snapshot_disks(engine: &Inner, vm: &str, snapshot: &str) -> Answer {
    let vm = engine.state.vm(vm)?;
    if !snapshots(engine, vm).iter().any(|known| known == snapshot) {
        return Err(Refusal::not_found("snapshot", snapshot));
    }
    let known = vm.disks.iter().filter_map(|disk| engine.state.disk(disk).ok());
    let of_snapshot = known.filter_map(|disk| {
        let layer = disk.layers.iter().find(|layer| layer.snapshot == snapshot)?;
        let shown = Element::object("disk").with("id", &disk.id).with("image_id", &layer.image);
        Some(shown.with("name", &disk.name).with("provisioned_size", disk.provisioned_size))
    });
    ok(Element::list("disks", of_snapshot))
}
