// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/vms/{vm}/backups` and `/vms/{vm}/checkpoints`.

use super::{Answer, Call, accepted, check_id, complete, disks, href, ok};
use crate::document::Element;
use crate::engine::Inner;
use crate::state::{Backup, Checkpoint, NewBackup, Refusal};

pub(super) fn answer(engine: &mut Inner, call: &Call, vm: &str, path: &[&str]) -> Option<Answer> {
    Some(match (call.method.as_str(), path) {
        ("GET", []) => engine.state.vm(vm).and_then(|_| {
            let backups = engine.state.backups.iter().filter(|backup| backup.vm == vm);
            ok(Element::list("backups", backups.map(show)))
        }),
        ("POST", []) => add(engine, call, vm),
        ("GET", [id]) => engine.state.backup(vm, id).and_then(|backup| ok(show(backup))),
        ("GET", [id, "disks"]) => engine.state.backup(vm, id).and_then(|backup| list_disks(engine, backup)),
        ("GET", [id, "disks", disk]) => engine.state.backup(vm, id).and_then(|backup| {
            let mut disks = backup.disks.iter();
            let part =
                disks.find(|part| part.disk == *disk).ok_or_else(|| Refusal::not_found("disk", disk))?;
            ok(disks::show(engine, engine.state.disk(&part.disk)?).with("backup_mode", part.mode.name()))
        }),
        ("POST", [id, "finalize"]) => {
            engine.state.finalize_backup(vm, id, call.now).and_then(|()| complete())
        }
        _ => return None,
    })
}

fn add(engine: &mut Inner, call: &Call, vm: &str) -> Answer {
    let body = &call.body;
    let text = |name| body.find(&[name]).map(str::to_owned);
    let disks = body.items("disks", "disk").filter_map(|disk| disk.find(&["id"])).map(str::to_owned);
    let new = NewBackup {
        id: body.find(&["id"]).map(check_id).transpose()?,
        vm: vm.to_owned(),
        description: text("description"),
        disks: disks.collect(),
        from_checkpoint: text("from_checkpoint_id"),
    };
    let id = engine.state.add_backup(new, call.now)?;
    accepted(show(engine.state.backup(vm, &id)?))
}

fn list_disks(engine: &Inner, backup: &Backup) -> Answer {
    let mut shown = Vec::new();
    for part in &backup.disks {
        shown.push(disks::show(engine, engine.state.disk(&part.disk)?).with("backup_mode", part.mode.name()));
    }
    ok(Element::list("disks", shown))
}

fn show(backup: &Backup) -> Element {
    let vm = href(&["vms", &backup.vm]);
    let place = format!("{vm}/backups/{}", backup.id);
    Element::resource("backup", &place, &backup.id)
        .with("creation_date", &backup.created)
        .with_some("description", backup.description.as_ref())
        .with_some("from_checkpoint_id", backup.from_checkpoint.as_ref())
        .with_some("to_checkpoint_id", backup.to_checkpoint.as_ref())
        .with("phase", backup.phase.name())
        .and(Element::resource("vm", &vm, &backup.vm))
        .link("disks", &format!("{place}/disks"))
}

pub(super) fn answer_checkpoints(engine: &mut Inner, call: &Call, vm: &str, path: &[&str]) -> Option<Answer> {
    Some(match (call.method.as_str(), path) {
        ("GET", []) => engine.state.vm(vm).and_then(|_| {
            let checkpoints = engine.state.checkpoints.iter().filter(|checkpoint| checkpoint.vm == vm);
            ok(Element::list("checkpoints", checkpoints.map(show_checkpoint)))
        }),
        ("GET", [id]) => {
            engine.state.checkpoint(vm, id).and_then(|checkpoint| ok(show_checkpoint(checkpoint)))
        }
        ("GET", [id, "disks"]) => engine.state.checkpoint(vm, id).and_then(|checkpoint| {
            let known = checkpoint.disks.iter().filter_map(|disk| engine.state.disk(disk).ok());
            ok(Element::list("disks", known.map(|disk| disks::show(engine, disk))))
        }),
        ("DELETE", [id]) => remove_checkpoint(engine, vm, id),
        _ => return None,
    })
}

fn remove_checkpoint(engine: &mut Inner, vm: &str, id: &str) -> Answer {
    let removed = engine.state.remove_checkpoint(vm, id)?;
    let disks: Vec<_> =
        removed.disks.iter().filter_map(|disk| engine.state.disk(disk).ok()).cloned().collect();
    for disk in disks {
        if let Err(error) = engine.storage.remove_bitmap(&disk, &removed.id) {
            log::warn!("a bitmap can't be removed: {error}");
        }
    }
    complete()
}

fn show_checkpoint(checkpoint: &Checkpoint) -> Element {
    let vm = href(&["vms", &checkpoint.vm]);
    let place = format!("{vm}/checkpoints/{}", checkpoint.id);
    Element::resource("checkpoint", &place, &checkpoint.id)
        .with("creation_date", &checkpoint.created)
        .with_some("description", checkpoint.description.as_ref())
        .with_some("parent_id", checkpoint.parent.as_ref())
        .with("state", "created")
        .and(Element::resource("vm", &vm, &checkpoint.vm))
        .link("disks", &format!("{place}/disks"))
}
