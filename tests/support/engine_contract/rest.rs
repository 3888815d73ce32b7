// SPDX-License-Identifier: MIT OR Apache-2.0
//! The API in JSON, and what becomes of tickets.

use std::fs;

use fake_engine::HostStatus;
use serde_json::{Value, json};
use support::TestResult;
use support::process::PATIENCE;

use crate::Test;
use crate::session::Session;
use support::installation::{Installation, VM};

pub(crate) const TESTS: &[Test] = &[
    ("a_client_that_speaks_json_uploads_and_downloads", there_and_back),
    ("an_uploaded_image_that_does_not_fit_its_disk_is_found_to_be_bad", images),
    ("a_transfer_that_nobody_uses_is_paused_and_resumed_with_its_ticket", idle),
    ("a_transfer_is_cancelled_while_data_is_moved", cancelled_in_use),
    ("what_is_locked_is_refused_with_a_fault", locked),
    ("hosts_and_domains_are_found_by_their_properties", searches),
    ("snapshots_are_downloaded_with_and_without_what_is_below", snapshots),
    ("sessions_end_and_strangers_are_sent_away", sessions),
    ("a_configuration_is_told_to_who_asks_for_all", configuration),
];

fn there_and_back() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    for format in ["raw", "cow"] {
        let disk = session.new_disk(&site.engine, format)?;
        let new = json!({ "disk": { "id": disk }, "format": "raw", "inactivity_timeout": 60 });
        let (transfer, url) = session.transfer(&site.engine, &new)?;
        assert_eq!(session.get(&format!("disks/{disk}"))?.1["status"], "locked");
        assert_eq!(session.move_data(&url, "PUT", &[5; 1 << 20])?.status, 200);
        assert_eq!(
            session.post(&format!("{transfer}/finalize"), &json!({}))?,
            (200, json!({ "status": "complete" }))
        );
        let finished = session.wait(&site.engine, &transfer, "phase", "finished_success")?;
        assert_eq!((&finished["image"]["id"], finished.get("disk")), (&json!(disk), None));
        assert_eq!((finished.get("transfer_url"), finished.get("proxy_url")), (None, None));
        assert_eq!(session.move_data(&url, "GET", &[])?.status, 403, "the ticket is gone");

        let new = json!({ "disk": { "id": disk }, "direction": "download", "format": "raw", "timeout_policy": "cancel" });
        let (transfer, url) = session.transfer(&site.engine, &new)?;
        assert_eq!(session.move_data(&url, "PUT", &[6])?.status, 403, "it is for reading");
        assert!(session.move_data(&url, "GET", &[])?.body == [5; 1 << 20]);
        session.post(&format!("{transfer}/finalize"), &json!({}))?;
        session.wait(&site.engine, &transfer, "phase", "finished_success")?;
        assert_eq!(session.get(&format!("disks/{disk}"))?.1["status"], "ok");
        assert_eq!(session.delete(&format!("disks/{disk}"))?.0, 200);
        assert!(site.engine.wait_for(PATIENCE, |engine| engine.disks().is_empty()));
    }
    // The stored bytes of a qcow2 image go to its file.
    let disk = session.new_disk(&site.engine, "cow")?;
    site.qemu_img(&["create", "-q", "-f", "qcow2", "image", "1M"])?;
    let (transfer, url) =
        session.transfer(&site.engine, &json!({ "disk": { "id": disk }, "format": "cow" }))?;
    assert_eq!(session.move_data(&url, "PUT", &fs::read(site.path("image"))?)?.status, 200);
    session.post(&format!("{transfer}/finalize"), &json!({}))?;
    session.wait(&site.engine, &transfer, "phase", "finished_success")?;
    Ok(())
}

fn images() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    let create = ["create", "-q", "-f", "qcow2"];
    site.qemu_img(&[&create[..], &["large", "2M"]].concat())?;
    site.qemu_img(&[&create[..], &["-b", "/etc/passwd", "-F", "raw", "thief", "1M"]].concat())?;
    fs::write(site.path("noise"), [1; 1 << 16])?;
    for image in ["large", "thief", "noise"] {
        let disk = session.new_disk(&site.engine, "cow")?;
        let (transfer, url) =
            session.transfer(&site.engine, &json!({ "disk": { "id": disk }, "format": "cow" }))?;
        assert_eq!(session.move_data(&url, "PUT", &fs::read(site.path(image))?)?.status, 200);
        session.post(&format!("{transfer}/finalize"), &json!({}))?;
        session.wait(&site.engine, &transfer, "phase", "finished_failure")?;
        assert_eq!(session.get(&format!("disks/{disk}"))?.0, 404, "{image}");
    }
    Ok(())
}

fn idle() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    let disk = session.new_disk(&site.engine, "raw")?;
    let new = json!({ "disk": { "id": disk }, "inactivity_timeout": 1, "timeout_policy": "pause" });
    let (transfer, url) = session.transfer(&site.engine, &new)?;
    assert_eq!(session.move_data(&url, "PUT", b"one")?.status, 200);
    session.wait(&site.engine, &transfer, "phase", "paused_system")?;
    assert_eq!(session.get(&format!("disks/{disk}"))?.1["status"], "locked");
    assert_eq!(session.post(&format!("{transfer}/resume"), &json!({}))?.0, 200);
    let resumed = session.wait(&site.engine, &transfer, "phase", "transferring")?;
    assert_eq!(resumed["transfer_url"], url.as_str());
    assert_eq!(session.move_data(&url, "PUT", b"two")?.status, 200);
    let (status, fault) = session.post(&format!("{transfer}/resume"), &json!({}))?;
    assert_eq!((status, &fault["status"]), (409, &json!("failed")));
    assert!(fault["fault"]["detail"].is_string(), "{fault}");

    let disk = session.new_disk(&site.engine, "raw")?;
    let new = json!({ "disk": { "id": disk }, "inactivity_timeout": 1, "timeout_policy": "cancel" });
    let (transfer, _) = session.transfer(&site.engine, &new)?;
    session.wait(&site.engine, &transfer, "phase", "finished_failure")?;
    assert_eq!(session.get(&format!("disks/{disk}"))?.0, 404, "what came of the upload is removed");
    Ok(())
}

fn cancelled_in_use() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    let disk = session.new_disk(&site.engine, "raw")?;
    let (transfer, url) = session.transfer(&site.engine, &json!({ "disk": { "id": disk } }))?;
    let (mut client, target) = session.connect(&url)?;
    client.send_head("PUT", &target, &[("content-length", "1048576")])?;
    client.send(&[1; 4096])?;
    site.engine
        .wait_for(PATIENCE, |engine| engine.transfers()[0].is_active)
        .then_some(())
        .ok_or("it isn't active")?;
    site.engine.cancel_transfer(transfer.trim_start_matches("imagetransfers/"));
    session.wait(&site.engine, &transfer, "phase", "finalizing_cleanup")?;
    // The daemon lets go of it when the client does.
    drop(client);
    session.wait(&site.engine, &transfer, "phase", "finished_failure")?;
    assert!(site.engine.disks().is_empty());
    Ok(())
}

fn locked() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    let disk = session.new_disk(&site.engine, "raw")?;
    session.transfer(&site.engine, &json!({ "disk": { "id": disk } }))?;
    let (status, fault) = session.post("imagetransfers", &json!({ "disk": { "id": disk } }))?;
    assert_eq!((status, &fault["reason"]), (409, &json!("Operation Failed")));
    assert!(fault["detail"].as_str().is_some_and(|detail| detail.contains("Disk disk is locked")), "{fault}");
    assert_eq!(session.delete(&format!("disks/{disk}"))?.0, 409);
    for (path, body, expected) in [
        ("disks", json!({ "name": "x" }), 400),
        ("disks", json!({ "name": "x", "format": "vmdk", "provisioned_size": 1 }), 400),
        ("imagetransfers", json!({}), 400),
        ("imagetransfers", json!({ "disk": { "id": disk }, "inactivity_timeout": "soon" }), 400),
        ("nothing", json!({}), 404),
        ("imagetransfers/none/explode", json!({}), 404),
        ("imagetransfers/none/finalize", json!({}), 200),
    ] {
        assert_eq!(session.post(path, &body)?.0, expected, "{path} {body}");
    }
    assert_eq!(session.get("imagetransfers/none")?.0, 404);
    Ok(())
}

fn searches() -> TestResult {
    let site = Installation::with(|builder| {
        builder
            .host("one", "11-22", HostStatus::Up)
            .host("two", "33-44", HostStatus::Down)
            .storage_domain("twice")
    })?;
    let session = Session::log_in(&site.engine)?;
    for (path, list, expected) in [
        ("hosts?search=hw_id%3D11-22+and+datacenter%3DDefault+and+status%3DUp", "host", 1),
        ("hosts?search=hw_id%3D33-44+and+datacenter%3DDefault+and+status%3DUp", "host", 0),
        ("hosts", "host", 2),
        ("datacenters?search=storage.name%3Ddata", "data_center", 1),
        ("datacenters?search=storage.name%3Dnone", "data_center", 0),
        ("storagedomains?search=name%3Dtwice", "storage_domain", 1),
        ("storagedomains?search=name%3Dt*", "storage_domain", 1),
        ("vms?search=name%3Dguest", "vm", 1),
        ("disks?search=name%3Dnone", "disk", 0),
        ("jobs?search=correlation_id%3Dnone", "job", 0),
        ("events?search=none", "event", 0),
    ] {
        let (status, found) = session.get(path)?;
        assert_eq!((status, found[list].as_array().map_or(0, Vec::len)), (200, expected), "{path}: {found}");
    }
    assert_eq!(session.get("hosts?search=color%3Dred")?.0, 400);
    let (_, root) = session.get("")?;
    assert_eq!(root["product_info"]["version"]["major"], "4", "{root}");
    Ok(())
}

fn snapshots() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    let disk = session.new_disk(&site.engine, "cow")?;
    site.engine.attach_disk(&site.vm(), &disk)?;
    site.guest_does(&site.disk()?, &["write -P 1 0 64k"])?;
    site.engine.snapshot_disk(&disk)?;
    site.guest_does(&site.disk()?, &["write -P 2 64k 64k"])?;
    let snapshot = site.engine.snapshot_disk(&disk)?;
    site.guest_does(&site.disk()?, &["write -P 3 0 64k"])?;

    let domain = &site.disk()?.storage_domain;
    let (status, shown) =
        session.get(&format!("storagedomains/{domain}/disksnapshots/{}", snapshot.image))?;
    assert_eq!((status, &shown["disk"]["id"]), (200, &json!(disk)));
    let (_, all) = session.get(&format!("storagedomains/{domain}/disksnapshots"))?;
    assert_eq!(all["disk_snapshot"].as_array().map(Vec::len), Some(2), "{all}");
    let vm = site.vm();
    let (_, of_vm) = session.get(&format!("vms/{vm}/snapshots"))?;
    assert_eq!(of_vm["snapshot"][1]["id"], snapshot.snapshot.as_str());
    let (_, disks) = session.get(&format!("vms/{vm}/snapshots/{}/disks", snapshot.snapshot))?;
    assert_eq!(disks["disk"][0]["image_id"], snapshot.image.as_str());

    for (shallow, expected) in [(false, [1, 2]), (true, [0, 2])] {
        let new = json!({
            "snapshot": { "id": snapshot.image }, "direction": "download", "format": "raw", "shallow": shallow,
        });
        let (transfer, url) = session.transfer(&site.engine, &new)?;
        let read = session.move_data(&url, "GET", &[])?.body;
        assert_eq!([read[0], read[64 << 10]], expected, "{shallow}");
        session.post(&format!("{transfer}/finalize"), &json!({}))?;
        session.wait(&site.engine, &transfer, "phase", "finished_success")?;
    }
    Ok(())
}

fn sessions() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    assert_eq!(session.get("disks")?, (200, json!({})));
    site.engine.expire_tokens();
    assert_eq!(session.get("disks")?, (401, Value::Null));
    let session = Session::log_in(&site.engine)?;
    assert_eq!(session.log_out()?, (200, json!({})));
    assert_eq!(session.get("disks")?.0, 401);
    assert_eq!(site.engine.sessions(), 0);
    let journal = site.engine.journal();
    assert_eq!(journal.iter().filter(|request| request.status == Some(401)).count(), 2);
    assert!(!format!("{journal:?}").contains("token="), "no secret is kept");
    Ok(())
}

fn configuration() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    let path = format!("vms/{}", site.vm());
    assert_eq!(session.get(&path)?.1.get("initialization"), None);
    let (_, vm) = session.get(&format!("{path}?all_content=true"))?;
    let configuration = &vm["initialization"]["configuration"];
    assert_eq!((&vm["name"], &configuration["type"]), (&json!(VM), &json!("ovf")));
    assert!(configuration["data"].as_str().is_some_and(|data| data.contains(VM)), "{vm}");
    Ok(())
}
