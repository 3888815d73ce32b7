// SPDX-License-Identifier: MIT OR Apache-2.0
//! virt-v2v's own scripts for the engine. They are under the GPL, so they are cut out of the
//! program, and there is no copy of them here.

use std::fs;
use std::path::PathBuf;

use fake_engine::{DEFAULT_PASSWORD, DiskStatus, Phase};
use serde_json::{Value, json};
use support::TestResult;
use support::process::PATIENCE;
use support::run::Ended;
use support::tools::VIRT_V2V;

use crate::Test;
use support::installation::{Installation, STORAGE_DOMAIN, VM, succeed};

pub(crate) const TESTS: &[Test] = &[
    ("virt_v2v_uploads_a_disk_and_makes_its_vm", uploads),
    ("virt_v2v_cancels_an_upload_and_leaves_nothing", cancels),
    ("virt_v2v_is_told_what_is_missing", what_is_missing),
];

/// The beginning of each script, behind its first line.
const PRECHECK: &str = "# oVirt or RHV pre-upload checks";
const VMCHECK: &str = "# oVirt or RHV VM existence check";
const TRANSFER: &str = "# oVirt or RHV upload start transfer";
const FINALIZE: &str = "# oVirt or RHV upload finalize";
const CREATEVM: &str = "# oVirt or RHV upload create VM";
const CANCEL: &str = "# oVirt or RHV upload cancel";

const DISK: &str = "11111111-2222-4333-8444-555555555555";

fn script(site: &Installation, start: &str) -> TestResult<PathBuf> {
    let program = fs::read(VIRT_V2V.path())?;
    let start = [b"# -*- python -*-\n", start.as_bytes()].concat();
    let at = program.windows(start.len()).position(|bytes| bytes == start);
    let text = at.and_then(|at| program[at..].split(|&byte| byte == 0).next());
    let script = site.path("script.py");
    fs::write(&script, text.ok_or("virt-v2v has no such script inside")?)?;
    Ok(script)
}

/// Runs a script with the parameters that all have, and these.
fn virt_v2v(
    site: &Installation,
    script_name: &str,
    parameters: &Value,
    arguments: &[&str],
) -> TestResult<Ended> {
    let mut all = json!({
        "output_conn": site.engine.url(),
        "output_password": "password",
        "output_storage": STORAGE_DOMAIN,
        "output_name": "new",
        "rhv_cafile": "ca.pem",
        "rhv_cluster": "Default",
        "rhv_direct": true,
        "insecure": false,
        "verbose": true,
        "disk_name": "new-sda",
        "disk_format": "raw",
        "disk_size": 1 << 20,
        "disk_uuid": DISK,
        "disk_uuids": [DISK],
        "rhv_disk_uuids": [DISK],
    });
    for (key, value) in parameters.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    fs::write(site.path("params.json"), all.to_string())?;
    site.python(&script(site, script_name)?, &[&["params.json"], arguments].concat())
}

fn uploads() -> TestResult {
    let site = Installation::new()?;
    let run =
        |script, parameters, arguments: &[&str]| succeed(virt_v2v(&site, script, &parameters, arguments)?);
    let checked: Value = serde_json::from_str(&run(PRECHECK, json!({}), &[])?)?;
    assert_eq!(checked["rhv_cluster_cpu_architecture"], "x86_64");
    run(VMCHECK, json!({}), &[])?;
    let started: Value = serde_json::from_str(&run(TRANSFER, json!({}), &[])?)?;
    let transfer = &site.engine.transfers()[0];
    assert_eq!(started["transfer_id"], transfer.id.as_str());
    assert_eq!((transfer.phase, transfer.inactivity_timeout), (Phase::Transferring, 3600));
    assert_eq!(site.disk()?.status, DiskStatus::Locked);

    fs::write(site.path("disk.img"), [7; 1 << 20])?;
    let put =
        "import sys; from ovirt_imageio import client; client.upload('disk.img', sys.argv[1], 'ca.pem')";
    fs::write(site.path("upload.py"), put)?;
    let url = started["destination_url"].as_str().ok_or("no URL")?;
    succeed(site.python(&site.path("upload.py"), &[url])?)?;
    run(FINALIZE, json!({ "transfer_ids": [transfer.id] }), &[])?;
    assert_eq!(site.disk()?.status, DiskStatus::Ok);
    site.assert_same("disk.img", "raw", &site.disk()?)?;

    fs::write(site.path("new.ovf"), "<Envelope><Content><Name>new</Name></Content></Envelope>")?;
    run(CREATEVM, json!({ "rhv_cluster_uuid": checked["rhv_cluster_uuid"] }), &["new.ovf"])?;
    let vms = site.engine.vms();
    assert_eq!((vms[1].name.as_str(), vms[1].configuration.contains("<Name>new</Name>")), ("new", true));
    let exists = virt_v2v(&site, VMCHECK, &json!({}), &[])?;
    assert!(exists.err.contains("VM already exists with name"), "{exists:?}");
    let exists = virt_v2v(&site, PRECHECK, &json!({}), &[])?;
    assert!(exists.err.contains("Disk with the UUID"), "{exists:?}");
    Ok(())
}

fn cancels() -> TestResult {
    let site = Installation::new()?;
    succeed(virt_v2v(&site, TRANSFER, &json!({}), &[])?)?;
    let transfer = site.engine.transfers()[0].id.clone();
    let missing = "00000000-0000-4000-8000-000000000000";
    let both = json!({ "transfer_ids": [transfer, missing], "disk_uuids": [DISK, missing] });
    succeed(virt_v2v(&site, CANCEL, &both, &[])?)?;
    assert!(site.engine.wait_for(PATIENCE, |engine| engine.disks().is_empty()), "{:?}", site.engine.disks());
    assert_eq!(site.engine.transfers()[0].phase, Phase::FinishedFailure);
    Ok(())
}

fn what_is_missing() -> TestResult {
    let site = Installation::with(|builder| builder.unattached_storage_domain("loose"))?;
    for (parameters, expected) in [
        (json!({ "output_storage": "none" }), "‘none’ does not exist"),
        (json!({ "output_storage": "loose" }), "‘loose’ is not attached to a DC"),
        (json!({ "rhv_cluster": "none" }), "The cluster ‘none’ is not part of the DC"),
    ] {
        let ended = virt_v2v(&site, PRECHECK, &parameters, &[])?;
        assert!(ended.code == 1 && ended.err.contains(expected), "{ended:?}");
    }
    let exists = virt_v2v(&site, VMCHECK, &json!({ "output_name": VM }), &[])?;
    assert!(exists.code == 1 && exists.err.contains("VM already exists"), "{exists:?}");
    fs::write(site.path("password"), format!("not {DEFAULT_PASSWORD}"))?;
    let refused = virt_v2v(&site, VMCHECK, &json!({}), &[])?;
    assert!(refused.err.contains("access_denied"), "{}", refused.code);
    Ok(())
}
