// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each scripted fault does what it says.

use std::io;
use std::thread;

use fake_engine::{DiskStatus, Fault, Gate, HostStatus, Phase, What};
use serde_json::{Value, json};
use support::TestResult;
use support::process::PATIENCE;

use crate::Test;
use crate::session::Session;
use support::installation::Installation;

pub(crate) const TESTS: &[Test] = &[
    ("a_fault_is_answered_and_nothing_is_done", answered),
    ("a_reply_is_lost_after_its_request_was_carried_out", lost_reply),
    ("a_connection_is_closed_before_its_request_is_carried_out", closed),
    ("an_engine_is_silent_until_its_gate_opens", silent),
    ("an_engine_that_is_started_again_keeps_what_it_knows", restart),
    ("an_upload_that_is_found_to_be_bad_fails", spoiled),
    ("a_host_that_goes_down_stops_its_transfers", host_down),
];

fn new_disk(name: &str) -> Value {
    let domains = json!({ "storage_domain": [{ "name": support::installation::STORAGE_DOMAIN }] });
    json!({ "name": name, "format": "raw", "provisioned_size": "4096", "storage_domains": domains })
}

/// The connection ends in place of an answer.
fn is_cut(session: &Session, path: &str, body: &Value) -> bool {
    let sent = session.send("POST", path, body);
    sent.is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
}

fn names(site: &Installation) -> Vec<String> {
    site.engine.disks().into_iter().map(|disk| disk.name).collect()
}

fn answered() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    let what = || What::Status { status: 503, reason: "busy".into(), detail: "[later]".into() };
    site.engine.fault(Fault::on("POST", "api/disks").nth(2).then(what()));
    assert_eq!(session.post("disks", &new_disk("a"))?.0, 202);
    let told = session.post("disks", &new_disk("b"))?;
    assert_eq!(told, (503, json!({ "reason": "busy", "detail": "[later]" })));
    assert_eq!(session.post("disks", &new_disk("c"))?.0, 202);
    assert_eq!(names(&site), ["a", "c"]);
    site.engine.fault(Fault::on("GET", "api/disks/*").every().then(what()));
    assert_eq!(session.get("disks/1")?.0, 503);
    assert_eq!(session.get("disks/1")?.0, 503);
    site.engine.clear_faults();
    assert_eq!(session.get("disks/1")?.0, 404);
    Ok(())
}

fn lost_reply() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    site.engine.fault(Fault::on("POST", "api/disks").then(What::LoseReply));
    assert!(is_cut(&session, "disks", &new_disk("a")));
    assert_eq!(names(&site), ["a"]);
    let lost = site.engine.journal().into_iter().find(|request| request.path == "api/disks");
    assert_eq!(lost.ok_or("it isn't in the journal")?.status, None);
    Ok(())
}

fn closed() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    site.engine.fault(Fault::on("POST", "api/disks").then(What::Close));
    assert!(is_cut(&session, "disks", &new_disk("a")));
    assert!(names(&site).is_empty());
    assert_eq!(session.post("disks", &new_disk("a"))?.0, 202);
    Ok(())
}

fn silent() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    for (is_done_before, name) in [(false, "a"), (true, "b")] {
        let gate = Gate::new();
        let what = if is_done_before { What::HoldReply(gate.clone()) } else { What::Hold(gate.clone()) };
        site.engine.fault(Fault::on("POST", "api/disks").then(what));
        let status = thread::scope(|scope| {
            let asking =
                scope.spawn(|| session.post("disks", &new_disk(name)).map_err(|error| error.to_string()));
            assert!(gate.wait_reached(1, PATIENCE));
            assert_eq!(names(&site).contains(&name.to_owned()), is_done_before);
            assert_eq!(session.get("disks").map(|(status, _)| status).ok(), Some(200), "others are answered");
            gate.open();
            asking.join()
        });
        assert_eq!(status.map_err(|_| "a panic")??.0, 202);
        assert!(names(&site).contains(&name.to_owned()));
    }
    Ok(())
}

fn restart() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    for (done, expected) in [(false, vec![]), (true, vec!["a"])] {
        let session = Session::log_in(&site.engine)?;
        let gate = Gate::new();
        site.engine.fault(Fault::on("GET", "api/vms").then(What::Hold(gate.clone())));
        site.engine.fault(Fault::on("POST", "api/disks").then(What::Restart { done }));
        thread::scope(|scope| {
            let other = scope.spawn(|| session.send("GET", "vms", &Value::Null));
            assert!(gate.wait_reached(1, PATIENCE));
            assert!(is_cut(&session, "disks", &new_disk("a")));
            assert!(other.join().is_ok_and(|other| other.is_err()), "all connections are closed");
        });
        gate.open();
        assert_eq!(names(&site), expected);
        assert_eq!((session.get("disks")?.0, site.engine.sessions()), (401, 0));
    }
    assert_eq!(session.get("disks")?.0, 401);
    let session = Session::log_in(&site.engine)?;
    assert_eq!(session.get("disks")?.1["disk"][0]["name"], "a");
    Ok(())
}

fn spoiled() -> TestResult {
    let site = Installation::new()?;
    let session = Session::log_in(&site.engine)?;
    let disk = session.new_disk(&site.engine, "cow")?;
    let (transfer, _) =
        session.transfer(&site.engine, &json!({ "disk": { "id": disk }, "format": "raw" }))?;
    site.engine.spoil_next_upload();
    assert_eq!(session.post(&format!("{transfer}/finalize"), &json!({}))?.0, 200);
    session.wait(&site.engine, &transfer, "phase", "finished_failure")?;
    assert!(site.engine.disks().is_empty());
    Ok(())
}

fn host_down() -> TestResult {
    let site = Installation::with(|builder| builder.host("one", "11-22", HostStatus::Up))?;
    let session = Session::log_in(&site.engine)?;
    let disk = session.new_disk(&site.engine, "raw")?;
    let (transfer, url) = session.transfer(&site.engine, &json!({ "disk": { "id": disk } }))?;
    site.engine.set_host_status("one", HostStatus::Down);
    session.wait(&site.engine, &transfer, "phase", "paused_system")?;
    let other = session.new_disk(&site.engine, "raw")?;
    assert_eq!(session.post("imagetransfers", &json!({ "disk": { "id": other } }))?.0, 409);
    session.post(&format!("{transfer}/resume"), &json!({}))?;
    session.wait(&site.engine, &transfer, "phase", "paused_system")?;
    site.engine.set_host_status("one", HostStatus::Up);
    session.post(&format!("{transfer}/resume"), &json!({}))?;
    let resumed = session.wait(&site.engine, &transfer, "phase", "transferring")?;
    assert_eq!(resumed["transfer_url"], url.as_str());
    let phases: Vec<_> = site.engine.transfers().iter().map(|transfer| transfer.phase).collect();
    assert_eq!((phases, site.engine.disks()[0].status), (vec![Phase::Transferring], DiskStatus::Locked));
    Ok(())
}
