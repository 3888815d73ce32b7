// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults in the engine, and what is left of them: never an exit status 0 without
//! `finished_success`, never a transfer that is left behind.

use fake_engine::{DiskStatus, Fault, OldEngine, Phase, What};
use support::TestResult;

use crate::Test;
use crate::serving::{assert_all_well, quick_site_with, run, site, upload};
use support::installation::{Installation, STORAGE_DOMAIN, succeed};
use support::process::PATIENCE;
use support::run::Ended;

pub(crate) const TESTS: &[Test] = &[
    ("lost_answers_make_nothing_twice", lost_answers_make_nothing_twice),
    ("an_engine_that_is_started_again_is_waited_for", an_engine_that_is_started_again_is_waited_for),
    ("an_engine_that_answers_404_is_waited_for", an_engine_that_answers_404_is_waited_for),
    ("old_engines_are_understood", old_engines_are_understood),
    ("what_the_engine_refuses_is_told", what_the_engine_refuses_is_told),
    ("names_are_looked_up", names_are_looked_up),
    ("a_spoiled_upload_is_a_failure", a_spoiled_upload_is_a_failure),
];

/// The requests of an upload into a new disk that may go wrong.
const REQUESTS: &[(&str, &str)] = &[
    ("POST", "sso/oauth/token"),
    ("GET", "api/storagedomains"),
    ("POST", "api/disks"),
    ("GET", "api/disks/*"),
    ("POST", "api/imagetransfers"),
    ("GET", "api/imagetransfers/*"),
    ("POST", "api/imagetransfers/*/finalize"),
    ("POST", "services/sso-logout"),
];

/// Tells whether a path is asked once, before anything is begun: whoever started this can do so
/// again.
fn is_question_at_the_start(path: &str) -> bool {
    matches!(path, "sso/oauth/token" | "api/storagedomains")
}

fn lost_answers_make_nothing_twice() -> TestResult {
    for (method, path) in REQUESTS {
        for what in [What::LoseReply, What::Close] {
            let site = quick_site_with(|builder| builder)?;
            site.engine.fault(Fault::on(method, path).then(what.clone()));
            let ended = upload(&site)?;
            if is_question_at_the_start(path) {
                assert_eq!(ended.code, 1, "{path} {what:?}: {ended:?}");
                assert_eq!(site.engine.disks().len(), 0);
            } else {
                assert_eq!(ended.code, 0, "{path} {what:?}: {ended:?}");
                site.assert_same("disk.img", "raw", &site.disk()?)?;
                assert_eq!(site.engine.transfers().len(), 1, "{path} {what:?}");
            }
            for transfer in site.engine.transfers() {
                assert_eq!(transfer.phase, Phase::FinishedSuccess, "{path} {what:?}");
            }
        }
    }
    Ok(())
}

/// While an engine is deployed, it answers 404 for everything: that says nothing of a disk or a
/// transfer.
fn an_engine_that_answers_404_is_waited_for() -> TestResult {
    let gone = || What::Status { status: 404, reason: String::new(), detail: String::new() };
    for (method, path) in REQUESTS {
        if *method != "GET" || is_question_at_the_start(path) {
            continue;
        }
        for nth in [1, 2, 3] {
            let site = quick_site_with(|builder| builder)?;
            site.engine.fault(Fault::on(method, path).nth(nth).then(gone()));
            site.engine.fault(Fault::on("GET", "api").then(gone()));
            let ended = upload(&site)?;
            assert_eq!(ended.code, 0, "{path} {nth}: {ended:?}");
            site.assert_same("disk.img", "raw", &site.disk()?)?;
            assert_all_well(&site);
        }
    }
    Ok(())
}

fn an_engine_that_is_started_again_is_waited_for() -> TestResult {
    for (method, path) in REQUESTS.iter().filter(|(_, path)| !is_question_at_the_start(path)) {
        for done in [true, false] {
            let site = quick_site_with(|builder| builder)?;
            site.engine.fault(Fault::on(method, path).then(What::Restart { done }));
            let ended = upload(&site)?;
            assert_eq!(ended.code, 0, "{path} {done}: {ended:?}");
            site.assert_same("disk.img", "raw", &site.disk()?)?;
            let phases: Vec<_> = site.engine.transfers().iter().map(|transfer| transfer.phase).collect();
            assert_eq!(phases, [Phase::FinishedSuccess], "{path} {done}");
        }
    }
    Ok(())
}

fn old_engines_are_understood() -> TestResult {
    let old = OldEngine::default().with(|engine| {
        engine.removes_finished_transfers = true;
        engine.refuses_timeout_policy = true;
    });
    let site = quick_site_with(|builder| builder.old_engine(old))?;
    succeed(upload(&site)?)?;
    site.assert_same("disk.img", "raw", &site.disk()?)?;
    succeed(run(&site, &["-r", "disk=uploaded", "--run", "true"])?)?;
    assert_all_well(&site);

    site.engine.spoil_next_upload();
    let ended = run(&site, &["disk=uploaded", "--run", crate::serving::COPY_IN])?;
    assert_eq!(ended.code, 1, "{ended:?}");
    Ok(())
}

fn what_the_engine_refuses_is_told() -> TestResult {
    let refused = |status| What::Status {
        status,
        reason: "Operation Failed".to_owned(),
        detail: "[Cannot add Virtual Disk.]".to_owned(),
    };
    for (method, path) in
        REQUESTS.iter().filter(|(method, path)| *method == "POST" && path.starts_with("api/"))
    {
        if path.ends_with("finalize") {
            continue;
        }
        let site = site()?;
        site.engine.fault(Fault::on(method, path).every().then(refused(409)));
        let ended = upload(&site)?;
        assert_eq!(ended.code, 1, "{path}: {ended:?}");
        assert!(ended.err.contains("409: Operation Failed: Cannot add Virtual Disk\n"), "{ended:?}");
        assert_eq!(site.engine.disks().len(), 0, "{path}: a disk is left");
        assert_eq!(site.engine.transfers().len(), 0);
        assert_eq!(site.engine.sessions(), 0);
    }
    Ok(())
}

fn names_are_looked_up() -> TestResult {
    let site = site()?;
    for _ in 0..2 {
        succeed(upload(&site)?)?;
    }
    let told = |arguments: &[&str]| -> TestResult<String> {
        let ended = run(&site, &[arguments, &["--run", "true"]].concat())?;
        assert_eq!((ended.code, ended.err.lines().count()), (1, 1), "{ended:?}");
        Ok(ended.err)
    };
    let ambiguous = told(&["-r", "disk=uploaded"])?;
    assert!(ambiguous.contains("2 disks 'uploaded': use an id: "), "{ambiguous}");
    assert!(site.engine.disks().iter().all(|disk| ambiguous.contains(&disk.id)), "{ambiguous}");
    let unknown = told(&["-r", "disk=nothing"])?;
    assert!(unknown.contains("the engine has no disk 'nothing'"), "{unknown}");
    let no_domain = told(&["new-disk=x", "storage-domain=nothing", "size=1M"])?;
    assert!(no_domain.contains("the engine has no storage domain 'nothing'"), "{no_domain}");
    let domain = format!("storage-domain={STORAGE_DOMAIN}");
    std::fs::write(site.path("password"), "wrong")?;
    let login = told(&["new-disk=x", &domain, "size=1M"])?;
    assert!(login.contains("the engine refuses the login: ") && !login.contains("wrong"), "{login}");
    assert!(site.engine.disks().iter().all(|disk| disk.status == DiskStatus::Ok));
    Ok(())
}

fn a_spoiled_upload_is_a_failure() -> TestResult {
    let site = site()?;
    site.engine.spoil_next_upload();
    let ended = upload(&site)?;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_failed(&site, &ended);

    // One that was there before is removed by the engine, too.
    succeed(upload(&site)?)?;
    site.engine.spoil_next_upload();
    let ended = run(&site, &["disk=uploaded", "--run", crate::serving::COPY_IN])?;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert_failed(&site, &ended);
    Ok(())
}

/// The engine has said so, and nothing is left.
fn assert_failed(site: &Installation, ended: &Ended) {
    let phases = ["(finalizing_failure)", "(finished_failure)"];
    assert!(phases.iter().any(|phase| ended.err.contains(phase)), "{ended:?}");
    let is_over = |_: &_| site.engine.transfers().iter().all(|transfer| transfer.phase.is_finished());
    assert!(site.engine.wait_for(PATIENCE, is_over), "{ended:?}");
    assert!(site.engine.disks().is_empty() && site.engine.sessions() == 0, "{ended:?}");
}
