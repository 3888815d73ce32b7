// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fake engine with fake imageio servers, which needs no other program.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use fake_engine::{Certificate, FakeEngine, FakeImageio, Phase, Pki};
use fake_imageio::{Fault, Op, What};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::TestResult;
use support::door::built;
use support::http::{Client, Endpoint};
use support::process::PATIENCE;

use crate::Test;
use crate::session::Session;
use support::installation::{STORAGE_DOMAIN, VM};

pub(crate) const TESTS: &[Test] = &[
    ("on_fakes_a_disk_is_uploaded_backed_up_and_backed_up_again", backups),
    ("on_fakes_an_idle_transfer_is_paused_and_one_in_use_is_not", idle),
    ("on_fakes_the_server_of_a_ticket_has_faults", faults),
    ("on_fakes_the_program_serves_until_it_is_told_to_stop", program),
    ("on_fakes_what_plain_files_can_not_do_fails", limits),
];

fn start() -> TestResult<(FakeEngine, Session)> {
    let pki = Pki::generate(&Certificate::default())?;
    let imageio = FakeImageio::new(Some(pki.clone()));
    let engine = FakeEngine::builder(imageio).tls(pki).storage_domain(STORAGE_DOMAIN).vm(VM).start()?;
    let session = Session::log_in(&engine)?;
    Ok((engine, session))
}

fn finalize(engine: &FakeEngine, session: &Session, transfer: &str) -> TestResult {
    assert_eq!(session.post(&format!("{transfer}/finalize"), &json!({}))?.0, 200);
    session.wait(engine, transfer, "phase", "finished_success")?;
    Ok(())
}

/// Backs a disk up: its data, what is told to be dirty, and the checkpoint.
fn back_up(
    engine: &FakeEngine,
    session: &Session,
    disk: &str,
    from: &Value,
) -> TestResult<(Vec<u8>, Value, Value)> {
    let backups = format!("vms/{}/backups", engine.vms()[0].id);
    let mut new = json!({ "disks": { "disk": [{ "id": disk }] } });
    if !from.is_null() {
        new["from_checkpoint_id"] = from.clone();
    }
    let (status, backup) = session.post(&backups, &new)?;
    assert_eq!(status, 202, "{backup}");
    let id = backup["id"].as_str().ok_or("no id")?;
    let path = format!("{backups}/{id}");
    let backup = session.wait(engine, &path, "phase", "ready")?;
    let new =
        json!({ "disk": { "id": disk }, "backup": { "id": id }, "direction": "download", "format": "raw" });
    let (transfer, url) = session.transfer(engine, &new)?;
    let data = session.move_data(&url, "GET", &[])?.body;
    let dirty = session.move_data(&format!("{url}/extents?context=dirty"), "GET", &[])?;
    finalize(engine, session, &transfer)?;
    assert_eq!(session.post(&format!("{path}/finalize"), &json!({}))?.0, 200);
    session.wait(engine, &path, "phase", "succeeded")?;
    let dirty = if dirty.status == 200 { serde_json::from_slice(&dirty.body)? } else { json!(dirty.status) };
    Ok((data, dirty, backup["to_checkpoint_id"].clone()))
}

fn backups() -> TestResult {
    let (engine, session) = start()?;
    let disk = session.new_disk(&engine, "cow")?;
    let (transfer, url) = session.transfer(&engine, &json!({ "disk": { "id": disk }, "format": "raw" }))?;
    assert_eq!(session.move_data(&url, "PUT", &[5; 1 << 20])?.status, 200);
    finalize(&engine, &session, &transfer)?;
    assert!(session.move_data(&url, "GET", &[]).is_err(), "its server is gone");
    engine.attach_disk(&engine.vms()[0].id, &disk)?;

    let (data, dirty, first) = back_up(&engine, &session, &disk, &Value::Null)?;
    assert!(data == [5; 1 << 20] && dirty == json!(404), "{dirty}");
    let image = OpenOptions::new().write(true).open(engine.image_file(&engine.disks()[0]))?;
    image.write_all_at(b"changed", 300_000)?;
    let (data, dirty, second) = back_up(&engine, &session, &disk, &first)?;
    assert_eq!(&data[300_000..300_007], b"changed");
    let dirty: Vec<_> =
        dirty.as_array().into_iter().flatten().filter(|extent| extent["dirty"] == true).collect();
    assert_eq!((dirty.len(), &dirty[0]["start"], &dirty[0]["length"]), (1, &json!(262_144), &json!(65_536)));

    let checkpoints = format!("vms/{}/checkpoints", engine.vms()[0].id);
    let remove = |id: &Value| session.delete(&format!("{checkpoints}/{}", id.as_str().unwrap_or_default()));
    assert_eq!((remove(&second)?.0, remove(&first)?.0), (409, 200));
    let (status, left) = session.get(&checkpoints)?;
    assert_eq!((status, &left["checkpoint"][0]["id"]), (200, &second));
    Ok(())
}

fn idle() -> TestResult {
    let (engine, session) = start()?;
    let disk = session.new_disk(&engine, "raw")?;
    let new = json!({ "disk": { "id": disk }, "inactivity_timeout": 1, "timeout_policy": "pause" });
    let (transfer, url) = session.transfer(&engine, &new)?;
    let (mut client, target) = session.connect(&url)?;
    client.send_head("PUT", &target, &[("content-length", "8")])?;
    assert!(engine.wait_for(PATIENCE, |engine| engine.transfers()[0].is_active), "a request is under way");
    client.send(b"contents")?;
    assert_eq!(client.read_answer()?.status, 200);
    session.wait(&engine, &transfer, "phase", "paused_system")?;
    session.post(&format!("{transfer}/resume"), &json!({}))?;
    let resumed = session.wait(&engine, &transfer, "phase", "transferring")?;
    assert_eq!(resumed["transfer_url"], url.as_str());
    finalize(&engine, &session, &transfer)
}

fn faults() -> TestResult {
    let pki = Pki::generate(&Certificate::default())?;
    let imageio = FakeImageio::new(Some(pki.clone()));
    let engine = FakeEngine::builder(imageio.clone()).tls(pki).storage_domain(STORAGE_DOMAIN).start()?;
    let session = Session::log_in(&engine)?;
    let disk = session.new_disk(&engine, "raw")?;
    let (_, url) = session.transfer(&engine, &json!({ "disk": { "id": disk } }))?;
    let ticket = &engine.transfers()[0].ticket;
    let fault = Fault::on(Op::Put).then(What::Status { status: 500, text: "on fire".to_owned() });
    assert!(imageio.with_server(ticket, |server| server.fault(fault)).is_some());
    assert_eq!(session.move_data(&url, "PUT", b"x")?.status, 500);
    assert_eq!(session.move_data(&url, "PUT", b"x")?.status, 200);
    Ok(())
}

fn limits() -> TestResult {
    let (engine, session) = start()?;
    let disk = session.new_disk(&engine, "cow")?;
    let new = json!({ "disk": { "id": disk }, "direction": "download", "format": "cow" });
    assert_eq!(session.post("imagetransfers", &new)?.0, 202);
    let is_over = |engine: &FakeEngine| engine.transfers()[0].phase == Phase::FinishedFailure;
    assert!(engine.wait_for(PATIENCE, is_over), "{:?}", engine.transfers());
    Ok(())
}

fn program() -> TestResult {
    let dir = tempfile::tempdir()?;
    // It ends with the test, however that ends, and in a minute.
    let mut child = Command::new("timeout")
        .args(["--foreground", "60"])
        .arg(built("fake-engine"))
        .args(["--exit-with-parent", "--storage-domain", "data", "--vm", "guest", "--pki"])
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
    let said: Vec<String> = lines.take(2).collect::<Result<_, _>>()?;
    let ca = fs::read_to_string(dir.path().join("ca.pem"))?;
    let address = said[0].strip_prefix("https://").and_then(|rest| rest.strip_suffix("/ovirt-engine/api"));
    let endpoint = Endpoint::Https(address.ok_or("no URL")?.parse()?, ca.clone());
    let resource = "/ovirt-engine/services/pki-resource?resource=ca-certificate&format=X509-PEM-CA";
    let told = Client::connect(&endpoint)?.request("GET", resource, &[], &[])?;
    assert!(told.status == 200 && told.body == ca.as_bytes() && said[1].starts_with("vm guest "), "{said:?}");
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
    assert!(child.wait()?.success());
    Ok(())
}
